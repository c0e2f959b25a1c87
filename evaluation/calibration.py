"""Whether answerability is what it says: of the questions with .7, seven in ten should be answerable. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from evaluation.intervals import CONFIDENCE, Clusters, Interval, statistic_interval

BINS = 10

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Bin:
    """The questions with an answerability from `low` to `high`: its mean, and the share of them that is answerable.

    The interval is Wilson's, as if each question were of a conversation of its own.
    """

    low: float
    high: float
    questions: int
    answerability: float
    answerable_share: float
    interval: Interval


@dataclass(frozen=True, slots=True)
class Calibration:
    """The bins that have a question, and their mean distance, each by its number of questions. 0 is perfect."""

    bins: tuple[Bin, ...]
    error: float
    error_interval: Interval | None
    questions: int


def calibration_of(answerability: Floats, answerable: Flags, clusters: Clusters, seed: int) -> Calibration:
    """The calibration over questions, at least one."""

    def error(rows: NDArray[np.int64]) -> float:
        return calibration_error(answerability[rows], answerable[rows])

    found = statistic_interval(error, clusters, seed)
    rows = np.arange(len(answerable))
    return Calibration(tuple(_bins(answerability, answerable)), error(rows), found, len(answerable))


def calibration_error(answerability: Floats, answerable: Flags) -> float:
    """The expected calibration error, over bins of equal width. Of few questions it is too high, even of a perfect score.

    Source: Naeini, Cooper and Hauskrecht 2015.
    """
    numbers = _numbers(answerability)
    distances = np.bincount(numbers, weights=answerability - answerable, minlength=BINS)
    return float(np.abs(distances).sum() / len(answerable))


def _bins(answerability: Floats, answerable: Flags) -> list[Bin]:
    numbers = _numbers(answerability)
    found = []
    for number in np.unique(numbers):
        inside = numbers == number
        count, right = int(inside.sum()), int(answerable[inside].sum())
        ends = stats.binomtest(right, count).proportion_ci(CONFIDENCE, method="wilson")
        found.append(
            Bin(
                low=number / BINS,
                high=(number + 1) / BINS,
                questions=count,
                answerability=float(answerability[inside].mean()),
                answerable_share=right / count,
                interval=(float(ends.low), float(ends.high)),
            )
        )
    return found


def _numbers(answerability: Floats) -> NDArray[np.int64]:
    """The number of each question's bin; 1 belongs to the last one."""
    return np.clip((answerability * BINS).astype(np.int64), 0, BINS - 1)
