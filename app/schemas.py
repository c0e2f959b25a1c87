"""What goes over the wire under /v1, as the OpenAPI document shows it. OpenAI's format is in routes/openai.py."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from app import examples
from app.answering import types as answering
from corpus.types import Hit, Message

ID_CHARS = 64


def _without_nul(text: str) -> str:
    # A NUL says nothing, and C libraries below us end a string there.
    return text.replace("\x00", " ")


def _not_blank(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("blank", "is empty; it must hold more than white space")
    return text


Text = Annotated[str, AfterValidator(_without_nul)]
Question = Annotated[
    str,
    AfterValidator(_without_nul),
    AfterValidator(_not_blank),
    Field(json_schema_extra={"minLength": 1, "pattern": r"\S"}),
]
FilterValue = Annotated[str, Field(max_length=1000)]
Filters = Annotated[
    dict[str, FilterValue | Annotated[list[FilterValue], Field(fail_fast=True, min_length=1, max_length=100)]],
    Field(
        max_length=20,
        description="Field to value or values: AND across fields, OR within one. search.filter_fields names them.",
    ),
]
TopK = Annotated[int, Field(ge=1, le=50, description="Passages looked at, at most.")]


class Body(BaseModel):
    """A request body: no unknown fields, no conversions ("5" is not 5)."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


class Turn(Body):
    """One earlier turn of a conversation that the caller keeps."""

    role: Literal["user", "assistant"]
    content: Text


Messages = Annotated[list[Turn], Field(fail_fast=True, description="Earlier turns, oldest first.")]


def messages_of(turns: list[Turn] | None) -> tuple[Message, ...]:
    """Earlier turns as the answer path takes them."""
    return tuple(Message(turn.role, turn.content) for turn in turns or ())


def filters_of(filters: Mapping[str, str | list[str]]) -> dict[str, tuple[str, ...]]:
    """Filters as the answer path takes them: every value in a tuple."""
    return {name: (value,) if isinstance(value, str) else tuple(value) for name, value in filters.items()}


class AskRequest(Body):
    """One question."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"question": "When are expense reports due?"},
                {"question": "And for contractors?", "conversation_id": "Jv0mP2cQb3k8xY1tZr5wNA", "stream": True},
                {
                    "question": "And for contractors?",
                    "messages": [
                        {"role": "user", "content": "When are expense reports due?"},
                        {"role": "assistant", "content": "Within 30 days."},
                    ],
                    "filters": {"collection": "handbook"},
                },
            ]
        }
    )

    question: Question
    conversation_id: str | None = Field(
        default=None, max_length=ID_CHARS, description="Continues a stored conversation; empty = begins one."
    )
    messages: Messages | None = Field(
        default=None, description="Earlier turns of a stateless caller; nothing is stored. Not with conversation_id."
    )
    stream: bool = Field(default=False, description="Whether the answer comes as server-sent events.")
    top_k: TopK = 8
    provider: str | None = Field(
        default=None, max_length=100, description="`extractive` or one of llm.providers; empty = llm.default."
    )
    filters: Filters = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_kind_of_history(self) -> AskRequest:
        if self.conversation_id is not None and self.messages is not None:
            raise PydanticCustomError("both_histories", "give conversation_id or messages, not both")
        return self


class SearchRequest(Body):
    """A search for passages."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"query": "expense report deadline", "top_k": 5, "filters": {"language": "en"}}]}
    )

    query: Question
    messages: Messages | None = None
    top_k: TopK = 8
    filters: Filters = Field(default_factory=dict)


class Shown(BaseModel):
    """A response body; read from our own dataclasses."""

    model_config = ConfigDict(from_attributes=True)


class Citation(Shown):
    """Where a part of the answer comes from. start and end count Unicode code points of the document's text."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.CITATION]})

    marker: int
    document_id: str
    chunk_id: str
    version: str
    title: str
    source: str
    page: int | None
    heading: list[str]
    quote: str
    start: int
    end: int


class Usage(Shown):
    """Tokens and price of all calls made for an answer; zeros for the extractive backend.

    `cached_tokens` are those of the prompt that the provider had cached. `cost_usd` is null where a price is not known.
    `estimated`: the provider reported no usage, so it was counted here.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    cost_usd: float | None
    estimated: bool


class Grounding(Shown):
    """How much of the answer the passages support; how many of its citations were taken out as wrong, or added."""

    supported_share: float
    unsupported: list[str]
    removed: int
    added: int


