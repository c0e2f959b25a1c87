"""What each question gives to each metric, against values computed by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from app.llm.backend import Usage
from corpus.errors import ConfigError
from evaluation.golden import AS_ANSWERED_THEN, Question, Then
from evaluation.metrics import check_names, depths_asked
from evaluation.run import Cited
from tests.evaluation.outcomes import answer, outcome, report

GRADED = Question("graded", "?", gold={"a": 2, "b": 1}, answers=("in the yard",))
PLAIN = Question("plain", "?", gold={"c": 1}, answers=("30 days",))
NONE = Question("none", "?", answerability="UNANSWERABLE")
VAGUE = Question("vague", "?", answerability="UNDERSPECIFIED", gold={"a": 1})


def measured(*outcomes: object, has_answers: bool = True) -> dict[str, float]:
    """The values of a report, by the metrics' names."""
    return {m.name: v.value for m, v in report(outcomes, has_answers=has_answers).values.items()}  # type: ignore[arg-type]


def test_retrieval_is_that_of_the_definitions() -> None:
    """Gold at ranks 2 and 3, and at rank 1; what is unanswerable has no part in it."""
    found = measured(outcome(GRADED, "x", "a", "b", "y", "z"), outcome(PLAIN, "c"), outcome(NONE, "a"), has_answers=False)
    ndcg = (2 / math.log2(3) + 1 / math.log2(4)) / (2 / math.log2(2) + 1 / math.log2(3))
    assert found["ndcg@5"] == pytest.approx((ndcg + 1) / 2)
    assert found["recall@5"] == 1.0
    assert found["mrr@5"] == pytest.approx((1 / 2 + 1) / 2)
    assert found["precision@5"] == pytest.approx((2 / 5 + 1 / 5) / 2)
    # Of what was found: 2 of 5 with recall 1, and 1 of 1 with recall 1.
    assert found["f1@5"] == pytest.approx((2 * 0.4 / 1.4 + 1.0) / 2)
    assert found["success@5"] == 1.0


def test_success_asks_for_the_gold_of_the_highest_relevance() -> None:
    """A related document alone is not what was asked for, though it counts for recall."""
    found = measured(outcome(GRADED, "b", "x"), outcome(PLAIN, "x", "c"), has_answers=False)
    assert (found["success@5"], found["recall@5"]) == (0.5, 0.75)


def test_what_stands_below_the_depth_is_not_found() -> None:
    """Rank 6 is too late for a depth of 5, also for the reciprocal rank and F1."""
    found = measured(outcome(PLAIN, "1", "2", "3", "4", "5", "c"), has_answers=False)
    assert [found[f"{name}@5"] for name in ("success", "recall", "ndcg", "mrr", "precision", "f1")] == [0.0] * 6


def test_answers_are_scored_over_what_has_answer_strings() -> None:
    """One exact, one without the fact, one abstained: each metric is a third; the unanswerable one does not count."""
    third = Question("third", "?", gold={"c": 1}, answers=("noon",))
    found = measured(
        outcome(GRADED, given=answer("In the yard. [1]")),
        outcome(PLAIN, given=answer("Whenever you like.")),
        outcome(third, given=answer("The documents do not say noon.", abstained=True)),
        outcome(NONE, given=answer("Nothing.", abstained=True)),
    )
    assert found["exact_match"] == found["key_fact"] == found["token_f1"] == pytest.approx(1 / 3)


def test_a_failed_answer_holds_no_fact_and_is_no_abstention() -> None:
    """To leave it out of the facts would flatter; that it said nothing was no decision."""
    found = measured(
        outcome(PLAIN, failure="HTTP 500"), outcome(GRADED, given=answer("in the yard")), outcome(NONE, given=answer("Yes."))
    )
    assert (found["key_fact"], found["false_abstention"], found["abstention_recall"]) == (0.5, 0.0, 0.0)


def test_citations_are_held_against_the_gold() -> None:
    """Two documents cited, one of them gold, in three quotes: one with the fact, one without, one not in its document."""
    cited = [
        Cited("a", "Visitors park in the yard.", True), Cited("x", "It is open.", True), Cited("a", "in the yard", False)
    ]  # fmt: skip
    found = measured(outcome(GRADED, given=answer("In the yard [1]."), cited=cited))
    assert (found["citation_precision"], found["citation_recall"]) == (0.5, 1.0)
    assert (found["span_exact"], found["span_correct"]) == pytest.approx((2 / 3, 1 / 3))
    assert found["span_hit"] == 1.0


def test_an_answer_that_cites_nothing_has_no_precision_and_no_recall() -> None:
    """There is no share of nothing, but the gold was not cited."""
    found = measured(outcome(GRADED, given=answer("In the yard.")))
    assert found["citation_recall"] == 0.0
    assert "citation_precision" not in found


def test_abstention_is_right_where_there_is_no_answer() -> None:
    """Of three unanswerable two abstained, of three answerable one: precision and recall 2/3, one of three for nothing."""
    said, kept = answer("Yes."), answer("No.", abstained=True)
    none = [Question(f"n{i}", "?", answerability="UNANSWERABLE") for i in range(3)]
    some = [Question(f"s{i}", "?", gold={"a": 1}) for i in range(3)]
    found = measured(
        *(outcome(question, given=given) for question, given in zip(none, (kept, kept, said), strict=True)),
        *(outcome(question, given=given) for question, given in zip(some, (kept, said, said), strict=True)),
        outcome(VAGUE, given=kept),
    )
    assert found["abstention_precision"] == found["abstention_recall"] == found["abstention_f1"] == pytest.approx(2 / 3)
    assert found["false_abstention"] == pytest.approx(1 / 3)
    assert found["underspecified_abstention"] == 1.0


