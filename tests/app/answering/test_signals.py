"""How much of a question the passages hold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.answering.signals import Wanted, coverage
from corpus.lexical import stems
from tests.app.answering.passages import passage

TRAVEL = passage("Expense reports are due within thirty days.", title="Travel", heading=("Deadlines",))
GERMAN = passage("Die Urlaubstage verfallen im März.", number=2, title="Urlaub", language="de")


@pytest.mark.parametrize(
    ("question", "rarity", "expected"),
    [
        ("When is an expense report due?", {}, 1.0),
        ("Is a dog report due?", {}, 2 / 3),
        ("Is a dog report due?", {"dog": 8.0, "report": 1.0, "due": 1.0}, 0.2),
        ("dog cat", {}, 0.0),
        ("travel deadline", {}, 1.0),
        ("REPORTING", {}, 1.0),
        ("Urlaubstag", {}, 1.0),
        ("When is it?", {}, 0.0),
        ("", {}, 0.0),
        ("???", {}, 0.0),
        ("report", {"report": 0.0}, 0.0),
    ],
    ids=["all", "two of three", "the rare one is missing", "none", "title and heading", "stemmed",
         "in another language's passage", "function words alone", "empty", "no word", "a word that all have"],
)  # fmt: skip
def test_coverage_is_the_weighed_share_of_the_words(question: str, rarity: dict[str, float], expected: float) -> None:
    """Rare words weigh more; stems of the passage's language count; where there is no word, nothing is covered."""
    assert coverage(question, [TRAVEL, GERMAN], rarity) == pytest.approx(expected)


def test_without_a_passage_nothing_is_covered() -> None:
    """Nothing found holds nothing."""
    assert coverage("When is an expense report due?", [], {}) == 0.0


def test_words_may_stand_in_different_passages() -> None:
    """Together they hold what each holds."""
    both = [passage("The badge is blue."), passage("A laptop is grey.", number=2)]
    assert coverage("badge laptop", both, {}) == 1.0
    assert [coverage("badge laptop", [one], {}) for one in both] == [0.5, 0.5]


def test_a_code_must_stand_as_it_is() -> None:
    """Its number alone is not it: the code weighs twice what the number does."""
    near, exact = passage("Error E-4411 and part 4410."), passage("Error E-4410.")
    assert coverage("E-4410", [exact], {}) == 1.0
    assert coverage("E-4410", [near], {}) == pytest.approx(1 / 3)


def test_words_of_earlier_turns_weigh_half() -> None:
    """What the question itself says counts for more than what it refers to."""
    wanted = Wanted("dog", "cat dog", {})
    assert wanted.share_in([(frozenset(stems("dog", "en")), "en")]) == pytest.approx(2 / 3)
    assert wanted.share_in([(frozenset(stems("cat", "en")), "en")]) == pytest.approx(1 / 3)


@given(
    st.text(max_size=80), st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=80), max_size=3), st.floats(0, 20)
)
def test_coverage_is_a_share_whatever_is_asked(question: str, texts: list[str], weight: float) -> None:
    """Threat C2: any Unicode gives 0 to 1, and a further passage takes nothing away."""
    passages = [passage(text, number=number) for number, text in enumerate(texts, start=1)]
    rarity = dict.fromkeys(question.lower().split()[:1], weight)
    shares = [coverage(question, passages[:count], rarity) for count in range(len(passages) + 1)]
    assert all(0 <= share <= 1 for share in shares)
    assert shares == sorted(shares)
