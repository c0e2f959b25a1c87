"""The backend that quotes: which sentences it chooses, when it abstains, and that it never invents."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path

import pytest

from app.access import Caller
from app.answering.answer import answer
from app.answering.extractive import MOST_SENTENCES, MOST_WORDS, NO_ANSWER, Candidate, ExtractiveBackend, choose, preselect
from app.answering.sentences import Sentence, split
from app.answering.types import Answer, Ask
from app.llm.backend import Delta, Finished, Prompt
from app.services import Services
from corpus.embedders.embedder import Embedder
from corpus.types import Passage, Vectors
from ingest import job
from tests.app.answering.passages import passage
from tests.app.serving import composed, settings_of
from tests.making import job_settings, link_models

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[3]
LETTERS = re.compile(r"[^\W_]+")


@pytest.fixture
def backend() -> ExtractiveBackend:
    """With the model of each prompt."""

    async def embed(embedder: Embedder, texts: Sequence[str]) -> Vectors:
        return await asyncio.to_thread(embedder.embed_queries, texts)

    return ExtractiveBackend(embed, clearance="secret")


async def said(
    backend: ExtractiveBackend, embedder: Embedder, question: str, *passages: Passage, nearness: float = 0.7
) -> tuple[str, Finished]:
    """The answer's text and its end."""
    prompt = Prompt(
        (), "internal", 100, question=question, standalone=question, passages=passages, nearness=nearness, embedder=embedder
    )
    async with aclosing(backend.stream(prompt)) as events:
        *deltas, finished = [event async for event in events]
    assert isinstance(finished, Finished)
    return "".join(delta.text for delta in deltas if isinstance(delta, Delta)), finished


CODES = passage(
    "| Code | Meaning |\n| --- | --- |\n| E-4410 | The reader lost its network |\n| E-4411 | The reader is too warm |\n"
    "| E-4412 | The reader has no power |"
)


@pytest.mark.parametrize(
    ("question", "row"),
    [
        ("What does E-4410 mean?", "Code: E-4410; Meaning: The reader lost its network. [1]"),
        ("What does E-4411 mean?", "Code: E-4411; Meaning: The reader is too warm. [1]"),
        ("What does e-4412 mean?", "Code: E-4412; Meaning: The reader has no power. [1]"),
    ],
)
async def test_a_question_for_an_identifier_picks_its_row(
    backend: ExtractiveBackend, embedder: Embedder, question: str, row: str
) -> None:
    """Of rows that differ in nothing else, the one with the code is the answer's first or only sentence."""
    text, _ = await said(backend, embedder, question, CODES)
    assert row in text
    candidates = preselect(Prompt((), "internal", 100, question=question, standalone=question, passages=(CODES,)))
    assert f"{row.removesuffix('. [1]')}" == candidates[0].sentence.plain


@pytest.mark.parametrize("texts", [[], [""], ["", "  \n"], ["# Heading alone"], ["---"], ["| a | b |\n|---|---|"]])
async def test_passages_without_a_sentence_give_no_answer(
    backend: ExtractiveBackend, embedder: Embedder, texts: list[str]
) -> None:
    """Nothing to quote is no answer, not an error."""
    passages = [passage(text, number=number) for number, text in enumerate(texts, start=1)]
    text, finished = await said(backend, embedder, "What does it say?", *passages)
    assert (text, finished.abstained) == (NO_ANSWER, True)


@pytest.mark.parametrize("question", ["", "???", "the of and", "x" * 100_000, "😀", "\x00"])
async def test_an_odd_question_breaks_nothing(backend: ExtractiveBackend, embedder: Embedder, question: str) -> None:
    """Without a word, without content, or of one endless word: it ends with a Finished."""
    text, finished = await said(backend, embedder, question, CODES)
    assert text
    assert isinstance(finished, Finished)


async def test_what_looks_like_a_marker_in_a_document_is_not_one(backend: ExtractiveBackend, embedder: Embedder) -> None:
    """Footnotes in brackets and the word [none] are quoted in parentheses, so that they neither cite nor abstain."""
    noted = passage("The limit for hotels is 140 EUR [2] in Berlin, exceptions [none] known.")
    text, _ = await said(backend, embedder, "What is the limit for hotels in Berlin?", noted)
    assert text == "The limit for hotels is 140 EUR (2) in Berlin, exceptions (none) known. [1]"


def candidate(number: int, position: int, text: str, score: float) -> Candidate:
    """A scored sentence."""
    return Candidate(number, position, Sentence(0, len(text), text), 1.0, 1.0, score)


