"""Fits answerability to questions whose answers are known: what the signals are worth, and what a threshold does.

Beside the questions as they are, each that has gold is asked once more with its gold hidden: then nothing answers it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from app.answering.history import understand
from app.answering.retrieve import find, held_codes, rarity
from app.answering.signals import DEPTH, signals
from app.answering.types import Signals
from app.services import Services
from app.settings import AnswerabilityWeights
from app.snapshots import Leased
from corpus.errors import ArchivistError
from corpus.search import Scope
from corpus.types import Hit
from evaluation.golden import Question
from evaluation.intervals import Interval, clusters_of, statistic_interval

FEATURES = ("lead", "nearness")
FOLDS = 5
PASSAGES = 8
"""Of a prompt, as a caller gets them who says nothing else."""
PENALTY = 0.002
"""Of a squared weight of a standardised signal, beside the mean log loss: it keeps weights finite where all is told apart."""

FEW = 50
"""Rows with an answer, or without, below which weights are a matter of luck: a warning is told."""

THRESHOLDS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5)

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Row:
    """A question with its signals. `expects_answer` is None where it is underspecified; `hidden` where its gold was hidden."""

    collection: str
    conversation: str
    signals: Signals
    expects_answer: bool | None
    hidden: bool = False


@dataclass(frozen=True, slots=True)
class Point:
    """A threshold: what it refuses of those with an answer, of those without, of the underspecified, and of hidden gold."""

    threshold: float
    false_abstention: float | None
    right_abstention: float | None
    underspecified: float | None
    hidden: float | None


@dataclass(frozen=True, slots=True)
class Fit:
    """Weights fitted to all rows, and what others' weights make of each: fitted without its conversation.

    `auc` counts pairs of one collection, of questions as they were asked; `by_signal` is that of each signal by itself.
    """

    weights: AnswerabilityWeights
    auc: float | None
    auc_interval: Interval | None
    auc_hidden: float | None
    by_signal: Mapping[str, float | None]
    points: tuple[Point, ...]
    sizes: Mapping[str, int]


async def measure(
    services: Services, questions: Sequence[Question], collection: str, tell: Callable[[int], None] = lambda done: None
) -> list[Row]:
    """The signals of each question, and of each that has gold once more with its gold hidden.

    Raises: NoSnapshot and its kin.
    """
    rows: list[Row] = []
    with services.snapshots.lease() as leased:
        for number, question in enumerate(questions, start=1):
            rows += await _measure_one(services, leased, question, collection)
            tell(number)
    return rows


async def _measure_one(services: Services, leased: Leased, question: Question, name: str) -> list[Row]:
    scope = Scope(question.groups or services.settings.server.groups)
    history = services.settings.history
    standalone = understand(question.question, question.history, history.turns if history.strategy != "last_turn" else 0)
    hits = await find(services, leased, scope, standalone, DEPTH + len(question.gold), {})
    others = tuple(h for h in hits if not {h.passage.document_id, h.passage.source} & question.gold.keys())
    held = held_codes(leased.snapshot, scope, question.question)

    def row(found: Sequence[Hit], expects: bool | None, *, hidden: bool) -> Row:
        passages = tuple(hit.passage for hit in found[:PASSAGES])
        weights = rarity(leased.snapshot, scope, standalone.question, passages)
        measured = signals(question.question, standalone.question, found[:DEPTH], passages, weights, () if hidden else held)
        where = f"{name}/{question.collection}" if question.collection else name
        return Row(where, f"{name}/{question.cluster}", measured, expects, hidden)

    expects = {"answer": True, "abstention": False, "either": None}[question.expected]
    rows = [row(hits, expects, hidden=False)]
    if expects and len(others) < len(hits):
        rows.append(row(others, expects=False, hidden=True))
    return rows


def fit_rows(rows: Sequence[Row], seed: int = 0) -> Fit:
    """Fit, and say what it is worth on conversations that it was not fitted to.

    Raises: ArchivistError where there is nothing to tell apart.
    """
    asked = [row for row in rows if row.expects_answer is not None]
    features = np.array([[getattr(row.signals, name) for name in FEATURES] for row in rows]).reshape(-1, len(FEATURES))
    known = np.array([row.expects_answer is not None for row in rows], dtype=np.bool_)
    answerable = np.array([row.expects_answer is True for row in rows], dtype=np.bool_)
    hidden = np.array([row.hidden for row in rows], dtype=np.bool_)
    collections = np.array([row.collection for row in rows])
    if not answerable.any() or all(row.expects_answer for row in asked):
        raise ArchivistError("to fit answerability, some questions must have gold, or none can be told from those without")
    share = _shares(rows)
    fitted = _logistic_fit(features[known], answerable[known], share[known])
    clusters = clusters_of([row.conversation for row in rows])
    fold = np.random.default_rng(seed).permutation(int(clusters.max()) + 1)[clusters] % FOLDS
    probability = np.empty(len(rows))
    for number in range(FOLDS):
        inside, outside = fold == number, known & (fold != number)
        has_both = answerable[outside].any() and not answerable[outside].all()
        used = _logistic_fit(features[outside], answerable[outside], share[outside]) if has_both else fitted
        probability[inside] = special.expit(used[0] + features[inside] @ used[1:])
    real = known & ~hidden

    def auc(scores: Floats, chosen: Flags) -> float | None:
        found = auc_within(scores[chosen], answerable[chosen], collections[chosen])
        return None if np.isnan(found) else found

    places = np.flatnonzero(real)
    return Fit(
        weights=AnswerabilityWeights(
            intercept=round(float(fitted[0]), 2), **{n: round(float(w), 2) for n, w in zip(FEATURES, fitted[1:], strict=True)}
        ),
        auc=auc(probability, real),
        # Without a pair there is nothing to draw anew.
        auc_interval=None if auc(probability, real) is None else statistic_interval(
            lambda drawn: auc_within(
                probability[places[drawn]], answerable[places[drawn]], collections[places[drawn]]
            ),
            clusters[places],
            seed,
        ),
        auc_hidden=auc(probability, known & (answerable | hidden)),
        by_signal={name: auc(features[:, place], real) for place, name in enumerate(FEATURES)},
        points=tuple(_point(threshold, probability, real, answerable, ~known, hidden) for threshold in THRESHOLDS),
        sizes={
            "answerable": int((real & answerable).sum()), "unanswerable": int((real & ~answerable).sum()),
            "underspecified": int((~known).sum()), "gold hidden": int(hidden.sum()),
        },
    )  # fmt: skip


def auc_within(scores: Floats, answerable: Flags, collections: NDArray[np.str_]) -> float:
    """How often an answerable question scores higher than an unanswerable one of its own collection; NaN without a pair.

    A score that only tells collections apart gets .5: pairs of two collections do not count.
    """
    right, pairs = 0.0, 0
    for collection in np.unique(collections):
        here = collections == collection
        yes, no = scores[here & answerable][:, np.newaxis], scores[here & ~answerable]
        right += float((yes > no).sum() + 0.5 * (yes == no).sum())
        pairs += yes.size * no.size
    return right / pairs if pairs else float("nan")


def _shares(rows: Sequence[Row]) -> Floats:
    """How much each row counts: answerable and not as much together, in each of them every collection and way as much."""
    kinds = [(row.expects_answer, row.collection, row.hidden) for row in rows]
    count = {kind: kinds.count(kind) for kind in set(kinds)}
    of_class = {answer: sum(kind[0] is answer for kind in count) for answer in (True, False, None)}
    return np.array([1 / (count[kind] * of_class[kind[0]]) for kind in kinds])


def _logistic_fit(features: Floats, answerable: Flags, share: Floats) -> Floats:
    """Intercept and weights of the greatest likelihood, with a small penalty on standardised weights."""
    mean, spread = features.mean(axis=0), np.maximum(features.std(axis=0), 1e-9)
    scaled = np.column_stack([np.ones(len(features)), (features - mean) / spread])
    sign, part = np.where(answerable, 1.0, -1.0), share / share.sum()

    def loss(weights: Floats) -> tuple[float, Floats]:
        margin = sign * (scaled @ weights)
        slope = -(part * sign * special.expit(-margin)) @ scaled
        penalty = PENALTY * np.array([0.0, *weights[1:]])
        return float(part @ np.logaddexp(0, -margin) + penalty @ weights / 2), slope + penalty

    found = optimize.minimize(loss, np.zeros(scaled.shape[1]), jac=True, method="L-BFGS-B").x
    own = found[1:] / spread
    return np.array([found[0] - own @ mean, *own])


def _point(
    threshold: float, probability: Floats, real: Flags, answerable: Flags, underspecified: Flags, hidden: Flags
) -> Point:
    def share(chosen: Flags) -> float | None:
        return float((probability[chosen] < threshold).mean()) if chosen.any() else None

    return Point(threshold, share(real & answerable), share(real & ~answerable), share(underspecified), share(hidden))
