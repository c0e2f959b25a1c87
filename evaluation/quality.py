"""Quality of retrieval and answers over a golden set. The metrics are ir-measures'."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from app.access import Caller
from app.answering.answer import answer
from app.answering.retrieve import search
from app.answering.types import Answer, Ask
from app.services import Services
from corpus.errors import ConfigError
from evaluation.golden import Question
from evaluation.match import holds_any

SEARCHED = 50
"""Chunks fetched for a ranking of documents: several may be of one document."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """The documents found for a question, best first; a document stands where its best chunk stands."""

    question: Question
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to a question."""

    question: Question
    answer: Answer


async def rank(services: Services, questions: Iterable[Question], *, use_history: bool = True) -> list[Ranking]:
    """Search for each question as its caller."""
    found = []
    for question in questions:
        history = question.history if use_history else ()
        result = await search(services, _caller(services, question), question.question, history, SEARCHED, {})
        sources = tuple(dict.fromkeys(hit.passage.source for hit in result.hits))
        found.append(Ranking(question, sources))
    return found


async def ask_all(services: Services, questions: Iterable[Question]) -> list[Answered]:
    """Answer each question as its caller, statelessly."""
    found = []
    for question in questions:
        ask = Ask(question.question, messages=question.history, store=False)
        async with aclosing(answer(services, _caller(services, question), ask)) as events:
            async for event in events:
                if isinstance(event, Answer):
                    found.append(Answered(question, event))
    return found


def _caller(services: Services, question: Question) -> Caller:
    return Caller("evaluation", question.groups or services.settings.server.groups)


def measure(rankings: Sequence[Ranking], measures: Sequence[str], gold_of: Mapping[str, str] | None = None) -> dict[str, float]:
    """Means of ir-measures' metrics, such as `nDCG@10`, over the answerable questions.

    `gold_of` maps a found source to the name by which the gold knows it, where they differ.
    Raises: ConfigError where ir-measures, which comes with the extra `evaluation`, is not installed.
    """
    found = judge(rankings, measures, gold_of)
    return {name: round(sum(values.values()) / len(values), 4) if values else 0.0 for name, values in found.items()}


def judge(
    rankings: Sequence[Ranking], measures: Sequence[str], gold_of: Mapping[str, str] | None = None
) -> dict[str, dict[str, float]]:
    """For each of ir-measures' metrics its value for each answerable question, by the question's id; see `measure`."""
    try:
        import ir_measures
    except ModuleNotFoundError as error:
        raise ConfigError("ir-measures is not installed; in the checkout, run `pip install '.[evaluation]'`") from error
    names = gold_of or {}
    judged = [ranking for ranking in rankings if ranking.question.is_answerable]
    qrels = [
        ir_measures.Qrel(ranking.question.id, source, relevance)
        for ranking in judged
        for source, relevance in ranking.question.gold.items()
    ]
    run = [
        ir_measures.ScoredDoc(ranking.question.id, names.get(source, source), float(len(ranking.sources) - position))
        for ranking in judged
        for position, source in enumerate(ranking.sources)
    ]
    found = {name: {ranking.question.id: 0.0 for ranking in judged} for name in measures}
    parsed = {ir_measures.parse_measure(name): name for name in measures}
    for value in ir_measures.iter_calc(list(parsed), qrels, run) if judged else ():
        found[parsed[value.measure]][value.query_id] = float(value.value)
    return found


def in_top(rankings: Sequence[Ranking], k: int) -> tuple[int, int]:
    """For how many answerable questions a document of the highest relevance is among the first k, and of how many."""
    judged = [ranking for ranking in rankings if ranking.question.is_answerable]
    hits = sum(_has_best(ranking.question, ranking.sources[:k]) for ranking in judged)
    return hits, len(judged)


def missed(rankings: Sequence[Ranking], k: int) -> list[str]:
    """The ids of the answerable questions that `in_top` does not count."""
    return [
        ranking.question.id
        for ranking in rankings
        if ranking.question.is_answerable and not _has_best(ranking.question, ranking.sources[:k])
    ]


def _has_best(question: Question, sources: Sequence[str]) -> bool:
    best = max(question.gold.values())
    return any(question.gold.get(source) == best for source in sources)


def contains_answer(answered: Answered) -> bool:
    """Whether any of the answer strings stands in the answer; see `holds_any`."""
    return holds_any(answered.answer.answer, answered.question.answers)
