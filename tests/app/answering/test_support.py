"""Whether a passage supports a sentence: words, figures and negations first, meaning where they leave it open."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from app.answering.support import Checker, evidence
from corpus.types import Passage, Vectors
from tests.app.answering.passages import passage

PORTAL = passage("Leave is requested in the portal. The portal opens at 8:30 on Mondays.", number=1)
TRAVEL = passage("Trips are booked through the travel desk seven days ahead. Use form TR-204.", number=2)
CANTEEN = passage("Die Kantine öffnet um zwölf Uhr.", number=3, language="de")
BADGE = passage("Visitors must not enter the laboratory alone. Staff may enter it with a badge.", number=4)
PRICES = passage(
    "Prices for dealers. Nobody sells below these net prices without a signature of the sales director: P300 at 268 EUR.\n\n"
    "Net prices below the sales director's P300.", number=6,
)  # fmt: skip
RATES = passage("| Year | 2025 | 2026 |\n|---|---|---|\n| Hotel limit | 140 EUR | 160 EUR |", number=5)


@pytest.mark.parametrize(
    ("sentence", "source", "expected"),
    [
        ("The portal opens at 8:30.", PORTAL, "yes"),
        ("The portal opens at 8:31.", PORTAL, "no"),
        ("Use form TR-204 for trips.", TRAVEL, "yes"),
        ("Use form TR-205 for trips.", TRAVEL, "no"),
        ("2. Requested in the portal", PORTAL, "yes"),
        ("Elephants migrate to Kenya.", PORTAL, "no"),
        ("Die Kantinen öffnen um zwölf.", CANTEEN, "yes"),
        ("This is in the Handbook.", PORTAL, "yes"),
        ("Visitors must not enter the laboratory alone.", BADGE, "yes"),
        ("Visitors may enter the laboratory alone.", BADGE, "no"),
        ("Leave is not requested in the portal.", PORTAL, "no"),
        ("Nobody sells below these net prices without a signature of the sales director: P300 at 268 EUR.", PRICES, "yes"),
        ("Year: Hotel limit; 2025: 140 EUR; 2026: 160 EUR.", RATES, "yes"),
        ("Holidays are asked for online through the portal.", PORTAL, "open"),
        ("Leave is requested in the portal [1].", PORTAL, "yes"),
    ],
)
def test_words_figures_and_negations_decide_where_they_can(sentence: str, source: Passage, expected: str) -> None:
    """A figure that the passage has not, a `not` that only one of them has, or other words altogether are no support."""
    assert evidence(sentence, source).verdict == expected


def supported(sentence: str, source: Passage, cosine: float) -> tuple[bool, int]:
    """Whether it is supported by an embedder for which all texts are so near, and how many texts were embedded."""
    embedded: list[str] = []

    async def embed(texts: Sequence[str]) -> Vectors:
        embedded.extend(texts)
        pair = np.array([[1.0, 0.0], [cosine, (1 - cosine**2) ** 0.5]], dtype=np.float32)
        return np.tile(pair, (len(texts) // 2, 1))

    return asyncio.run(Checker([source], embed).supports(sentence, 1)), len(embedded)


@pytest.mark.parametrize(
    ("sentence", "cosine", "expected"),
    [
        ("Holidays are asked for online through the portal.", 0.9, (True, 2)),
        ("Holidays are asked for online through the portal.", 0.2, (False, 2)),
        ("Leave is requested in the portal.", 0.0, (True, 0)),
        ("Elephants migrate to Kenya.", 1.0, (False, 0)),
        ("Holidays are asked for online through the portal at 9:15.", 1.0, (False, 0)),
        ("Leave is not requested in the portal.", 1.0, (False, 0)),
    ],
)
def test_meaning_is_asked_only_where_words_leave_it_open(sentence: str, cosine: float, expected: tuple[bool, int]) -> None:
    """Nearness never makes up for another figure or a `not`, and nothing is embedded where words decide."""
    assert supported(sentence, PORTAL, cosine) == expected


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("Leave is requested in the portal.", 1),
        ("Trips are booked through the travel desk.", 2),
        ("In the portal.", None),
        ("Trips are booked through the travel desk 9 days ahead.", None),
        ("Elephants migrate to Kenya in summer.", None),
    ],
)
def test_a_passage_supports_clearly_what_it_says_nearly_word_for_word(sentence: str, expected: int | None) -> None:
    """The passage with most of the words is named; a sentence of two words or with another figure has none."""
    assert Checker([PORTAL, TRAVEL]).clear_support(sentence) == expected


@pytest.mark.parametrize("number", [-1, 0, 2, 999])
def test_a_passage_that_is_not_there_supports_nothing(number: int) -> None:
    """Numbers outside of the list are no error."""
    assert asyncio.run(Checker([PORTAL]).supports("Leave is requested in the portal.", number)) is False
