"""OpenAI's Chat Completions format, so that its clients can ask. Nothing is stored; unknown fields are ignored."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from app import examples
from app.answering.types import Answer, Ask
from app.llm.backend import Delta, FinishReason
from app.llm.settings import EXTRACTIVE
from app.problems import Problem, as_openai_error, problem_response
from app.requests import StrictRoute, request_id_of
from app.routes.ask import Event, first_event, start, whole_answer
from app.routes.shared import CallerOf, ServicesOf
from app.schemas import Citation
from app.services import Services
from app.state.conversations import new_id
from app.streams import EventStream, Pump
from corpus.errors import Invalid
from corpus.types import Message

MODEL = "archivist"


router = APIRouter(route_class=StrictRoute, tags=["OpenAI's format"])


def _without_nul(text: str) -> str:
    return text.replace("\x00", " ")


class Lenient(BaseModel):
    """OpenAI's clients send many fields; those that mean nothing here are ignored."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)


class TextPart(Lenient):
    """One part of a message. Only text can be answered."""

    type: Literal["text"]
    text: str


class ChatMessage(Lenient):
    """One message of the conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[TextPart], Field(fail_fast=True)] | None = None

    def text(self) -> str:
        """The message's text, its parts joined."""
        match self.content:
            case None:
                return ""
            case str():
                return _without_nul(self.content)
            case _:
                return _without_nul("\n".join(part.text for part in self.content))


class StreamOptions(Lenient):
    """What else a stream carries."""

    include_usage: bool | None = None


class ChatRequest(Lenient):
    """A chat completion. The last user message is the question, those before it are the conversation."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "archivist",
                    "messages": [
                        {"role": "system", "content": "Answer in one sentence."},
                        {"role": "user", "content": "When are expense reports due?"},
                    ],
                }
            ]
        }
    )

    model: Annotated[str, Field(max_length=200)] = MODEL
    messages: Annotated[list[ChatMessage], Field(fail_fast=True, min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None


class OpenAIError(BaseModel):
    """OpenAI's error object."""

    error: dict[str, str | None]


_PATH: JsonDict = {
    **{name: examples.ANSWER[name] for name in ("provider", "model", "route", "abstained")},
    "usage": {"cached_tokens": 0, "cost_usd": 0.0, "estimated": False},
}
_COMPLETION = {
    "id": "chatcmpl-5sJ8yq0bWm3uKf1xVdT7Lg",
    "object": "chat.completion",
    "created": 1795426200,
    "model": "archivist",
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "Expense reports are due within 30 days of the last day of travel. [1]",
                "refusal": None,
                "citations": [examples.CITATION],
                "archivist": _PATH,
            },
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
}
_MODELS = {
    "object": "list",
    "data": [{"id": "archivist", "object": "model", "created": 1795426200, "owned_by": "archivist"}],
}

_STATED = {
    400: ("Invalid request", "invalid_request_error", "invalid"),
    401: ("Key required", "invalid_request_error", "unauthorized"),
    403: ("From another site", "invalid_request_error", "forbidden"),
    404: ("Unknown model", "invalid_request_error", "model_not_found"),
    405: ("Method not allowed", "invalid_request_error", "method_not_allowed"),
    413: ("Too large", "invalid_request_error", "too_large"),
    415: ("Not JSON", "invalid_request_error", "unsupported_media_type"),
    421: ("Foreign Host", "invalid_request_error", "misdirected_request"),
    429: ("Too many requests", "rate_limit_error", "overloaded"),
    500: ("Internal error", "server_error", "internal_error"),
    502: ("LLM unreachable", "server_error", "backend_unreachable"),
    503: ("No snapshot", "server_error", "no_snapshot"),
    504: ("LLM too slow", "server_error", "backend_timeout"),
}


REASONS: dict[FinishReason, str] = {"stop": "stop", "length": "length", "refusal": "content_filter", "other": "stop"}


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    stated: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        title, kind, code = _STATED[status]
        example = {"error": {"message": f"{title} …", "type": kind, "param": None, "code": code}}
        stated[status] = {
            "description": title,
            "model": OpenAIError,
            "content": {"application/json": {"example": example}},
        }
    return stated


@router.get(
    "/v1/models",
    summary="List models",
    responses={200: {"content": {"application/json": {"example": _MODELS}}}, **_errors(401, 405, 421, 500)},
)
async def list_models(services: ServicesOf, _caller: CallerOf) -> dict[str, Any]:
    """`archivist` answers with the configured provider, `archivist/<provider>` with that one."""
    created = int(services.started_at)
    return {
        "object": "list",
        "data": [{"id": name, "object": "model", "created": created, "owned_by": "archivist"} for name in _models(services)],
    }


