"""Hangs at every stage of an outbound call: each has its own limit, the error names it, and nothing lasts much longer."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from corpus.egress import Egress, Timeouts
from corpus.errors import EgressTimeout
from tests.corpus.raw_servers import OK, Handler, RawProxy, fetched, listening, self_signed, sending, serving, silent

pytestmark = pytest.mark.anyio

LIMIT_S = 0.3
SLACK_S = 1.0
SHORT = {
    "pool": Timeouts(pool_s=LIMIT_S),
    "connect": Timeouts(connect_s=LIMIT_S),
    "response": Timeouts(response_s=LIMIT_S),
    "total": Timeouts(total_s=LIMIT_S),
}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@contextmanager
def hanging(stage: str) -> Iterator[None]:
    """Expects the limit of this stage, no earlier than that and no more than a second later."""
    began = time.monotonic()
    with pytest.raises(EgressTimeout, match=rf"within {LIMIT_S:g} s") as caught:
        yield
    took_s = time.monotonic() - began
    assert caught.value.stage == stage
    assert abs(caught.value.waited_s - LIMIT_S) < 0.01
    assert LIMIT_S - 0.02 <= took_s < LIMIT_S + SLACK_S


@pytest.mark.parametrize("stage", ["connect", "total"])
async def test_b6_hang_at_the_lookup_of_a_name(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resolver that does not answer uses up connect_s, or what is left of total_s."""
    answered = threading.Event()

    def hang(*_arguments: object, **_options: object) -> list[object]:
        answered.wait(10)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    try:
        with hanging(stage):
            await fetched("http://llm.example:8000", SHORT[stage])
    finally:
        answered.set()


@pytest.mark.parametrize("stage", ["connect", "total"])
async def test_b6_hang_at_the_lookup_of_localhost(stage: str) -> None:
    """The same where the name is looked up and checked before connecting."""

    async def hang(_host: str, _port: int) -> list[str]:
        await asyncio.sleep(30)
        return []

    with hanging(stage):
        await fetched("http://localhost:8000", SHORT[stage], egress=Egress(["http://localhost:8000"], resolve=hang))


@contextmanager
def never_accepting() -> Iterator[int]:
    """A port whose queue of connections is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for client in waiting:
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield int(listener.getsockname()[1])
        for client in waiting:
            client.close()


async def test_b6_hang_at_the_connection() -> None:
    """A connection that is never accepted uses up connect_s."""
    with never_accepting() as port, hanging("connect"):
        await fetched(f"http://127.0.0.1:{port}", SHORT["connect"])


async def test_b6_a_slow_lookup_and_a_slow_connection_share_one_limit() -> None:
    """What the lookup took is no longer there for the connection."""

    async def slow(_host: str, _port: int) -> list[str]:
        await asyncio.sleep(LIMIT_S * 0.8)
        return ["127.0.0.1"]

    with never_accepting() as port:
        url = f"http://localhost:{port}"
        began = time.monotonic()
        with pytest.raises(EgressTimeout, match="no connection within"):
            await fetched(url, SHORT["connect"], egress=Egress([url], resolve=slow))
        assert time.monotonic() - began < LIMIT_S * 1.6


async def test_b6_hang_at_tls() -> None:
    """TLS is part of connecting, with the same limit, and the connection is closed afterwards."""
    closed = asyncio.Event()

    async def listen_only(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()
        closed.set()

    async with listening(listen_only) as port:
        with hanging("connect"):
            await fetched(f"https://127.0.0.1:{port}", SHORT["connect"])
        await asyncio.wait_for(closed.wait(), 1)


async def test_b6_hang_at_sending_the_request() -> None:
    """A server that does not read what it is sent uses up response_s."""
    async with listening(silent) as port:
        url = f"http://127.0.0.1:{port}"
        egress = Egress([url])
        with hanging("response"):
            await egress.call_json(url, method="POST", json="x" * 20_000_000, timeouts=SHORT["response"])
        await egress.close()


async def test_b6_hang_at_the_headers() -> None:
    """Connected, but no headers within response_s."""
    async with serving(silent) as url:
        with hanging("response"):
            await fetched(url, SHORT["response"])


async def test_b6_headers_that_drip() -> None:
    """A byte now and then does not start the clock again."""

    async def drip(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for byte in OK * 10:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.05)

    async with serving(drip) as url:
        with hanging("response"):
            await fetched(url, SHORT["response"])


def then_silent(*parts: bytes) -> Handler:
    """A handler that sends these parts and then nothing more."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await sending(*parts)(reader, writer)
        await silent(reader, writer)

    return handler


