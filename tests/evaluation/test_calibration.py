"""Answerability against what is answerable, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.calibration import calibration_error, calibration_of


def test_a_score_that_is_true_has_no_error() -> None:
    """Of four questions with .75 three are answerable, of two with .5 one."""
    answerability = np.array([0.75, 0.75, 0.75, 0.75, 0.5, 0.5])
    answerable = np.array([True, True, True, False, True, False])
    assert calibration_error(answerability, answerable) == 0.0


def test_the_error_is_the_mean_distance_of_the_bins_by_their_questions() -> None:
    """Three at .9 of which one is answerable, one at .1 which is: (3 x (.9 - 1/3) + 1 x .9) / 4."""
    answerability, answerable = np.array([0.9, 0.9, 0.9, 0.1]), np.array([True, False, False, True])
    assert calibration_error(answerability, answerable) == pytest.approx((3 * (0.9 - 1 / 3) + 0.9) / 4)


def test_bins_that_have_a_question_are_shown_with_wilsons_interval() -> None:
    """1 belongs to the last bin, .1 to the second; empty ones are left out."""
    found = calibration_of(
        np.array([1.0, 0.95, 0.1, 0.0]), np.array([True, False, False, False]), np.arange(4, dtype=np.int64), seed=0
    )
    assert [(b.low, b.high, b.questions, b.answerable_share) for b in found.bins] == [
        (0.0, 0.1, 1, 0.0), (0.1, 0.2, 1, 0.0), (0.9, 1.0, 2, 0.5),
    ]  # fmt: skip
    assert found.bins[2].answerability == pytest.approx(0.975)
    assert found.bins[2].interval == pytest.approx((0.0945, 0.9055), abs=1e-4)
    assert (found.questions, found.error_interval) == (4, None)


def test_the_error_has_an_interval_over_conversations() -> None:
    """Twenty questions of ten conversations, all of them .5, half of them answerable: the value lies inside."""
    answerable = np.array([True, False] * 10)
    found = calibration_of(np.full(20, 0.6), answerable, np.arange(20, dtype=np.int64) // 2, seed=1)
    assert found.error == pytest.approx(0.1)
    assert found.error_interval == pytest.approx((0.1, 0.1))
    alone = calibration_of(np.full(20, 0.6), answerable, np.arange(20, dtype=np.int64), seed=1)
    assert alone.error_interval is not None
    assert alone.error_interval[0] < 0.1 < alone.error_interval[1]
