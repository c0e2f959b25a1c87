"""Answerability: a number made of what the search found, before anybody is asked."""

from __future__ import annotations

import pytest

from app.answering.answerability import UNKNOWN_CODE, answerability, logistic
from app.answering.signals import BACKGROUND, DEPTH, WORDS_WEIGHT, codes, signals
from app.answering.types import Signals
from app.settings import AnswerabilityWeights
from corpus.types import Hit
from tests.app.answering.passages import passage

WEIGHTS = AnswerabilityWeights(intercept=-2.0, lead=4.0, nearness=1.0)
PLAIN = {"parking": 1.0, "costs": 1.0}


def hit(text: str, number: int, cosine: float | None) -> Hit:
    """A passage found at a cosine; None where only its words were found."""
    return Hit(passage(text, number=number), score=0.0, cosine=cosine)


def test_it_is_the_logistic_of_the_weighed_signals() -> None:
    """Lead .5 and nearness .4 with weights 4 and 1 over an intercept of -2 are log-odds of .4."""
    assert answerability(Signals(nearness=0.4, lead=0.5), WEIGHTS) == pytest.approx(1 / (1 + 2.718281828**-0.4), abs=1e-4)


def test_a_code_that_nothing_holds_counts_against_an_answer() -> None:
    """It takes from the log-odds: what is far from certain is refused, what stands there all the same is not."""
    unknown = Signals(nearness=0.4, lead=0.5, identified=0.0)
    assert answerability(unknown, WEIGHTS) == pytest.approx(logistic(0.4 - UNKNOWN_CODE), abs=1e-4)
    assert answerability(Signals(nearness=0.9, lead=1.0, identified=0.0), WEIGHTS) > 0.5
    half = answerability(Signals(nearness=0.4, lead=0.5, identified=0.5), WEIGHTS)
    assert answerability(unknown, WEIGHTS) < half < answerability(Signals(nearness=0.4, lead=0.5), WEIGHTS)


def test_it_has_four_digits() -> None:
    """Two embeddings of one text that differ in the seventh digit, by what was embedded beside it, give one number."""
    assert answerability(Signals(nearness=0.4, lead=0.5), WEIGHTS) == 0.5987
    assert answerability(Signals(nearness=0.4000001, lead=0.5), WEIGHTS) == 0.5987


@pytest.mark.parametrize(("value", "expected"), [(0.0, 0.5), (-1e6, 0.0), (1e6, 1.0)])
def test_the_logistic_holds_for_any_value(value: float, expected: float) -> None:
    """It overflows nowhere."""
    assert logistic(value) == expected


def test_nothing_found_gives_no_signal() -> None:
    """Without a passage every signal is 0, but for the codes that the question does not name."""
    assert signals("Where can I park?", "Where can I park?", (), (), {}) == Signals(0.0, 0.0, 0.0, 1.0)


def test_the_lead_is_the_distance_of_the_best_from_the_mean_of_the_others() -> None:
    """Meaning and words count together; passages that are missing count as the background."""
    hits = (hit("Parking costs 40 GBP.", 1, 0.6), hit("The canteen opens at noon.", 2, 0.2))
    found = signals("What does parking cost? costs", "What does parking cost? costs", hits, (), PLAIN | {"cost": 1.0})
    best, others = 0.6 + WORDS_WEIGHT, [0.2, *[BACKGROUND] * (DEPTH - 2)]
    assert found.lead == pytest.approx(best - sum(others) / len(others))
    assert found.nearness == 0.6


def test_one_that_stands_out_leads_further_than_one_among_many_alike() -> None:
    """Twenty passages that all match alike say less than one that matches alone."""
    alone = (hit("Parking costs 40 GBP.", 1, 0.6), *(hit("The canteen opens at noon.", n, 0.2) for n in range(2, 21)))
    alike = tuple(hit("Parking costs 40 GBP.", n, 0.6) for n in range(1, 21))
    asked = ("What are parking costs?", "What are parking costs?")
    assert signals(*asked, alone, (), PLAIN).lead > 1.0
    assert signals(*asked, alike, (), PLAIN).lead == pytest.approx(0.0)


