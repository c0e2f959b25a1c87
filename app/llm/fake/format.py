"""What a wire format of the fake is: how it reads a request, and the bytes it answers with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from app.llm.fake.behaviour import FakeBehaviour, Recorded


class Unreadable(Exception):
    """The request is not what the format asks for. The message is the caller's."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer: an error, or a list of models."""

    status: int
    body: object
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Call:
    """What a request asks for. `streams` is off where the answer is wanted in one piece."""

    model: str
    prompt: str
    max_tokens: int | None
    streams: bool
    wants_usage: bool = True


@dataclass(frozen=True, slots=True)
class Answer:
    """What is answered to one call. `is_cut` where the caller's limit was lower than the answer is long."""

    behaviour: FakeBehaviour
    number: int
    model: str
    tokens: list[str]
    is_cut: bool
    prompt_tokens: int
    with_usage: bool

    @property
    def cached_tokens(self) -> int:
        return min(self.behaviour.cached_tokens, self.prompt_tokens)


class Format(Protocol):
    """One wire format.

    A stream is `opening`, then for each token what `around` gives with the token's JSON string between, then `ending`.
    """

    def key_of(self, request: Recorded) -> str | None:
        """The key that a request carries."""
        ...

    def wrong_key(self, sent: str | None) -> Reply: ...

    def unreadable(self, message: str) -> Reply: ...

    def unknown_model(self, model: str) -> Reply: ...

    def overflow(self, prompt_tokens: int, context_tokens: int) -> Reply: ...

    def failure(self, status: int, message: str, retry_after: str | None) -> Reply: ...

    def listed(self, models: Sequence[str], behaviour: FakeBehaviour) -> object: ...

    def described(self, model: str, behaviour: FakeBehaviour) -> object: ...

    def read(self, request: Recorded) -> Call:
        """Raises: Unreadable, and whatever Python raises on a body of another shape."""
        ...

    def whole(self, answer: Answer, text: str) -> object: ...

    def opening(self, answer: Answer) -> Sequence[bytes]: ...

    def around(self, answer: Answer) -> tuple[bytes, bytes]: ...

    def ending(self, answer: Answer, sent: int) -> Sequence[bytes]: ...

    def malformed_event(self) -> bytes: ...

    def error_event(self, message: str) -> bytes: ...


def event(value: object, name: str | None = None) -> bytes:
    """A server-sent event of one JSON value."""
    named = b"" if name is None else b"event: " + name.encode() + b"\n"
    return named + b"data: " + json.dumps(value).encode() + b"\n\n"


def halves(whole: bytes) -> tuple[bytes, bytes]:
    """What stands before and after the only JSON string "\\u0000" of an event."""
    before, after = whole.split(HOLE)
    return before, after


GAP = "\0"
HOLE = json.dumps(GAP).encode()


def text_of(content: Any) -> str:
    """The text of a message's content: a string, or a list of text parts."""
    return content if isinstance(content, str) else "\n".join(part["text"] for part in content)
