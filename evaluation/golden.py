"""Golden sets: questions with the documents that answer them. Reads them and says what is wrong with a row."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from corpus.errors import ArchivistError
from corpus.types import Message


class GoldenError(ArchivistError):
    """A golden set cannot be used."""


@dataclass(frozen=True, slots=True)
class Question:
    """One row. `gold` maps a document's source to its relevance; `groups` are the caller's where they are not the default."""

    id: str
    question: str
    history: tuple[Message, ...] = ()
    gold: Mapping[str, int] = field(default_factory=dict)
    answers: tuple[str, ...] = ()
    answerability: str = "ANSWERABLE"
    kind: str = ""
    groups: tuple[str, ...] | None = None

    @property
    def is_answerable(self) -> bool:
        """Whether the documents hold an answer."""
        return bool(self.gold)


def read_golden(path: Path) -> list[Question]:
    """Read a golden set, one JSON object a line.

    Raises: GoldenError that names the line and the field.
    """
    questions = list(_rows(path))
    seen: set[str] = set()
    for question in questions:
        if question.id in seen:
            raise GoldenError(f"{path}: id {question.id!r} stands twice; give each row its own")
        seen.add(question.id)
    if not questions:
        raise GoldenError(f"{path} holds no question")
    return questions


def _rows(path: Path) -> Iterator[Question]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise GoldenError(f"golden set {str(path)!r} cannot be read ({error})") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield _question(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise GoldenError(f"{path} line {number}: not a question ({type(error).__name__}: {error})") from error


def _question(row: dict[str, Any]) -> Question:
    history = tuple(Message(turn["role"], turn["content"]) for turn in row.get("history", []))
    groups = row.get("groups")
    return Question(
        id=row["id"],
        question=row["question"],
        history=history,
        gold={str(source): int(relevance) for source, relevance in row.get("gold", {}).items()},
        answers=tuple(row.get("answers", ())),
        answerability=row.get("answerability", "ANSWERABLE"),
        kind=row.get("kind", ""),
        groups=tuple(groups) if groups is not None else None,
    )
