"""What the latest answers to stateless callers rested on."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterable

from app.state.messages import StoredPassage

ANSWERS_REMEMBERED = 10_000


class GivenAnswers:
    """Which passages the latest answers to stateless callers rested on, by the hash of the answer; no text is kept.

    A stateless caller sends our earlier answers back to us. An answer that is not remembered here could rest on anything that
    its caller may see, and is treated so.
    """

    def __init__(self) -> None:
        self._passages: OrderedDict[bytes, tuple[StoredPassage, ...]] = OrderedDict()
        self._lock = threading.Lock()

    def remember(self, answer: str, passages: Iterable[StoredPassage]) -> None:
        """Note what an answer rested on. The same words given twice rest on the passages of both."""
        with self._lock:
            before = self._passages.pop(_digest(answer), ())
            self._passages[_digest(answer)] = tuple(dict.fromkeys([*before, *passages]))
            while len(self._passages) > ANSWERS_REMEMBERED:
                self._passages.popitem(last=False)

    def recall(self, answer: str) -> tuple[StoredPassage, ...] | None:
        """What an answer rested on, or None where that is not known."""
        with self._lock:
            return self._passages.get(_digest(answer))


def _digest(answer: str) -> bytes:
    return hashlib.sha256(" ".join(answer.split()).encode("utf-8", "surrogatepass")).digest()
