"""What every request passes before a route sees it, as plain ASGI so that streams and hanging up work.

`Requests` gives it an id, headers, a log record and a metric, and is the boundary for unexpected errors. `Gate` decides
by Host header, key and size before anything of the body is kept.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.access import authenticate, check_same_site
from app.logs import error_fields
from app.problems import problem_of, problem_of_status, problem_response, unexpected_problem
from app.reload import Current
from app.settings import ServerSettings
from corpus.errors import RequestError, TooLarge

CLIENT_CLOSED_REQUEST = 499  # nginx's number for a caller that hung up; only logs and metrics see it

PROTECTED_PREFIXES = ("/v1", "/metrics", "/openapi.json", "/docs")
"""Paths that need the key when there is one. The page, /livez and /readyz are open; /readyz keeps its detail back."""

UPLOADS_PATH = "/v1/documents"
"""Where a document is uploaded, by POST."""

SECURITY_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}

_log = structlog.get_logger(__name__)


class Requests:
    """Request id, response headers, one log record and one metric a request; unexpected errors end here.

    A request works with the configuration that is in force when it comes, to the end of its response.
    """

    def __init__(self, app: ASGIApp, current: Current) -> None:
        self._app, self._current = app, current

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id
        began = time.perf_counter()
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                for name, value in SECURITY_HEADERS.items():
                    headers[name] = value
                if "cache-control" not in headers:
                    # The page's modules belong together: none may be used after an upgrade without asking.
                    headers["Cache-Control"] = "no-store" if scope["path"].startswith("/v1") else "no-cache"
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id), self._current.leased() as services:
            scope["state"]["services"] = services
            try:
                await self._app(scope, receive, send_with_headers)
            except ClientDisconnect:
                status = CLIENT_CLOSED_REQUEST
            except Exception as error:  # boundary: nothing of an unexpected error reaches the caller
                _log.error("unexpected error", action="request_failed", **error_fields(error))
                if status:
                    raise  # the response has begun; the server must cut it off
                response = problem_response(unexpected_problem(), scope["path"], request_id)
                await response(scope, receive, send_with_headers)
            finally:
                took_s = time.perf_counter() - began
                route = _route_of(scope)
                services.metrics.count_request(route, status or CLIENT_CLOSED_REQUEST, took_s)
                _log.info(
                    "request answered",
                    action="request",
                    method=scope["method"],
                    route=route,
                    status=status,
                    took_ms=round(took_s * 1000, 1),
                )


def _route_of(scope: Scope) -> str:
    """The path's template: a path itself may hold an id, or anything at all."""
    path = getattr(scope.get("route"), "path", None)
    return path if isinstance(path, str) and path else "other"


class Gate:
    """Refuses a foreign Host, a missing key, a change that another site's page asks for, and a body over the limit."""

    def __init__(self, app: ASGIApp, server: ServerSettings) -> None:
        self._app, self._server = app, server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refused = self._refusal(scope, headers)
        if refused is not None:
            await refused(scope, receive, send)
            return
        await self._app(scope, self._limited(scope, receive), send)

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        path, request_id = scope["path"], scope["state"]["request_id"]
        if not self._is_allowed_host(headers.getlist("host")):
            detail = "this Host is not in server.allowed_hosts; add it there, or call by a name that is"
            return problem_response(problem_of_status(421, detail), path, request_id)
        if ".." in path.split("/"):
            # Percent-encoded dots come through as segments; no route and no file of the page is named so.
            return problem_response(problem_of_status(404, "a path may not climb with '..'"), path, request_id)
        try:
            if path.startswith(PROTECTED_PREFIXES):
                client = scope.get("client")
                address = client[0] if client else None
                scope["state"]["caller"] = authenticate(self._server, headers.get("authorization"), address)
            check_same_site(scope["method"], headers.get("host"), headers.get("origin"), headers.get("sec-fetch-site"))
            length = headers.get("content-length", "0")
            if not length.isascii() or not length.isdigit() or len(length) > 18 or int(length) > self._limit(scope)[1]:
                raise self._too_large(scope)
        except RequestError as error:
            return problem_response(problem_of(error), path, request_id)
        return None

    def _is_allowed_host(self, hosts: list[str]) -> bool:
        if "*" in self._server.allowed_hosts:
            return True
        if len(hosts) != 1:
            return False
        host = hosts[0].lower()
        name, colon, port = host.rpartition(":")
        if colon and port.isdigit():
            host = name
        return host in {allowed.lower() for allowed in self._server.allowed_hosts}

    def _limit(self, scope: Scope) -> tuple[str, int]:
        """The limit of this request's body, and its key: a document is longer than a question."""
        if scope["method"] == "POST" and scope["path"] == UPLOADS_PATH:
            return "max_upload_bytes", self._server.max_upload_bytes
        return "max_body_bytes", self._server.max_body_bytes

    def _too_large(self, scope: Scope) -> TooLarge:
        key, limit = self._limit(scope)
        return TooLarge(f"the body is larger than {limit} bytes (server.{key}); send less")

    def _limited(self, scope: Scope, receive: Receive) -> Receive:
        received = 0
        limit = self._limit(scope)[1]

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                if received > limit:
                    # The framework lets only its own exception through from here.
                    raise HTTPException(413, str(self._too_large(scope)))
            return message

        return counted
