"""Measures a snapshot that is not published yet with a golden set, by search alone: what the job's gate is handed."""

from __future__ import annotations

from pathlib import Path

from app.answering.history import understand
from corpus.errors import ConfigError
from corpus.search import Query, Searcher
from evaluation.golden import read_golden
from ingest.gate import Embed, Recall, documents_found


class RecallOnGolden:
    """Recall for callers of `groups`, where a question names none of its own, looking back over so many turns."""

    def __init__(self, groups: tuple[str, ...], turns: int) -> None:
        self._groups, self._turns = groups, turns

    def __call__(self, golden: Path, depth: int, searcher: Searcher, embed: Embed) -> Recall:
        """Mean recall over the questions that have an answer. Raises: GoldenError, ConfigError where none has."""
        questions = [question for question in read_golden(golden) if question.is_answerable]
        if not questions:
            raise ConfigError(f"gate.golden {str(golden)!r} has no question with an answer; name another golden set")
        total = 0.0
        for question in questions:
            searches = understand(question.question, question.history, self._turns).searches
            vectors = embed([text for text, _ in searches])
            queries = [Query(text, vector, weight) for (text, weight), vector in zip(searches, vectors, strict=True)]
            found = documents_found(searcher, queries, question.groups or self._groups, depth)
            named = {name for names in found for name in names}
            total += sum(1 for gold in question.gold if gold in named) / len(question.gold)
        return Recall(total / len(questions), len(questions))
