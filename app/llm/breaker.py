"""Leaves a provider that keeps failing alone for a while, then lets one call try it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

Phase = Literal["closed", "open", "half_open"]


class Breaker:
    """Closed: calls go through. Open: none does. Half open: the time is up, and one call is let through as a probe.

    A call enters with a ticket. Once the breaker has opened, the tickets from before count for nothing: what those calls
    come to says how the provider was, and many of them may still be on their way.
    Belongs to one event loop. Units: seconds. Source: M. Nygard, Release It!, the chapter on stability patterns.
    """

    def __init__(self, failures: int, open_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit, self._open_s, self._clock = failures, open_s, clock
        self._failures = 0
        self._openings = 0
        self._open_until: float | None = None
        self._probing = False

    @property
    def phase(self) -> Phase:
        """What it does with the next call."""
        if self._open_until is None:
            return "closed"
        return "open" if self._clock() < self._open_until else "half_open"

    @property
    def opens_in_s(self) -> float:
        """Seconds until a call is let through; 0 where one would be now."""
        return 0.0 if self._open_until is None else max(0.0, self._open_until - self._clock())

    @property
    def refuses(self) -> bool:
        """Whether the next call would not be let through."""
        return self.phase == "open" or (self.phase == "half_open" and self._probing)

    def enter(self) -> int | None:
        """The ticket of a call that may go out, None for one that may not.

        Whoever got one ends in `succeeded`, `failed` or `abandoned`.
        """
        if self.refuses:
            return None
        self._probing = self.phase == "half_open"
        return self._openings

    def began(self, ticket: int) -> None:
        """The provider has begun to answer. A probe need not be waited for to its end, but one more failure opens it again."""
        if ticket == self._openings and self._open_until is not None:
            self._failures, self._open_until, self._probing = self._limit - 1, None, False

    def succeeded(self, ticket: int) -> None:
        """The provider answered."""
        if ticket == self._openings:
            self._failures, self._open_until, self._probing = 0, None, False

    def failed(self, ticket: int) -> None:
        """The provider failed: too often in a row, or as a probe, opens it."""
        if ticket != self._openings:
            return
        self._failures += 1
        if self._probing or self._failures >= self._limit:
            self._open_for(self._open_s)

    def abandoned(self, ticket: int) -> None:
        """The call ended, perhaps without a verdict: the caller left, or the request was at fault."""
        if ticket == self._openings:
            self._probing = False

    def hold(self, seconds: float) -> None:
        """The provider asked to be left alone for so long."""
        self._open_for(seconds)

    def _open_for(self, seconds: float) -> None:
        self._openings += 1
        self._open_until = max(self._open_until or 0.0, self._clock() + seconds)
        self._probing = False
