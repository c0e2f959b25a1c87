"""The backend that needs no LLM: answers with the best-supporting sentences, quoted and cited. It never invents."""

from __future__ import annotations

import math
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from app.answering.citations import MARKER
from app.answering.sentences import Sentence, split, term_set
from app.answering.signals import Wanted
from app.llm.backend import Delta, Finished, Prompt, Usage
from corpus.lexical import identifiers
from corpus.types import Passage, Vectors

Embed = Callable[[Sequence[str]], Awaitable[Vectors]]

CANDIDATES = 24
"""Sentences embedded for an answer: embedding them is the cost of one."""
MOST_SENTENCES = 4
MOST_WORDS = 100
OVERLAP_WEIGHT = 0.8
RANK_WEIGHT = 0.1
KEPT = 0.7
"""The share of the best score that another sentence must have. Source: on XQuAD as many answers as without, in fewer words."""
CONTEXT_SHARE = 0.5
CARRIED_ON = 0.5
CODE = re.compile(r"[a-z]{1,6}[-_./]?\d{2,}[a-z\d]*")
"""What only a form number, an error code or a part number looks like: letters, then at least two digits."""
INTERCEPT, COSINE_COEFFICIENT, OVERLAP_COEFFICIENT, NEARNESS_COEFFICIENT = -6.03, 2.9, 5.36, 4.81
THRESHOLD = 0.2
NO_ANSWER = "The documents I can see do not answer this."


@dataclass(frozen=True, slots=True)
class Candidate:
    """A sentence that may answer. `number` is its passage's, `position` its own in it; `overlap` 0..1 is the share of the
    question's words it has.
    """

    number: int
    position: int
    sentence: Sentence
    overlap: float
    cosine: float = 0.0
    score: float = 0.0


class ExtractiveBackend:
    """Chooses the sentences of the passages that are nearest to the question, in meaning and in words."""

    provider = "extractive"
    model = "extractive"

    def __init__(self, embed: Embed, clearance: str) -> None:
        self._embed = embed
        self.clearance = clearance

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Delta | Finished, None]:
        """One `Delta` for each quoted sentence with its marker, then `Finished`; see Backend."""
        candidates = preselect(prompt)
        if candidates:
            asked = list(dict.fromkeys([prompt.question, prompt.standalone]))
            vectors = await self._embed([*asked, *(in_context(c, prompt.passages[c.number - 1]) for c in candidates)])
            # A follow-up is as near to an answer as its own words and its whole sense are, on average.
            cosines = (vectors[len(asked) :] @ vectors[: len(asked)].T).mean(axis=1)
            candidates = rank(candidates, cosines.tolist())
        if not candidates or _names_what_is_unknown(prompt) or answerability(candidates[0], prompt.nearness) < THRESHOLD:
            yield Delta(NO_ANSWER)
            yield Finished(Usage(), abstained=True)
            return
        for position, candidate in enumerate(choose(candidates)):
            yield Delta(f"{' ' if position else ''}{_ended(candidate.sentence.plain)} [{candidate.number}]")
        yield Finished(Usage())

    async def close(self) -> None:
        """Nothing is held."""


def preselect(prompt: Prompt) -> list[Candidate]:
    """The sentences worth embedding: those with most of the question's words, those of the first passages before others."""
    wanted = Wanted(prompt.question, prompt.standalone, prompt.rarity)
    found = [
        Candidate(number, position, sentence, _overlap(wanted, sentence, passage))
        for number, passage in enumerate(prompt.passages, start=1)
        for position, sentence in enumerate(split(passage.text))
        if not sentence.is_heading and not _is_fragment(sentence, passage)
    ]
    worth = _carried_on(found, [c.overlap + 0.5 / c.number for c in found])
    order = sorted(range(len(found)), key=lambda i: (-worth[i], found[i].number, found[i].position))
    return [found[i] for i in order[:CANDIDATES]]


