"""Answers that arrive piece by piece, and callers that hang up.

The answer path runs in one task from its first step to its last: hanging up cancels that task once, so that what it does
in `finally` can still await.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable
from contextlib import aclosing
from typing import Any, Generic, TypeVar, cast

import structlog
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from app.logs import error_fields
from app.problems import Problem, problem_of, unexpected_problem
from corpus.errors import ArchivistError

T = TypeVar("T")

PING_INTERVAL_S = 15.0
"""Seconds of silence after which a comment is sent, so that proxies keep the connection."""

WRITE_WITHIN_S = 30.0
"""Seconds in which a write goes through. A caller who does not read holds a place at a provider meanwhile."""

_log = structlog.get_logger(__name__)


AHEAD = 16
"""Events that are ready before the answer waits for its reader; those that are ready together go out in one piece."""


class _End:
    """What a pump says after the last event."""


class _Wake:
    """What a pump says to a reader who is to look around."""


class Pump(Generic[T]):
    """Runs an async iterator in a task of its own, a few events ahead of whoever reads."""

    def __init__(self, events: AsyncIterator[T], on_end: Callable[[], None] | None = None) -> None:
        self._queue: asyncio.Queue[T | _Wake | _End | Exception] = asyncio.Queue(maxsize=AHEAD)
        self._is_closing = False
        self._task = asyncio.create_task(self._run(events))
        if on_end is not None:
            self._task.add_done_callback(lambda _task: on_end())

    async def _run(self, events: AsyncIterator[T]) -> None:
        last: _End | Exception = _End()
        try:
            async with aclosing(cast("AsyncGenerator[T]", events)):
                async for event in events:
                    await self._queue.put(event)
        except Exception as error:  # noqa: BLE001 - boundary: whoever reads the pump raises it
            last = error
        if not self._is_closing:  # nobody takes it from a full queue
            await self._queue.put(last)

    async def next(self) -> T | None:
        """The next event, None after the last one. Raises: what the iterator raised."""
        while isinstance(event := await self._queue.get(), _Wake):
            pass
        if isinstance(event, Exception):
            raise event
        return None if isinstance(event, _End) else event

    async def ready(self) -> tuple[list[T], bool]:
        """The events that are ready, waited for where none is, and whether they are the last.

        None are ready where `wake` ended the waiting. Raises: what the iterator raised, after all its events.
        """
        found: list[T] = []
        event = await self._queue.get()
        while True:
            if isinstance(event, Exception):
                if not found:
                    raise event
                self._queue.put_nowait(event)
                return found, False
            if isinstance(event, _End):
                return found, True
            if not isinstance(event, _Wake):
                found.append(event)
            if self._queue.empty():
                return found, False
            event = self._queue.get_nowait()

    def wake(self) -> None:
        """Let whoever waits for an event look around."""
        if self._queue.empty():
            self._queue.put_nowait(_Wake())

    async def close(self) -> None:
        """Cancel what still runs and wait until it has ended."""
        self._is_closing = True
        self._task.cancel()
        await asyncio.wait({self._task})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def until_disconnected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the caller hangs up. Raises: ClientDisconnect in that case."""
    task, gone = asyncio.create_task(work), asyncio.create_task(_disconnected(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.wait({task, gone})


class EventStream(Response, Generic[T]):
    """Server-sent events made from a pump. An error after the first event becomes the last event.

    `encode` writes one event, `fail` a problem. The pump is closed when the stream ends, the caller hangs up, or a write does
    not go through within WRITE_WITHIN_S.
    Raises: ClientDisconnect in the last two cases.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        first: T,
        pump: Pump[T],
        encode: Callable[[T], Iterable[bytes]],
        fail: Callable[[Problem], Iterable[bytes]],
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        # An empty body has a length; a stream has none.
        self.raw_headers = [(name, value) for name, value in self.raw_headers if name != b"content-length"]
        self._first, self._pump, self._encode, self._fail = first, pump, encode, fail

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gone = asyncio.create_task(_disconnected(receive))
        gone.add_done_callback(lambda _task: self._pump.wake())
        stuck = asyncio.timeout(None)
        watch = _Watch(self._pump.wake, stuck)
        try:
            async with stuck:
                await self._write_body(gone, watch.watched(send))
        except TimeoutError as error:
            if not stuck.expired():
                raise
            raise ClientDisconnect from error
        finally:
            watch.close()
            gone.cancel()
            await asyncio.wait({gone})
            await self._pump.close()

    async def _write_body(self, gone: asyncio.Task[None], send: Send) -> None:
        async def write(data: bytes) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": True})

        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            await self._write_all(gone, write)
        except ArchivistError as error:
            _log.warning("stream failed", action="stream_failed", **error_fields(error))
            await write(b"".join(self._fail(problem_of(error))))
        except (ClientDisconnect, OSError):
            raise
        except Exception as error:  # noqa: BLE001 - boundary: a stream's final error event
            _log.error("unexpected error", action="stream_failed", **error_fields(error))
            await write(b"".join(self._fail(unexpected_problem())))
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _write_all(self, gone: asyncio.Task[None], write: Callable[[bytes], Coroutine[Any, Any, None]]) -> None:
        events, is_last = [self._first], False
        while True:
            data = b"".join(piece for event in events for piece in self._encode(event))
            if data:
                await write(data)
            if is_last:
                return
            events, is_last = await self._pump.ready()
            if gone.done():
                raise ClientDisconnect
            if not events and not is_last:
                await write(b": ping\n\n")


class _Watch:
    """Looks after the writing of a stream, over one timer that lags behind it: a timer a write would cost more than the write.

    `silent` is called whenever nothing has been written for PING_INTERVAL_S; `stuck` expires when a write takes longer than
    WRITE_WITHIN_S.
    """

    def __init__(self, silent: Callable[[], None], stuck: asyncio.Timeout) -> None:
        self._loop, self._silent, self._stuck = asyncio.get_running_loop(), silent, stuck
        self._since, self._is_writing = self._loop.time(), False
        self._timer = self._loop.call_later(min(PING_INTERVAL_S, WRITE_WITHIN_S), self._look)

    def watched(self, send: Send) -> Send:
        """`send`, whose calls are seen."""

        async def watched(message: Message) -> None:
            self._since, self._is_writing = self._loop.time(), True
            await send(message)
            self._since, self._is_writing = self._loop.time(), False

        return watched

    def close(self) -> None:
        """There will be no further call."""
        self._timer.cancel()

    def _look(self) -> None:
        now = self._loop.time()
        left_s = self._since + (WRITE_WITHIN_S if self._is_writing else PING_INTERVAL_S) - now
        if left_s <= 0 and self._is_writing:
            self._stuck.reschedule(now)
            return
        if left_s <= 0:
            self._silent()
            left_s = PING_INTERVAL_S
        # A write that begins or ends meanwhile is due no sooner than the shorter of the two.
        self._timer = self._loop.call_later(min(left_s, PING_INTERVAL_S, WRITE_WITHIN_S), self._look)
