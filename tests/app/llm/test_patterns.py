"""Patterns that operators write and anybody's question is held against."""

from __future__ import annotations

import pytest

from app.llm.patterns import LARGEST, Pattern
from tests.app.answering.passages import growth


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("salary", "What is my SALARY?", True),
        ("SALARY", "what is my salary?", True),
        ("salary", "What is my wage?", False),
        ("^salary", "my salary", False),
        ("urlaub|ferien", "Wie viele Ferientage?", True),
        ("über", "ÜBERSTUNDEN", True),
        ("u\u0308ber", "Überstunden", True),
        ("über", "U\u0308berstunden", True),
        (r"\d{3}", "form TR-204", True),
        ("(?-i)VPN", "vpn", False),
        ("a", "\ud800 a", True),
        ("", "anything", True),
        ("a.c", "a\x00c", True),
    ],
)
def test_a_pattern_is_found_anywhere_whatever_its_case(pattern: str, text: str, expected: bool) -> None:
    """Accents may be encoded either way; the pattern may ask for its case; no character of a question is an error."""
    assert Pattern(pattern).is_in(text) is expected


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|aa)+$", "(.*a){20}$", "^(([a-z])+.)+[A-Z]([a-z])+$", r"(\w+\s?)+$!"])
def test_a_pattern_takes_linear_time(pattern: str) -> None:
    """Patterns that hang a backtracking engine: four times the text takes about four times as long."""
    compiled = Pattern(pattern)
    assert growth(lambda size: compiled.is_in("a" * size + "!"), 100_000) < 10


def test_the_longest_question_is_searched_at_once() -> None:
    """Each letter of 8,000 doubles the steps that backtracking takes for (a+)+$; here the answer comes, and is right."""
    assert not Pattern("(a+)+$").is_in("a" * 7_999 + "!")
    assert Pattern("(a+)+$").is_in("a" * 8_000)


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("(?=x)", "invalid perl operator"),
        ("(?<!x)y", "invalid"),
        (r"(a)\1", "invalid escape sequence"),
        ("(", r"missing \)"),
        ("*", "no argument for repetition operator"),
        ("[z-a]", "invalid character class range"),
        ("a{1001}", "invalid repetition size"),
        ("\ud800", "a lone surrogate is no character"),
    ],
)
def test_what_is_not_re2_is_refused_with_the_reason(pattern: str, why: str, capfd: pytest.CaptureFixture[str]) -> None:
    """The pattern and what is wrong with it are named, and the library writes nothing of its own."""
    with pytest.raises(ValueError, match=rf"is not an RE2 pattern \({why}.*; RE2 has no look-around and no back-references"):
        Pattern(pattern)
    assert capfd.readouterr() == ("", "")


def test_a_pattern_that_is_too_large_is_refused() -> None:
    """Time grows with the pattern as well: what repeats half a thousand times passes, what repeats more does not."""
    assert Pattern("(.?){100}z").is_in("z")
    with pytest.raises(ValueError, match="is too large a pattern; repeat less in it"):
        Pattern("(.?){900}z")
    with pytest.raises(ValueError, match="is not an RE2 pattern"):
        Pattern(r"(\pL?){1000}")
    assert LARGEST == 1000