async def test_b6_hang_at_the_first_byte() -> None:
    """Headers, and then no byte of the body by the deadline."""
    async with serving(then_silent(OK + b"\r\n")) as url:
        egress = Egress([url])
        async with egress.stream(url, json={}) as answer:
            with hanging("response"):
                await answer.next_events(asyncio.get_running_loop().time() + LIMIT_S)
        await egress.close()


async def test_b6_hang_between_chunks() -> None:
    """Each read has a deadline of its own, and the one that is late is the one that fails."""
    async with serving(then_silent(OK + b"\r\n", b"data: one\n\n")) as url:
        egress = Egress([url])
        loop = asyncio.get_running_loop()
        async with egress.stream(url, json={}) as answer:
            assert await answer.next_events(loop.time() + 30) == ["one"]
            with hanging("response"):
                await answer.next_events(loop.time() + LIMIT_S)
        await egress.close()


async def test_b6_hang_at_the_end_of_a_body() -> None:
    """A body that is read whole has one deadline, however many parts it comes in."""

    async def drip(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + b"content-length: 1000\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.05)

    async with serving(drip) as url:
        egress = Egress([url])
        began = time.monotonic()
        with pytest.raises(EgressTimeout, match="no response within"):
            await egress.call_json(url, timeouts=SHORT["response"])
        assert time.monotonic() - began < LIMIT_S + SLACK_S
        await egress.close()


async def test_b6_hang_in_the_pool() -> None:
    """Waiting for a connection that another call holds has its own limit."""
    async with serving(silent) as url:
        egress = Egress([url], max_connections=1)
        holding = asyncio.create_task(egress.call_json(url))
        await asyncio.sleep(0.1)
        with hanging("pool"):
            await egress.call_json(url, timeouts=SHORT["pool"])
        holding.cancel()
        await asyncio.gather(holding, return_exceptions=True)
        await egress.close()


async def test_b6_an_answer_without_an_end() -> None:
    """An answer that keeps coming still ends at total_s."""

    async def endless(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + b"\r\n")
        while True:
            writer.write(b"data: tick\n\n")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with serving(endless) as url:
        with hanging("total"):
            await fetched(url, SHORT["total"])


@pytest.mark.parametrize("part", [b"", b"HTTP/1.1 200 Connection"], ids=["nothing", "half an answer"])
async def test_b6_hang_at_the_proxy(part: bytes) -> None:
    """The proxy's answer is part of connecting, and its connection is closed when that takes too long."""
    closed = asyncio.Event()

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(part)
        await reader.read()
        closed.set()

    async with listening(proxy) as port:
        egress = Egress(["https://llm.example"], proxy=f"http://127.0.0.1:{port}")
        with hanging("connect"):
            await fetched("https://llm.example", SHORT["connect"], egress=egress)
        await asyncio.wait_for(closed.wait(), 1)


async def test_b6_hang_at_tls_behind_a_proxy_gives_the_place_in_the_pool_back() -> None:
    """As often as it happens, the next call waits for its own connection and not for a place that never comes free."""
    async with listening(silent) as port, listening(RawProxy(to_port=port)) as proxy:
        egress = Egress(["https://llm.example"], proxy=f"http://127.0.0.1:{proxy}", max_connections=1)
        for _ in range(3):
            with hanging("connect"):
                await egress.call_json("https://llm.example", timeouts=SHORT["connect"])
        await egress.close()


async def test_b6_hang_at_the_headers_behind_a_proxy(tmp_path: Path) -> None:
    """The time that the tunnel took does not count for the answer."""
    tls, certificate = self_signed(tmp_path, "DNS:llm.example")
    async with listening(silent, tls=tls) as port, listening(RawProxy(to_port=port)) as proxy:
        egress = Egress(["https://llm.example"], proxy=f"http://127.0.0.1:{proxy}", ca_file=certificate)
        with hanging("response"):
            await fetched("https://llm.example", SHORT["response"], egress=egress)
