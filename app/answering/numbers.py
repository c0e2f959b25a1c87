"""Figures of a text as they can be read: `1,200.00`, `1.200` and `1 200` are one, `1.5` and `15` are not."""

from __future__ import annotations

import re

from app.answering.sentences import FIGURE
from corpus.lexical import identifiers

Reading = frozenset[str]
"""Values that a figure stands for, all of them together: `12 300` is 12300, or it is 12 and 300."""

_SPACED = re.compile(r"(?<![\d.,:])\d{1,3}(?:[ \u00a0\u2009\u202f'’]\d{3})+(?:[.,]\d{1,2})?(?![\d:]|[.,]\d)")
_GROUPS = re.compile(r"[ \u00a0\u2009\u202f'’]")
_COMMAS = re.compile(r"([1-9]\d{0,2}(?:,\d{3})+)(?:\.(\d+))?")
_POINTS = re.compile(r"([1-9]\d{0,2}(?:\.\d{3})+)(?:,(\d+))?")
_DECIMAL = re.compile(r"(\d+)[.,](\d+)")
_PLAIN = re.compile(r"\d+(?:\.\d+)*")


def claims(text: str) -> dict[str, tuple[Reading, ...]]:
    """The figures and identifiers of a text as written, each with the ways to read it, one of which has to hold."""
    found: dict[str, tuple[Reading, ...]] = {}
    for spaced in _SPACED.findall(text):
        parts = frozenset(value for part in FIGURE.findall(spaced) for value in (_values(part)[0],))
        found[spaced] = (*(frozenset({value}) for value in _values(_GROUPS.sub("", spaced))), parts)
    for written in FIGURE.findall(_SPACED.sub(" ", text)):
        found.setdefault(written, tuple(frozenset({value}) for value in _values(written)))
    for identifier in identifiers(text):
        if not _PLAIN.fullmatch(identifier):
            found[identifier] = (frozenset({identifier}),)
    return found


def values(text: str) -> frozenset[str]:
    """All that the figures and identifiers of a text can be read as."""
    return frozenset().union(*(reading for readings in claims(text).values() for reading in readings))


def _values(written: str) -> list[str]:
    """What a figure can be: as it is written first; where its separators may be those of thousands, without them.

    Dates, times and versions are only what is written.
    """
    found = [written]
    for pattern in (_COMMAS, _POINTS):
        if match := pattern.fullmatch(written):
            found.append(_joined(re.sub(r"\D", "", match.group(1)), match.group(2) or ""))
    if match := _DECIMAL.fullmatch(written):
        found.append(_joined(*match.groups()))
    return list(dict.fromkeys(found))


def _joined(whole: str, fraction: str) -> str:
    # 12.0 and 12.00 are 12; 1.000 is a thousand or nothing that anyone writes, and 3.10 is no 3.1.
    return whole if fraction in ("", "0", "00") else f"{whole}.{fraction}"
