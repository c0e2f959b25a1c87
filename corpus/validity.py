"""From when until when a document is valid, and which times a question names."""

from __future__ import annotations

import calendar
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray

from corpus.folding import alike
from corpus.types import Mask, Ordinals

Days = NDArray[np.int32]
"""Shapes: (n,) int32, dates as days since 1 January of the year 1, as `date.toordinal` counts them."""

ALWAYS, NEVER = 0, np.iinfo(np.int32).max
"""Where no date is given: valid since ever, and for ever."""

LONGEST_BEFORE = 20
"""Characters before a number that are read for what it numbers."""

NEARLY_THE_SAME = 0.1
"""Scores no further apart: less than an identifier or a word that singles one version out."""

_ISO = re.compile(r"(?<![\w.-])(\d{4})(?:-(\d\d)(?:-(\d\d)(?:[T ]\d\d:\d\d\S*)?)?)?(?![\w-]|\.\d)")
_DOTTED = re.compile(r"(?<![\w.-])(\d\d?)\.(\d\d?)\.(\d{4})(?![\w-]|\.\d)")
_FIRST_YEAR, _LAST_OF_YEARS = 1900, 2100
_COUNTED = re.compile(
    r"\s*(?:[€$£¥%°]|(?:EUR|USD|GBP|CHF|euros?|dollars?|dólares|pounds?|francs?|percent|Prozent|km|kg|mg|mm|cm|ml|m|g|l|t|kWh|kW|MB|GB|"
    r"hours?|h|Stunden|horas|days|Tagen?|días|people|persons|employees|Personen|Mitarbeiter\w*|personas|empleados|miles|Meilen|"
    r"metres|meters|Meter|metros|pieces|Stück|words|Wörter|palabras)\b)",
    re.IGNORECASE,
)
_NUMBERED = re.compile(
    r"(?:[€$£¥#]|\b(?:ISO|IEC|DIN|EN|IEEE|RFC|EUR|USD|GBP|CHF|form|formular|formulario|error|fehler|code|part|room|raum|zimmer|sala|"
    r"standard|norm|norma|no\.?|nr\.?|number|nummer|número|windows|office|port))[\s:/]*$",
    re.IGNORECASE,
)
"""What makes a number of four figures an amount or a name: "2000 EUR", "ISO 9001"."""
_LAST_YEAR = re.compile(r"\b(?:(?:last|previous) year|(?:letzte|vorige)[snm]? jahr|vorjahr(?:es)?|año pasado)\b", re.IGNORECASE)
_NEXT_YEAR = re.compile(r"\b(?:next year|(?:nächste|kommende)[snm]? jahr|próximo año|año que viene)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Period:
    """Some days on end, first and last included."""

    first: int
    last: int


def period_of(written: str) -> Period | None:
    """The day, month or year that a field of metadata says; None where it is no date that can be read in one way only.

    Read are 2026, 2026-03, 2026-03-31, with a time behind it or without, and 31.03.2026.
    """
    written = written.strip()
    if (iso := _ISO.fullmatch(written)) is not None:
        return _period(*iso.groups())
    if (dotted := _DOTTED.fullmatch(written)) is not None:
        return _period(*reversed(dotted.groups()))
    return None


def periods_named(question: str, today: date) -> tuple[Period, ...]:
    """The days and years that a question names; "last year" and "next year" count from today.

    Four figures by themselves are a year from 1900 to 2100, where they are no amount and no part of a name.
    """
    found = [_period(*match.groups()) for match in _ISO.finditer(question) if match[2] or _is_year(question, match)]
    found += [_period(*reversed(match.groups())) for match in _DOTTED.finditer(question)]
    for years, pattern in ((-1, _LAST_YEAR), (1, _NEXT_YEAR)):
        if pattern.search(question):
            found.append(_period(str(today.year + years)))
    return tuple(dict.fromkeys(period for period in found if period is not None))


def _is_year(question: str, match: re.Match[str]) -> bool:
    """Whether four figures by themselves are a year, not an amount or a part of a name."""
    return (
        _FIRST_YEAR <= int(match[1]) <= _LAST_OF_YEARS
        and _COUNTED.match(question, match.end()) is None
        and _NUMBERED.search(question, max(0, match.start() - LONGEST_BEFORE), match.start()) is None
    )


def _period(year: str, month: str | None = None, day: str | None = None) -> Period | None:
    try:
        first = date(int(year), int(month or 1), int(day or 1))
        last = date(first.year, first.month if month else 12, 1)
        last = first if day else last.replace(day=calendar.monthrange(last.year, last.month)[1])
    except ValueError:
        return None
    return Period(first.toordinal(), last.toordinal())


class Validity:
    """When each chunk is valid. Shapes: both (chunks,)."""

    def __init__(self, begins: Days, ends: Days) -> None:
        self._begins, self._ends = begins, ends
        self._dated = bool((begins != ALWAYS).any() or (ends != NEVER).any())

    def lapsed(self, ordinals: Ordinals, today: date, named: Iterable[Period]) -> Mask:
        """Which of some chunks are valid neither today nor in any period that is named. Shapes: (len(ordinals),)."""
        if not self._dated:
            return np.zeros(len(ordinals), dtype=np.bool_)
        in_force = self._in_force(ordinals, (_day(today), *named))
        return ~in_force

    def later_first(
        self, ordinals: Ordinals, scores: Sequence[float], texts: Sequence[str], today: date, named: Sequence[Period]
    ) -> list[int]:
        """An order of ranked passages in which, of those that are versions of one text and score nearly the same, what is
        valid at the time asked for (a named one, else today) comes first, and of that the latest. A time that no version is
        valid at counts for nothing.

        Positions in `ordinals`; versions share out the places they have. Passages without a date stay where they are.
        """
        order = list(range(len(ordinals)))
        if not self._dated:
            return order
        begins, ends = self._begins[ordinals], self._ends[ordinals]
        dated = [at for at in order if begins[at] != ALWAYS or ends[at] != NEVER]
        now = self._in_force(ordinals, (_day(today),))
        then = self._in_force(ordinals, named)
        for versions in alike([(at, texts[at]) for at in dated]):
            group = [at for at in versions if scores[versions[0]] - scores[at] <= NEARLY_THE_SAME]
            in_force = then if then[group].any() else now
            ranked = sorted(group, key=lambda at, valid=in_force: (not valid[at], -int(begins[at])))  # type: ignore[misc]
            for place, at in zip(group, ranked, strict=True):
                order[place] = at
        return order

    def _in_force(self, ordinals: Ordinals, periods: Iterable[Period]) -> Mask:
        begins, ends = self._begins[ordinals], self._ends[ordinals]
        in_force = np.zeros(len(ordinals), dtype=np.bool_)
        for period in periods:
            in_force |= (begins <= period.last) & (ends >= period.first)
        return in_force


def _day(day: date) -> Period:
    return Period(day.toordinal(), day.toordinal())
