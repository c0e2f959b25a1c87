"""Every metric there is: its name, what it means, and what each question gives to it.

A metric is a ratio of two sums over questions: a mean is the sum of values over the number of questions, precision the sum of
what was right over the sum of what was claimed. So each question gives two numbers; one that it does not concern gives 0, 0.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from app.answering.types import Answer
from app.llm.settings import FIXED
from corpus.errors import ConfigError
from evaluation.golden import Question
from evaluation.match import holds_any, is_exactly, token_f1
from evaluation.quality import Ranking, judge
from evaluation.run import Outcome

Section = Literal["retrieval", "answers", "citations", "abstention", "grounding", "latency", "tokens and cost"]
Unit = Literal["share", "ms", "tokens", "USD"]
Better = Literal["higher", "lower", "neither"]

Pairs = NDArray[np.float64]
"""Shapes: (questions, 2); what each question adds above and below the line."""

Value = tuple[float, float]
NOTHING: Value = (0.0, 0.0)

STAGES = ("history", "embed", "search", "rerank", "prompt", "first_token", "generate", "total")
PERCENTILES = (50, 95)
DEEPEST = 100
"""The largest depth that rankings are cut at."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric. `name` is how it is named on the command line, `title` how people see it."""

    name: str
    title: str
    section: Section
    means: str
    unit: Unit = "share"
    better: Better = "higher"

    def shown(self, value: float) -> str:
        """A value of it."""
        match self.unit:
            case "share":
                return f"{value:.3f}"
            case "ms":
                return f"{value:.1f} ms"
            case "tokens":
                return f"{value:.1f}"
            case "USD":
                return f"{value:.6g}"


_AT_K = (
    ("success", "right document found", "gold of the highest relevance is among the first {k} documents"),
    ("recall", "recall", "share of the gold documents that are among the first {k}"),
    ("ndcg", "nDCG", "how high the gold stands among the first {k}, the more relevant before the less (1 = ideal)"),
    ("mrr", "reciprocal rank", "1 over the place of the first gold document, 0 beyond {k}"),
    ("precision", "precision", "share of the first {k} documents that are gold"),
    ("f1", "F1", "harmonic mean of precision and recall over the first {k} documents"),
)
_OF_ANSWERS = (
    Metric("key_fact", "key fact in the answer", "answers", "an answer string of the golden set stands in the answer"),
    Metric("exact_match", "exact match", "answers", "the answer is one of the answer strings and nothing else"),
    Metric("token_f1", "token F1", "answers", "words shared by the answer and the answer string most like it"),
    Metric("citation_precision", "citation precision", "citations", "share of the cited documents that are gold"),
    Metric("citation_recall", "citation recall", "citations", "share of the gold of the highest relevance that is cited"),
    Metric("span_exact", "quotes are exact", "citations", "share of the quotes that stand in the document at their place"),
    Metric("span_correct", "quotes hold the key fact", "citations", "share of the quotes that are exact and hold a key fact"),
    Metric("span_hit", "a quote holds the key fact", "citations", "a quote of the answer is exact and holds a key fact"),
    Metric("abstention_precision", "abstention precision", "abstention", "share of the abstentions that were right"),
    Metric("abstention_recall", "abstention recall", "abstention", "share of the unanswerable questions that got no answer"),
    Metric("abstention_f1", "abstention F1", "abstention", "harmonic mean of abstention precision and recall"),
    Metric(
        "false_abstention", "false abstention", "abstention", "share of the answerable questions that got no answer",
        better="lower",
    ),
    Metric(
        "underspecified_abstention", "abstention, underspecified", "abstention",
        "share of the underspecified questions that got no answer", better="neither",
    ),
    Metric(
        "abstained", "no answer given", "abstention", "share of all questions that got no answer", better="neither",
    ),
    Metric("clarified", "asked back", "abstention", "share of all questions that got a question back", better="neither"),
    Metric(
        "newly_abstained", "no answer now, one then", "abstention",
        "share of the questions answered then that got no answer now", better="neither",
    ),
    Metric(
        "newly_answered", "an answer now, none then", "abstention",
        "share of the questions not answered then that got an answer now", better="neither",
    ),
    Metric(
        "answerability", "answerability, mean", "abstention",
        "how likely the passages answer, as the service itself estimates", better="neither",
    ),
    Metric("supported_share", "supported sentences", "grounding", "share of an answer's sentences that its passages support"),
    Metric("prompt_tokens", "prompt tokens", "tokens and cost", "per question", "tokens", "lower"),
    Metric("completion_tokens", "completion tokens", "tokens and cost", "per question", "tokens", "lower"),
    Metric("cost_usd", "cost", "tokens and cost", "US dollars per question, where the price is known", "USD", "lower"),
)  # fmt: skip
OF_CONFIDENCE = (
    Metric(
        "answerability_auc", "answerable from unanswerable", "abstention",
        "how often an answerable question has more confidence than an unanswerable one (.5 = chance)",
    ),
    Metric(
        "risk_coverage_area", "area under risk–coverage", "abstention",
        "share of questions without the right document, over all thresholds of confidence", better="lower",
    ),
    Metric(
        "calibration_error", "calibration error", "abstention",
        "how far answerability is from the share that is answerable, over ten bins of equal width", better="lower",
    ),
)  # fmt: skip


