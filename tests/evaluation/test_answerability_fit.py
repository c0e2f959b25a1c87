"""Fitting answerability: what it finds in made signals, and that it is not fooled by collections."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from app.answering.answerability import answerability
from app.answering.types import Signals
from corpus.errors import ArchivistError
from evaluation.answerability import Row, auc_within, fit_rows


def rows(count: int, *, lead_of_answer: float, lead_of_none: float, collection: str = "a", seed: int = 0) -> list[Row]:
    """As many questions with an answer as without; the lead tells them apart, the nearness is noise."""
    drawn = np.random.default_rng(seed)
    return [
        Row(
            collection,
            f"{collection}{number}",
            Signals(
                nearness=float(drawn.uniform(0.2, 0.8)),
                lead=float(drawn.normal(lead_of_answer if number % 2 else lead_of_none, 0.1)),
            ),
            bool(number % 2),
        )
        for number in range(count)
    ]


def test_it_finds_the_signal_that_tells_them_apart() -> None:
    """The lead weighs much, the noise next to nothing, and most others' answers are told apart."""
    fit = fit_rows(rows(200, lead_of_answer=0.7, lead_of_none=0.3))
    assert fit.weights.lead > 10 * abs(fit.weights.nearness)
    assert fit.auc is not None
    assert fit.auc > 0.97
    assert fit.by_signal["lead"] == pytest.approx(fit.auc, abs=0.03)
    assert fit.by_signal["nearness"] == pytest.approx(0.5, abs=0.15)
    assert answerability(Signals(nearness=0.5, lead=0.9), fit.weights) > 0.85
    assert answerability(Signals(nearness=0.5, lead=0.1), fit.weights) < 0.15


def test_noise_is_worth_nothing_on_other_conversations() -> None:
    """Cross-validated, what tells nothing apart has an area near one half, and its interval holds it."""
    fit = fit_rows(rows(200, lead_of_answer=0.5, lead_of_none=0.5))
    assert fit.auc is not None
    assert fit.auc_interval is not None
    assert fit.auc == pytest.approx(0.5, abs=0.1)
    assert fit.auc_interval[0] < 0.5 < fit.auc_interval[1]


def test_a_score_that_only_tells_collections_apart_is_worth_nothing() -> None:
    """All pairs of two collections are right by it, and none of them counts."""
    collections = np.array(["easy"] * 4 + ["hard"] * 4)
    answerable = np.array([True, True, True, False, False, False, False, True])
    assert auc_within(np.where(collections == "easy", 1.0, 0.0), answerable, collections) == 0.5


def test_pairs_of_all_collections_are_pooled() -> None:
    """Three pairs of one collection are right and the one of the other is wrong: three in four."""
    collections = np.array(["a", "a", "a", "a", "b", "b"])
    answerable = np.array([True, True, True, False, True, False])
    assert auc_within(np.array([0.9, 0.8, 0.7, 0.1, 0.2, 0.3]), answerable, collections) == 0.75


def test_hidden_gold_is_fitted_to_but_not_counted_among_the_unanswerable() -> None:
    """The sizes and the area of what was really asked leave it out; it has an area of its own."""
    real = rows(100, lead_of_answer=0.7, lead_of_none=0.3)
    hidden = [Row("a", f"a{n}", Signals(nearness=0.5, lead=0.8), expects_answer=False, hidden=True) for n in range(50)]
    fit = fit_rows([*real, *hidden])
    assert fit.sizes == {"answerable": 50, "unanswerable": 50, "underspecified": 0, "gold hidden": 50}
    assert fit.auc is not None
    assert fit.auc_hidden is not None
    assert fit.auc > 0.9 > 0.5 > fit.auc_hidden


def test_a_threshold_refuses_more_the_higher_it_is() -> None:
    """Both shares rise with the threshold, that of the unanswerable ahead; the underspecified are counted apart."""
    vague = [Row("a", f"v{n}", Signals(nearness=0.5, lead=0.0), expects_answer=None) for n in range(10)]
    fit = fit_rows([*rows(200, lead_of_answer=0.7, lead_of_none=0.3), *vague])
    rights = [point.right_abstention or 0.0 for point in fit.points]
    falses = [point.false_abstention or 0.0 for point in fit.points]
    assert rights == sorted(rights)
    assert falses == sorted(falses)
    assert rights[-1] > 0.9 > 0.1 > falses[-1]
    assert fit.points[-1].underspecified == 1.0


def test_without_a_question_that_has_none_there_is_nothing_to_fit() -> None:
    """A set of answerable questions alone is refused, with what is missing."""
    only = [row for row in rows(20, lead_of_answer=0.7, lead_of_none=0.3) if row.expects_answer]
    with pytest.raises(ArchivistError, match="none can be told"):
        fit_rows(only)


def test_hidden_gold_alone_has_an_operating_point_and_no_interval() -> None:
    """Where every question has an answer, what is refused of those with hidden gold is told; nothing is warned of."""
    made = rows(200, lead_of_answer=0.7, lead_of_none=0.3)
    fit = fit_rows([replace(row, expects_answer=bool(row.expects_answer), hidden=not row.expects_answer) for row in made])
    assert (fit.auc, fit.auc_interval) == (None, None)
    assert fit.auc_hidden is not None
    assert fit.auc_hidden > 0.97
    assert [point.right_abstention for point in fit.points] == [None] * len(fit.points)
    assert (fit.points[-1].hidden or 0.0) > 0.9