def test_what_only_words_found_counts_as_the_farthest() -> None:
    """A passage that the dense side did not rank has no cosine; it is taken for as far as the farthest that has one."""
    hits = (hit("The canteen.", 1, 0.5), hit("The lift.", 2, 0.3), hit("The yard.", 3, None))
    others = [0.3, 0.3, *[BACKGROUND] * (DEPTH - 3)]
    assert signals("Parking?", "Parking?", hits, (), {"parking": 1.0}).lead == pytest.approx(0.5 - sum(others) / len(others))


def test_the_share_of_named_codes_that_are_held() -> None:
    """Of two forms, one of which stands in a passage or is held elsewhere, the half is identified; a word is not a code."""
    shown = (passage("Use form HR-112 for leave."),)
    assert signals("HR-112 or HR-999?", "HR-112 or HR-999?", (), shown, {}).identified == 0.5
    assert signals("HR-112 or HR-999?", "HR-112 or HR-999?", (), shown, {}, {"hr-999"}).identified == 1.0
    assert signals("Which form?", "Which form?", (), shown, {}).identified == 1.0


@pytest.mark.parametrize("written", ["HR112", "hr_112", "HR/112", "HR-112"])
def test_a_code_is_the_same_however_its_parts_are_joined(written: str) -> None:
    """It is identified, and covers the question as the written form does."""
    found = signals(written, written, (), (passage("Use form HR-112 for leave."),), {})
    assert found.identified == 1.0
    assert found.coverage >= 2 / 3


def test_what_only_looks_like_a_code_is_none() -> None:
    """Years, illnesses and versions of software single nothing out that must stand in a passage."""
    assert codes("Limits in FY26, since Covid19 or COVID-19, on win11, in Q3 of 2026?") == []
    assert codes("E-4999, HR-112, SW012, sw_012 and ZZ-77") == ["e-4999", "hr-112", "sw012", "sw_012", "zz-77"]


def test_nearness_is_that_of_the_question_by_itself() -> None:
    """A passage that is near to an earlier turn is not near to whatever is asked next."""
    near_to_earlier = Hit(passage("Leave is 28 days."), score=0.0, cosine=0.8, own_cosine=0.1)
    assert signals("Who won the cup?", "How much leave? Who won the cup?", (near_to_earlier,), (), {}).nearness == 0.1


@pytest.mark.parametrize(
    "text", ["hello", "Thanks!", "Can you help me?", "Guten Tag", "vielen Dank", "¡Buenos días!", "gracias"]
)
def test_a_courtesy_asks_nothing(text: str) -> None:
    """However near a passage is."""
    near = Hit(passage("Thanks to all who help. Hello."), score=0.0, cosine=0.9, own_cosine=0.9)
    assert signals(text, text, (near,), (near.passage,), {}) == Signals()


@pytest.mark.parametrize(
    "text", ["help desk", "Who can help me?", "At night?", "Which day?", "Hello, when is lunch?", "Is it good?"]
)
def test_a_question_with_words_of_courtesy_is_a_question(text: str) -> None:
    """Only what is nothing but courtesy asks nothing."""
    near = Hit(passage("Call the help desk."), score=0.0, cosine=0.9, own_cosine=0.9)
    assert signals(text, text, (near,), (near.passage,), {}).nearness == 0.9


def test_the_score_of_the_search_does_not_move_it() -> None:
    """BM25 takes the mean length of all texts, hidden ones too: only what the caller may see counts."""
    one = Hit(passage("Parking costs 40 GBP."), score=0.1, cosine=0.6, lexical_rank=1)
    other = Hit(passage("Parking costs 40 GBP."), score=2.0, cosine=0.6, lexical_rank=9)
    asked = ("What are parking costs?", "What are parking costs?")
    assert signals(*asked, (one,), (), PLAIN) == signals(*asked, (other,), (), PLAIN)
