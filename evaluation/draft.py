"""Drafts a golden set from the documents themselves: by the configured LLM, or from headings and key sentences.

What comes of it is a beginning for a person: a draft asks in the words of the passage that it was made from, so it flatters.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.answering.sentences import Sentence, content_stems, figures, split
from app.llm.backend import Prompt
from app.llm.plan import Asker
from app.services import Services
from corpus.errors import BackendError, BudgetSpent, EgressRefused, Overloaded
from corpus.snapshot import OpenSnapshot
from corpus.types import Message, Passage
from corpus.words import content_words
from evaluation.match import holds_any
from evaluation.run import OWNER, PAGE

ANSWER_TOKENS = 200
TIMEOUT_S = 60.0
FEWEST_WORDS = 8
"""Of a sentence that says something."""
ENOUGH_CHARACTERS = 80
"""Of a passage that is worth a question."""
LONGEST_FACT = 60

ORDER = """You write questions for testing a search over an organisation's documents.
Read the passage. Write one question that it answers, as a colleague would ask who has not seen it: name what it is about, do \
not say "the passage" or "the document", and write in the passage's language. Then copy the shortest words of the passage that \
answer the question, exactly as they stand there.
Reply with two lines and nothing else:
QUESTION: the question
ANSWER: the words copied"""

ASKED = {
    "de": "Was steht in „{title}“ zu „{heading}“?",
    "es": "¿Qué dice «{title}» sobre «{heading}»?",
    "en": 'What does "{title}" say about "{heading}"?',
}
ASKED_OF_ALL = {
    "de": "Was steht in „{title}“?",
    "es": "¿Qué dice «{title}»?",
    "en": 'What does "{title}" say?',
}
_CODE = re.compile(r"\b[A-Z]{1,6}[-_./]?\d{2,}[\w-]*")
_AMOUNT = re.compile(r"(?<![\w.,:/-])[€$£]?\d+(?:[.,:/–-]\d+)*(?:\s?[%€$£]|\s(?P<unit>[^\W\d_]{2,}))?")
_NUMBER = re.compile(r"^\d{1,3}[.)]\s+")
SHORTEST_FACT = 3
_REPLY = re.compile(r"QUESTION:\s*(?P<question>[^\n]+\?)\s*\n+\s*ANSWER:\s*(?P<answer>[^\n]+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Drafted:
    """A row of a golden set. `by` is `llm` or `headings`; `problem` says why an LLM that could be asked did not write it."""

    row: Mapping[str, Any]
    by: str
    problem: str = ""


async def draft(services: Services, count: int, *, provider: str | None, seed: int) -> AsyncGenerator[Drafted, None]:
    """Rows about passages that were drawn from what the service's own groups may see, as many documents as there are first.

    An LLM sees a passage only where it is cleared for its label and something is left of the budgets; where it may not or
    fails, the row comes of headings. Raises: Invalid, BackendNotConfigured for a provider that cannot be named.
    """
    services.gateway.check(provider)
    llm = services.settings.llm
    by_llm = any(name in llm.providers for name in ([provider] if provider is not None else llm.chain))
    with services.snapshots.lease() as leased:
        asker = Asker(OWNER, provider)
        number = 0
        try:
            for passage in draw(leased.snapshot, services.settings.server.groups, random.Random(seed)):  # noqa: S311 - a sample
                written, problem = await _written(services, passage, asker) if by_llm else (None, "")
                found = written or of_headings(passage)
                if found is None:
                    continue
                number += 1
                yield Drafted(_row(number, passage, *found), "headings" if written is None else "llm", problem)
                if number == count:
                    break
        finally:
            if asker.spent:
                await services.compute(services.state.add_spending, asker.spent)


def draw(snapshot: OpenSnapshot, groups: Sequence[str], chance: random.Random) -> Iterator[Passage]:
    """Passages worth a question: one of each document in turn, documents and passages in an order left to chance."""
    ids: list[str] = []
    while page := snapshot.store.document_summaries(groups, after=ids[-1] if ids else None, limit=PAGE):
        ids += [document.document_id for document in page]
    chance.shuffle(ids)
    waiting: list[list[Passage]] = []
    for document_id in ids:
        passages = [p for p in snapshot.store.passages_of(document_id) if len(p.text) >= ENOUGH_CHARACTERS]
        chance.shuffle(passages)
        if passages:
            yield passages.pop()
            waiting.append(passages)
    while waiting := [passages for passages in waiting if passages]:
        for passages in waiting:
            yield passages.pop()


async def _written(services: Services, passage: Passage, asker: Asker) -> tuple[tuple[str, str, str] | None, str]:
    where = " › ".join([passage.title, *passage.heading])
    messages = (Message("system", ORDER), Message("user", f"{where}\n\n{passage.text}"))
    prompt = Prompt(messages, passage.label, ANSWER_TOKENS, rests_on=(passage.chunk_id,))
    try:
        reply = await services.gateway.complete(prompt, asker, timeout_s=TIMEOUT_S)
    except (BackendError, EgressRefused, Overloaded, BudgetSpent) as error:
        return None, str(error)
    found = of_reply(reply, passage)
    return found, "" if found else "an LLM's reply was no question, or its answer does not stand in the passage"


def of_reply(reply: str, passage: Passage) -> tuple[str, str, str] | None:
    """Question, answer string and the sentence it stands in, of an LLM's reply; None where the passage does not hold it."""
    match = _REPLY.search(reply)
    if match is None:
        return None
    question, answer = match["question"].strip(), match["answer"].strip(" .\"'“”„«»")
    if not answer or not holds_any(passage.text, [answer]):
        return None
    evidence = next((s.plain for s in split(passage.text) if holds_any(s.plain, [answer])), "")
    return question, answer, evidence


