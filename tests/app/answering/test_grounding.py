"""How much of a finished answer the passages support."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from app.answering.grounding import ground
from app.answering.support import Checker
from app.answering.types import Grounding
from corpus.types import Passage
from tests.app.answering.passages import growth, passage


async def at_once(work: Callable[[], Any]) -> Any:
    """The work, done here."""
    return work()


def grounded(answer: str, passages: list[Passage]) -> Grounding:
    """How an answer rests on passages, by their words alone."""
    return asyncio.run(ground(answer, Checker(passages), at_once))


LEAVE = passage("Employees get 25 days of leave a year. Leave is requested in the portal.")
TRAVEL = passage("Trips are booked through the travel desk.", number=2)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Employees get 25 days of leave [1]. Trips are booked by the travel desk [2].", Grounding(1.0)),
        ("Employees get 30 days of leave [1].", Grounding(0.0, ("Employees get 30 days of leave.",))),
        (
            "Employees get 25 days of leave. Elephants walk to Kenya. Leave is requested in the portal.",
            Grounding(0.6667, ("Elephants walk to Kenya.",)),
        ),
        ("Employees get 25 days of leave. [1] eBooks are free. [2][1]", Grounding(0.5, ("eBooks are free.",))),
        ("", Grounding(1.0)),
        (" \n ", Grounding(1.0)),
        ("[1]", Grounding(1.0)),
        ("...", Grounding(1.0)),
        ("Yes. Employees get 25 days of leave [1]. No, you may not.", Grounding(1.0)),
        ("Employees get 25 days of leave [1].\n```\nelephants = kenya[1]\n```\n", Grounding(1.0)),
        ("```\nx\n```\nElephants walk to Kenya.", Grounding(0.0, ("Elephants walk to Kenya.",))),
    ],
)
def test_every_sentence_is_checked_against_all_passages(answer: str, expected: Grounding) -> None:
    """A sentence with a figure or words that no passage has is named; markers and empty answers do not count."""
    assert grounded(answer, [LEAVE, TRAVEL]) == expected


def test_without_a_passage_nothing_is_supported() -> None:
    """Every sentence is named."""
    assert grounded("Employees get leave. In the portal.", []) == Grounding(0.0, ("Employees get leave.", "In the portal."))


@pytest.mark.parametrize("piece", [" ", "[1]", " [1]", ".", "a. ", "[", "\n", "word "])
def test_grounding_takes_linear_time(piece: str) -> None:
    """Four times the answer takes four times as long, whatever it is made of."""
    assert growth(lambda n: grounded(piece * n, [LEAVE]), 2_000) < 8


def test_of_a_very_long_answer_the_first_sentences_are_weighed() -> None:
    """The share is that of the first 500."""
    found = grounded("Employees get 25 days of leave. " * 250 + "Elephants walk to Kenya. " * 750, [LEAVE])
    assert found.supported_share == 0.5
    assert len(found.unsupported) == 250
