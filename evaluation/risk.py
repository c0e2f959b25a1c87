"""Knowing when there is none: how much goes wrong, if only the questions with the most confidence are answered.

Confidence is answerability where answers were made, else the cosine of the nearest passage.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from app.llm.settings import FIXED
from evaluation.calibration import Calibration, calibration_error, calibration_of
from evaluation.intervals import Clusters, Difference, Interval, clusters_of, statistic_difference, statistic_interval
from evaluation.run import Outcome

ANSWERABILITY = "answerability"
NEARNESS = "cosine of the nearest passage"
"""What stands for confidence, in words: answerability where answers were made, else the cosine."""

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Point:
    """Answering all questions with at least this confidence: the share of all that is, and the share of those that is wrong."""

    confidence: float
    coverage: float
    risk: float


@dataclass(frozen=True, slots=True)
class RiskCurve:
    """The curve over the questions that should be answered and those that should not.

    A question counts as wrong where it has no answer, or where none of the first k documents is gold of the highest relevance:
    that is known of a question that got no answer, too. `at_work` is where the service itself stood, if it answered.
    `confidence` says in words what the confidence is, `calibration` how true it is where it is a probability.
    """

    confidence: str
    points: tuple[Point, ...]
    area: float
    area_interval: Interval | None
    auc: float | None
    auc_interval: Interval | None
    at_work: Point | None
    questions: int
    calibration: Calibration | None


@dataclass(frozen=True, slots=True)
class Signals:
    """What the curve is made of, one row a question that either should be answered or should not.

    Where answers were made, a question whose answer failed or came of a rule has no confidence, and is in no row.
    """

    of: str
    outcomes: tuple[Outcome, ...]
    confidence: Floats
    answerable: Flags
    right: Flags

    @property
    def clusters(self) -> Clusters:
        """The conversations."""
        return clusters_of([outcome.question.cluster for outcome in self.outcomes])

    @property
    def has_both(self) -> bool:
        """Whether some are answerable and some are not."""
        return bool(self.answerable.any() and not self.answerable.all())


def signals_of(outcomes: Sequence[Outcome], k: int) -> Signals | None:
    """The signals; None where no question has gold, since nothing could be right then."""
    return _signals([o for o in outcomes if _is_judged(o)], k, has_answers=_has_answers(outcomes))


def _signals(outcomes: Sequence[Outcome], k: int, *, has_answers: bool) -> Signals | None:
    judged = tuple(o for o in outcomes if not has_answers or _answerability(o) is not None)
    answerable = np.array([outcome.question.is_answerable for outcome in judged], dtype=np.bool_)
    if not answerable.any():
        return None
    found = [_answerability(outcome) if has_answers else outcome.nearness for outcome in judged]
    right = np.array([_is_right(outcome, k) for outcome in judged], dtype=np.bool_)
    name = ANSWERABILITY if has_answers else NEARNESS
    return Signals(name, judged, np.array(found, dtype=np.float64), answerable, right)


def risk_curve(outcomes: Sequence[Outcome], k: int, seed: int) -> RiskCurve | None:
    """The curve; None where no question has gold."""
    signals = signals_of(outcomes, k)
    if signals is None:
        return None
    confidence, answerable, right, clusters = signals.confidence, signals.answerable, signals.right, signals.clusters
    has_both = signals.has_both
    return RiskCurve(
        confidence=signals.of,
        points=tuple(curve(confidence, right)),
        area=area_under_risk(confidence, right),
        area_interval=statistic_interval(lambda rows: area_under_risk(confidence[rows], right[rows]), clusters, seed),
        auc=area_under_roc(confidence, answerable) if has_both else None,
        auc_interval=statistic_interval(lambda rows: area_under_roc(confidence[rows], answerable[rows]), clusters, seed)
        if has_both
        else None,
        at_work=_at_work(signals),
        questions=len(signals.outcomes),
        calibration=calibration_of(confidence, answerable, clusters, seed)
        if has_both and signals.of == ANSWERABILITY
        else None,
    )


def risk_differences(
    first: Sequence[Outcome], second: Sequence[Outcome], k: int, seed: int
) -> Iterator[tuple[str, Difference]]:
    """How two runs over the same questions differ in the areas of OF_CONFIDENCE, by name."""
    has_answers = _has_answers(first) and _has_answers(second)
    # The rows of both must be the same questions.
    pairs = [
        (one, other)
        for one, other in zip(first, second, strict=True)
        if _is_judged(one)
        and _is_judged(other)
        and (not has_answers or (_answerability(one) is not None and _answerability(other) is not None))
    ]
    a, b = (_signals(side, k, has_answers=has_answers) for side in ([one for one, _ in pairs], [other for _, other in pairs]))
    if a is None or b is None:
        return
    confidence, right = np.concatenate([a.confidence, b.confidence]), np.concatenate([a.right, b.right])
    answerable = np.concatenate([a.answerable, b.answerable])
    if not answerable.all():
        yield (
            "answerability_auc",
            statistic_difference(lambda rows: area_under_roc(confidence[rows], answerable[rows]), a.clusters, seed),
        )
    yield (
        "risk_coverage_area",
        statistic_difference(lambda rows: area_under_risk(confidence[rows], right[rows]), a.clusters, seed),
    )
    if has_answers and a.has_both:
        yield (
            "calibration_error",
            statistic_difference(lambda rows: calibration_error(confidence[rows], answerable[rows]), a.clusters, seed),
        )


def _has_answers(outcomes: Sequence[Outcome]) -> bool:
    return any(outcome.answer is not None for outcome in outcomes)


def _is_judged(outcome: Outcome) -> bool:
    return outcome.question.expected == "abstention" or _has_gold_to_find(outcome)


def _answerability(outcome: Outcome) -> float | None:
    """None where nothing was searched: the answer failed, or it was the fixed one of a rule."""
    answered = outcome.answer
    return None if answered is None or answered.provider == FIXED else answered.answerability


def _has_gold_to_find(outcome: Outcome) -> bool:
    return outcome.question.expected == "answer" and outcome.question.is_answerable


def _is_right(outcome: Outcome, k: int) -> bool:
    return bool({found.name for found in outcome.found[:k]} & outcome.question.best_gold)


def curve(confidence: Floats, right: Flags) -> list[Point]:
    """The points of the curve, from the most confidence to the least; questions of equal confidence are one step."""
    order = np.argsort(-confidence, kind="stable")
    values, wrong = confidence[order], np.cumsum(~right[order])
    last = np.flatnonzero(np.append(np.diff(values) != 0, True))
    return [Point(float(values[i]), (int(i) + 1) / len(order), float(wrong[i]) / (int(i) + 1)) for i in last]


def area_under_risk(confidence: Floats, right: Flags) -> float:
    """The mean risk over all coverages: 0 is perfect, and without any order it is the share of wrong ones.

    Source: the AURC of Geifman, Uziel and El-Yaniv 2019. Questions of equal confidence share their risk.
    """
    points = curve(confidence, right)
    coverages = np.diff([0.0, *(point.coverage for point in points)])
    return float(np.sum(coverages * [point.risk for point in points]))


def area_under_roc(confidence: Floats, answerable: Flags) -> float:
    """How often an answerable question has more confidence than another; NaN where all are of one kind."""
    positive, negative = confidence[answerable], confidence[~answerable]
    if len(positive) == 0 or len(negative) == 0:
        return float("nan")
    ranks = stats.rankdata(np.concatenate([positive, negative]))
    return float((ranks[: len(positive)].sum() / len(positive) - (len(positive) + 1) / 2) / len(negative))


def _at_work(signals: Signals) -> Point | None:
    answered = np.array([outcome.answer is not None and not outcome.answer.abstained for outcome in signals.outcomes])
    if not answered.any():
        return None
    return Point(float(signals.confidence[answered].min()), float(answered.mean()), float((~signals.right[answered]).mean()))
