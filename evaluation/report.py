"""What a run measured: every metric with its interval, overall and by group, and what machines read of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from evaluation.calibration import Calibration
from evaluation.conversations import as_then
from evaluation.intervals import Interval, clusters_of, interval, percentile_interval, ratio
from evaluation.metrics import OF_CONFIDENCE, PERCENTILES, STAGES, Metric, Pairs, Section, latency_metric, observe
from evaluation.risk import RiskCurve, risk_curve
from evaluation.run import TOTAL, Outcome, Run

SCHEMA = 1
"""The version of the JSON; it changes where a reader of the one before would be wrong."""

GOLD, THEN = "gold", "as answered then"
"""What the questions are held against: a golden set, or the documents that stored answers cited."""


@dataclass(frozen=True, slots=True)
class About:
    """What was measured, and how. `golden` says where the questions are from, `name` is the configuration's or snapshot's."""

    golden: str
    name: str
    seed: int
    ks: tuple[int, ...]
    created_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))


@dataclass(frozen=True, slots=True)
class Value:
    """A metric's value over `questions` of them."""

    value: float
    interval: Interval | None
    questions: int

    def as_json(self) -> dict[str, Any]:
        """The value for machines."""
        return {
            "value": round(self.value, 8),
            "interval_95": [round(end, 8) for end in self.interval] if self.interval else None,
            "questions": self.questions,
        }


@dataclass(frozen=True, slots=True)
class Group:
    """The questions that have something in common: `name` of `dimension`."""

    dimension: str
    name: str
    questions: int
    values: Mapping[Metric, Value]


