"""The one way in which anything of ours talks HTTP to the outside. The only importer of httpx; knows no wire format.

What it promises: only origins that were named when it was built; no redirect followed, no cookie kept, no proxy or
certificate taken from the environment; `localhost` only where it resolves to this machine, and then that very address;
a limit for each stage, for one event and for a whole answer; no header and no body in a log or in an error.
"""

from __future__ import annotations

import asyncio
import http.cookiejar
import ipaddress
import json as json_module
import logging
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from corpus.errors import EgressBroken, EgressError, EgressRefused, EgressTimeout, EgressUnreachable

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""From a host name and a port to the addresses it has right now."""

TRANSLATIONS: dict[type[Exception], tuple[type[EgressError], str]] = {
    httpx.ConnectTimeout: (EgressUnreachable, "no connection in time"),
    httpx.PoolTimeout: (EgressUnreachable, "no free connection in time"),
    httpx.TimeoutException: (EgressBroken, "stopped answering"),
    httpx.ConnectError: (EgressUnreachable, "could not connect; is it running, and is the address right?"),
    httpx.ProxyError: (EgressUnreachable, "the proxy refused the connection"),
    httpx.NetworkError: (EgressBroken, "the connection was cut"),
    httpx.RemoteProtocolError: (EgressBroken, "the connection was closed early, or what came back is not HTTP"),
    httpx.LocalProtocolError: (EgressRefused, "the request is not valid HTTP"),
    httpx.UnsupportedProtocol: (EgressRefused, "only http:// and https:// addresses are called"),
    httpx.DecodingError: (EgressBroken, "what came back could not be decoded"),
    httpx.TooManyRedirects: (EgressRefused, "redirects are not followed"),
    httpx.InvalidURL: (EgressRefused, "that is not a URL"),
    httpx.HTTPError: (EgressBroken, "the call failed"),
}
"""httpx's exceptions by the nearest class in their family; what is in neither this nor OUR_MISTAKES fails a test."""

OUR_MISTAKES: tuple[type[Exception], ...] = (httpx.StreamError, httpx.CookieConflict)
"""Raised only where this module misuses httpx; not translated, so that they are seen."""

# httpx logs every URL and httpcore every response header; neither is anybody's business.
logging.getLogger("httpx").setLevel(logging.WARNING)
logging.getLogger("httpcore").setLevel(logging.WARNING)


_WHOLE_EVENT = re.compile(rb"data: [^\r\n]*\n\n")


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long each stage may take, in seconds. `response_s` runs from sending to the headers; `total_s` is for all."""

    connect_s: float = 5.0
    response_s: float = 60.0
    total_s: float = 300.0
    pool_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may come back, in bytes: one event or line, and a whole answer."""

    event_bytes: int = 1_000_000
    answer_bytes: int = 8_000_000


class EventParser:
    """Cuts a byte stream into the data of its server-sent events.

    Source: https://html.spec.whatwg.org/multipage/server-sent-events.html, without event names, ids and retry.
    """

    def __init__(self, max_event_bytes: int) -> None:
        self._max_event_bytes = max_event_bytes
        self._rest = b""
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._after_cr = False
        self._at_start = True

    def feed(self, chunk: bytes) -> list[str]:
        """The events that this chunk completes. Raises ValueError where one is larger than allowed."""
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
            self._after_cr = False
        if not chunk:
            return []
        if not self._rest and not self._data and _WHOLE_EVENT.fullmatch(chunk) and not self._at_start:
            self._after_cr = False
            self._check(len(chunk))  # the way most events come: one, whole, on one line
            return [chunk[6:-2].decode("utf-8", "replace")]
        self._after_cr = chunk.endswith(b"\r")
        lines = (self._rest + chunk).splitlines(keepends=True)
        self._rest = b"" if lines[-1].endswith((b"\n", b"\r")) else lines.pop()
        events: list[str] = []
        for line in lines:
            content = line.rstrip(b"\r\n")
            if self._at_start:
                content = content.removeprefix(b"\xef\xbb\xbf")
                self._at_start = False
            if not content:
                if self._data:
                    events.append(b"\n".join(self._data).decode("utf-8", "replace"))
                    self._data, self._data_bytes = [], 0
            elif content.startswith(b"data:"):
                value = content[6:] if content.startswith(b"data: ") else content[5:]
                self._data.append(value)
                self._data_bytes += len(value)
                self._check(self._data_bytes)
        self._check(self._data_bytes + len(self._rest))
        return events

    def _check(self, size: int) -> None:
        if size > self._max_event_bytes:
            raise ValueError(f"one event is larger than {self._max_event_bytes:,} bytes")


