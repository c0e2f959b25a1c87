"""Whether an answer is what was to be said."""

from __future__ import annotations

import pytest

from evaluation.match import holds_any, is_exactly, token_f1


@pytest.mark.parametrize(
    ("text", "exact"),
    [("In the  yard. [1]", True), ("in the yard", True), ("They park in the yard.", False), ("", False)],
)
def test_an_exact_answer_is_the_string_and_nothing_else(text: str, exact: bool) -> None:
    """Markers, case, white space and the full stop do not count, every other word does."""
    assert is_exactly(text, ["a lot", "In the yard"]) is exact


def test_f1_is_that_of_the_words_shared_with_the_nearest_string() -> None:
    """Three of four words said are wanted, three of three wanted are said: 2 * 3 / (4 + 3)."""
    assert token_f1("Visitors: in the yard [1]", ["in the yard", "elsewhere"]) == pytest.approx(6 / 7)


def test_a_word_counts_as_often_as_it_is_on_both_sides() -> None:
    """Said twice, wanted once, it is shared once."""
    assert token_f1("yard yard", ["yard"]) == pytest.approx(2 / 3)


@pytest.mark.parametrize(("text", "strings"), [("", ["x"]), ("words", ["others"]), ("words", [])])
def test_nothing_shared_is_no_f1(text: str, strings: list[str]) -> None:
    """Neither an empty answer nor no string to compare with is a match."""
    assert token_f1(text, strings) == 0.0


def test_any_of_the_strings_is_enough() -> None:
    """The strings are ways of saying one thing."""
    assert holds_any("Due in 30 days.", ["a month", "30 days"])
    assert not holds_any("Due in 130 days.", ["a month", "30 days"])