class AskResponse(Shown):
    """An answer with its sources and provenance. `conversation_id` and `message_id` are null where nothing is stored.

    `answerability`, 0..1, is how likely the passages answer; with `clarifies` the answer is a question back.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [examples.ANSWER]})

    answer: str
    abstained: bool
    clarifies: bool
    citations: list[Citation]
    conversation_id: str | None
    message_id: str | None
    standalone_question: str
    answerability: float
    provider: str
    model: str
    route: str
    snapshot: str
    finish_reason: Literal["stop", "length", "refusal", "other"]
    usage: Usage
    grounding: Grounding
    timings_ms: dict[str, float]


class SourcesEvent(Shown):
    """The first event of a stream: the passages that the answer may cite."""

    citations: list[Citation]
    standalone_question: str


class SearchHit(Shown):
    """One passage found. start and end count Unicode code points of the document's text."""

    rank: int
    document_id: str
    chunk_id: str
    version: str
    title: str
    source: str
    text: str
    heading: list[str]
    page: int | None
    start: int
    end: int


class SearchResponse(Shown):
    """Passages, best first."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"hits": [examples.HIT], "standalone_question": "expense report deadline"}]}
    )

    hits: list[SearchHit]
    standalone_question: str


class DocumentShown(Shown):
    """A document without its text."""

    document_id: str
    version: str
    title: str
    source: str
    collection: str
    format: str
    language: str | None
    label: str
    metadata: dict[str, str]


class DocumentList(Shown):
    """A page of documents, ordered by id."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"documents": [examples.DOCUMENT], "next_cursor": None}]})

    documents: list[DocumentShown]
    next_cursor: str | None


class SectionShown(Shown):
    """A stretch of the text under one heading path."""

    start: int
    end: int
    heading: list[str]
    page: int | None


class DocumentText(DocumentShown):
    """A document with its text, exactly as offsets count in it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    **examples.DOCUMENT,
                    "text": "Expense reports are due within 30 days of the last day of travel.",
                    "sections": [{"start": 0, "end": 65, "heading": ["Expenses", "Deadlines"], "page": None}],
                }
            ]
        }
    )

    text: str
    sections: list[SectionShown]


class ConversationShown(Shown):
    """A conversation without its messages."""

    conversation_id: str
    title: str
    created_at: datetime
    updated_at: datetime


class ConversationList(Shown):
    """A page of conversations, last used first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"conversations": [examples.CONVERSATION], "next_cursor": None}]})

    conversations: list[ConversationShown]
    next_cursor: str | None


class MessageShown(Shown):
    """One stored message. A withdrawn one rests on a document that is not visible any more and is not shown."""

    message_id: str
    role: Literal["user", "assistant"]
    content: str
    status: Literal["complete", "cancelled", "failed"]
    created_at: datetime
    withdrawn: bool
    abstained: bool | None
    clarifies: bool | None
    citations: list[Citation]
    standalone_question: str | None
    provider: str | None
    model: str | None
    route: str | None
    snapshot: str | None
    usage: Usage | None
    grounding: Grounding | None
    timings_ms: dict[str, float]


class ConversationMessages(ConversationShown):
    """A conversation with its newest messages in order; `next_cursor` leads to older ones."""

    messages: list[MessageShown]
    next_cursor: str | None


class Ready(Shown):
    """Whether the service can answer. The rest is for an administrator."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "status": "ready",
                    "codes": [],
                    "advice": [],
                    "snapshot": {
                        "id": "000003-1f0c88aa",
                        "created_at": "2026-11-23T02:00:09Z",
                        "documents": 34,
                        "chunks": 210,
                        "embedder": "all-MiniLM-L6-v2",
                    },
                    "last_run": {
                        "run_id": "000007-9f86d081",
                        "status": "published",
                        "ended_at": "2026-11-23T02:00:09+00:00",
                        "failures": 0,
                    },
                }
            ]
        }
    )

    status: Literal["ready", "degraded", "unavailable"]
    codes: list[str] | None = None
    advice: list[str] | None = None
    snapshot: dict[str, str | int] | None = None
    last_run: dict[str, str | int] | None = None


class ProblemDetails(BaseModel):
    """RFC 9457 problem details. `errors` lists the fields at fault of an invalid request."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    errors: list[dict[str, str]] | None = None


def shown_answer(answer: answering.Answer) -> AskResponse:
    """The body of an answer, and of a stream's last event."""
    return AskResponse.model_validate(answer)


def shown_sources(sources: answering.Sources) -> SourcesEvent:
    """A stream's first event."""
    return SourcesEvent.model_validate(
        {"citations": list(sources.candidates), "standalone_question": sources.standalone_question}
    )


def shown_hits(hits: tuple[Hit, ...]) -> list[SearchHit]:
    """Passages found, without their scores: a raw score says something of documents that the caller may not see."""
    fields = ("document_id", "chunk_id", "version", "title", "source", "text", "page", "start", "end")
    return [
        SearchHit(rank=rank, heading=list(hit.passage.heading), **{name: getattr(hit.passage, name) for name in fields})
        for rank, hit in enumerate(hits, start=1)
    ]