def test_the_best_are_chosen_in_reading_order_and_none_twice() -> None:
    """By passage and place, not by score; a sentence that two passages share is quoted from the better one."""
    ranked = [
        candidate(2, 0, "Third.", 2.0), candidate(1, 5, "Second.", 1.9), candidate(3, 0, "Second.", 1.85),
        candidate(1, 2, "First.", 1.8),
    ]  # fmt: skip
    assert [chosen.sentence.text for chosen in choose(ranked)] == ["First.", "Second.", "Third."]


@pytest.mark.parametrize(("length", "expected"), [(10, MOST_SENTENCES), (30, 2), (60, 1), (500, 1)])
def test_an_answer_is_short_unless_its_first_sentence_is_long(length: int, expected: int) -> None:
    """Whole sentences up to the limit of words, four at most, and always one."""
    ranked = [candidate(1, position, f"{position} " + "word " * (length - 1), 2.0) for position in range(8)]
    chosen = choose(ranked)
    assert len(chosen) == expected
    assert expected == 1 or sum(len(each.sentence.plain.split()) for each in chosen) <= MOST_WORDS


def test_a_sentence_that_finds_no_room_gives_way_to_a_shorter_one() -> None:
    """What is too long for the rest of an answer is left out, not what comes after it."""
    ranked = [candidate(1, 0, "word " * 40, 2.0), candidate(1, 1, "long " * 40, 1.9), candidate(1, 2, "short " * 15, 1.8)]
    assert [chosen.position for chosen in choose(ranked)] == [0, 2]


async def test_a_sentence_is_embedded_once(embedder: Embedder) -> None:
    """The second answer from the same passage embeds its own question alone."""
    asked: list[int] = []

    async def embed(embedder: Embedder, texts: Sequence[str]) -> Vectors:
        asked.append(len(texts))
        return await asyncio.to_thread(embedder.embed_queries, texts)

    backend = ExtractiveBackend(embed, clearance="secret")
    first, _ = await said(backend, embedder, "What does E-4410 mean?", CODES)
    again, _ = await said(backend, embedder, "What does E-4410 mean?", CODES)
    await said(backend, embedder, "What does E-4411 mean?", CODES)
    assert first == again
    assert asked == [4, 1]


@pytest.fixture(scope="module")
def handbook(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample handbook, published for everybody."""
    data_dir = tmp_path_factory.mktemp("handbook") / "data"
    link_models(models, data_dir)
    job.run(job_settings(data_dir, ROOT / "examples" / "handbook", rules=()))
    return data_dir


@pytest.fixture
async def services(handbook: Path) -> AsyncIterator[Services]:
    """The service over the handbook."""
    services = composed(settings_of(handbook))
    await services.start()
    yield services
    await services.close()


async def test_over_the_handbook_nothing_is_invented(services: Services) -> None:
    """Every third golden question: each sentence stands in the passage it cites, word for word, under its table's header."""
    rows = [json.loads(line) for line in (ROOT / "examples" / "golden.jsonl").read_text(encoding="utf-8").splitlines()]
    quoted = 0
    for row in rows[::3]:
        async with aclosing(answer(services, Caller("local", ("everyone",)), Ask(row["question"], store=False))) as events:
            *_, found = [event async for event in events]
        assert isinstance(found, Answer)
        if found.abstained:
            continue
        assert found.grounding.unsupported == (), row["id"]
        pieces = re.findall(r"(.+?) \[(\d+)\](?: |$)", found.answer, re.DOTALL)
        assert len(pieces) == len({text for text, _ in pieces}) >= 1
        assert len(pieces) == 1 or len(re.sub(r" \[\d+\]", "", found.answer).split()) <= MOST_WORDS
        numbers = [int(number) for _, number in pieces]
        assert numbers == sorted(numbers)
        places = []
        for text, number in pieces:
            source = found.passages[int(number) - 1]
            letters = LETTERS.findall(text)
            matching = [
                position for position, sentence in enumerate(split(source.text)) if letters == LETTERS.findall(sentence.plain)
            ]
            assert matching, (row["id"], text)
            places.append((int(number), matching[-1]))
            quoted += 1
        assert places == sorted(places)
    assert quoted >= 20


@pytest.mark.parametrize("question", ["?", "👍", "\u200b‍", "what is it?", "who are you?"])
async def test_a_question_without_content_is_not_answered(services: Services, question: str) -> None:
    """Where nothing is asked for, nothing is quoted, whatever happens to be nearest."""
    async with aclosing(answer(services, Caller("local", ("everyone",)), Ask(question, store=False))) as events:
        found = [event async for event in events][-1]
    assert isinstance(found, Answer)
    assert (found.abstained, found.citations) == (True, ())
