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
from starlette.types import Receive, Scope, Send

from app.logs import error_fields
from app.problems import Problem, problem_of, unexpected_problem
from corpus.errors import ArchivistError

T = TypeVar("T")

PING_INTERVAL_S = 15.0
"""Seconds of silence after which a comment is sent, so that proxies keep the connection."""

_log = structlog.get_logger(__name__)


class _End:
    """What a pump says after the last event."""


class Pump(Generic[T]):
    """Runs an async iterator in a task of its own, one event ahead of whoever reads."""

    def __init__(self, events: AsyncIterator[T], on_end: Callable[[], None] | None = None) -> None:
        self._queue: asyncio.Queue[T | _End | Exception] = asyncio.Queue(maxsize=1)
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
        await self._queue.put(last)

    async def next(self) -> T | None:
        """The next event, None after the last one. Raises: what the iterator raised."""
        event = await self._queue.get()
        if isinstance(event, Exception):
            raise event
        return None if isinstance(event, _End) else event

    async def close(self) -> None:
        """Cancel what still runs and wait until it has ended."""
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

    `encode` writes one event, `fail` a problem. The pump is closed when the stream ends or the caller hangs up.
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

        async def write(data: bytes) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": True})

        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            try:
                event: T | None = self._first
                while event is not None:
                    for data in self._encode(event):
                        await write(data)
                    event = await self._next(gone, write)
            except ArchivistError as error:
                _log.warning("stream failed", action="stream_failed", **error_fields(error))
                for data in self._fail(problem_of(error)):
                    await write(data)
            except (ClientDisconnect, OSError):
                raise
            except Exception as error:  # noqa: BLE001 - boundary: a stream's final error event
                _log.error("unexpected error", action="stream_failed", **error_fields(error))
                for data in self._fail(unexpected_problem()):
                    await write(data)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            gone.cancel()
            await asyncio.wait({gone})
            await self._pump.close()

    async def _next(self, gone: asyncio.Task[None], write: Callable[[bytes], Coroutine[Any, Any, None]]) -> T | None:
        waiting = asyncio.create_task(self._pump.next())
        try:
            while True:
                await asyncio.wait({waiting, gone}, timeout=PING_INTERVAL_S, return_when=asyncio.FIRST_COMPLETED)
                if waiting.done():
                    return waiting.result()
                if gone.done():
                    raise ClientDisconnect
                await write(b": ping\n\n")
        finally:
            if not waiting.done():
                waiting.cancel()
                await asyncio.wait({waiting})
