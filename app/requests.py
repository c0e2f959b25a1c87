"""JSON bodies, read strictly, and errors of the framework told in our words."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from app.logs import error_fields
from app.problems import invalid_problem, problem_of, problem_of_status, problem_response
from corpus.errors import ArchivistError

MAX_PROBLEMS_TOLD = 20
SMALL_BODY_BYTES = 16_000
MAX_KEYS = 1_000
"""Keys of one JSON object; each unknown one costs an error, and nothing that we take has nearly as many."""

_log = structlog.get_logger(__name__)


class StrictRequest(Request):
    """A request whose JSON has no duplicate keys, no NaN, no lone surrogates and a sane depth."""

    async def json(self) -> Any:
        """The body. Raises: HTTPException 400 that says what is wrong, never with a piece of the body."""
        body = await self.body()
        if len(body) <= SMALL_BODY_BYTES:
            return _parsed(body)
        # Reading a large body takes long enough for other requests to feel it.
        return await self.state.services.compute(_parsed, body)


def _parsed(body: bytes) -> Any:
    try:
        text = body.decode("utf-8")
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
        if b"\\ud" in body or b"\\uD" in body:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except json.JSONDecodeError as error:
        detail = f"the body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        raise HTTPException(400, detail) from error
    except UnicodeDecodeError as error:
        raise HTTPException(400, f"the body is not UTF-8 (byte {error.start})") from error
    except UnicodeEncodeError as error:
        raise HTTPException(400, "the body holds half of a surrogate pair, which is not a character") from error
    except RecursionError as error:
        raise HTTPException(400, "the body is nested too deeply") from error
    except _NotStrict as error:
        raise HTTPException(400, str(error)) from error
    except ValueError as error:  # Python's limit on the digits of an integer
        raise HTTPException(400, "the body holds a number that is too long") from error
    return value


class _NotStrict(ValueError):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(pairs) > MAX_KEYS:
        raise _NotStrict(f"the body has an object with more than {MAX_KEYS} keys")
    if len(found) != len(pairs):
        raise _NotStrict("the body names a key twice in one object")
    return found


def _refuse_constant(_name: str) -> NoReturn:
    raise _NotStrict("the body holds NaN or Infinity, which JSON does not know")


class StrictRoute(APIRoute):
    """A route that takes only JSON bodies and reads them strictly."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The framework's handler, given a strict request."""
        handle = super().get_route_handler()
        takes_body = self.body_field is not None

        async def handle_strictly(request: Request) -> Response:
            if takes_body:
                _require_json(request)
            return await handle(StrictRequest(request.scope, request.receive))

        return handle_strictly


def _require_json(request: Request) -> None:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise HTTPException(415, "send JSON, with the header Content-Type: application/json")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise HTTPException(415, "a compressed body is not taken; send it without Content-Encoding")


def request_id_of(request: Request) -> str:
    """The id that the response header and every log record of this request carry."""
    request_id: str = request.state.request_id
    return request_id


def add_error_handlers(app: FastAPI) -> None:
    """Tell our errors, the schema's and HTTP's own as problems."""
    app.add_exception_handler(ArchivistError, _on_our_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http_error)


async def _on_our_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ArchivistError)
    problem = problem_of(error)
    if problem.status >= 500:
        _log.warning("request failed", action="request_failed", **error_fields(error))
    return problem_response(problem, request.url.path, request_id_of(request))


async def _on_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    # Only where and why: the value itself could be the question.
    invalid = tuple(
        {"field": _field_of(each["loc"]), "message": str(each["msg"])[:200]} for each in error.errors()[:MAX_PROBLEMS_TOLD]
    )
    return problem_response(invalid_problem(invalid), request.url.path, request_id_of(request))


def _field_of(location: tuple[int | str, ...]) -> str:
    names = [str(part)[:80] for part in location]
    return ".".join(names[1:] or names)


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    match error.status_code:
        case 404:
            detail = f"nothing is at {request.url.path[:120]!r}; GET /openapi.json lists what is"
        case 405:
            detail = f"{request.method} is not for {request.url.path[:120]!r}; the Allow header says what is"
        case _:
            detail = error.detail
    problem = problem_of_status(error.status_code, detail, error.headers)
    return problem_response(problem, request.url.path, request_id_of(request))