class Answer:
    """A response whose body is still to be read. `requested_at` is the loop's time when the request began to go out."""

    def __init__(
        self,
        response: httpx.Response,
        target: str,
        limits: Limits,
        requested_at: float,
        total_at: float,
        total_s: float,
    ) -> None:
        self.status = response.status_code
        self.requested_at = requested_at
        self._response = response
        self._target = target
        self._limits = limits
        self._total_at, self._total_s = total_at, total_s
        self._chunks = response.aiter_raw()
        self._parser = EventParser(limits.event_bytes)
        self._size = 0

    def header(self, name: str) -> str | None:
        """One response header, whatever the case of its name."""
        value = self._response.headers.get(name)
        return None if value is None else str(value)

    async def next_events(self, deadline: float) -> list[str] | None:
        """The data of the events in the next bytes that arrive, possibly none; None at the end of the body.

        Units: `deadline` is a time of the event loop's clock.
        Raises: EgressTimeout (response or total), EgressBroken.
        """
        chunk = await self._next_chunk(deadline)
        if chunk is None:
            return None
        try:
            return self._parser.feed(chunk)
        except ValueError as error:
            raise EgressBroken(f"{self._target}: {error}; refused") from error

    async def body(self, deadline: float) -> bytes:
        """The whole body. Raises like `next_events`."""
        parts: list[bytes] = []
        while (chunk := await self._next_chunk(deadline)) is not None:
            parts.append(chunk)
        return b"".join(parts)

    async def _next_chunk(self, deadline: float) -> bytes | None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        # The clock runs around one read and never across a yield, where it would cancel whoever is consuming.
        try:
            async with asyncio.timeout_at(min(deadline, self._total_at)):
                chunk = await anext(self._chunks, None)
        except TimeoutError as error:
            if self._total_at <= deadline:
                raise EgressTimeout(self._target, "total", self._total_s) from error
            raise EgressTimeout(self._target, "response", max(0.0, deadline - began)) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise translated(error, self._target) from error
        if chunk is not None:
            self._size += len(chunk)
            if self._size > self._limits.answer_bytes:
                raise EgressBroken(f"{self._target}: the answer is larger than {self._limits.answer_bytes:,} bytes; refused")
        return chunk