def of_headings(passage: Passage) -> tuple[str, str, str] | None:
    """Question, answer string (empty where there is none) and key sentence of a passage; None where it says too little."""
    sentence = key_sentence(passage)
    if sentence is None:
        return None
    language = passage.language if passage.language is not None and passage.language in ASKED else "en"
    wording = ASKED[language] if passage.heading else ASKED_OF_ALL[language]
    above = _NUMBER.sub("", passage.heading[-1]) if passage.heading else passage.title
    # The headings of questions and answers are questions already.
    question = above if above.endswith("?") else wording.format(title=passage.title, heading=above)
    return question, max(facts_in(sentence.plain, language), key=len, default=""), sentence.plain


def facts_in(sentence: str, language: str) -> Iterator[str]:
    """What a sentence says that can be checked: codes, and amounts with their unit."""
    yield from (code for code in _CODE.findall(sentence) if len(code) <= LONGEST_FACT)
    for found in _AMOUNT.finditer(sentence):
        unit = found["unit"]
        amount = found.group() if unit is None or content_words(unit, language) else found.group().removesuffix(unit).strip()
        if SHORTEST_FACT <= len(amount) <= LONGEST_FACT:
            yield amount


def key_sentence(passage: Passage) -> Sentence | None:
    """The sentence that says most of what the passage is about; one with figures before others."""
    sentences = [s for s in split(passage.text) if not s.is_heading and len(s.plain.split()) >= FEWEST_WORDS]
    counts = Counter(stem for s in sentences for stem in set(content_stems(s.plain, passage.language)))

    def weight(sentence: Sentence) -> tuple[bool, float]:
        stems = set(content_stems(sentence.plain, passage.language))
        return bool(figures(sentence.plain)), sum(counts[stem] for stem in stems) / (8 + len(stems)) ** 0.5

    return max(sentences, key=weight, default=None)


def _row(number: int, passage: Passage, question: str, answer: str, evidence: str) -> dict[str, Any]:
    return {
        "id": f"draft-{number:03d}",
        "question": question,
        "history": [],
        "gold": {passage.source: 2},
        "answers": [answer] if answer else [],
        "answerability": "ANSWERABLE",
        "kind": "drafted",
        "language": passage.language or "",
        "collection": passage.collection,
        "drafted": True,
        "evidence": evidence,
    }


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a golden set, one JSON object a line. Raises: FileExistsError; nothing is ever overwritten."""
    with path.open("x", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
