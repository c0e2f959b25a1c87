"""Risk, coverage and the areas under them, by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from evaluation.golden import Question
from evaluation.risk import area_under_risk, area_under_roc, curve, risk_curve, risk_differences
from tests.evaluation.outcomes import answer, outcome


def test_the_curve_goes_from_the_most_confidence_to_the_least() -> None:
    """Right, wrong, right, wrong: risks 0, 1/2, 1/3, 2/4; the area is their mean."""
    confidence, right = np.array([0.2, 0.9, 0.7, 0.4]), np.array([False, True, False, True])
    points = curve(confidence, right)
    assert [point.confidence for point in points] == [0.9, 0.7, 0.4, 0.2]
    assert [point.coverage for point in points] == [0.25, 0.5, 0.75, 1.0]
    assert [point.risk for point in points] == [0.0, 0.5, pytest.approx(1 / 3), 0.5]
    assert area_under_risk(confidence, right) == pytest.approx((0 + 1 / 2 + 1 / 3 + 2 / 4) / 4)


def test_equal_confidence_is_one_step() -> None:
    """Without any order there is one point, and the area is the share of wrong ones."""
    confidence, right = np.full(5, 0.5), np.array([True, False, True, True, False])
    assert [(point.coverage, point.risk) for point in curve(confidence, right)] == [(1.0, 0.4)]
    assert area_under_risk(confidence, right) == 0.4


def test_the_area_under_roc_counts_pairs() -> None:
    """Of 2 x 2 pairs three are in order; a tie counts half."""
    answerable = np.array([True, True, False, False])
    assert area_under_roc(np.array([0.9, 0.4, 0.6, 0.1]), answerable) == 0.75
    assert area_under_roc(np.array([0.9, 0.6, 0.6, 0.1]), answerable) == 0.875
    assert np.isnan(area_under_roc(np.array([0.9, 0.4]), np.array([True, True])))


def test_a_question_is_right_where_the_best_gold_is_among_the_first() -> None:
    """Unanswerable ones are wrong whatever is found; underspecified ones are not asked; the ring is where it stood."""
    kept = answer("No.", abstained=True, answerability=0.3)
    gold = Question("gold", "?", gold={"a": 2, "b": 1})
    other = Question("other", "?", gold={"a": 2})
    none = Question("none", "?", answerability="UNANSWERABLE")
    vague = Question("vague", "?", answerability="UNDERSPECIFIED", gold={"a": 1})
    found = risk_curve(
        [
            outcome(gold, "x", "a", given=answer("Yes.", answerability=0.9), nearness=0.1),
            outcome(other, "x", "y", "a", given=answer("Yes.", answerability=0.6), nearness=0.2),
            outcome(none, "a", given=kept, nearness=0.9),
            outcome(vague, "x", given=answer("Yes.", answerability=0.8), nearness=0.8),
        ],
        k=2,
        seed=0,
    )
    assert found is not None
    assert found.confidence == "answerability"
    assert [(point.coverage, point.risk) for point in found.points] == [
        (pytest.approx(1 / 3), 0.0), (pytest.approx(2 / 3), 0.5), (1.0, pytest.approx(2 / 3)),
    ]  # fmt: skip
    assert (found.auc, found.questions) == (1.0, 3)
    assert found.at_work is not None
    assert (found.at_work.coverage, found.at_work.risk) == pytest.approx((2 / 3, 0.5))


def test_without_answers_the_nearest_passage_is_the_confidence() -> None:
    """A search alone has no answerability: the order is that of the cosines, and there is nothing to calibrate."""
    gold = Question("gold", "?", gold={"a": 1})
    none = Question("none", "?", answerability="UNANSWERABLE")
    found = risk_curve([outcome(gold, "a", nearness=0.9), outcome(none, "a", nearness=0.3)], k=2, seed=0)
    assert found is not None
    assert (found.confidence, [point.confidence for point in found.points]) == ("cosine of the nearest passage", [0.9, 0.3])
    assert (found.auc, found.calibration, found.at_work) == (1.0, None, None)


def test_an_answer_that_failed_or_was_fixed_has_no_confidence() -> None:
    """Such a question is in no row; a run in which it was answered is compared over the others."""
    gold, other = Question("gold", "?", gold={"a": 1}), Question("other", "?", gold={"a": 1})
    none = Question("none", "?", answerability="UNANSWERABLE")
    sure, unsure = answer("Yes.", answerability=0.9), answer("Yes.", answerability=0.2)
    first = [outcome(gold, "a", given=sure), outcome(other, "a", failure="HTTP 500"), outcome(none, "a", given=unsure)]
    second = [outcome(gold, "a", given=unsure), outcome(other, "a", given=unsure), outcome(none, "a", given=sure)]
    found = risk_curve(first, k=1, seed=0)
    assert found is not None
    assert (found.questions, found.auc) == (2, 1.0)
    fixed = risk_curve([first[0], outcome(other, "a", given=replace(sure, provider="fixed")), first[2]], k=1, seed=0)
    assert fixed is not None
    assert fixed.questions == 2
    differences = dict(risk_differences(first, second, k=1, seed=0))
    assert differences["answerability_auc"].value == -1.0
    # At first .9 of 1 and .2 of 0: .15 in the mean. Then .2 of 1 and .9 of 0: .85.
    assert differences["calibration_error"].value == pytest.approx(0.85 - 0.15)


def test_without_gold_there_is_no_curve() -> None:
    """Nothing could be right."""
    assert risk_curve([outcome(Question("q", "?", answerability="UNANSWERABLE"), "a")], k=5, seed=0) is None


def test_two_runs_differ_in_both_areas() -> None:
    """The second run is sure of what has an answer, the first of what has none."""
    questions = [Question(f"q{i:02d}", "?", gold={"a": 1}) for i in range(10)]
    none = [Question(f"n{i:02d}", "?", answerability="UNANSWERABLE") for i in range(10)]
    first = [*(outcome(q, "a", nearness=0.2) for q in questions), *(outcome(q, "a", nearness=0.8) for q in none)]
    second = [*(outcome(q, "a", nearness=0.8) for q in questions), *(outcome(q, "a", nearness=0.2) for q in none)]
    found = dict(risk_differences(first, second, k=5, seed=0))
    assert found["answerability_auc"].value == 1.0
    assert found["answerability_auc"].p_value is not None
    assert found["answerability_auc"].p_value < 0.05
    # Half a step of all wrong and then half wrong in all, against all right and then half wrong.
    assert found["risk_coverage_area"].value == pytest.approx((0.5 * 0 + 0.5 * 0.5) - (0.5 * 1 + 0.5 * 0.5))
