"""POST /v1/ask and POST /v1/search."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.sse import format_sse_event

from app import examples
from app.access import Caller
from app.answering.answer import answer
from app.answering.retrieve import search
from app.answering.types import Answer, Ask, Sources
from app.llm.backend import Delta
from app.problems import Problem, as_details
from app.requests import StrictRoute, request_id_of
from app.routes.shared import Busy, CallerOf, ServicesOf, check_ask, check_filters, check_limits, problems
from app.schemas import (
    AskRequest,
    AskResponse,
    SearchRequest,
    SearchResponse,
    filters_of,
    messages_of,
    shown_answer,
    shown_hits,
    shown_sources,
)
from app.services import Services
from app.streams import EventStream, Pump, until_disconnected

Event = Sources | Delta | Answer

router = APIRouter(route_class=StrictRoute, tags=["ask"])

_STREAM_EXAMPLE = (
    'event: sources\ndata: {"citations": [], "standalone_question": "When are expense reports due?"}\n\n'
    'event: delta\ndata: {"text": "Within 30 days. [1]"}\n\n'
    f"event: done\ndata: {json.dumps(examples.ANSWER)}\n\n"
)


def start(request: Request, services: Services, caller: Caller, ask: Ask) -> Pump[Event]:
    """Begin to answer. A stored conversation is held until the answer has ended.

    Raises: Conflict where another answer to the conversation is on its way; Invalid.
    """
    check_ask(services, ask)
    if ask.conversation_id is None:
        return Pump(answer(services, caller, ask))
    busy: Busy = request.app.state.busy
    owner, conversation_id = caller.owner, ask.conversation_id
    busy.hold(owner, conversation_id)
    return Pump(answer(services, caller, ask), on_end=lambda: busy.release(owner, conversation_id))


async def first_event(request: Request, pump: Pump[Event]) -> Event:
    """The first event, waited for before a status is sent, so that an early error gets its own status."""
    try:
        event = await until_disconnected(request.receive, pump.next())
    except BaseException:
        await pump.close()
        raise
    assert event is not None, "the answer path ended without an event"
    return event


async def whole_answer(request: Request, services: Services, pump: Pump[Event]) -> Answer:
    """The last event. Hanging up cancels the answer."""

    async def last() -> Answer:
        while (event := await pump.next()) is not None:
            if isinstance(event, Answer):
                return event
        raise AssertionError("the answer path ended without an answer")

    try:
        found = await until_disconnected(request.receive, last())
    finally:
        await pump.close()
    services.metrics.count_answer(found)
    return found


@router.post(
    "/v1/ask",
    summary="Ask a question, get a cited answer",
    response_model=AskResponse,
    responses={
        200: {
            "description": "The answer; with `stream: true` the events sources, delta…, and done (the answer) or error.",
            "content": {"text/event-stream": {"schema": {"type": "string"}, "example": _STREAM_EXAMPLE}},
        },
        **problems(403, 404, 409, 415, 422, 429, 502, 503, 504),
    },
)
async def ask_question(request: Request, services: ServicesOf, caller: CallerOf, body: AskRequest) -> Any:
    """Answers from the documents the caller may see. Without `messages` the turn is stored in a conversation."""
    ask = Ask(
        question=body.question,
        conversation_id=body.conversation_id,
        messages=messages_of(body.messages),
        store=body.messages is None,
        top_k=body.top_k,
        provider=body.provider,
        filters=filters_of(body.filters),
    )
    pump = start(request, services, caller, ask)
    if not body.stream:
        return shown_answer(await whole_answer(request, services, pump))
    return _stream(await first_event(request, pump), pump, services, request_id_of(request))


def _stream(first: Event, pump: Pump[Event], services: Services, request_id: str) -> Response:
    def encode(event: Event) -> Iterator[bytes]:
        match event:
            case Sources():
                yield _event("sources", shown_sources(event).model_dump_json())
            case Delta():
                yield _event("delta", json.dumps({"text": event.text}))
            case Answer():
                services.metrics.count_answer(event)
                yield _event("done", shown_answer(event).model_dump_json())

    def fail(problem: Problem) -> Iterator[bytes]:
        yield _event("error", json.dumps(as_details(problem, request_id)))

    return EventStream(first, pump, encode, fail)


def _event(name: str, data: str) -> bytes:
    return format_sse_event(event=name, data_str=data)


@router.post(
    "/v1/search",
    summary="Find passages",
    response_model=SearchResponse,
    responses=problems(403, 415, 422, 503),
)
async def search_passages(services: ServicesOf, caller: CallerOf, body: SearchRequest) -> SearchResponse:
    """Finds passages in the documents the caller may see, best first. Nothing is stored."""
    messages, filters = messages_of(body.messages), filters_of(body.filters)
    check_limits(services.settings.server, body.query, messages, "query")
    check_filters(services, filters)
    found = await search(services, caller, body.query, messages, body.top_k, filters)
    return SearchResponse(hits=shown_hits(found.hits), standalone_question=found.standalone_question)
