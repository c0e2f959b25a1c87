"""What an LLM backend is. Every backend passes the suite in tests/contracts/."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from corpus.embedders.embedder import Embedder
from corpus.types import Message, Passage

FinishReason = Literal["stop", "length", "refusal", "other"]


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call. `estimated` says that the provider did not report them and we counted.

    `cached_tokens` are those of the prompt that the provider had cached. `cost_usd` is None where the price is not known;
    a backend leaves it at 0, the gateway fills it in.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    cost_usd: float | None = 0.0
    estimated: bool = False

    def __add__(self, other: Usage) -> Usage:
        """Both calls together; a cost that is not known makes the sum unknown."""
        unknown = self.cost_usd is None or other.cost_usd is None
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            cost_usd=None if unknown else round((self.cost_usd or 0.0) + (other.cost_usd or 0.0), 12),
            estimated=self.estimated or other.estimated,
        )


@dataclass(frozen=True, slots=True)
class Prompt:
    """All that a backend may see.

    `messages` is the finished prompt (system, history, passages and question). `passages` are the same numbered
    passages and `question` the standalone question, for a backend that needs no prose. `label` is the highest label of
    everything in it. `nearness`, `coverage` and `rarity` were measured over the passages, `answerability` is how likely
    they answer, 0..1. `embedder` is the model of the passages' vectors.
    `deadline` is a time of the event loop's clock by which the whole answer must be there. `rests_on`
    are the ids of all chunks that any of it derives from, those of earlier turns too.
    """

    messages: tuple[Message, ...]
    label: str
    max_tokens: int
    question: str = ""
    standalone: str = ""
    passages: tuple[Passage, ...] = ()
    nearness: float = 0.0
    coverage: float = 0.0
    answerability: float = 0.0
    rarity: Mapping[str, float] = field(default_factory=dict)
    embedder: Embedder | None = None
    deadline: float | None = None
    rests_on: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Delta:
    """The next piece of the answer; never empty."""

    text: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of the answer.

    `abstained` where the backend knows that there is no answer.
    """

    usage: Usage
    reason: FinishReason = "stop"
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
