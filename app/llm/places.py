"""How many calls to one provider run and wait at a time."""

from __future__ import annotations

import asyncio
import math

from corpus.errors import Overloaded

TYPICAL_S = 5.0
"""What a call is taken to last before one has ended."""

SMOOTHING = 0.2


class Places:
    """A bounded number of calls, and a bounded queue before it, first come first served. Belongs to one event loop."""

    def __init__(self, concurrent: int, queued: int) -> None:
        self.concurrent, self.queued = concurrent, queued
        self.running = self.waiting = 0
        self._free = asyncio.Semaphore(concurrent)
        self._lasts_s = TYPICAL_S

    @property
    def total(self) -> int:
        """All who can be inside, running or waiting."""
        return self.concurrent + self.queued

    @property
    def wait_s(self) -> float:
        """About how long until a place is free, from what calls took lately; at least a second."""
        return float(max(1, math.ceil(self._lasts_s * (self.waiting + 1) / self.concurrent)))

    async def take(self, what: str, within_s: float) -> None:
        """Wait for a place, which `give` gives back.

        Raises: Overloaded at once where the queue is full; TimeoutError where no place came free in time.
        """
        if self._free.locked() and self.waiting >= self.queued:
            raise Overloaded(f"{what} has {self.running} calls running and {self.waiting} waiting", self.wait_s)
        self.waiting += 1
        try:
            async with asyncio.timeout(within_s):
                await self._free.acquire()
        finally:
            self.waiting -= 1
        self.running += 1

    def give(self, lasted_s: float) -> None:
        """Give a place back after so many seconds."""
        self.running -= 1
        self._free.release()
        self._lasts_s += SMOOTHING * (lasted_s - self._lasts_s)
