"""Whether two passages say the same. Near-duplicates are folded; passages that differ in a figure never are."""

from __future__ import annotations

import re

SHINGLE = 3
SAME = 0.9
"""Share of word triples that two passages must have in common. Source: Broder 1997, whose threshold lies here."""

WORD = re.compile(r"\w+")
FIGURE = re.compile(r"\b[^\W\d]*\d\w*")


class Folder:
    """Remembers the passages it was shown and tells which later ones repeat one of them."""

    def __init__(self) -> None:
        self._seen: list[tuple[frozenset[tuple[str, ...]], tuple[str, ...]]] = []

    def repeats(self, text: str) -> bool:
        """Whether a text nearly equals one shown before, figure for figure; if not, it is remembered."""
        words = WORD.findall(text.lower())
        shingles = frozenset(tuple(words[i : i + SHINGLE]) for i in range(max(1, len(words) - SHINGLE + 1)))
        figures = tuple(sorted(FIGURE.findall(text.lower())))
        for other, other_figures in self._seen:
            if figures == other_figures and _jaccard(shingles, other) >= SAME:
                return True
        self._seen.append((shingles, figures))
        return False


def _jaccard(first: frozenset[tuple[str, ...]], second: frozenset[tuple[str, ...]]) -> float:
    smaller, larger = sorted((len(first), len(second)))
    if larger == 0 or smaller / larger < SAME:
        return 1.0 if larger == 0 else 0.0
    return len(first & second) / len(first | second)
