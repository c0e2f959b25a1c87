"""The one way in which anything of ours talks HTTP to the outside. The only importer of httpx beside
the bench's bare client; knows no wire format.

What it promises: only origins that were named when it was built; no redirect followed by itself, no cookie kept, no proxy or
certificate taken from the environment; `localhost` only where it resolves to this machine, then that very address, and
never by a proxy; a limit for each stage, for one event and for a whole answer; no header and no body in a log or an error.
"""

from __future__ import annotations

import asyncio
import http.cookiejar
import json as json_module
import logging
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from corpus.addresses import Guard
from corpus.clock import Clock
from corpus.errors import (
    ConfigError,
    EgressBroken,
    EgressError,
    EgressRefused,
    EgressTimeout,
    EgressUnreachable,
)
from corpus.events import EventParser
from corpus.localhost import Localhost, Resolve, is_localhost, is_loopback
from corpus.tls import authorities, usual_authorities, why_not_connected
from corpus.tunnel import Tunnel

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

STALE_AT_MOST = 3
"""Kept connections that may turn out to be closed, one after the other, before the failure counts."""

STALE_WITHIN_S = 1.0
"""A connection that is closed later than this after the request was one that the server had read it from."""

OUR_MISTAKES: tuple[type[Exception], ...] = (httpx.StreamError, httpx.CookieConflict)
"""Raised only where this module misuses httpx; not translated, so that they are seen."""

# httpx logs every URL and httpcore every response header; neither is anybody's business.
logging.getLogger("httpx").setLevel(logging.WARNING)
logging.getLogger("httpcore").setLevel(logging.WARNING)


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


@dataclass(frozen=True, slots=True)
class _Request:
    url: httpx.URL
    target: str
    method: str
    headers: Mapping[str, str]
    content: bytes | None
    timeouts: Timeouts
    total_at: float

    def too_late(self, stage: str, limit_s: float) -> EgressTimeout:
        if asyncio.get_running_loop().time() >= self.total_at:
            return EgressTimeout(self.target, "total", self.timeouts.total_s)
        return EgressTimeout(self.target, stage, limit_s)


class _Stale(Exception):
    """A connection that was kept from an earlier call was closed before a byte of the answer came."""


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
        clock: Clock,
    ) -> None:
        self.status = response.status_code
        self.requested_at = requested_at
        self._response = response
        self._target = target
        self._limits = limits
        self._total_at, self._total_s = total_at, total_s
        self._clock, self._now = clock, asyncio.get_running_loop().time
        assert isinstance(response.stream, httpx.AsyncByteStream)
        self._chunks = aiter(response.stream)  # what `aiter_raw` iterates, without its re-cutting of every chunk
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

    async def next_part(self, deadline: float) -> bytes | None:
        """The next bytes of the body; None at its end. Raises like `next_events`."""
        return await self._next_chunk(deadline)

    async def body(self, deadline: float) -> bytes:
        """The whole body. Raises like `next_events`."""
        parts: list[bytes] = []
        while (chunk := await self._next_chunk(deadline)) is not None:
            parts.append(chunk)
        return b"".join(parts)

    async def _next_chunk(self, deadline: float) -> bytes | None:
        clock, began = self._clock, self._now()
        # The clock runs around one read and never across a yield, where it would cancel whoever is consuming.
        clock.start(deadline if deadline < self._total_at else self._total_at)
        chunk: bytes | None = None
        try:
            chunk = await anext(self._chunks)
        except StopAsyncIteration:
            pass
        except asyncio.CancelledError as error:
            if not clock.ended_it():
                raise
            if self._total_at <= deadline:
                raise EgressTimeout(self._target, "total", self._total_s) from error
            raise EgressTimeout(self._target, "response", max(0.0, deadline - began)) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise translated(error, self._target) from error
        finally:
            clock.stop()
        if chunk is None:
            await self._response.aclose()
            return None
        self._size += len(chunk)
        if self._size > self._limits.answer_bytes:
            raise EgressBroken(f"{self._target}: the answer is larger than {self._limits.answer_bytes:,} bytes; refused")
        return chunk


