"""Golden sets: questions with the documents that answer them. Reads them and says what is wrong with a row."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from corpus.errors import ArchivistError
from corpus.types import Message

AS_ANSWERED_THEN = "AS_ANSWERED_THEN"
"""The answerability of a question of a stored conversation: nobody has said what would be right."""

Answerability = Literal["ANSWERABLE", "PARTIAL", "UNDERSPECIFIED", "UNANSWERABLE"]
Expected = Literal["answer", "abstention", "either"]

TURN_OF = "<::>"
"""What stands between a conversation's id and the number of its turn in the ids of MTRAG."""

LIKE_A_FIELD = 0.84
"""How alike an unknown field's name and a known one are where one was meant for the other; data sets have their own."""


class GoldenError(ArchivistError):
    """A golden set cannot be used."""


@dataclass(frozen=True, slots=True)
class Then:
    """Where a question stands in a stored conversation, and what was answered then: a reference, and no truth.

    `cited` are the sources of the documents that the answer cited. Where the answer may not be used any more, `abstained` is
    None and `cited` empty.
    """

    owner: str
    conversation_id: str
    position: int
    abstained: bool | None
    cited: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Question:
    """One row of a golden set, or, with `then`, a question of a stored conversation.

    `gold` maps a document, by its id or its source, to its relevance; `groups` are the caller's where they are not the default.
    `drafted` rows were made by a machine and nobody has looked at them yet.
    """

    id: str
    question: str
    history: tuple[Message, ...] = ()
    gold: Mapping[str, int] = field(default_factory=dict)
    answers: tuple[str, ...] = ()
    answerability: str = "ANSWERABLE"
    kind: str = ""
    groups: tuple[str, ...] | None = None
    language: str = ""
    collection: str = ""
    conversation: str = ""
    drafted: bool = False
    then: Then | None = None

    @property
    def is_answerable(self) -> bool:
        """Whether the documents hold an answer."""
        return bool(self.gold)

    @property
    def best_gold(self) -> frozenset[str]:
        """The documents of the highest relevance."""
        best = max(self.gold.values(), default=0)
        return frozenset(name for name, relevance in self.gold.items() if relevance == best)

    @property
    def expected(self) -> Expected:
        """What a right service does: to ask back, as well as to answer, is right where a question is underspecified.

        Of a question of a stored conversation nobody knows.
        """
        match self.answerability:
            case "UNANSWERABLE":
                return "abstention"
            case "UNDERSPECIFIED" | "AS_ANSWERED_THEN":
                return "either"
            case _:
                return "answer"

    @property
    def cluster(self) -> str:
        """The conversation it belongs to; a question of none stands for itself."""
        return self.conversation or self.id.split(TURN_OF)[0]


class _Turn(BaseModel):
    model_config = ConfigDict(strict=True)

    role: Literal["user", "assistant"]
    content: str


Name = Annotated[str, Field(min_length=1)]


def _number_as_text(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class _Row(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")

    id: Annotated[Name | None, BeforeValidator(_number_as_text)] = None
    question: Annotated[str, Field(pattern=r"\S")]
    history: list[_Turn] = []
    gold: dict[Name, Annotated[int, Field(ge=0)]] = {}
    answers: list[Annotated[str, Field(pattern=r"\S")]] = []
    answerability: Annotated[Answerability | None, BeforeValidator(lambda value: None if value == "" else value)] = None
    kind: str | None = None
    type: str | None = None
    groups: Annotated[list[Name], Field(min_length=1)] | None = None
    language: str | None = None
    collection: str | None = None
    conversation: str | None = None
    drafted: bool = False


def read_golden(path: Path) -> list[Question]:
    """Read a golden set, one JSON object a line.

    Raises: GoldenError that names the line, the field and what to do.
    """
    questions = [question_of(path, number, row) for number, row in read_rows(path, "golden set")]
    seen: set[str] = set()
    for question in questions:
        if question.id in seen:
            raise GoldenError(f"{path}: id {question.id!r} stands twice; give each row its own")
        seen.add(question.id)
    if not questions:
        raise GoldenError(f"{path} holds no question")
    return questions


def read_rows(path: Path, what: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The JSON objects of a file with their line numbers. Raises: GoldenError."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise GoldenError(f"{what} {str(path)!r} cannot be read ({error})") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise GoldenError(f"{path} line {number}: not JSON ({error}); mend the line or remove it") from error
        if not isinstance(row, dict):
            raise GoldenError(f"{path} line {number}: not a JSON object, but {line[:40]!r}; mend the line or remove it")
        yield number, row


def question_of(path: Path, number: int, values: Mapping[str, Any]) -> Question:
    """One row as a question. Raises: GoldenError."""
    try:
        row = _Row.model_validate(dict(values))
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        given = "" if problem["type"] == "missing" else f", not {_shown(problem['input'])}"
        raise _wrong(path, number, where, f"{problem['msg'][0].lower()}{problem['msg'][1:]}{given}") from error
    for name in row.model_extra or {}:
        near = difflib.get_close_matches(name, _Row.model_fields, n=1, cutoff=LIKE_A_FIELD)
        if near:
            raise _wrong(path, number, name, f"no such field; {near[0]!r} is probably meant")
    gold = {name: relevance for name, relevance in row.gold.items() if relevance > 0}
    answerability = row.answerability or ("ANSWERABLE" if gold or row.answers else "UNANSWERABLE")
    if answerability == "UNANSWERABLE" and gold:
        raise _wrong(path, number, "answerability", "'UNANSWERABLE', though there is gold; take out one of them")
    return Question(
        id=row.id or f"line-{number}",
        question=row.question,
        history=tuple(Message(turn.role, turn.content) for turn in row.history),
        gold=gold,
        answers=tuple(row.answers),
        answerability=answerability,
        kind=row.kind or row.type or "",
        groups=tuple(row.groups) if row.groups is not None else None,
        language=row.language or "",
        collection=row.collection or "",
        conversation=row.conversation or "",
        drafted=row.drafted,
    )


def _wrong(path: Path, number: int, where: str, reason: str) -> GoldenError:
    return GoldenError(f"{path} line {number}: field {where!r}: {reason}; mend the row or remove it")


def _shown(value: object) -> str:
    written = repr(value)
    return written if len(written) <= 80 else f"{written[:79]}…"
