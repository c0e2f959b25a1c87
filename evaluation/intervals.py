"""How sure a measured value is: 95 % intervals and paired tests. scipy computes, here stands what is resampled.

What is drawn anew is whole conversations, since the turns of one are not independent; a question of none is its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from evaluation.metrics import Pairs

CONFIDENCE = 0.95
RESAMPLES = 2000
FEWEST = 8
"""Conversations, or times, that a bootstrap needs: of fewer its intervals are much too narrow, so there is none."""
RESAMPLES_OF_STATISTICS = 1000
PERMUTATIONS = 9999
BATCH = 500
"""Resamples held in memory at a time."""

Interval = tuple[float, float]
Floats = NDArray[np.float64]
Clusters = NDArray[np.int64]
"""Shapes: (questions,); the number of each question's conversation."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The second value minus the first, its interval, and how likely one so large is where nothing differs."""

    value: float
    interval: Interval | None
    p_value: float | None


def clusters_of(names: Sequence[str]) -> Clusters:
    """The numbers of conversations by their names."""
    return np.unique(np.array(names, dtype=np.str_), return_inverse=True)[1].astype(np.int64)


def ratio(pairs: Pairs) -> float | None:
    """The value of a metric; None where nothing was measured."""
    above, below = pairs.sum(axis=0)
    return float(above / below) if below else None


def interval(pairs: Pairs, clusters: Clusters, *, is_share: bool, seed: int) -> Interval | None:
    """The interval of a ratio; None where there are too few conversations to draw from.

    Source: the bootstrap over clusters, percentiles (Efron and Tibshirani 1993); where every conversation is all right or all
    wrong it would be a point, so shares of equal weight, and shares of 0 and 1, have Wilson's score interval.
    """
    sums = _by_cluster(pairs, clusters)
    sums = sums[sums[:, 1] > 0]
    if len(sums) < 2:
        return None
    if is_share:
        ratios = sums[:, 0] / sums[:, 1]
        is_binary = bool(np.isin(ratios, (0.0, 1.0)).all())
        if is_binary and (np.ptp(ratios) == 0 or np.ptp(sums[:, 1]) == 0):
            found = stats.binomtest(round(ratios.sum()), len(ratios)).proportion_ci(CONFIDENCE, method="wilson")
            return float(found.low), float(found.high)
    return _bootstrap((sums[:, 0], sums[:, 1]), _ratio_of_sums, seed, RESAMPLES)


def percentile_interval(values: Floats, percent: float, seed: int) -> Interval | None:
    """The interval of a percentile. Times of one conversation are taken for independent: they are of the machine."""
    return _bootstrap((values,), lambda drawn, axis: np.percentile(drawn, percent, axis=axis), seed, RESAMPLES_OF_STATISTICS)


Statistic = Callable[[NDArray[np.int64]], float]
"""A number that is computed from all questions at once: of the rows it is given, in which one may come twice. It may be NaN."""


def statistic_interval(statistic: Statistic, clusters: Clusters, seed: int) -> Interval | None:
    """The interval of a statistic; None where there are too few conversations, or it can seldom be computed."""
    members = [np.flatnonzero(clusters == cluster) for cluster in np.unique(clusters)]
    if len(members) < FEWEST:
        return None
    found = stats.bootstrap(
        (np.arange(len(members)),), lambda drawn: statistic(np.concatenate([members[i] for i in drawn])),
        vectorized=False, method="percentile", n_resamples=RESAMPLES_OF_STATISTICS, rng=np.random.default_rng(seed),
    )  # fmt: skip
    known = found.bootstrap_distribution[~np.isnan(found.bootstrap_distribution)]
    enough = len(known) > RESAMPLES_OF_STATISTICS // 2
    return _ends(np.quantile(known, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])) if enough else None


