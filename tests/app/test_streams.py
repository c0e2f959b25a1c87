"""Streams: one task for the answer, one last event for an error, and an end when the caller hangs up."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator, MutableMapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import ClientDisconnect

from app import streams
from app.llm.fake.behaviour import FakeBehaviour
from app.llm.settings import LlmSettings, ProviderSettings
from app.problems import Problem
from app.streams import EventStream, Pump, until_disconnected
from corpus.errors import BackendFailed
from tests.app.serving import settings_of
from tests.app.sockets import QUESTION, asked, eventually, serving_here
from tests.servers import running_fake_llm

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """The service runs on asyncio."""
    return "asyncio"


class Caller:
    """An ASGI client that keeps what it gets and hangs up when told, or after some messages."""

    def __init__(self, hang_up_after: int | None = None) -> None:
        self.messages: list[MutableMapping[str, Any]] = []
        self.gone = asyncio.Event()
        self._hang_up_after = hang_up_after

    async def receive(self) -> MutableMapping[str, Any]:
        """Nothing until the caller has gone."""
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: MutableMapping[str, Any]) -> None:
        """Keep a message."""
        self.messages.append(message)
        if self._hang_up_after is not None and len(self.messages) >= self._hang_up_after:
            self.gone.set()
        await asyncio.sleep(0)

    @property
    def body(self) -> bytes:
        """All that came."""
        return b"".join(message.get("body", b"") for message in self.messages)


def encode(event: str) -> Iterator[bytes]:
    """An event as a line."""
    yield event.encode() + b"\n"


def fail(problem: Problem) -> Iterator[bytes]:
    """A problem as a line."""
    yield f"error {problem.status} {problem.detail}\n".encode()


async def _send(events: AsyncIterator[str], caller: Caller) -> None:
    pump = Pump(events)
    first = await pump.next()
    assert first is not None
    await EventStream(first, pump, encode, fail)({"type": "http"}, caller.receive, caller.send)


async def test_events_come_in_order_and_the_stream_ends() -> None:
    """All events, once each, in order, then the end of the body; no length is promised."""

    async def events() -> AsyncIterator[str]:
        for number in range(5):
            yield str(number)

    caller = Caller()
    await _send(events(), caller)
    assert caller.body == b"0\n1\n2\n3\n4\n"
    names = {name for name, _ in caller.messages[0]["headers"]}
    assert b"content-length" not in names
    assert dict(caller.messages[0]["headers"])[b"cache-control"] == b"no-cache"
    assert caller.messages[-1]["more_body"] is False


async def test_events_that_are_ready_together_go_out_in_one_piece() -> None:
    """Five tokens that arrive at once are one write, and none of them waits for what comes later."""

    async def events() -> AsyncIterator[str]:
        for number in range(6):
            yield str(number)
        await asyncio.sleep(0.05)
        yield "later"

    caller = Caller()
    await _send(events(), caller)
    assert [message["body"] for message in caller.messages[1:]] == [b"0\n", b"1\n2\n3\n4\n5\n", b"later\n", b""]


async def test_an_answer_waits_for_a_reader_who_is_slow() -> None:
    """While nothing can be sent, an answer without end gets a bounded number of events ahead and no further."""
    made = 0

    async def events() -> AsyncIterator[str]:
        nonlocal made
        while True:
            made += 1
            yield "a"

    class Slow(Caller):
        async def send(self, message: MutableMapping[str, Any]) -> None:
            await super().send(message)
            if len(self.messages) == 2:
                await asyncio.sleep(0.05)
                self.made_meanwhile = made
                self.gone.set()

    caller = Slow()
    with pytest.raises(ClientDisconnect):
        await asyncio.wait_for(_send(events(), caller), 5)
    assert caller.made_meanwhile <= streams.AHEAD + 3


async def test_hanging_up_amid_a_burst_is_noticed() -> None:
    """A stream that is never silent ends with the next write after its caller has gone."""
    seen: list[str] = []

    async def events() -> AsyncIterator[str]:
        try:
            while True:
                yield "a"
        finally:
            seen.append("closed")

    caller = Caller(hang_up_after=3)
    with pytest.raises(ClientDisconnect):
        await asyncio.wait_for(_send(events(), caller), 5)
    assert seen == ["closed"]
    assert len(caller.messages) <= 5


async def test_events_before_an_error_are_not_lost() -> None:
    """What was ready when the answer failed is sent, and the error after it."""

    async def events() -> AsyncIterator[str]:
        for number in range(3):
            yield str(number)
        raise BackendFailed("local", 500)

    caller = Caller()
    await _send(events(), caller)
    assert caller.body.startswith(b"0\n1\n2\nerror 502 ")


async def test_an_error_after_the_first_event_is_the_last_event() -> None:
    """Our own error is told as its problem, any other as nothing but an internal error."""

    async def ours() -> AsyncIterator[str]:
        yield "a"
        raise BackendFailed("local", 500)

    async def another() -> AsyncIterator[str]:
        yield "a"
        raise ValueError("canary-question")

    caller = Caller()
    await _send(ours(), caller)
    assert caller.body.startswith(b"a\nerror 502 the LLM provider failed")
    caller = Caller()
    await _send(another(), caller)
    assert caller.body.startswith(b"a\nerror 500 ")
    assert b"canary" not in caller.body
    assert caller.messages[-1]["more_body"] is False


async def test_hanging_up_cancels_the_answer_once_and_lets_it_clean_up() -> None:
    """The iterator is cancelled where it waits, its cleanup may still await, and both end within the call."""
    seen: list[str] = []

    async def events() -> AsyncIterator[str]:
        try:
            yield "a"
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            await asyncio.sleep(0.01)
            seen.append("cancelled, and awaited")
            raise

    caller = Caller(hang_up_after=2)
    with pytest.raises(ClientDisconnect):
        await asyncio.wait_for(_send(events(), caller), 5)
    assert seen == ["cancelled, and awaited"]


async def test_hanging_up_between_events_closes_the_iterator() -> None:
    """An iterator that has an event ready and is not asked for more is closed, too."""
    seen: list[str] = []

    async def events() -> AsyncIterator[str]:
        try:
            while True:
                yield "a"
        finally:
            await asyncio.sleep(0)
            seen.append("closed")

    class Broken(Caller):
        async def send(self, message: MutableMapping[str, Any]) -> None:
            await super().send(message)
            if len(self.messages) > 3:
                raise OSError("broken pipe")

    with pytest.raises(OSError, match="broken pipe"):
        await asyncio.wait_for(_send(events(), Broken()), 5)
    assert seen == ["closed"]


async def test_silence_is_filled_with_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    """While nothing comes a comment is sent now and then, which clients ignore."""
    monkeypatch.setattr(streams, "PING_INTERVAL_S", 0.02)

    async def events() -> AsyncIterator[str]:
        yield "a"
        await asyncio.sleep(0.1)
        yield "b"

    caller = Caller()
    await _send(events(), caller)
    assert caller.body.startswith(b"a\n: ping\n\n")
    assert caller.body.endswith(b"b\n")


async def test_a_stream_that_goes_on_is_not_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The silence is counted from the last event: one that lasts 50 of 200 ms gets no comment, however often it comes."""
    monkeypatch.setattr(streams, "PING_INTERVAL_S", 0.2)

    async def events() -> AsyncIterator[str]:
        for _ in range(6):
            yield "a"
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.25)
        yield "b"

    caller = Caller()
    await _send(events(), caller)
    assert caller.body == b"a\n" * 6 + b": ping\n\nb\n"