class Egress:
    """Outbound HTTP to the origins it was built with, over one pool of connections. Belongs to one event loop."""

    def __init__(self, allowed: Iterable[str], *, max_connections: int = 256, resolve: Resolve | None = None) -> None:
        self._allowed = frozenset(_origin(_parse(url)) for url in allowed)
        self._resolve = resolve or _resolve
        self._client = httpx.AsyncClient(
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(None),  # the stages of `Timeouts` are kept here, by one clock
            limits=httpx.Limits(max_connections=max_connections, max_keepalive_connections=max_connections),
            cookies=http.cookiejar.CookieJar(http.cookiejar.DefaultCookiePolicy(allowed_domains=[])),
            headers={"User-Agent": "archivist", "Accept-Encoding": "identity"},
        )

    @asynccontextmanager
    async def stream(
        self,
        url: str,
        *,
        method: str = "POST",
        headers: Mapping[str, str] | None = None,
        json: object = None,
        timeouts: Timeouts = Timeouts(),
        limits: Limits = Limits(),
    ) -> AsyncIterator[Answer]:
        """Sends one request and hands over its answer; leaving the block ends the call.

        Raises: EgressRefused, EgressUnreachable, EgressTimeout, EgressBroken.
        """
        parsed = _parse(url)
        target = parsed.netloc.decode("ascii")
        if _origin(parsed) not in self._allowed:
            raise EgressRefused(f"{target}: not an address that the configuration names; nothing was sent")
        total_at = asyncio.get_running_loop().time() + timeouts.total_s
        content = None if json is None else json_module.dumps(json, ensure_ascii=True).encode("ascii")
        sent_headers = {"Host": target, **_checked(headers or {}, target)}
        if content is not None:
            sent_headers["Content-Type"] = "application/json"
        response, requested_at = await self._open(parsed, method, sent_headers, content, timeouts, total_at)
        try:
            _refuse_redirect(response, target)
            if response.headers.get("content-encoding", "identity") != "identity":
                # A compressed answer may unpack to a thousand times its size, and none was asked for.
                raise EgressBroken(f"{target}: answered with a content encoding that was not asked for; refused")
            yield Answer(response, target, limits, requested_at, total_at, timeouts.total_s)
        finally:
            await response.aclose()

    async def call_json(
        self,
        url: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        json: object = None,
        timeouts: Timeouts = Timeouts(),
        limits: Limits = Limits(),
    ) -> tuple[int, object]:
        """The status and the parsed JSON body of a short call. Raises like `stream`; EgressBroken if it is not JSON."""
        call = self.stream(url, method=method, headers=headers, json=json, timeouts=timeouts, limits=limits)
        async with call as answer:
            body = await answer.body(answer.requested_at + timeouts.response_s)
            try:
                return answer.status, json_module.loads(body)
            except ValueError as error:
                raise EgressBroken(f"{_parse(url).host}: answered {answer.status} with something that is not JSON") from error

    async def close(self) -> None:
        """Closes every connection."""
        await self._client.aclose()

    async def _open(
        self,
        url: httpx.URL,
        method: str,
        headers: Mapping[str, str],
        content: bytes | None,
        timeouts: Timeouts,
        total_at: float,
    ) -> tuple[httpx.Response, float]:
        addresses = await self._addresses(url, timeouts)
        for address in addresses[:-1]:
            try:
                return await self._send(url, address, method, headers, content, timeouts, total_at)
            except EgressUnreachable:
                continue  # nothing was sent; localhost often has two addresses, and one that listens
        return await self._send(url, addresses[-1], method, headers, content, timeouts, total_at)

    async def _addresses(self, url: httpx.URL, timeouts: Timeouts) -> list[str]:
        if url.host != "localhost":
            return [url.host]
        target, port = url.netloc.decode("ascii"), url.port or (443 if url.scheme == "https" else 80)
        try:
            async with asyncio.timeout(timeouts.connect_s):
                addresses = await self._resolve(url.host, port)
        except TimeoutError as error:
            raise EgressTimeout(target, "connect", timeouts.connect_s) from error
        except OSError as error:
            raise EgressUnreachable(f"{target}: the name could not be resolved") from error
        for address in addresses:
            if not ipaddress.ip_address(address).is_loopback:
                raise EgressRefused(f"{target}: resolves to {address!r}, which is not this machine; nothing was sent")
        if not addresses:
            raise EgressUnreachable(f"{target}: the name has no address")
        return addresses

    async def _send(
        self,
        url: httpx.URL,
        address: str,
        method: str,
        headers: Mapping[str, str],
        content: bytes | None,
        timeouts: Timeouts,
        total_at: float,
    ) -> tuple[httpx.Response, float]:
        target = url.netloc.decode("ascii")
        loop = asyncio.get_running_loop()
        stage, limit_s, requested_at = "pool", timeouts.pool_s, loop.time()
        connection: Any = None

        async def on_progress(event: str, details: Mapping[str, Any]) -> None:
            # httpcore says where it is, so that each stage gets its own limit: name, connection and TLS are one.
            nonlocal stage, limit_s, requested_at, connection
            if event == "connection.connect_tcp.complete":
                connection = details["return_value"]
                return
            if event == "connection.connect_tcp.started":
                stage, limit_s = "connect", timeouts.connect_s
            elif event == "http11.send_request_headers.started":
                stage, limit_s, requested_at = "response", timeouts.response_s, loop.time()
            else:
                return
            clock.reschedule(min(loop.time() + limit_s, total_at))

        try:
            request = self._client.build_request(
                method,
                url.copy_with(host=address),
                headers=headers,
                content=content,
                extensions={"trace": on_progress, "sni_hostname": url.host},
            )
            async with asyncio.timeout_at(min(loop.time() + limit_s, total_at)) as clock:
                response = await self._client.send(request, stream=True)
        except TimeoutError as error:
            if loop.time() >= total_at:
                raise EgressTimeout(target, "total", timeouts.total_s) from error
            raise EgressTimeout(target, stage, limit_s) from error
        except UnicodeError as error:
            raise EgressRefused(f"{target}: not a host name that can be looked up") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise translated(error, target) from error
        finally:
            if stage == "connect" and connection is not None:
                # Ended during the TLS handshake: httpcore 1.0 leaves the socket open when it is cancelled there.
                await connection.aclose()
        return response, requested_at


def translated(error: Exception, target: str) -> EgressError:
    """Our error for one of httpx's, by the nearest class. Its own text is left out: it may quote a header."""
    for kind in type(error).__mro__:
        if kind in TRANSLATIONS:
            ours, reason = TRANSLATIONS[kind]
            return ours(f"{target}: {reason}")
    raise TypeError(f"{type(error).__name__} has no translation in corpus/egress.py") from error


def _parse(url: str) -> httpx.URL:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise EgressRefused("the address is not a URL; nothing was sent") from error
    if parsed.scheme not in ("http", "https") or not parsed.host or parsed.userinfo:
        raise EgressRefused(f"{parsed.host!r}: only http:// and https:// addresses without a user are called")
    return parsed


def _origin(url: httpx.URL) -> tuple[str, str, int]:
    return url.scheme, url.host, url.port or (443 if url.scheme == "https" else 80)


def _checked(headers: Mapping[str, str], target: str) -> Mapping[str, str]:
    for name, value in headers.items():
        if not (name + value).isascii() or not (name + value).isprintable():
            raise EgressRefused(f"{target}: header {name[:40]!r} holds a character that HTTP does not allow; nothing was sent")
    return headers


def _refuse_redirect(response: httpx.Response, target: str) -> None:
    if not 300 <= response.status_code < 400:
        return
    try:
        to = response.url.join(response.headers.get("location", "")).netloc.decode("ascii", "replace")
    except httpx.InvalidURL:
        to = "an invalid address"
    raise EgressRefused(
        f"{target}: redirects ({response.status_code}) to {to[:100]!r}, which is not followed; give the final address"
    )


async def _resolve(host: str, port: int) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))