@dataclass(frozen=True, slots=True)
class Report:
    """A run, measured. `observed` and `times` are what each question gave, for a comparison with another run."""

    about: About
    run: Run
    values: Mapping[Metric, Value]
    groups: tuple[Group, ...]
    risk: RiskCurve | None
    observed: Mapping[Metric, Pairs]
    times: Mapping[str, NDArray[np.float64]]

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """What came of each question."""
        return self.run.outcomes

    @property
    def is_replay(self) -> bool:
        """Whether the questions are those of stored conversations: the reference is what was answered, not what is true."""
        return any(outcome.question.then is not None for outcome in self.outcomes)

    @property
    def drafted(self) -> int:
        """Questions that nobody has looked at yet."""
        return sum(outcome.question.drafted for outcome in self.outcomes)

    @property
    def providers(self) -> dict[str, int]:
        """How many answers each provider gave."""
        return dict(Counter(outcome.answer.provider for outcome in self.outcomes if outcome.answer is not None))

    def value(self, name: str) -> Value | None:
        """The value of a metric by its name; None where nothing was measured."""
        return next((value for metric, value in self.values.items() if metric.name == name), None)

    def as_json(self) -> dict[str, Any]:
        """The report for machines.

        schema; created_at; golden, reference (GOLD or THEN), config_or_snapshot, snapshot, embedder, documents, seed, k[];
        questions, drafted, providers{name: answers}, failures{question id: why}, gold_not_found{question id: [names]};
        metrics{name: {value, interval_95 [low, high] or null, questions, unit, better, means}};
        groups{dimension: {name: {questions, metrics{name: {value, interval_95, questions}}}}};
        risk_coverage {confidence, area, auc, at_work, points [{confidence, coverage, risk}], calibration {error, interval_95,
        questions, bins [{low, high, questions, answerability, answerable_share, interval}]} or null} or null;
        rows[{id, question, kind, language, collection, conversation, answerability, drafted, then {abstained, cited[source]} or
        null, found[{name, source}], nearness, answer, abstained, clarifies, estimated_answerability, signals{name: value},
        provider, cited[{name, quote, is_exact}], timings_ms, metrics{name: value}}].
        A metric that was not measured is left out. Units: milliseconds, US dollars; shares are 0..1.
        """
        run = self.run
        return {
            "schema": SCHEMA,
            "created_at": self.about.created_at,
            "golden": self.about.golden,
            "reference": THEN if self.is_replay else GOLD,
            "config_or_snapshot": self.about.name,
            "snapshot": run.snapshot,
            "embedder": run.model,
            "documents": run.documents,
            "seed": self.about.seed,
            "k": list(self.about.ks),
            "questions": len(self.outcomes),
            "drafted": self.drafted,
            "providers": self.providers,
            "failures": {outcome.question.id: outcome.failure for outcome in self.outcomes if outcome.failure},
            "gold_not_found": {name: list(lost) for name, lost in run.missing.items()},
            "metrics": {
                metric.name: {**value.as_json(), "unit": metric.unit, "better": metric.better, "means": metric.means}
                for metric, value in self.values.items()
            },
            "groups": self._groups_as_json(),
            "risk_coverage": None if self.risk is None else _risk_as_json(self.risk),
            "rows": [self._row(number) for number in range(len(self.outcomes))],
        }

    def _groups_as_json(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for group in self.groups:
            metrics = {metric.name: value.as_json() for metric, value in group.values.items()}
            found.setdefault(group.dimension, {})[group.name] = {"questions": group.questions, "metrics": metrics}
        return found

    def _row(self, number: int) -> dict[str, Any]:
        outcome = self.outcomes[number]
        question, answered = outcome.question, outcome.answer
        return {
            "id": question.id,
            "question": question.question,
            "kind": question.kind,
            "language": outcome.language,
            "collection": outcome.collection,
            "conversation": question.cluster,
            "answerability": question.answerability,
            "drafted": question.drafted,
            "then": None
            if question.then is None
            else {"abstained": question.then.abstained, "cited": list(question.then.cited)},
            "found": [asdict(found) for found in outcome.found[: max(self.about.ks)]],
            "nearness": round(outcome.nearness, 4),
            "answer": answered.answer if answered is not None else None,
            "abstained": answered.abstained if answered is not None else None,
            "clarifies": answered.clarifies if answered is not None else None,
            "estimated_answerability": answered.answerability if answered is not None else None,
            "signals": asdict(answered.signals) if answered is not None else {},
            "provider": answered.provider if answered is not None else None,
            "cited": [asdict(cited) for cited in outcome.cited],
            "timings_ms": dict(outcome.timings_ms),
            "metrics": {
                metric.name: round(float(pairs[number, 0] / pairs[number, 1]), 8)
                for metric, pairs in self.observed.items()
                if pairs[number, 1]
            },
        }


def _risk_as_json(risk: RiskCurve) -> dict[str, Any]:
    return {
        "confidence": risk.confidence,
        "area": round(risk.area, 8),
        "auc": risk.auc,
        "at_work": asdict(risk.at_work) if risk.at_work is not None else None,
        "points": [asdict(point) for point in risk.points],
        "calibration": None if risk.calibration is None else _calibration_as_json(risk.calibration),
    }


def _calibration_as_json(found: Calibration) -> dict[str, Any]:
    return {
        "error": round(found.error, 8),
        "interval_95": [round(end, 8) for end in found.error_interval] if found.error_interval else None,
        "questions": found.questions,
        "bins": [asdict(each) for each in found.bins],
    }


def report_of(run: Run, about: About) -> Report:
    """Measure a run."""
    observed = observe(run.outcomes, about.ks, has_answers=run.has_answers)
    if any(outcome.question.then is not None for outcome in run.outcomes):
        observed = {as_then(metric): pairs for metric, pairs in observed.items()}
    times = _times(run.outcomes)
    risk = risk_curve(run.outcomes, about.ks[0], about.seed)
    clusters = clusters_of([outcome.question.cluster for outcome in run.outcomes])
    found = _values(observed, clusters, about.seed) | _values_of_risk(risk) | _values_of_times(times, about.seed)
    values = {metric: value for section in get_args(Section) for metric, value in found.items() if metric.section == section}
    groups = tuple(_groups(run.outcomes, observed, times, about.seed))
    return Report(about, run, values, groups, risk, observed, times)


def _values(observed: Mapping[Metric, Pairs], clusters: NDArray[np.int64], seed: int) -> dict[Metric, Value]:
    found = {}
    for metric, pairs in observed.items():
        value = ratio(pairs)
        if value is not None:
            ends = interval(pairs, clusters, is_share=metric.unit == "share", seed=seed)
            found[metric] = Value(value, ends, int(np.count_nonzero(pairs[:, 1])))
    return found


def _values_of_risk(risk: RiskCurve | None) -> dict[Metric, Value]:
    if risk is None:
        return {}
    auc, area, error = OF_CONFIDENCE
    found = {}
    if risk.auc is not None:
        found[auc] = Value(risk.auc, risk.auc_interval, risk.questions)
    found[area] = Value(risk.area, risk.area_interval, risk.questions)
    if risk.calibration is not None:
        found[error] = Value(risk.calibration.error, risk.calibration.error_interval, risk.calibration.questions)
    return found


def _times(outcomes: Sequence[Outcome]) -> dict[str, NDArray[np.float64]]:
    """Each stage's times; NaN where a question did not come to it. Shapes: (questions,). Units: milliseconds."""
    rows = {stage: np.array([o.timings_ms.get(stage, np.nan) for o in outcomes], dtype=np.float64) for stage in STAGES}
    return {stage: times for stage, times in rows.items() if not np.isnan(times).all()}


def _values_of_times(times: Mapping[str, NDArray[np.float64]], seed: int, only: str | None = None) -> dict[Metric, Value]:
    found = {}
    for stage, measured in times.items():
        known = measured[~np.isnan(measured)]
        if len(known) == 0 or only not in (None, stage):
            continue
        for percent in PERCENTILES:
            value = float(np.percentile(known, percent))
            found[latency_metric(stage, percent)] = Value(value, percentile_interval(known, percent, seed), len(known))
    return found


def _groups(
    outcomes: Sequence[Outcome], observed: Mapping[Metric, Pairs], times: Mapping[str, NDArray[np.float64]], seed: int
) -> list[Group]:
    """The groups of each dimension in which the questions differ."""
    found = []
    for dimension, names in dimensions(outcomes).items():
        counted = Counter(name for name in names if name)
        if len(counted) < 2:
            continue
        for name, count in sorted(counted.items(), key=lambda item: (-item[1], item[0])):
            rows = np.array([i for i, own in enumerate(names) if own == name])
            clusters = clusters_of([outcomes[i].question.cluster for i in rows])
            values = _values({metric: pairs[rows] for metric, pairs in observed.items()}, clusters, seed)
            values |= _values_of_times({stage: measured[rows] for stage, measured in times.items()}, seed, only=TOTAL)
            found.append(Group(dimension, name, count, values))
    return found


def dimensions(outcomes: Sequence[Outcome]) -> dict[str, list[str]]:
    """What the questions are grouped by: for each dimension the group of each question, empty where it is in none."""
    return {
        "turn": ["follow-up" if outcome.question.history else "first turn" for outcome in outcomes],
        "type": [outcome.question.kind for outcome in outcomes],
        "language": [outcome.language for outcome in outcomes],
        "collection": [outcome.collection for outcome in outcomes],
    }