@pytest.mark.parametrize("stuck_at", [1, 2, 4], ids=["status", "first", "later"])
async def test_a_write_that_does_not_go_through_ends_the_stream(monkeypatch: pytest.MonkeyPatch, stuck_at: int) -> None:
    """A caller who stops reading is one who left: the answer is cancelled where it waits, and may clean up."""
    monkeypatch.setattr(streams, "WRITE_WITHIN_S", 0.05)
    closed: list[bool] = []

    async def events() -> AsyncIterator[str]:
        try:
            while True:
                yield "a"
        finally:
            await asyncio.sleep(0)
            closed.append(True)

    class Stuck(Caller):
        async def send(self, message: MutableMapping[str, Any]) -> None:
            await super().send(message)
            if len(self.messages) == stuck_at:
                await asyncio.sleep(3600)

    with pytest.raises(ClientDisconnect):
        await asyncio.wait_for(_send(events(), Stuck()), 5)
    assert closed == [True]


async def test_an_answer_that_fails_as_it_is_closed_does_not_hold_the_stream() -> None:
    """Its error has no reader any more, and no room where the events ahead fill it all."""

    async def events() -> AsyncIterator[str]:
        try:
            while True:
                yield "a"
        finally:
            raise BackendFailed("local", 500)

    pump = Pump(events())
    await asyncio.sleep(0.01)
    await asyncio.wait_for(pump.close(), 5)


