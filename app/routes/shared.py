"""What the routes share: who calls, the services, and the errors that the OpenAPI document states."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from fastapi import Depends, Query, Request, Security
from fastapi.security import HTTPBearer

from app.access import Caller
from app.answering.types import Ask
from app.problems import PROBLEM_TYPE
from app.schemas import ProblemDetails
from app.services import Services
from app.settings import ServerSettings
from corpus.errors import Conflict, Forbidden, Invalid
from corpus.types import Message

_bearer = HTTPBearer(auto_error=False, description="`server.api_key`; only where one is configured.")


def _services(request: Request) -> Services:
    services: Services = request.state.services
    return services


def _caller(request: Request, _credentials: Annotated[object, Security(_bearer)]) -> Caller:
    # Set by the gate before the body is read. A path that it does not protect has no caller, and fails here.
    caller: Caller = request.state.caller
    return caller


def _administrator(caller: Annotated[Caller, Depends(_caller)]) -> Caller:
    if not caller.administrator:
        raise Forbidden("this is for an administrator: whoever has server.api_key; without one, callers on this machine")
    return caller


ServicesOf = Annotated[Services, Depends(_services)]
CallerOf = Annotated[Caller, Depends(_caller)]
AdministratorOf = Annotated[Caller, Depends(_administrator)]
CursorOf = Annotated[
    str | None, Query(max_length=200, pattern=r"^[A-Za-z0-9_\-]+$", description="`next_cursor` of the page before.")
]
LimitOf = Annotated[int, Query(ge=1, le=200, description="Entries of a page, at most.")]


class Busy:
    """The conversations that are being answered now, in this process."""

    def __init__(self) -> None:
        self._held: set[tuple[str, str]] = set()

    def hold(self, owner: str, conversation_id: str) -> None:
        """Raises: Conflict where the conversation is being answered already."""
        if (owner, conversation_id) in self._held:
            raise Conflict(f"conversation {conversation_id!r} is being answered; wait until that answer has ended")
        self._held.add((owner, conversation_id))

    def release(self, owner: str, conversation_id: str) -> None:
        """The conversation may be asked again."""
        self._held.discard((owner, conversation_id))

    @contextmanager
    def held(self, owner: str, conversation_id: str) -> Iterator[None]:
        """The conversation for as long as the block runs. Raises: Conflict."""
        self.hold(owner, conversation_id)
        try:
            yield
        finally:
            self.release(owner, conversation_id)


def check_limits(server: ServerSettings, question: str, messages: tuple[Message, ...], field: str) -> None:
    """Raises: Invalid where a question or the turns before it are over the configured limits."""
    if len(question) > server.max_question_chars:
        raise Invalid(
            f"{field} has {len(question)} characters, at most {server.max_question_chars} are taken "
            "(server.max_question_chars); shorten it",
            field,
        )
    if len(messages) > server.max_messages:
        raise Invalid(
            f"messages has {len(messages)} turns, at most {server.max_messages} are taken (server.max_messages); "
            "leave the oldest out",
            "messages",
        )


def check_filters(services: Services, filters: dict[str, tuple[str, ...]]) -> None:
    """Raises: Invalid where a field may not be filtered by."""
    allowed = services.settings.search.filter_fields
    for name in filters:
        if name not in allowed:
            raise Invalid(f"filters: no field {name[:80]!r}; known: {', '.join(allowed)}", "filters")


def check_ask(services: Services, ask: Ask) -> None:
    """What can be refused before anything is searched or streamed. Raises: Invalid, BackendNotConfigured."""
    check_limits(services.settings.server, ask.question, ask.messages, "question")
    check_filters(services, dict(ask.filters))
    services.gateway.check(ask.provider)


_STATED: dict[int, tuple[str, str, str]] = {
    400: ("bad-request", "Bad Request", "the body is not JSON: Expecting value at line 1, column 14"),
    401: ("unauthorized", "Key required", "this service needs its key; send the header `Authorization: Bearer …`"),
    403: ("forbidden", "Forbidden", "this comes from a page of another site, which may change nothing here"),
    404: ("not-found", "Not found", "no conversation 'x'; it does not exist or is not visible to you"),
    405: ("method-not-allowed", "Method Not Allowed", "PUT is not for '/v1/ask'; the Allow header says what is"),
    409: ("conflict", "Conflict", "conversation 'x' is being answered; wait until that answer has ended"),
    410: ("gone", "Version gone", "document 'x' has no version 'a' any more; the current version is 'b'"),
    413: ("too-large", "Too large", "the body is larger than 1000000 bytes (server.max_body_bytes); send less"),
    415: (
        "unsupported-media-type",
        "Unsupported Media Type",
        "send JSON, with the header Content-Type: application/json",
    ),
    421: ("misdirected-request", "Misdirected Request", "this Host is not in server.allowed_hosts"),
    422: ("invalid", "Invalid request", "top_k: Input should be a valid integer"),
    429: ("overloaded", "Too many requests", "64 questions are being answered; ask again in 3 s"),
    500: ("internal-error", "Internal error", "something went wrong; the log has more under this request id"),
    502: ("backend-unreachable", "LLM unreachable", "no connection to the LLM provider; is it running?"),
    503: ("no-snapshot", "No snapshot", "no documents have been published yet; run `archivist ingest`"),
    504: ("backend-timeout", "LLM too slow", "the LLM provider took too long; is it overloaded or still loading?"),
}

_ALWAYS = (400, 401, 405, 413, 421, 500)


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors of a route as the OpenAPI document states them; those that every route has come along."""
    return {status: _stated(status) for status in sorted({*_ALWAYS, *statuses})}


def _stated(status: int) -> dict[str, Any]:
    name, title, detail = _STATED[status]
    example = {
        "type": f"urn:archivist:problem:{name}",
        "title": title,
        "status": status,
        "detail": detail,
        "instance": "urn:archivist:request:9f86d081884c7d65",
    }
    schema = {"$ref": f"#/components/schemas/{ProblemDetails.__name__}"}
    return {"description": title, "content": {PROBLEM_TYPE: {"schema": schema, "example": example}}}