class Egress:
    """Outbound HTTP to the origins it was built with, over one pool of connections. Belongs to one event loop.

    `ca_file` holds the certificates (PEM) that vouch for these origins, instead of the usual authorities. `proxy` is the
    http:// or https:// address of a proxy that all calls go through. `guard` judges every address that a name leads to, and
    the connection goes to that very address; without one, whoever wrote the configuration is trusted to mean its names.
    Raises: EgressRefused for an origin that is none, ConfigError for a ca_file or a proxy that cannot be used.
    """

    def __init__(
        self,
        allowed: Iterable[str],
        *,
        ca_file: Path | None = None,
        proxy: str | None = None,
        max_connections: int = 256,
        resolve: Resolve | None = None,
        guard: Guard | None = None,
    ) -> None:
        self._guard = guard
        self._allowed = frozenset(_origin(_parse(url)) for url in allowed)
        self._localhost = Localhost(resolve)
        self._proxy = None if proxy is None else _proxy(proxy, [host for _, host, _ in self._allowed])
        limits = httpx.Limits(max_connections=max_connections, max_keepalive_connections=max_connections)
        tls = usual_authorities() if ca_file is None else authorities(ca_file)
        transport = httpx.AsyncHTTPTransport(verify=tls, limits=limits)
        mounts: dict[str, httpx.AsyncBaseTransport | None] = {}
        if self._proxy is not None:
            # A proxy may be as private as what lies behind it, or not at all.
            at_proxy = None if self._proxy.scheme == "http" else authorities(ca_file, and_the_usual=True) if ca_file else tls
            forwarding = httpx.Proxy(self._proxy, ssl_context=at_proxy)
            mounts["http://"] = httpx.AsyncHTTPTransport(verify=tls, limits=limits, proxy=forwarding)
            # httpx has no argument for this part of httpcore's pool.
            transport._pool._network_backend = Tunnel(self._proxy.host, _origin(self._proxy)[2], at_proxy)
        self._client = httpx.AsyncClient(
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(None),  # the stages of `Timeouts` are kept here, by one clock
            transport=transport,
            mounts=mounts,
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
        hand_over_redirects: bool = False,
    ) -> AsyncIterator[Answer]:
        """Sends one request and hands over its answer; leaving the block ends the call.

        `hand_over_redirects` gives an answer of 3xx to the caller, who judges where it leads; else it is an error.

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
        request = _Request(parsed, target, method, sent_headers, content, timeouts, total_at)
        response, requested_at = await self._open(request)
        clock = Clock()
        try:
            if not hand_over_redirects:
                _refuse_redirect(response, target)
            if response.status_code == 407 and self._proxy is not None:
                raise EgressUnreachable(f"{target}: {self._at_proxy}: it wants a user and a password (407), and none are sent")
            if response.headers.get("content-encoding", "identity") != "identity":
                # A compressed answer may unpack to a thousand times its size, and none was asked for.
                raise EgressBroken(f"{target}: answered with a content encoding that was not asked for; refused")
            yield Answer(response, target, limits, requested_at, total_at, timeouts.total_s, clock)
        finally:
            clock.close()
            await response.aclose()

    async def call_json(
        self,
        url: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        json: object = None,
        timeouts: Timeouts = Timeouts(),
    ) -> tuple[int, object]:
        """The status and the parsed JSON body of a short call. Raises like `stream`; EgressBroken if it is not JSON."""
        async with self.stream(url, method=method, headers=headers, json=json, timeouts=timeouts) as answer:
            body = await answer.body(answer.requested_at + timeouts.response_s)
        try:
            return answer.status, json_module.loads(body)
        except ValueError as error:
            raise EgressBroken(f"{_parse(url).host}: answered {answer.status} with something that is not JSON") from error

    async def close(self) -> None:
        """Closes every connection."""
        await self._client.aclose()

    @property
    def _at_proxy(self) -> str:
        return "" if self._proxy is None else f"the proxy {self._proxy.netloc.decode('ascii')}"

    async def _open(self, request: _Request) -> tuple[httpx.Response, float]:
        loop = asyncio.get_running_loop()
        connect_by = loop.time() + request.timeouts.connect_s
        addresses = [request.url.host]  # looked up while connecting, and in its time
        judge = self._guard or (self._localhost if is_localhost(request.url.host) else None)
        if judge is not None:
            try:
                async with asyncio.timeout_at(min(connect_by, request.total_at)):
                    addresses = await judge.addresses(request.url.host, _origin(request.url)[2], request.target)
            except TimeoutError as error:
                raise request.too_late("connect", request.timeouts.connect_s) from error
        connect_s = connect_by - loop.time()
        for address in addresses[:-1]:
            try:
                return await self._send_fresh(request, address, connect_s)
            except EgressUnreachable:
                continue  # nothing was sent; localhost often has two addresses, and one that listens
        return await self._send_fresh(request, addresses[-1], connect_s)

    async def _send_fresh(self, request: _Request, address: str, connect_s: float) -> tuple[httpx.Response, float]:
        """Send, and again where a connection that was kept turns out to be closed: some servers close them unannounced."""
        for _ in range(STALE_AT_MOST):
            with suppress(_Stale):
                return await self._send(request, address, connect_s)
        return await self._send(request, address, connect_s, kept=False)

    async def _send(
        self, request: _Request, address: str, connect_s: float, *, kept: bool = True
    ) -> tuple[httpx.Response, float]:
        url, timeouts, total_at = request.url, request.timeouts, request.total_at
        loop = asyncio.get_running_loop()
        stage, limit_s, requested_at = "pool", timeouts.pool_s, loop.time()
        connection: Any = None

        async def on_progress(event: str, details: Mapping[str, Any]) -> None:
            # httpcore says where it is, so that each stage gets its own limit: name, connection and TLS are one.
            nonlocal stage, limit_s, requested_at, connection
            if event == "connection.connect_tcp.complete":
                connection = details["return_value"]
            elif event == "connection.connect_tcp.started":
                stage, limit_s = "connect", timeouts.connect_s
                clock.reschedule(min(loop.time() + connect_s, total_at))
            elif event == "http11.send_request_headers.started":
                stage, limit_s, requested_at = "response", timeouts.response_s, loop.time()
                clock.reschedule(min(requested_at + limit_s, total_at))

        extensions: dict[str, Any] = {"trace": on_progress}
        if address != url.host:  # else it would be asked of an https:// proxy too
            extensions["sni_hostname"] = url.host
        try:
            sent = self._client.build_request(
                request.method,
                url.copy_with(host=address),
                headers=request.headers,
                content=request.content,
                extensions=extensions,
            )
            async with asyncio.timeout_at(min(loop.time() + limit_s, total_at)) as clock:
                response = await self._client.send(sent, stream=True)
        except TimeoutError as error:
            raise request.too_late(stage, limit_s) from error
        except UnicodeError as error:
            raise EgressRefused(f"{request.target}: not a host name that can be looked up") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            was_kept = stage == "response" and connection is None and loop.time() - requested_at < STALE_WITHIN_S
            if kept and was_kept and isinstance(error, httpx.RemoteProtocolError | httpx.NetworkError):
                raise _Stale from error
            # By way of a proxy the first connection is to the proxy, and for http:// there is no other.
            at_proxy = self._proxy is not None and stage == "connect" and (connection is None or url.scheme == "http")
            raise translated(error, f"{request.target}: {self._at_proxy}" if at_proxy else request.target) from error
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
            if isinstance(error, httpx.ProxyError):
                reason = str(error) or reason  # the tunnel's words, which are ours
            elif isinstance(error, httpx.ConnectError):
                reason = why_not_connected(error) or reason
            return ours(f"{target}: {reason}")
    raise TypeError(f"{type(error).__name__} has no translation in corpus/egress.py") from error


def _proxy(url: str, hosts: Iterable[str]) -> httpx.URL:
    try:
        proxy = _parse(url)
    except EgressRefused as error:
        raise ConfigError("proxy is not an address it can be used by; give it as http://host:port, without a user") from error
    for host in hosts:
        if is_loopback(host):
            raise ConfigError(f"proxy {proxy.host!r} would carry calls to {host!r} away from this machine; take it out")
    return proxy


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
