"""Which dates are read, which times a question names, and what is in force."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest

from corpus.validity import ALWAYS, NEVER, Period, Validity, period_of, periods_named

TODAY = date(2026, 11, 23)


def days(first: str, last: str) -> Period:
    """A period between two days."""
    return Period(date.fromisoformat(first).toordinal(), date.fromisoformat(last).toordinal())


@pytest.mark.parametrize(
    ("written", "period"),
    [
        ("2026-03-31", days("2026-03-31", "2026-03-31")),
        (" 2026-03-31T08:30:00+01:00 ", days("2026-03-31", "2026-03-31")),
        ("2024-02", days("2024-02-01", "2024-02-29")),
        ("2026", days("2026-01-01", "2026-12-31")),
        ("31.3.2026", days("2026-03-31", "2026-03-31")),
        ("2026-02-30", None),
        ("2026-13", None),
        ("0000", None),
        ("03/04/2026", None),
        ("1 April 2026", None),
        ("until further notice", None),
        ("", None),
    ],
)
def test_a_date_is_read_where_it_can_be_read_in_one_way_only(written: str, period: Period | None) -> None:
    """A day, a month or a year; anything else is no date."""
    assert period_of(written) == period


@pytest.mark.parametrize(
    ("question", "named"),
    [
        ("What was the limit in 2025?", (days("2025-01-01", "2025-12-31"),)),
        ("2024 against 2025", (days("2024-01-01", "2024-12-31"), days("2025-01-01", "2025-12-31"))),
        ("the rates on 2025-06-30.", (days("2025-06-30", "2025-06-30"),)),
        ("die Sätze am 30.06.2025?", (days("2025-06-30", "2025-06-30"),)),
        ("and what was it last year?", (days("2025-01-01", "2025-12-31"),)),
        ("und im letzten Jahr?", (days("2025-01-01", "2025-12-31"),)),
        ("¿y el año pasado?", (days("2025-01-01", "2025-12-31"),)),
        ("What applies next year?", (days("2027-01-01", "2027-12-31"),)),
        ("form FI-2025, part 2025-A, 12025 pieces, v1.2025 and 2025.5", ()),
        ("Is 2000 EUR enough, or 2000€, or €2000, or EUR 2000? And 2000 km, 1999 %?", ()),
        ("under ISO 9001, DIN 2025 or EN 1995, on form 2025 or in room 2010", ()),
        ("since 1850, or 3000", ()),
        ("In 2025 EU rules", (days("2025-01-01", "2025-12-31"),)),
        ("What is the limit this year?", ()),
        ("", ()),
    ],
)
def test_a_question_names_years_and_days(question: str, named: tuple[Period, ...]) -> None:
    """Not by numbers that only look like years, and not the year that it is asked in."""
    assert periods_named(question, TODAY) == named


def validity(*periods: tuple[str | None, str | None]) -> Validity:
    """Chunks that are valid from and until some days."""
    begins = [ALWAYS if first is None else date.fromisoformat(first).toordinal() for first, _ in periods]
    ends = [NEVER if last is None else date.fromisoformat(last).toordinal() for _, last in periods]
    return Validity(np.array(begins, dtype=np.int32), np.array(ends, dtype=np.int32))


def test_what_has_lapsed_is_valid_neither_today_nor_when_the_question_means() -> None:
    """First and last day count as valid; what has not begun is as little in force as what has ended."""
    until = ((None, None), (None, "2026-11-22"), (None, "2026-11-23"))
    known = validity(*until, ("2026-11-24", None), ("2026-11-23", None), ("2025-01-01", "2025-12-31"))
    every = np.arange(6)
    assert known.lapsed(every, TODAY, ()).tolist() == [False, True, False, True, False, True]
    assert known.lapsed(every, TODAY, periods_named("in 2025", TODAY)).tolist() == [False, False, False, True, False, False]
    assert known.lapsed(np.array([5, 0]), TODAY, ()).tolist() == [True, False]


RULE = "Hotels in Germany cost at most {} EUR a night and breakfast is paid for by the traveller in every case. See FI-{}."


def ordered(known: Validity, texts: list[str], scores: list[float], question: str = "") -> list[int]:
    """The order in which passages that were ranked as given are shown."""
    return known.later_first(np.arange(len(texts)), scores, texts, TODAY, periods_named(question, TODAY))


def test_of_versions_that_score_nearly_the_same_the_latest_valid_one_comes_first() -> None:
    """They share out the places they have; what lies between them stays."""
    known = validity(("2024-01-01", None), (None, None), ("2026-01-01", None), ("2027-01-01", None))
    texts = [RULE.format(100, 1), "Something else altogether stands here.", RULE.format(120, 2), RULE.format(130, 3)]
    assert ordered(known, texts, [0.9, 0.89, 0.88, 0.87]) == [2, 1, 0, 3]
    assert ordered(known, texts, [0.9, 0.89, 0.88, 0.87], "in 2025?") == [0, 1, 3, 2]
    assert ordered(known, texts, [0.9, 0.89, 0.88, 0.87], "from 2027 on") == [3, 1, 2, 0]


def test_a_version_that_scores_clearly_less_stays_behind() -> None:
    """So an identifier or a year in the question decides before a date does."""
    known = validity(("2024-01-01", None), ("2026-01-01", None))
    assert ordered(known, [RULE.format(100, 1), RULE.format(120, 2)], [0.9, 0.7]) == [0, 1]


def test_a_time_at_which_no_version_is_valid_gives_way_to_today() -> None:
    """What is in force now comes before what has not begun."""
    known = validity(("2027-01-01", None), ("2026-01-01", None))
    assert ordered(known, [RULE.format(130, 3), RULE.format(120, 2)], [0.9, 0.9], "in 1999?") == [1, 0]


def test_texts_that_only_look_alike_in_part_are_no_versions() -> None:
    """Two rules on different things keep their order."""
    known = validity(("2024-01-01", None), ("2026-01-01", None))
    other = "Trains in Spain cost at most 90 EUR a day and lunch is paid for by the office in every case. See FI-7."
    assert ordered(known, [RULE.format(100, 1), other], [0.9, 0.9]) == [0, 1]