def _carried_on(candidates: Sequence[Candidate], scores: Sequence[float]) -> list[float]:
    """The scores, with those of sentences that follow a better one raised half way: what is asked about is named once, and
    what is said of it often stands in the sentence after.
    """
    by_place = {(c.number, c.position): score for c, score in zip(candidates, scores, strict=True)}
    before = [by_place.get((c.number, c.position - 1), score) for c, score in zip(candidates, scores, strict=True)]
    return [
        # A table's row stands alone: it is said of its own first cell.
        score if "|" in c.sentence.text else score + CARRIED_ON * max(0.0, previous - score)
        for c, score, previous in zip(candidates, scores, before, strict=True)
    ]


def _is_fragment(sentence: Sentence, passage: Passage) -> bool:
    """Whether a sentence is the rest of one that began in the passage before."""
    return sentence.start == 0 and passage.start > 0 and sentence.text[:1].islower()


def _overlap(wanted: Wanted, sentence: Sentence, passage: Passage) -> float:
    """The share of the question's words in a sentence; those that only stand above it count half."""
    own = term_set(sentence.plain, passage.language)
    above = term_set(_above(sentence, passage), passage.language)
    there = wanted.share_in([(own, passage.language)])
    return there + CONTEXT_SHARE * (wanted.share_in([(own | above, passage.language)]) - there)


def _above(sentence: Sentence, passage: Passage) -> str:
    """What a sentence is read under."""
    return sentence.context or (passage.heading[-1] if passage.heading else passage.title)


def in_context(candidate: Candidate, passage: Passage) -> str:
    """A sentence as it is embedded: under its heading, without which many are understood by nobody."""
    return f"{_above(candidate.sentence, passage)}: {candidate.sentence.plain}"


def rank(candidates: Sequence[Candidate], cosines: Sequence[float]) -> list[Candidate]:
    """Score by meaning, words and the passage's rank; best first."""
    own = [cosine + OVERLAP_WEIGHT * c.overlap + RANK_WEIGHT / c.number for c, cosine in zip(candidates, cosines, strict=True)]
    scored = [
        replace(c, cosine=cosine, score=score)
        for c, cosine, score in zip(candidates, cosines, _carried_on(candidates, own), strict=True)
    ]
    return sorted(scored, key=lambda c: (-c.score, c.number, c.position))


def choose(ranked: Sequence[Candidate]) -> list[Candidate]:
    """The best sentences within the length of an answer, none twice, in reading order."""
    chosen: list[Candidate] = []
    words = 0
    for candidate in ranked:
        plain = candidate.sentence.plain
        words += len(plain.split())
        if chosen and (words > MOST_WORDS or len(chosen) == MOST_SENTENCES or candidate.score < KEPT * ranked[0].score):
            break
        if all(plain != other.sentence.plain for other in chosen):
            chosen.append(candidate)
    return sorted(chosen, key=lambda c: (c.number, c.position))


def answerability(best: Candidate, nearness: float) -> float:
    """How likely the passages answer, 0..1: a logistic model of the best sentence's nearness in meaning and in words, and of
    the nearest passage's in meaning.

    Source: fitted on XQuAD and MTRAG-UN; docs/decisions/005-abstention.md has the data and the operating point.
    """
    signals = COSINE_COEFFICIENT * best.cosine + OVERLAP_COEFFICIENT * best.overlap + NEARNESS_COEFFICIENT * nearness
    return 1 / (1 + math.exp(-(INTERCEPT + signals)))


def _names_what_is_unknown(prompt: Prompt) -> bool:
    """Whether the question names a code or a form and no passage holds one: what is near is not what is meant."""
    named = {identifier for identifier in identifiers(prompt.question) if CODE.fullmatch(identifier)}
    there = (identifiers("\n".join([p.title, *p.heading, p.text])) for p in prompt.passages)
    return bool(named) and not any(named & set(found) for found in there)


def _ended(text: str) -> str:
    # A number in brackets that a document has would be taken for a marker of ours.
    text = MARKER.sub(r"(\1)", text)
    return text if text[-1:] in ".!?…" else f"{text.rstrip(',;:')}."
