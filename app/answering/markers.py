"""What counts as a citation's marker in an answer, however the LLM writes it."""

from __future__ import annotations

import re

NO_ANSWER_MARKER = "none"
LONGEST_RANGE = 50
"""Numbers that a marker such as [1-3] stands for, at most."""
_NAMES = ("sources", "source", "passages", "passage", "quellen", "quelle", "fuentes", "fuente")
_NAME = "|".join(_NAMES)
_NUMBERS = r"\d{1,3}(?:\s*[,;–-]\s*\d{1,3})*"
_BEGUN = "|".join(sorted({name[:length] for name in (*_NAMES, NO_ANSWER_MARKER) for length in range(1, len(name) + 1)}))

MARKER = re.compile(rf"[\[【]\s*((?:(?:{_NAME})\s*|\^)?{_NUMBERS}|{NO_ANSWER_MARKER})\s*[\]】]", re.IGNORECASE)
"""[1], [1, 2], [1-3], [^1], [Source 1], 【1】 and [none]."""
MIGHT_BECOME_MARKER = re.compile(
    rf"[\[【]\s*(?:(?:(?:{_NAME})\s*|\^)?[\d,;\s–-]*|(?:{_BEGUN})|{NO_ANSWER_MARKER}\s*)$", re.IGNORECASE
)
OPENING = re.compile(r"[\[【]")
_RANGE = re.compile(r"(\d+)(?:\s*[–-]\s*(\d+))?")


def numbers_of(marker: str) -> list[int]:
    """The numbers that the inside of a marker names, those of its ranges included."""
    found: list[int] = []
    for first, last in _RANGE.findall(marker):
        low = int(first)
        high = int(last or first)
        found += range(low, min(high, low + LONGEST_RANGE - 1) + 1) if low <= high else (low, high)
    return found
