"""Intervals and tests: against values by hand, and whether they hold what they promise."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.intervals import clusters_of, difference, interval, percentile_difference, ratio, statistic_difference
from evaluation.metrics import Pairs


def pairs(values: list[float] | np.ndarray) -> Pairs:
    """Each value over one."""
    return np.column_stack([np.asarray(values, dtype=np.float64), np.ones(len(values))])


def own(count: int) -> np.ndarray:
    """Each question its own conversation."""
    return np.arange(count, dtype=np.int64)


def test_a_ratio_is_of_sums() -> None:
    """1 of 2 and 0 of 6 are 1 of 8; nothing of nothing is no value."""
    assert ratio(np.array([[1.0, 2.0], [0.0, 6.0]])) == 0.125
    assert ratio(np.zeros((3, 2))) is None


def test_a_share_has_wilson_s_interval() -> None:
    """9 of 10. Source: Wilson's score interval, by hand: (.596, .982)."""
    low, high = interval(pairs([1.0] * 9 + [0.0]), own(10), is_share=True, seed=0) or (0.0, 0.0)
    assert (low, high) == pytest.approx((0.5958, 0.9821), abs=1e-4)


def test_all_right_is_not_certain() -> None:
    """Twenty of twenty leaves room for doubt; an amount that is always the same leaves none."""
    low, high = interval(pairs([1.0] * 20), own(20), is_share=True, seed=0) or (0.0, 0.0)
    assert (low, high) == pytest.approx((0.8389, 1.0), abs=1e-4)
    assert interval(pairs([1.0] * 20), own(20), is_share=False, seed=0) == (1.0, 1.0)


def test_too_few_have_no_interval() -> None:
    """A bootstrap of three values is far too narrow, so none is shown."""
    assert interval(pairs([0.2, 0.5, 0.9]), own(3), is_share=True, seed=0) is None
    assert interval(pairs([1.0, 0.0]), np.zeros(2, dtype=np.int64), is_share=True, seed=0) is None


def test_an_interval_repeats_with_its_seed() -> None:
    """Two runs say the same."""
    values = np.random.default_rng(3).random(60)
    assert interval(pairs(values), own(60), is_share=True, seed=5) == interval(pairs(values), own(60), is_share=True, seed=5)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    """Of 200 samples of 40 values with mean .4, at least 90 % of the 95 % intervals hold .4, and not all of them."""
    rng = np.random.default_rng(11)
    held = 0
    for seed in range(200):
        low, high = interval(pairs(rng.beta(2, 3, size=40)), own(40), is_share=True, seed=seed) or (0.0, 0.0)
        held += low <= 0.4 <= high
    assert 180 <= held < 200


def test_turns_of_one_conversation_are_not_independent() -> None:
    """Thirty conversations of six turns that go right or wrong together: only the clustered interval holds .5 often enough."""
    rng = np.random.default_rng(7)
    clusters = np.repeat(np.arange(30), 6)
    held_clustered = held_plain = 0
    for seed in range(100):
        chance = np.repeat(rng.choice([0.05, 0.95], size=30), 6)
        drawn = pairs((rng.random(180) < chance).astype(np.float64))
        low, high = interval(drawn, clusters, is_share=True, seed=seed) or (0.0, 0.0)
        held_clustered += low <= 0.5 <= high
        low, high = interval(drawn, own(180), is_share=True, seed=seed) or (0.0, 0.0)
        held_plain += low <= 0.5 <= high
    assert held_clustered >= 88
    assert held_plain <= 75


def test_a_clear_difference_is_found_and_its_p_is_exact() -> None:
    """Ten questions, all of them right in the second run alone: 2 of the 1024 exchanges differ so much."""
    found = difference(pairs([0.0] * 10), pairs([1.0] * 10), own(10), seed=0)
    assert found is not None
    assert (found.value, found.interval) == (1.0, (1.0, 1.0))
    assert found.p_value == pytest.approx(2 / 1024)


def test_no_difference_is_none() -> None:
    """The same values in both runs: 0, and every exchange does as much."""
    values = [0.0, 1.0] * 10
    found = difference(pairs(values), pairs(values), own(20), seed=0)
    assert found is not None
    assert (found.value, found.interval, found.p_value) == (0.0, (0.0, 0.0), 1.0)


def test_pairs_that_one_run_lacks_stay_in() -> None:
    """A precision whose denominators differ between the runs: 1 of 1 against 2 of 4, over all that either claimed."""
    first = np.array([[1.0, 1.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    second = np.array([[1.0, 1.0], [1.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    found = difference(first, second, own(4), seed=0)
    assert found is not None
    assert found.value == -0.5
    assert difference(first, np.zeros((4, 2)), own(4), seed=0) is None


def test_exchanging_conversations_is_a_weaker_test_than_exchanging_turns() -> None:
    """Three conversations with ten turns each: with all turns better, p is 2 of 8 and not 2 of 2 ** 30."""
    clusters = np.repeat(np.arange(3), 10)
    found = difference(pairs([0.0] * 30), pairs([1.0] * 30), clusters, seed=0)
    assert found is not None
    assert found.p_value == pytest.approx(2 / 8)


def test_chance_alone_is_seldom_called_a_change() -> None:
    """Of 100 pairs of runs that differ by chance, about five have p < .05."""
    rng = np.random.default_rng(5)
    called = 0
    for seed in range(100):
        found = difference(pairs(rng.random(25)), pairs(rng.random(25)), own(25), seed)
        called += found is not None and found.p_value is not None and found.p_value < 0.05
    assert 0 < called <= 12


def test_times_differ_in_their_percentiles() -> None:
    """All times longer by 5: so are the median and the 95th percentile."""
    times = np.random.default_rng(0).random(40) * 10
    found = percentile_difference(times, times + 5, 95, seed=0)
    assert found.value == pytest.approx(5.0)
    assert found.interval is not None
    assert found.interval[0] > 0
    assert found.p_value is not None
    assert found.p_value < 0.05


def test_a_statistic_of_both_runs_is_compared_row_by_row() -> None:
    """The mean as a statistic: as far apart as the means are, with a p of chance where the runs are alike."""
    values = np.concatenate([np.zeros(12), np.ones(12)])
    found = statistic_difference(lambda rows: float(values[rows].mean()), own(12), seed=0)
    assert (found.value, found.interval) == (1.0, (1.0, 1.0))
    assert found.p_value is not None
    assert found.p_value < 0.01
    same = np.tile(np.arange(12.0), 2)
    assert statistic_difference(lambda rows: float(same[rows].mean()), own(12), seed=0).p_value == 1.0


def test_conversations_are_numbered_by_name() -> None:
    """The same name is the same number, wherever it stands."""
    first, second, third = clusters_of(["b", "a", "b"])
    assert first == third != second