@router.post(
    "/v1/chat/completions",
    summary="Ask in OpenAI's format",
    responses={
        200: {
            "description": "The completion. Its message has `citations`, and `archivist`: who answered, by which route, "
            "at which cost. In a stream both are on the last chunk.",
            "content": {
                "application/json": {"example": _COMPLETION},
                "text/event-stream": {"schema": {"type": "string"}, "example": "data: {…}\n\ndata: [DONE]\n\n"},
            },
        },
        **_errors(400, 401, 403, 404, 405, 413, 415, 421, 429, 500, 502, 503, 504),
    },
)
async def complete(request: Request, services: ServicesOf, caller: CallerOf, body: ChatRequest) -> Any:
    """The last user message is the question; system messages are added after ours; nothing is stored."""
    if body.model not in _models(services):
        known = ", ".join(_models(services))
        problem = Problem(404, "model-not-found", "Unknown model", f"no model {body.model[:80]!r}; known: {known}", "model")
        return problem_response(problem, request.url.path, request_id_of(request))
    pump = start(request, services, caller, _ask(body))
    completion_id = f"chatcmpl-{new_id()}"
    if not body.stream:
        return _completion(completion_id, body.model, await whole_answer(request, services, pump))
    with_usage = body.stream_options is not None and bool(body.stream_options.include_usage)
    return _stream(await first_event(request, pump), pump, services, _Chunks(completion_id, body.model, with_usage))


def _models(services: Services) -> list[str]:
    llm = services.settings.llm
    if not llm.caller_may_choose:
        return [MODEL]
    return [MODEL, *(f"{MODEL}/{name}" for name in (EXTRACTIVE, *llm.providers))]


def _ask(body: ChatRequest) -> Ask:
    last = max((number for number, message in enumerate(body.messages) if message.role == "user"), default=None)
    if last is None:
        raise Invalid("messages has no user message, so there is no question; add one", "messages")
    question = body.messages[last].text()
    if not question.strip():
        raise Invalid("the last user message is empty; it is the question", "messages")
    earlier = tuple(
        Message("user" if message.role == "user" else "assistant", message.text())
        for message in body.messages[:last]
        if message.role in ("user", "assistant") and message.text()
    )
    instructions = "\n\n".join(message.text() for message in body.messages if message.role in ("system", "developer"))
    provider = body.model.removeprefix(MODEL).removeprefix("/") or None
    return Ask(question=question, messages=earlier, store=False, provider=provider, instructions=instructions)


def _usage(answer: Answer) -> dict[str, int]:
    usage = answer.usage
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def _citations(answer: Answer) -> list[dict[str, Any]]:
    return [Citation.model_validate(citation).model_dump() for citation in answer.citations]


def _path(answer: Answer) -> dict[str, Any]:
    """Which way an answer took and what it cost, for which OpenAI's format has no fields."""
    usage = answer.usage
    return {
        "provider": answer.provider,
        "model": answer.model,
        "route": answer.route,
        "abstained": answer.abstained,
        "usage": {"cached_tokens": usage.cached_tokens, "cost_usd": usage.cost_usd, "estimated": usage.estimated},
    }


def _ours(answer: Answer) -> dict[str, Any]:
    """What we add to OpenAI's format: on the message, or on a stream's last chunk."""
    return {"citations": _citations(answer), "archivist": _path(answer)}


def _completion(completion_id: str, model: str, answer: Answer) -> dict[str, Any]:
    message = {"role": "assistant", "content": answer.answer, "refusal": None, **_ours(answer)}
    return {
        "id": completion_id,
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": REASONS[answer.finish_reason]}],
        "usage": _usage(answer),
    }


class _Chunks:
    """The chunks of one streamed completion."""

    def __init__(self, completion_id: str, model: str, with_usage: bool) -> None:
        self._common = {
            "id": completion_id,
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": model,
        }
        self._with_usage = with_usage

    def chunk(self, delta: dict[str, Any], finish_reason: str | None = None, **more: Any) -> dict[str, Any]:
        """One chunk with one choice."""
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        usage = {"usage": None} if self._with_usage else {}
        return {**self._common, "choices": [choice], **usage, **more}

    def last(self, answer: Answer) -> list[dict[str, Any]]:
        """The end of a stream: the finish, then the usage where it was asked for. What we add is on the last chunk."""
        ours, reason = _ours(answer), REASONS[answer.finish_reason]
        if not self._with_usage:
            return [self.chunk({}, reason, **ours)]
        return [
            self.chunk({}, reason),
            {**self._common, "choices": [], "usage": _usage(answer), **ours},
        ]


def _stream(first: Event, pump: Pump[Event], services: Services, chunks: _Chunks) -> Response:
    def encode(event: Event) -> Iterator[bytes]:
        match event:
            case Delta():
                yield _data(chunks.chunk({"content": event.text}))
            case Answer():
                services.metrics.count_answer(event)
                yield from (_data(chunk) for chunk in chunks.last(event))
                yield b"data: [DONE]\n\n"
            case _:
                # The sources: OpenAI's first chunk has the role and no text.
                yield _data(chunks.chunk({"role": "assistant", "content": ""}))

    def fail(problem: Problem) -> Iterator[bytes]:
        yield _data(as_openai_error(problem))

    return EventStream(first, pump, encode, fail)


def _data(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value).encode("utf-8") + b"\n\n"
