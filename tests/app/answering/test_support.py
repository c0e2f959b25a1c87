"""Whether a passage supports a sentence: words, figures and negations first, meaning where they leave it open."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from app.answering.support import Checker, evidence
from corpus.types import Passage, Vectors
from tests.app.answering.passages import growth, passage

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


LIMITS = passage(
    "Working students receive 12 days. Managers may not book first class. The limit is 1,200 EUR for each trip.", number=7
)


@pytest.mark.parametrize(
    ("sentence", "cosine", "expected"),
    [
        ("Werkstudenten bekommen 12 Tage Urlaub.", 0.9, True),
        ("Werkstudenten bekommen 12 Tage Urlaub.", 0.2, False),
        ("Werkstudenten bekommen 15 Tage Urlaub.", 1.0, False),
        ("Los estudiantes reciben 12 días.", 0.9, True),
        ("Das Limit beträgt 1.200 EUR pro Reise.", 0.9, True),
        ("Die Kantine öffnet nicht um zwölf Uhr.", 0.9, True),
        ("Elephants migrate to Kenya in summer.", 1.0, False),
        ("Kenia Elefanten", 1.0, False),
    ],
)
def test_of_another_language_meaning_decides_and_figures_hold(sentence: str, cosine: float, expected: bool) -> None:
    """Few shared words say nothing then; where the language is the same, or cannot be told, they do."""
    assert supported(sentence, LIMITS, cosine)[0] is expected


def test_an_answer_in_another_language_is_supported_where_its_meaning_is() -> None:
    """Weighed as a whole, it is compared with the passages' sentences, and the one that means the same is its span."""

    async def embed(texts: Sequence[str]) -> Vectors:
        places = {"12": [1.0, 0.0], "Kenia": [0.0, 1.0]}
        return np.array([next((v for k, v in places.items() if k in text), [-1.0, 0.0]) for text in texts], dtype=np.float32)

    async def check() -> tuple[set[int], str]:
        checker = Checker([PORTAL, LIMITS], embed)
        sentences = ["Werkstudenten bekommen 12 Tage Urlaub.", "Elefanten wandern im Sommer nach Kenia."]
        missing, opened = checker.weigh(sentences)
        near = await checker.mean_the_same(sentences, opened)
        return missing - near, checker.span(sentences[0], 2).text

    assert asyncio.run(check()) == ({1}, "Working students receive 12 days.")


def test_without_a_content_word_or_a_figure_nothing_is_supported() -> None:
    """Such a sentence fits every passage, so it is none that a passage supports."""
    assert evidence("No, you may not.", PORTAL).verdict == "no"
    assert evidence("It is at 8:30.", PORTAL).verdict == "yes"
    assert evidence("It is at 8:31.", PORTAL).verdict == "no"


@pytest.mark.parametrize("piece", ["1 200 ", "1,200", "1.200.", "12.0 ", "portal ", "x-1 ", "[1] ", "not ", "' 000"])
def test_weighing_takes_linear_time(piece: str) -> None:
    """Four times the sentence, and four times the passage, take four times as long."""
    assert growth(lambda n: evidence(piece * n, PORTAL), 2_000) < 8
    assert growth(lambda n: evidence("The portal opens at 1,200.", passage(piece * n)), 2_000) < 8
