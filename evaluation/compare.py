"""Two runs over the same questions: what changed, whether that can be chance, and which questions changed sides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np

from evaluation.golden import GoldenError
from evaluation.intervals import Difference, clusters_of, difference, percentile_difference
from evaluation.metrics import OF_CONFIDENCE, PERCENTILES, Metric, Section, latency_metric
from evaluation.report import SCHEMA, Report
from evaluation.risk import risk_differences
from evaluation.run import Outcome

SURE = 0.05
"""A smaller p-value is called a change."""


@dataclass(frozen=True, slots=True)
class Change:
    """A metric in both runs. `difference` is the second less the first."""

    metric: Metric
    first: float
    second: float
    difference: Difference
    questions: int

    @property
    def verdict(self) -> Literal["better", "worse", "changed", "no change shown"]:
        """What the paired test says. Of many metrics one in twenty is called changed by chance."""
        p_value, value = self.difference.p_value, self.difference.value
        if p_value is None or p_value >= SURE or value == 0:
            return "no change shown"
        if self.metric.better == "neither":
            return "changed"
        return "better" if (value > 0) == (self.metric.better == "higher") else "worse"


@dataclass(frozen=True, slots=True)
class Flip:
    """A question that one run got right and the other did not, in one respect."""

    question_id: str
    question: str
    respect: str
    won: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """Both reports, and what lies between them."""

    first: Report
    second: Report
    changes: tuple[Change, ...]
    flips: tuple[Flip, ...]

    def as_json(self) -> dict[str, Any]:
        """For machines.

        schema; a and b, each as Report.as_json; changes{metric: {a, b, difference, interval_95, p_value, questions, verdict}};
        flips[{question_id, question, respect, won}] where `won` means that b is right and a was not.
        """
        return {
            "schema": SCHEMA,
            "a": self.first.as_json(),
            "b": self.second.as_json(),
            "changes": {change.metric.name: _as_json(change) for change in self.changes},
            "flips": [asdict(flip) for flip in self.flips],
        }


def _as_json(change: Change) -> dict[str, Any]:
    found = change.difference
    return {
        "a": round(change.first, 8),
        "b": round(change.second, 8),
        "difference": round(found.value, 8),
        "interval_95": [round(end, 8) for end in found.interval] if found.interval else None,
        "p_value": found.p_value,
        "questions": change.questions,
        "verdict": change.verdict,
    }


def compare(first: Report, second: Report) -> Comparison:
    """What lies between two runs. Raises: GoldenError where they are not over the same questions."""
    if [o.question.id for o in first.outcomes] != [o.question.id for o in second.outcomes]:
        raise GoldenError("the two runs are not over the same questions; give both the same golden set and --limit")
    found = [*_changes(first, second), *_changes_of_risk(first, second), *_changes_of_times(first, second)]
    sections = get_args(Section)
    changes = sorted(found, key=lambda change: sections.index(change.metric.section))
    return Comparison(first, second, tuple(changes), tuple(_flips(first, second)))


def _changes(first: Report, second: Report) -> Iterator[Change]:
    clusters = clusters_of([outcome.question.cluster for outcome in first.outcomes])
    for metric, pairs in first.observed.items():
        other = second.observed.get(metric)
        found = None if other is None else difference(pairs, other, clusters, first.about.seed)
        if other is not None and found is not None:
            concerned = int(np.count_nonzero((pairs[:, 1] > 0) | (other[:, 1] > 0)))
            yield Change(metric, first.values[metric].value, second.values[metric].value, found, concerned)


def _changes_of_risk(first: Report, second: Report) -> Iterator[Change]:
    differences = dict(risk_differences(first.outcomes, second.outcomes, first.about.ks[0], first.about.seed))
    for metric in OF_CONFIDENCE:
        if metric.name in differences:
            a, b = first.values[metric], second.values[metric]
            yield Change(metric, a.value, b.value, differences[metric.name], a.questions)


def _changes_of_times(first: Report, second: Report) -> Iterator[Change]:
    for stage, a in first.times.items():
        b = second.times.get(stage)
        if b is None:
            continue
        both = ~np.isnan(a) & ~np.isnan(b)
        if not both.any():
            continue
        for percent in PERCENTILES:
            found = percentile_difference(a[both], b[both], percent, first.about.seed)
            before, after = (float(np.percentile(times[both], percent)) for times in (a, b))
            yield Change(latency_metric(stage, percent), before, after, found, int(both.sum()))


def _flips(first: Report, second: Report) -> Iterator[Flip]:
    before, after = _rights(first), _rights(second)
    for respect in (name for name in before if name in after):
        for number, outcome in enumerate(first.outcomes):
            was, now = before[respect][number], after[respect][number]
            if was is not None and now is not None and was != now:
                yield Flip(outcome.question.id, outcome.question.question, respect, now)


def _rights(report: Report) -> Mapping[str, list[bool | None]]:
    """For each respect in which a question is right or wrong: whether it is; None where it is not concerned."""
    found: dict[str, list[bool | None]] = {}
    for metric, pairs in report.observed.items():
        if metric.name == f"success@{report.about.ks[0]}" or metric.name == "key_fact":
            found[metric.title] = [bool(above) if below else None for above, below in pairs]
    if report.run.has_answers:
        found["answers when it should, and only then"] = [
            None
            if outcome.answer is None or outcome.question.expected == "either"
            else outcome.answer.abstained == (outcome.question.expected == "abstention")
            for outcome in report.outcomes
        ]
        found["has an answer or none, as it did then"] = [_as_then(outcome) for outcome in report.outcomes]
    return found


def _as_then(outcome: Outcome) -> bool | None:
    then = outcome.question.then
    if outcome.answer is None or then is None or then.abstained is None:
        return None
    return outcome.answer.abstained == then.abstained
