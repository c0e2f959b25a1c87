"""What an LLM backend is. Every backend passes the suite in tests/contracts/."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from corpus.types import Message, Passage


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call. `estimated` says that the provider did not report them and we counted."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float = 0.0
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class Prompt:
    """All that a backend may see.

    `messages` is the finished prompt (system, history, passages and question). `passages` are the same numbered
    passages and `question` the standalone question, for a backend that needs no prose. `label` is the highest label of
    everything in it.
    """

    messages: tuple[Message, ...]
    label: str
    max_tokens: int
    question: str = ""
    standalone: str = ""
    passages: tuple[Passage, ...] = ()
    nearness: float = 0.0
    rarity: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Delta:
    """The next piece of the answer; never empty."""

    text: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of the answer. `reason` is stop, length, refusal or other.

    `abstained` where the backend knows that there is no answer.
    """

    usage: Usage
    reason: str = "stop"
    abstained: bool = False


class Backend(Protocol):
    """One provider and model.

    `stream` yields zero or more `Delta`, then exactly one `Finished`, and stops. It raises a `BackendError` (or
    `EgressRefused`, where the address itself is at fault) before the first `Delta` or after some; it never ends quietly
    without `Finished`. Closing the generator (`aclose`) or cancelling the task ends the upstream call within a second;
    a generator that is only dropped is not closed, so consume it within `contextlib.aclosing`. Safe for concurrent use
    by many requests on one event loop.
    """

    provider: str
    model: str
    clearance: str

    def stream(self, prompt: Prompt) -> AsyncGenerator[Delta | Finished, None]: ...

    async def close(self) -> None: ...