def test_grounding_tokens_and_cost_are_means() -> None:
    """What abstained states nothing to support; a cost that is not known is left out and not taken for nothing."""
    found = measured(
        outcome(GRADED, given=answer("One.", supported=0.5, usage=Usage(100, 20, cost_usd=0.002))),
        outcome(PLAIN, given=answer("Two.", supported=1.0, usage=Usage(300, 40, cost_usd=None))),
        outcome(NONE, given=answer("None.", abstained=True, supported=0.0, usage=Usage(200, 0, cost_usd=0.004))),
    )
    assert found["supported_share"] == 0.75
    assert (found["prompt_tokens"], found["completion_tokens"]) == (200.0, 20.0)
    assert found["cost_usd"] == pytest.approx(0.003)


def test_how_often_there_is_no_answer_is_told_without_judging_it() -> None:
    """Shares of all questions, the underspecified too; a rule's fixed answer was not searched for and is none of them."""
    found = measured(
        outcome(GRADED, given=answer("One.", answerability=0.9)),
        outcome(NONE, given=answer("None.", abstained=True, answerability=0.1)),
        outcome(VAGUE, given=replace(answer("Which one?", abstained=True, answerability=0.2), clarifies=True)),
        outcome(PLAIN, given=replace(answer("Hello."), provider="fixed")),
    )
    assert (found["abstained"], found["clarified"]) == pytest.approx((2 / 3, 1 / 3))
    assert found["answerability"] == pytest.approx(0.4)
    assert "newly_abstained" not in found
    assert "newly_answered" not in found


def test_a_replay_is_held_against_then_and_named_so() -> None:
    """Of two answered then one has no answer now; what may not be used any more counts for neither; nothing is called gold."""
    then = Then("local", "c", 0, abstained=False, cited=("a.md",))
    asked = [
        Question("1", "?", gold={"a": 1}, answerability=AS_ANSWERED_THEN, then=then),
        Question("2", "?", gold={"a": 1}, answerability=AS_ANSWERED_THEN, then=then),
        Question("3", "?", answerability=AS_ANSWERED_THEN, then=replace(then, abstained=True, cited=())),
        Question("4", "?", answerability=AS_ANSWERED_THEN, then=replace(then, abstained=None, cited=())),
    ]
    found = report(
        [
            outcome(asked[0], "a", given=answer("Yes.")),
            outcome(asked[1], "b", given=answer("No.", abstained=True)),
            outcome(asked[2], "b", given=answer("Yes.")),
            outcome(asked[3], "b", given=answer("No.", abstained=True)),
        ]
    )
    values = {metric.name: value.value for metric, value in found.values.items()}
    assert (values["newly_abstained"], values["newly_answered"], values["success@5"]) == (0.5, 1.0, 0.5)
    assert {"abstention_recall", "false_abstention", "underspecified_abstention", "answerability_auc"} & set(values) == set()
    told = " ".join(f"{metric.title} {metric.means}" for metric in found.values if metric.section in ("retrieval", "citations"))
    assert "gold" not in told
    assert "right" not in told
    assert "a document cited then, first 5" in told


def test_times_are_percentiles_of_each_stage() -> None:
    """The median and the 95th percentile, linear between neighbours."""
    times = [outcome(Question(f"q{ms}", "?", gold={"c": 1}), "c", timings_ms={"search": float(ms)}) for ms in range(1, 102)]
    found = measured(*times, has_answers=False)
    assert (found["search_p50_ms"], found["search_p95_ms"]) == (51.0, 96.0)


def test_a_metric_that_no_question_concerns_is_left_out() -> None:
    """No answer strings, nothing unanswerable: no exact match and no abstention recall, rather than 0 or 1."""
    found = measured(outcome(Question("q", "?", gold={"a": 1}), "a", given=answer("Yes.")))
    assert {"exact_match", "key_fact", "abstention_recall", "span_hit", "answerability_auc"} & set(found) == set()


@pytest.mark.parametrize(
    ("name", "has_answers", "says"),
    [
        ("recal@5", True, r"--min 'recal@5' is not a metric .* known: success@K, recall@K, ndcg@K, .*key_fact"),
        ("recall", True, "is not a metric"),
        ("recall@0", True, "is not a metric"),
        ("recall@101", True, "a depth of 1 to 100"),
        ("false_abstention", True, "of which more is better"),
        ("total_p95_ms", True, "of which more is better"),
        ("key_fact", False, "needs answers; leave --retrieval-only out"),
    ],
)
def test_a_gate_on_what_there_is_not_is_refused(name: str, has_answers: bool, says: str) -> None:
    """A misspelt gate would always pass or always fail."""
    with pytest.raises(ConfigError, match=says):
        check_names([name], has_answers=has_answers)


def test_a_gate_s_depth_is_measured() -> None:
    """Whatever --k says."""
    check_names(["recall@10", "ndcg@3", "key_fact", "answerability_auc"], has_answers=True)
    assert depths_asked(["recall@10", "ndcg@3", "key_fact"]) == [3, 10]
