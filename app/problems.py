"""Errors as a caller sees them: one table from our error classes to HTTP, and the two shapes they are written in.

Problem details (RFC 9457) everywhere; OpenAI's error object under the paths that speak OpenAI's format.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from math import ceil
from typing import Any

from starlette.responses import Response

from corpus import errors

PROBLEM_TYPE = "application/problem+json"
OPENAI_PATHS = ("/v1/chat/", "/v1/models")


@dataclass(frozen=True, slots=True)
class Kind:
    """How one class of error is told. `detail` None = the error's own message was written for the caller."""

    status: int
    title: str
    detail: str | None


# Messages of errors that the caller did not cause can hold paths, addresses and what an upstream said, so those get a
# fixed detail here; the log has the class and its attributes.
KINDS: dict[type[errors.ArchivistError], Kind] = {
    errors.ArchivistError: Kind(500, "Internal error", "something went wrong; the log has more under this request id"),
    errors.ConfigError: Kind(500, "Configuration error", "the configuration cannot be used; run `archivist config check`"),
    errors.RequestError: Kind(400, "Bad request", None),
    errors.Unauthorized: Kind(401, "Key required", None),
    errors.Forbidden: Kind(403, "Forbidden", None),
    errors.NotFound: Kind(404, "Not found", None),
    errors.Gone: Kind(410, "Version gone", None),
    errors.Conflict: Kind(409, "Conflict", None),
    errors.Invalid: Kind(422, "Invalid request", None),
    errors.TooLarge: Kind(413, "Too large", None),
    errors.Overloaded: Kind(429, "Too many requests", None),
    errors.BudgetSpent: Kind(429, "Budget spent", None),
    errors.DocumentError: Kind(500, "Document error", "a document cannot be read; look at the last ingest's report"),
    errors.NotYaml: Kind(500, "Not YAML", "a file of the service is not valid YAML; the log has more under this request id"),
    errors.LockHeld: Kind(503, "Busy", "another run holds the data folder; try again later"),
    errors.RunRefused: Kind(500, "Run refused", "an ingest was refused; look at its report"),
    errors.SnapshotError: Kind(503, "No snapshot", "the published documents cannot be read; run `archivist ingest`"),
    errors.NoSnapshot: Kind(503, "No snapshot", "no documents have been published yet; run `archivist ingest`"),
    errors.SnapshotDamaged: Kind(503, "Snapshot damaged", "the published documents are damaged; run `archivist ingest`"),
    errors.NotWritten: Kind(503, "Data folder not writable", "a file of the data folder cannot be written; is the disk full?"),
    errors.EmbedderError: Kind(503, "Embedding model unavailable", "questions cannot be embedded; the log has more"),
    errors.ModelNotFound: Kind(503, "Embedding model unavailable", "the embedding model is not installed"),
    errors.ModelDamaged: Kind(503, "Embedding model unavailable", "the embedding model's files are damaged; reinstall it"),
    errors.ModelNotExported: Kind(503, "Embedding model unavailable", "the model cannot be exported; the log has more"),
    errors.EmbedderMismatch: Kind(
        503, "Embedding model changed", "documents and configuration name different models; run `archivist ingest`"
    ),
    errors.RerankerFailed: Kind(503, "Reranking failed", "passages cannot be reranked now; the log has more"),
    errors.StateError: Kind(503, "Conversations unavailable", "the database of conversations cannot be used now"),
    errors.OverlayError: Kind(
        503, "Overrides unavailable", "what was deleted or withdrawn cannot be told now, so nothing is shown; the log has more"
    ),
    errors.EgressError: Kind(502, "Outbound call failed", "the LLM provider's address did not answer"),
    errors.EgressUnreachable: Kind(502, "Outbound call failed", "no connection to the LLM provider's address"),
    errors.EgressTimeout: Kind(504, "Outbound call too slow", "the LLM provider's address took too long"),
    errors.EgressBroken: Kind(502, "Outbound call failed", "what came back from the LLM provider's address was cut off"),
    errors.PageTooLarge: Kind(502, "Outbound call failed", "what came back is larger than is allowed"),
    errors.EgressRefused: Kind(503, "Address refused", "the LLM provider's address is not allowed by the configuration"),
    errors.BackendError: Kind(502, "LLM error", "the LLM provider did not answer"),
    errors.BackendNotConfigured: Kind(503, "LLM not configured", "the LLM provider lacks a key or an address"),
    errors.NotCleared: Kind(
        503, "Not cleared", "no provider that may see these documents can answer; choose another provider, or none"
    ),
    errors.BackendLeftAlone: Kind(503, "LLM left alone", "the LLM provider failed too often and is tried again soon"),
    errors.BackendUnreachable: Kind(502, "LLM unreachable", "no connection to the LLM provider; is it running?"),
    errors.BackendTimeout: Kind(504, "LLM too slow", "the LLM provider took too long; is it overloaded or still loading?"),
    errors.BackendRateLimited: Kind(503, "LLM rate limited", "the LLM provider asks to wait; try again later"),
    errors.BackendRejected: Kind(502, "LLM rejected the request", "the LLM provider refused the request"),
    errors.BackendFailed: Kind(502, "LLM failed", "the LLM provider failed; look at its own log"),
    errors.BackendWordless: Kind(502, "LLM answered nothing", "the LLM provider's answer holds no text; ask differently"),
    errors.BackendMalformed: Kind(502, "LLM answer malformed", "the LLM provider's answer was cut off or is not its protocol"),
}

