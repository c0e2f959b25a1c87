"""A figure: what was measured, on which data, and what it should be. Plain arithmetic; imports numpy and corpus alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from corpus.errors import ArchivistError

Z_95 = 1.959964
"""The standard normal's 97.5 % point."""

DECIMALS = {
    "ms": 1, "µs": 1, "s": 1, "requests": 0, "chunks": 0, "snapshots": 0, "%": 1, "MB": 0, "x": 2, "/s": 1, "cosine": 7, "": 4,
}  # fmt: skip


class BenchError(ArchivistError):
    """Something could not be measured."""


@dataclass(frozen=True, slots=True)
class Aim:
    """What a figure should be: at most, or at least, a limit in the figure's unit."""

    limit: float
    at_least: bool = False

    def holds(self, value: float) -> bool:
        """Whether a value is as it should be."""
        return value >= self.limit if self.at_least else value <= self.limit


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value.

    Units: as `unit` says; a share is in percent. `data` says on what it was measured, and how much of it. `interval` is the
    95 % interval where there is one.
    """

    part: str
    name: str
    value: float
    unit: str
    data: str
    aim: Aim | None = None
    interval: tuple[float, float] | None = None

    @property
    def passed(self) -> bool | None:
        """Whether the aim is reached; None where there is none."""
        return None if self.aim is None else self.aim.holds(self.value)

    def as_json(self) -> dict[str, Any]:
        """The figure for machines."""
        return {
            "part": self.part,
            "figure": self.name,
            "measured": round(self.value, max(4, DECIMALS[self.unit])),
            "unit": self.unit,
            "interval_95": [round(end, 2) for end in self.interval] if self.interval else None,
            "aim": self.shown_aim or None,
            "data": self.data,
            "passed": self.passed,
        }

    @property
    def shown(self) -> str:
        """The measured value with its unit and interval."""
        interval = f" ({self._number(self.interval[0])}–{self._number(self.interval[1])})" if self.interval else ""
        return self._with_unit(self.value) + interval

    @property
    def shown_aim(self) -> str:
        """The aim with its unit; empty where there is none."""
        if self.aim is None:
            return ""
        return f"{'≥' if self.aim.at_least else '≤'} {self._with_unit(self.aim.limit)}"

    def _number(self, value: float) -> str:
        return f"{value:.{DECIMALS[self.unit]}f}"

    def _with_unit(self, value: float) -> str:
        return f"{self._number(value)} {self.unit}".rstrip()


@dataclass(frozen=True, slots=True)
class Part:
    """What one part measured; `misses` names, by figure, the questions that count against it.

    A part with a `caption` measured the same several times: it is a table of its own, each figure's `part` a column.
    """

    figures: tuple[Figure, ...]
    misses: Mapping[str, Sequence[str]] = field(default_factory=dict)
    caption: str = ""


def share(part: str, name: str, counted: int, of: int, data: str, aim: Aim | None = None) -> list[Figure]:
    """The share of counted things with its interval, as a list of one; of no things, an empty list."""
    if of == 0:
        return []
    low, high = wilson(counted, of)
    return [Figure(part, name, 100 * counted / of, "%", f"{data}, {counted} of {of}", aim, (100 * low, 100 * high))]


def wilson(counted: int, of: int) -> tuple[float, float]:
    """The 95 % interval of a share. Source: Wilson 1927, the score interval without continuity correction."""
    p, z2 = counted / of, Z_95**2
    centre = (p + z2 / (2 * of)) / (1 + z2 / of)
    half = Z_95 / (1 + z2 / of) * math.sqrt(p * (1 - p) / of + z2 / (4 * of * of))
    return max(0.0, centre - half), min(1.0, centre + half)


def percentile(values: Sequence[float], percent: float) -> float:
    """A percentile, linear between neighbours. Raises: BenchError where nothing was measured."""
    if not values:
        raise BenchError("nothing was measured, so there is no percentile; measure for longer")
    return float(np.percentile(values, percent))