def statistic_difference(statistic: Statistic, clusters: Clusters, seed: int) -> Difference:
    """How two runs differ in a statistic, whose rows are those of the first run and, behind them, those of the second."""
    count, members = len(clusters), [np.flatnonzero(clusters == cluster) for cluster in np.unique(clusters)]

    def differ(rows: NDArray[np.int64]) -> float:
        return statistic(rows + count) - statistic(rows)

    def exchanged(first: NDArray[np.int64], second: NDArray[np.int64]) -> float:
        return statistic(rows_of(second)) - statistic(rows_of(first))

    def rows_of(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.concatenate([members[i % len(members)] + count * (i // len(members)) for i in numbers])

    p_value = None
    if len(members) > 1:
        numbers = np.arange(len(members))
        found = stats.permutation_test(
            (numbers, numbers + len(members)), exchanged, permutation_type="samples", vectorized=False,
            n_resamples=RESAMPLES_OF_STATISTICS, rng=np.random.default_rng(seed),
        )  # fmt: skip
        p_value = float(found.pvalue)
    return Difference(differ(np.arange(count)), statistic_interval(differ, clusters, seed), p_value)


def difference(first: Pairs, second: Pairs, clusters: Clusters, seed: int) -> Difference | None:
    """How two runs over the same questions differ in a ratio; None where one of them has no value.

    The test asks how often a difference so large comes of exchanging the runs, conversation by conversation.
    """
    a, b = ratio(first), ratio(second)
    if a is None or b is None:
        return None
    sums = np.hstack([_by_cluster(first, clusters), _by_cluster(second, clusters)])
    sums = sums[(sums[:, 1] > 0) | (sums[:, 3] > 0)]
    if len(sums) < 2:
        return Difference(b - a, None, None)

    def differ(above_a: Floats, below_a: Floats, above_b: Floats, below_b: Floats, axis: int) -> Floats:
        return _ratio_of_sums(above_b, below_b, axis) - _ratio_of_sums(above_a, below_a, axis)

    found = _bootstrap(tuple(sums.T), differ, seed, RESAMPLES)
    # Rows of both runs, one behind the other: what is permuted are their numbers, so that both sums of a row stay together.
    above, below = np.concatenate([sums[:, 0], sums[:, 2]]), np.concatenate([sums[:, 1], sums[:, 3]])

    def permuted(rows_a: NDArray[np.int64], rows_b: NDArray[np.int64], axis: int) -> Floats:
        return _ratio_of_sums(above[rows_b], below[rows_b], axis) - _ratio_of_sums(above[rows_a], below[rows_a], axis)

    rows = np.arange(len(sums))
    return Difference(b - a, found, _permute((rows, rows + len(sums)), permuted, seed, PERMUTATIONS))


def percentile_difference(first: Floats, second: Floats, percent: float, seed: int) -> Difference:
    """How two runs over the same questions differ in a percentile of their times."""

    def differ(a: Floats, b: Floats, axis: int) -> Floats:
        return np.asarray(np.percentile(b, percent, axis=axis) - np.percentile(a, percent, axis=axis))

    value = float(differ(first, second, 0))
    found = _bootstrap((first, second), differ, seed, RESAMPLES_OF_STATISTICS)
    p_value = _permute((first, second), differ, seed, RESAMPLES_OF_STATISTICS) if len(first) > 1 else None
    return Difference(value, found, p_value)


def _by_cluster(pairs: Pairs, clusters: Clusters) -> Pairs:
    return np.column_stack([np.bincount(clusters, weights=pairs[:, column]) for column in (0, 1)])


def _ratio_of_sums(above: Floats, below: Floats, axis: int) -> Floats:
    """Nothing over nothing is 0: a run that abstains nowhere has no precision to be proud of."""
    total = below.sum(axis=axis)
    return np.asarray(np.divide(above.sum(axis=axis), total, out=np.zeros_like(total, dtype=np.float64), where=total > 0))


def _bootstrap(data: tuple[Floats, ...], statistic: Callable[..., Floats], seed: int, resamples: int) -> Interval | None:
    if len(data[0]) < FEWEST:
        return None
    found = stats.bootstrap(
        data, statistic, paired=True, vectorized=True, method="percentile", confidence_level=CONFIDENCE,
        n_resamples=resamples, batch=BATCH, rng=np.random.default_rng(seed),
    )  # fmt: skip
    return _ends((found.confidence_interval.low, found.confidence_interval.high))


def _permute(data: tuple[NDArray[np.int64] | Floats, ...], statistic: Callable[..., Floats], seed: int, count: int) -> float:
    found = stats.permutation_test(
        data, statistic, permutation_type="samples", vectorized=True, n_resamples=count, batch=BATCH,
        rng=np.random.default_rng(seed),
    )  # fmt: skip
    return float(found.pvalue)


def _ends(ends: Sequence[float] | Floats) -> Interval:
    return float(ends[0]), float(ends[1])
