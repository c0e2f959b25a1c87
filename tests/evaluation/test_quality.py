"""What is counted over a golden set: metrics against hand-computed values, the text match, the ranking of documents."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from app.answering.types import Answer, Grounding
from app.llm.backend import Usage
from app.services import Services, build_services
from corpus.embedders.embedder import Embedder
from corpus.types import Message
from evaluation.golden import Question
from evaluation.match import normalised
from evaluation.quality import Answered, Ranking, ask_all, contains_answer, in_top, measure, missed, rank
from tests.evaluation.outcomes import settings_over

GRADED = Question("graded", "?", gold={"a": 2, "b": 1})
PLAIN = Question("plain", "?", gold={"c": 1})
UNANSWERABLE = Question("unanswerable", "?")


def answered(text: str, *strings: str) -> Answered:
    """An answer to a question that these strings answer."""
    answer = Answer(text, False, (), None, None, "", "extractive", "extractive", "", "", Usage(), Grounding(1.0), {})
    return Answered(Question("q", "?", gold={"a": 1}, answers=strings), answer)


def services_over(data_dir: Path, embedder: Embedder) -> Services:
    """The service's parts over a published corpus."""
    return build_services(settings_over(data_dir), embedder)


def test_ndcg_is_that_of_its_definition() -> None:
    """Graded gold at ranks 2 and 3, plain gold at rank 1: the gains over log2 of the rank plus one, over the ideal."""
    rankings = [Ranking(GRADED, ("x", "a", "b")), Ranking(PLAIN, ("c", "x"))]
    found = (2 / math.log2(3) + 1 / math.log2(4)) / (2 / math.log2(2) + 1 / math.log2(3))
    assert measure(rankings, ["nDCG@10"]) == {"nDCG@10": round((found + 1.0) / 2, 4)}


def test_what_stands_below_the_cut_does_not_count() -> None:
    """Recall at 2 finds one of two documents, recall at 3 both; nDCG at 1 finds nothing."""
    found = measure([Ranking(GRADED, ("x", "a", "b"))], ["R@2", "R@3", "nDCG@1"])
    assert found == {"R@2": 0.5, "R@3": 1.0, "nDCG@1": 0.0}


def test_a_question_that_found_nothing_counts_as_zero() -> None:
    """A mean over only those that found something would flatter."""
    assert measure([Ranking(PLAIN, ("c",)), Ranking(GRADED, ())], ["nDCG@10"]) == {"nDCG@10": 0.5}


def test_unanswerable_questions_are_no_part_of_a_metric() -> None:
    """There is nothing they could find."""
    assert measure([Ranking(PLAIN, ("c",)), Ranking(UNANSWERABLE, ("c",))], ["R@5"]) == {"R@5": 1.0}


def test_found_sources_can_have_another_name_in_the_gold() -> None:
    """A row of an export is found by its source and judged by its id."""
    rankings = [Ranking(PLAIN, ("corpus.jsonl#x", "corpus.jsonl#c"))]
    assert measure(rankings, ["R@2"]) == {"R@2": 0.0}
    assert measure(rankings, ["R@2"], {"corpus.jsonl#c": "c", "corpus.jsonl#x": "x"}) == {"R@2": 1.0}


def test_only_the_most_relevant_documents_count_for_the_top() -> None:
    """`a` has the highest relevance of its question; `b`, of a lower one, does not stand in for it."""
    rankings = [Ranking(GRADED, ("b", "x", "a")), Ranking(PLAIN, ("c",)), Ranking(UNANSWERABLE, ("c",))]
    assert in_top(rankings, 2) == (1, 2)
    assert missed(rankings, 2) == ["graded"]
    assert in_top(rankings, 3) == (2, 2)
    assert missed(rankings, 3) == []


@pytest.mark.parametrize(
    ("text", "string"),
    [
        ("It is paid on **31  March**\nof each year.", "31 march"),
        ("The rate is 19 per cent.", "19%"),
        ("The rate is 19 %.", "19 percent"),
        ("They pay 250 €.", "250 EUR"),
        ("They pay 250 euros.", "250 eur"),
        ("Straße 4", "STRASSE 4"),
        ("ﬁnal report", "final report"),
        ("On the third calendar days. [1]", "third calendar day"),
        ("They pay 250. Not more.", "250"),
        ("(TR-204)", "tr-204"),
    ],
)
def test_the_same_words_in_another_dress_match(text: str, string: str) -> None:
    """Case, white space, markup, per cent and euros are written in many ways."""
    assert contains_answer(answered(text, "something else", string))


@pytest.mark.parametrize(
    ("text", "string"),
    [
        ("13 March", "31 March"),
        ("19 dollars", "19 EUR"),
        ("", "anything"),
        ("Something.", ""),
        ("Nothing.", "thing"),
        ("Within 12 days.", "2 days"),
        ("It weighs 2.5 kg.", "5 kg"),
        ("They pay 250.50 or 2500.", "250"),
    ],
)
def test_other_words_do_not_match(text: str, string: str) -> None:
    """The match forgives spelling, not content."""
    assert not contains_answer(answered(text, string))


def test_text_is_normalised_the_same_when_it_is_normalised_already() -> None:
    """Answers and answer strings meet in the middle, whichever was plain before."""
    once = normalised("Up to 30 PERCENT, or 5 Euro | `a_b`")
    assert once == "up to 30%, or 5 eur a b"
    assert normalised(once) == once


@pytest.mark.anyio
async def test_a_document_stands_where_its_best_chunk_stands(site: Path, embedder: Embedder) -> None:
    """Each document is there once, the one with the words asked for first, and history is used or left out as told."""
    history = (Message("user", "When does the canteen serve lunch?"), Message("assistant", "From noon."))
    alone = Question("alone", "Which form is used for the expense report?", gold={"policies/travel.md": 1})
    later = Question("later", "And until when?", history, gold={"faq.jsonl#3": 1})
    board = Question("board", "Where do the salary bands of directors begin?", gold={"board/salaries.md": 1})
    allowed = Question("allowed", board.question, gold=board.gold, groups=("everyone", "board"))
    services = services_over(site / "data", embedder)
    await services.start()
    try:
        rankings = {ranking.question.id: ranking for ranking in await rank(services, [alone, later, board, allowed])}
        (blind,) = await rank(services, [later], use_history=False)
    finally:
        await services.close()
    assert rankings["alone"].sources[0] == "policies/travel.md"
    assert rankings["later"].sources[0] == "faq.jsonl#3"
    assert blind.sources != rankings["later"].sources
    assert "board/salaries.md" not in rankings["board"].sources
    assert rankings["allowed"].sources[0] == "board/salaries.md"
    for ranking in rankings.values():
        assert len(set(ranking.sources)) == len(ranking.sources)


@pytest.mark.anyio
async def test_answers_are_given_and_nothing_is_stored(site: Path, embedder: Embedder) -> None:
    """A question of the documents is answered from them, one of something else is not, and no conversation is left."""
    known = Question("known", "Where do visitors park?", gold={"faq.jsonl#1": 1}, answers=("in the yard behind hall three",))
    unknown = Question("unknown", "What does the moon weigh in kilograms?")
    services = services_over(site / "data", embedder)
    await services.start()
    try:
        first, second = await ask_all(services, [known, unknown])
        kept = services.state.conversations("evaluation", None, 10)
    finally:
        await services.close()
    assert contains_answer(first)
    assert not first.answer.abstained
    assert second.answer.abstained
    assert not kept[0]
