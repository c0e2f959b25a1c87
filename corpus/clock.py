"""A time limit for each of many short waits, over one timer. Imports nothing of ours."""

from __future__ import annotations

import asyncio
import math
from typing import Any


class Clock:
    """Ends a wait that takes too long, by cancelling its task, as `asyncio.timeout_at` does, at a fraction of the cost.

    For a stream of tokens, whose deadline moves on with each of them: the timer is set again only where it would ring
    too late, or when it has rung too early. Between `start` and `stop` the clock runs; outside it cancels nobody.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = math.inf
        self._deadline = math.inf
        self._waiting: asyncio.Task[Any] | None = None
        self._cancelled_before = 0
        self._rang = False

    def start(self, deadline: float) -> None:
        """From here on the running task is waiting. Units: the event loop's clock."""
        task = asyncio.current_task(self._loop)
        assert task is not None
        self._waiting = task
        self._cancelled_before = task.cancelling()
        self._deadline = deadline
        if deadline < self._rings_at:
            self._set(deadline)

    def ended_it(self) -> bool:
        """For a wait that was cancelled: whether only this clock did that. Takes its own cancellation back."""
        if not self._rang or self._waiting is None:
            return False
        self._rang = False
        return self._waiting.uncancel() <= self._cancelled_before

    def stop(self) -> None:
        """The wait is over."""
        if self._rang:
            self.ended_it()  # it ended in another way in the same moment
        self._waiting = None

    def close(self) -> None:
        """There will be no further wait."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._rings_at = None, math.inf

    def _set(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._rings_at = at
        self._timer = self._loop.call_at(at, self._ring)

    def _ring(self) -> None:
        self._timer, self._rings_at = None, math.inf
        if self._waiting is None:
            return
        if self._loop.time() < self._deadline:
            self._set(self._deadline)
            return
        self._rang = True
        self._waiting.cancel()