async def test_slow_writes_that_go_through_are_no_reason_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is for one write: ten of 50 ms pass a limit of 200 ms, and so does a silence that is longer."""
    monkeypatch.setattr(streams, "WRITE_WITHIN_S", 0.2)

    async def events() -> AsyncIterator[str]:
        for _ in range(10):
            yield "a"
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.4)
        yield "b"

    class Slow(Caller):
        async def send(self, message: MutableMapping[str, Any]) -> None:
            await super().send(message)
            await asyncio.sleep(0.05)

    caller = Slow()
    await _send(events(), caller)
    assert caller.body == b"a\n" * 10 + b"b\n"


async def test_a_caller_who_stops_reading_gives_its_place_back(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over real sockets: the provider is hung up on, and its one place is free for the next caller."""
    monkeypatch.setattr(streams, "WRITE_WITHIN_S", 0.5)
    with running_fake_llm(FakeBehaviour(huge_answer_bytes=50_000_000)) as fake, socket.socket() as caller:
        acme = ProviderSettings(base_url=fake.base_url, model="fake", max_concurrent=1, max_queued=0)
        llm = LlmSettings(default="acme", providers={"acme": acme}, extractive_fallback=False)
        async with serving_here(settings_of(site / "data", llm=llm)) as served:
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            caller.connect(("127.0.0.1", served.port))
            body = json.dumps({"question": QUESTION, "stream": True})
            head = f"POST /v1/ask HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
            caller.sendall(f"{head}\r\n\r\n{body}".encode())
            assert await eventually(lambda: served.provider("acme")["running"] == 1, 10)
            assert await eventually(lambda: served.provider("acme")["running"] == 0, 10)
            assert await eventually(lambda: fake.requests[0].closed_early, 5)
            fake.behave(FakeBehaviour())
            async with httpx.AsyncClient(base_url=served.address, timeout=30) as client:
                for _ in range(50):  # the request itself ends a moment after its place is given back
                    answered = await asked(client)
                    if answered.status != 429:
                        break
                    await asyncio.sleep(0.1)
                assert answered.ended == "done"
            caller.close()


async def test_work_is_cancelled_when_the_caller_hangs_up() -> None:
    """A caller that waits for a whole answer and leaves ends the work."""
    caller, seen = Caller(), []

    async def work() -> str:
        try:
            await asyncio.sleep(3600)
        finally:
            seen.append("ended")
        return "never"

    asyncio.get_running_loop().call_later(0.02, caller.gone.set)
    with pytest.raises(ClientDisconnect):
        await until_disconnected(caller.receive, work())
    assert seen == ["ended"]


async def test_work_that_ends_first_gives_its_result_or_its_error() -> None:
    """Result and error pass through unchanged while the caller stays."""

    async def good() -> int:
        return 42

    async def bad() -> int:
        raise BackendFailed("local", 500)

    assert await until_disconnected(Caller().receive, good()) == 42
    with pytest.raises(BackendFailed):
        await until_disconnected(Caller().receive, bad())


async def test_the_end_of_a_pump_is_told_once() -> None:
    """`on_end` runs exactly once, whether the events ended, failed or were cancelled."""

    async def some(count: int) -> AsyncIterator[int]:
        for number in range(count):
            yield number
        if count == 0:
            await asyncio.sleep(3600)

    for count in (0, 1, 3):
        ended: list[int] = []
        pump = Pump(some(count), on_end=lambda ended=ended: ended.append(1))  # type: ignore[misc]
        if count:
            assert await pump.next() == 0
        await pump.close()
        await asyncio.sleep(0)
        assert ended == [1]
