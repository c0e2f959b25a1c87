"""Whether two passages say the same. Near-duplicates are folded; passages that differ in a figure never are."""

from __future__ import annotations

import re
from collections.abc import Iterable

SHINGLE = 3
SAME = 0.9
"""Share of word triples that two passages must have in common. Source: Broder 1997, whose threshold lies here."""

VERSIONS = 0.7
"""The same for two versions of one text, whose figures do not count: a rule or two may differ."""

WORD = re.compile(r"\w+")
FIGURE = re.compile(r"\b[^\W\d]*\d\w*")


class Folder:
    """Remembers the passages it was shown and tells which later ones repeat one of them."""

    def __init__(self) -> None:
        self._seen: list[tuple[frozenset[tuple[str, ...]], tuple[str, ...]]] = []

    def repeats(self, text: str) -> bool:
        """Whether a text nearly equals one shown before, figure for figure; if not, it is remembered."""
        shingles = _shingles(text)
        figures = tuple(sorted(FIGURE.findall(text.lower())))
        for other, other_figures in self._seen:
            if figures == other_figures and _jaccard(shingles, other) >= SAME:
                return True
        self._seen.append((shingles, figures))
        return False


def alike(texts: Iterable[tuple[int, str]]) -> list[list[int]]:
    """Which of some numbered texts are versions of one another, figures aside; groups of two and more, in the order given.

    Each belongs to the first text that it is like.
    """
    groups: list[tuple[frozenset[tuple[str, ...]], list[int]]] = []
    for number, text in texts:
        shingles = _shingles(FIGURE.sub("0", text))
        for first, group in groups:
            if _jaccard(shingles, first) >= VERSIONS:
                group.append(number)
                break
        else:
            groups.append((shingles, [number]))
    return [group for _, group in groups if len(group) > 1]


def _shingles(text: str) -> frozenset[tuple[str, ...]]:
    words = WORD.findall(text.lower())
    return frozenset(tuple(words[i : i + SHINGLE]) for i in range(max(1, len(words) - SHINGLE + 1)))


def _jaccard(first: frozenset[tuple[str, ...]], second: frozenset[tuple[str, ...]]) -> float:
    smaller, larger = sorted((len(first), len(second)))
    if larger == 0 or smaller / larger < VERSIONS:
        return 1.0 if larger == 0 else 0.0
    return len(first & second) / len(first | second)