def retrieval_metrics(ks: Iterable[int]) -> list[Metric]:
    """The metrics of rankings at each depth."""
    return [
        Metric(f"{name}@{k}", f"{title}, first {k}", "retrieval", means.format(k=k)) for k in ks for name, title, means in _AT_K
    ]


def latency_metric(stage: str, percent: int) -> Metric:
    """The metric of a stage's time."""
    part = {50: "median", 95: "95th percentile"}[percent]
    return Metric(f"{stage}_p{percent}_ms", f"{stage}, {part}", "latency", "milliseconds a question", "ms", "lower")


def depths_asked(names: Iterable[str]) -> list[int]:
    """The depths that metrics such as `recall@10` name."""
    return sorted({int(found.group(1)) for name in names if (found := re.search(r"@([1-9]\d?|100)$", name))})


def check_names(names: Iterable[str], *, has_answers: bool) -> None:
    """Whether each is a metric that a least value can be asked of. Raises: ConfigError that lists the known ones."""
    higher = [m.name for m in (*_OF_ANSWERS, *OF_CONFIDENCE) if m.better == "higher"]
    at_k = [name for name, _, _ in _AT_K]
    for name in names:
        base, _, _depth = name.partition("@")
        if base in at_k and depths_asked([name]):
            continue
        if name not in higher:
            known = ", ".join([*(f"{base}@K" for base in at_k), *higher])
            raise ConfigError(
                f"--min {name!r} is not a metric of which more is better (K is a depth of 1 to {DEEPEST}); known: {known}"
            )
        if not has_answers and name in {metric.name for metric in _OF_ANSWERS}:
            raise ConfigError(f"--min {name!r} needs answers; leave --retrieval-only out")


def observe(outcomes: Sequence[Outcome], ks: Sequence[int], *, has_answers: bool) -> dict[Metric, Pairs]:
    """What each question gives to each metric. Order: rows as the outcomes."""
    observed = _rankings(outcomes, ks)
    if has_answers:
        for metric in _OF_ANSWERS:
            observed[metric] = np.array([_GIVES[metric.name](outcome) for outcome in outcomes], dtype=np.float64).reshape(-1, 2)
    return observed


def _rankings(outcomes: Sequence[Outcome], ks: Sequence[int]) -> dict[Metric, Pairs]:
    """ir-measures' values. Success asks for gold of the highest relevance, the others take all of it."""
    measured: dict[str, Mapping[str, float]] = {}
    for k in ks:
        cut = [Ranking(o.question, tuple(found.name for found in o.found[:k])) for o in outcomes]
        found = judge(cut, [f"nDCG@{k}", f"R@{k}", f"RR@{k}", f"P@{k}", "SetF"])
        ids = ("ndcg", "recall", "mrr", "precision", "f1")
        measured |= {f"{name}@{k}": values for name, values in zip(ids, found.values(), strict=True)}
        best = [replace(ranking, question=_with_best_gold_alone(ranking.question)) for ranking in cut]
        measured[f"success@{k}"] = judge(best, [f"Success@{k}"])[f"Success@{k}"]
    return {
        metric: np.array(
            [(measured[metric.name][o.question.id], 1.0) if o.question.is_answerable else NOTHING for o in outcomes],
            dtype=np.float64,
        ).reshape(-1, 2)
        for metric in retrieval_metrics(ks)
    }


def _with_best_gold_alone(question: Question) -> Question:
    return replace(question, gold=dict.fromkeys(question.best_gold, 1))


def _judged_abstention(outcome: Outcome) -> tuple[bool, bool] | None:
    """Whether it abstained and whether it should have; None where there is no answer, or either would do."""
    if outcome.answer is None or outcome.question.expected == "either":
        return None
    return outcome.answer.abstained, outcome.question.expected == "abstention"


def _abstention(outcome: Outcome, above: Callable[[bool, bool], float], below: Callable[[bool, bool], float]) -> Value:
    judged = _judged_abstention(outcome)
    return NOTHING if judged is None else (float(above(*judged)), float(below(*judged)))