UNEXPECTED = KINDS[errors.ArchivistError]


@dataclass(frozen=True, slots=True)
class Problem:
    """One error, ready to be told. `parameter` names the request's field at fault, `invalid` all of them."""

    status: int
    name: str
    title: str
    detail: str
    parameter: str | None = None
    invalid: tuple[Mapping[str, str], ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)


def problem_of(error: errors.ArchivistError) -> Problem:
    """What a caller is told of an error of ours."""
    kind = KINDS[type(error)]
    detail = str(error) if kind.detail is None else kind.detail
    headers: dict[str, str] = {}
    match error:
        case errors.Unauthorized():
            headers["WWW-Authenticate"] = "Bearer"
        case errors.Overloaded() | errors.BudgetSpent():
            headers["Retry-After"] = str(max(1, ceil(error.retry_after_s)))
        case errors.BackendLeftAlone():
            headers["Retry-After"] = str(max(1, ceil(error.again_in_s)))
            detail = f"{detail} (provider {error.provider!r})"
        case errors.BackendRateLimited():
            headers["Retry-After"] = str(max(1, ceil(error.retry_after_s or 1)))
        case errors.BackendTimeout():
            detail = f"{detail} ({error.waited_for} within {error.waited_s:.3g} s, provider {error.provider!r})"
        case errors.BackendRejected():
            detail = f"{detail} with HTTP {error.status} (provider {error.provider!r})"
        case errors.BackendError():
            detail = f"{detail} (provider {error.provider!r})"
        case _:
            pass
    parameter = error.field if isinstance(error, errors.Invalid) else None
    return Problem(kind.status, _name(type(error)), kind.title, _clean(detail), parameter, headers=headers)


def problem_of_status(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Problem:
    """What a caller is told where HTTP itself has the name for it: an unknown path, a wrong method, a wrong type."""
    title = HTTPStatus(status).phrase
    return Problem(status, title.lower().replace(" ", "-"), title, _clean(detail), headers=headers or {})


def unexpected_problem() -> Problem:
    """What a caller is told of an error that is not ours: nothing of it."""
    assert UNEXPECTED.detail is not None
    return Problem(UNEXPECTED.status, "internal-error", UNEXPECTED.title, UNEXPECTED.detail)


def invalid_problem(invalid: tuple[Mapping[str, str], ...]) -> Problem:
    """What a caller is told of a body, a path or a query that does not fit the schema."""
    first = invalid[0]
    detail = f"{first['field']}: {first['message']}" + (f" (and {len(invalid) - 1} more)" if len(invalid) > 1 else "")
    kind = KINDS[errors.Invalid]
    return Problem(kind.status, "invalid", kind.title, _clean(detail), first["field"], invalid)


def as_details(problem: Problem, request_id: str) -> dict[str, Any]:
    """RFC 9457 problem details; `instance` carries the request id that the log has too."""
    details: dict[str, Any] = {
        "type": f"urn:archivist:problem:{problem.name}",
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
        "instance": f"urn:archivist:request:{request_id}",
    }
    if problem.invalid:
        details["errors"] = [dict(each) for each in problem.invalid]
    return details


def as_openai_error(problem: Problem) -> dict[str, Any]:
    """OpenAI's error object."""
    kind = "rate_limit_error" if problem.status == 429 else "invalid_request_error" if problem.status < 500 else "server_error"
    return {
        "error": {
            "message": problem.detail,
            "type": kind,
            "param": problem.parameter,
            "code": problem.name.replace("-", "_"),
        }
    }


def problem_response(problem: Problem, path: str, request_id: str) -> Response:
    """An error as a response, in the shape that callers of the path expect."""
    if path.startswith(OPENAI_PATHS):
        # OpenAI's own service knows no 422; its clients take 400 for what they sent wrongly.
        status = 400 if problem.status == 422 else problem.status
        body, media_type = as_openai_error(problem), "application/json"
    else:
        status, body, media_type = problem.status, as_details(problem, request_id), PROBLEM_TYPE
    content = json.dumps(body, ensure_ascii=False).encode("utf-8")
    return Response(content, status, dict(problem.headers), media_type)


def _name(kind: type[errors.ArchivistError]) -> str:
    return "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in kind.__name__).lstrip("-")


def _clean(text: str) -> str:
    # A lone surrogate cannot be written as UTF-8; it is shown as its escape.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
