"""A message as it is kept, and how an answer becomes the columns of a row and comes back from them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Literal

from app.answering.types import Answer, Citation, Grounding, Signals
from app.llm.backend import Usage
from corpus.standing import Rested
from corpus.types import Passage

Status = Literal["complete", "cancelled", "failed"]


@dataclass(frozen=True, slots=True)
class StoredPassage:
    """A passage that an answer was written from: enough to decide access and clearance again."""

    chunk_id: str
    document_id: str
    version: str
    label: str

    @property
    def rested(self) -> Rested:
        """The version of the document that it is a passage of."""
        return self.document_id, self.version


@dataclass(frozen=True, slots=True)
class StoredTurn:
    """One complete question and answer. `passages` are all that the answer rests on, those of its history included."""

    message_id: str
    question: str
    answer: str
    passages: tuple[StoredPassage, ...]


@dataclass(frozen=True, slots=True)
class PartialAnswer:
    """What is known of an answer that was cancelled or failed: `usage` where a provider had been asked, `signals` and
    `answerability` where it had been searched.
    """

    answer: str = ""
    standalone_question: str = ""
    provider: str = ""
    model: str = ""
    route: str = ""
    snapshot: str = ""
    passages: tuple[Passage, ...] = ()
    usage: Usage | None = None
    signals: Signals | None = None
    answerability: float | None = None


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """One message as it was stored; from `standalone_question` on only an assistant message has values.

    `signals` are by their names of then: those that the program measures today may be others.
    """

    message_id: str
    position: int
    role: Literal["user", "assistant"]
    content: str
    status: Status
    created_at: datetime
    standalone_question: str | None = None
    provider: str | None = None
    model: str | None = None
    route: str | None = None
    snapshot: str | None = None
    prompt_version: str | None = None
    usage: Usage | None = None
    timings_ms: dict[str, float] = field(default_factory=dict)
    citations: tuple[Citation, ...] = ()
    grounding: Grounding | None = None
    abstained: bool | None = None
    clarifies: bool | None = None
    signals: Mapping[str, float] | None = None
    answerability: float | None = None
    passages: tuple[StoredPassage, ...] = ()


def passage_rows(
    message_id: str, passages: Sequence[Passage], inherited: Iterable[StoredPassage]
) -> list[dict[str, str | int]]:
    """Rows of what an answer rests on: its own passages first, then the inherited ones, each once."""
    own = [StoredPassage(each.chunk_id, each.document_id, each.version, each.label) for each in passages]
    return [
        {"message_id": message_id, "number": number, **asdict(passage)}
        for number, passage in enumerate(dict.fromkeys([*own, *inherited]))
    ]


def columns_of(answer: Answer | PartialAnswer) -> dict[str, Any]:
    """What an assistant's row says of its answer; of one that was not finished, less."""
    values: dict[str, Any] = {
        "content": answer.answer,
        "standalone_question": answer.standalone_question,
        "provider": answer.provider,
        "model": answer.model,
        "route": answer.route,
        "snapshot": answer.snapshot,
        "signals": None if answer.signals is None else json.dumps(asdict(answer.signals)),
        "answerability": answer.answerability,
    }
    if answer.usage is not None:
        values |= asdict(answer.usage)
    if isinstance(answer, Answer):
        values |= {
            "timings": json.dumps(dict(answer.timings_ms)),
            "citations": json.dumps([asdict(citation) for citation in answer.citations]),
            "grounding": json.dumps(asdict(answer.grounding)),
            "abstained": answer.abstained,
            "clarifies": answer.clarifies,
        }
    return values


def message_of(row: Any, passages: tuple[StoredPassage, ...]) -> StoredMessage:
    """A row of `messages`, with what it rests on."""
    usage = grounding = None
    if row.prompt_tokens is not None:
        usage = Usage(
            prompt_tokens=row.prompt_tokens,
            completion_tokens=row.completion_tokens,
            cached_tokens=row.cached_tokens,
            cost_usd=row.cost_usd,
            estimated=row.estimated,
        )
    if row.grounding is not None:
        stored = json.loads(row.grounding)
        grounding = Grounding(**{**stored, "unsupported": tuple(stored["unsupported"])})
    return StoredMessage(
        message_id=row.message_id,
        position=row.position,
        role=row.role,
        content=row.content,
        status=row.status,
        created_at=datetime.fromisoformat(row.created_at),
        standalone_question=row.standalone_question,
        provider=row.provider,
        model=row.model,
        route=row.route,
        snapshot=row.snapshot,
        prompt_version=row.prompt_version,
        usage=usage,
        timings_ms=json.loads(row.timings) if row.timings else {},
        citations=tuple(
            Citation(**{**citation, "heading": tuple(citation["heading"])}) for citation in json.loads(row.citations or "[]")
        ),
        grounding=grounding,
        abstained=row.abstained,
        clarifies=row.clarifies,
        signals=None if row.signals is None else json.loads(row.signals),
        answerability=row.answerability,
        passages=passages,
    )