def _text(outcome: Outcome, score: Callable[[str, Sequence[str]], float]) -> Value:
    """An answer that was not given holds nothing."""
    question = outcome.question
    if question.expected == "abstention" or not question.answers:
        return NOTHING
    given = outcome.answer is not None and not outcome.answer.abstained
    return (float(score(outcome.answer.answer, question.answers)) if given and outcome.answer is not None else 0.0), 1.0


def _has_citations_to_judge(outcome: Outcome) -> bool:
    return outcome.answer is not None and not outcome.answer.abstained and outcome.question.is_answerable


def _citation_precision(outcome: Outcome) -> Value:
    names = {cited.name for cited in outcome.cited}
    if not _has_citations_to_judge(outcome) or not names:
        return NOTHING
    return len(names & set(outcome.question.gold)) / len(names), 1.0


def _citation_recall(outcome: Outcome) -> Value:
    if not _has_citations_to_judge(outcome):
        return NOTHING
    best = outcome.question.best_gold
    return len({cited.name for cited in outcome.cited} & best) / len(best), 1.0


def _span_exact(outcome: Outcome) -> Value:
    return float(sum(cited.is_exact for cited in outcome.cited)), float(len(outcome.cited))


def _correct_spans(outcome: Outcome) -> list[bool] | None:
    if not _has_citations_to_judge(outcome) or not outcome.question.answers:
        return None
    return [cited.is_exact and holds_any(cited.quote, outcome.question.answers) for cited in outcome.cited]


def _span_correct(outcome: Outcome) -> Value:
    spans = _correct_spans(outcome)
    return NOTHING if spans is None else (float(sum(spans)), float(len(spans)))


def _span_hit(outcome: Outcome) -> Value:
    spans = _correct_spans(outcome)
    return NOTHING if spans is None else (float(any(spans)), 1.0)


def _underspecified(outcome: Outcome) -> Value:
    if outcome.answer is None or outcome.question.answerability != "UNDERSPECIFIED":
        return NOTHING
    return float(outcome.answer.abstained), 1.0


def _of_all(outcome: Outcome, value: Callable[[Answer], float]) -> Value:
    """Every answer counts; but for the fixed one of a rule, for which nothing was searched."""
    if outcome.answer is None or outcome.answer.provider == FIXED:
        return NOTHING
    return float(value(outcome.answer)), 1.0


def _unlike_then(outcome: Outcome, *, abstained_then: bool) -> Value:
    then = outcome.question.then
    if outcome.answer is None or then is None or then.abstained is not abstained_then:
        return NOTHING
    return float(outcome.answer.abstained is not abstained_then), 1.0


def _supported(outcome: Outcome) -> Value:
    """An abstention states nothing that could be supported."""
    answered = outcome.answer
    return NOTHING if answered is None or answered.abstained else (answered.grounding.supported_share, 1.0)


def _cost(outcome: Outcome) -> Value:
    cost = outcome.answer.usage.cost_usd if outcome.answer is not None else None
    return NOTHING if cost is None else (cost, 1.0)


def _tokens(outcome: Outcome, kind: Literal["prompt", "completion"]) -> Value:
    if outcome.answer is None:
        return NOTHING
    usage = outcome.answer.usage
    return float(usage.prompt_tokens if kind == "prompt" else usage.completion_tokens), 1.0


_GIVES: dict[str, Callable[[Outcome], Value]] = {
    "key_fact": lambda o: _text(o, holds_any),
    "exact_match": lambda o: _text(o, is_exactly),
    "token_f1": lambda o: _text(o, token_f1),
    "citation_precision": _citation_precision,
    "citation_recall": _citation_recall,
    "span_exact": _span_exact,
    "span_correct": _span_correct,
    "span_hit": _span_hit,
    "abstention_precision": lambda o: _abstention(o, lambda did, right: did and right, lambda did, right: did),
    "abstention_recall": lambda o: _abstention(o, lambda did, right: did and right, lambda did, right: right),
    "abstention_f1": lambda o: _abstention(o, lambda did, right: 2 * (did and right), lambda did, right: did + right),
    "false_abstention": lambda o: _abstention(o, lambda did, right: did and not right, lambda did, right: not right),
    "underspecified_abstention": _underspecified,
    "abstained": lambda o: _of_all(o, lambda answer: answer.abstained),
    "clarified": lambda o: _of_all(o, lambda answer: answer.clarifies),
    "newly_abstained": lambda o: _unlike_then(o, abstained_then=False),
    "newly_answered": lambda o: _unlike_then(o, abstained_then=True),
    "answerability": lambda o: _of_all(o, lambda answer: answer.answerability),
    "supported_share": _supported,
    "prompt_tokens": lambda o: _tokens(o, "prompt"),
    "completion_tokens": lambda o: _tokens(o, "completion"),
    "cost_usd": _cost,
}
