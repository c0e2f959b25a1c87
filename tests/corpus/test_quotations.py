"""What counts as a quotation, and which texts hold it."""

from __future__ import annotations

import time

import pytest

from corpus.quotations import LONGEST, MOST, holds, quotations


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('Where does it say "core hours end"?', ["core hours end"]),
        ("Where does it say “core hours end”?", ["core hours end"]),
        ("Wo steht „Ende der Kernzeit“?", ["Ende der Kernzeit"]),
        ("Wo steht „Ende der Kernzeit”?", ["Ende der Kernzeit"]),
        ("Wo steht »Ende der Kernzeit«?", ["Ende der Kernzeit"]),
        ("¿Dónde dice «fin de la jornada»?", ["fin de la jornada"]),
        ("Où est « fin de journée » ?", ["fin de journée"]),
        ("Where does it say ‘the dog’s bone’ here?", ["the dog’s bone"]),
        ("Wo steht ‚Ende‘?", ["Ende"]),
        ("‹one two› and ›three four‹", ["one two", "three four"]),
        ('"core hours," she said, and "lunch."', ["core hours", "lunch"]),
        ('"again" and "again"', ["again"]),
        ('„eins“ "zwei" «tres»', ["eins", "zwei", "tres"]),
        ('a 3/4" pipe and a 5" one, "exact phrase"', ["exact phrase"]),
        ("It's the dogs' bone, isn't it?", []),
        ("5'11\" tall and 6'2\" wide", []),
        ('unbalanced "phrase without an end', []),
        ("unbalanced „phrase", []),
        ('"', []),
        ('"" “” «»', []),
        ('"the"', []),
        ('"to be or not to be"', ["to be or not to be"]),
        ('"?!"', []),
        ('spaced " out', []),
        ('two lines "of\none quotation"', ["of\none quotation"]),
        ("", []),
    ],
)
def test_quotations_are_what_stands_between_two_marks(text: str, found: list[str]) -> None:
    """In every usual pair of marks; apostrophes, inches and marks that nothing closes are none."""
    assert quotations(text) == found


def test_only_so_much_is_a_quotation() -> None:
    """One that is too long is none, and the first few are enough."""
    assert quotations(f'"{"a" * LONGEST}" "{"b" * (LONGEST + 1)}"') == ["a" * LONGEST]
    assert quotations(" ".join(f'"q{number}"' for number in range(20))) == [f"q{number}" for number in range(MOST)]


@pytest.mark.parametrize("piece", ['"', '" ', "„", "« ", "‘", 'a"b ', "'", '"a" ', '\ud800"'])
def test_finding_quotations_takes_linear_time(piece: str) -> None:
    """A million characters of marks are read in less than two seconds."""
    started = time.monotonic()
    quotations(piece * (1_000_000 // len(piece)))
    assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    ("text", "quotation", "held"),
    [
        ("The Core  Hours\nend at three.", "core hours end", True),
        ("The core hours don’t end.", "hours don't end", True),
        ("The core «hours» end.", 'core "hours" end', True),
        ("STRASSENBAHN", "Straßenbahn", True),
        ("The core hours ended.", "core hours end", False),
        ("hours of the core end", "core hours end", False),
        ("Your information", "form", False),
        ("costs $5 (net)", "$5 (net)", True),
        ("使用会议室需要预约", "会议室", True),
        ("ﬁnal report", "final report", True),
        ("E-4410.", "E-4410", True),
        ("", "x", False),
    ],
)
def test_a_text_holds_a_quotation_word_for_word(text: str, quotation: str, held: bool) -> None:
    """Case, white space and the form of marks do not count; order, endings and the ends of words do."""
    assert holds(text, quotation) is held
