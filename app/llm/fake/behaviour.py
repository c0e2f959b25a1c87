"""How the fake answers, and what it keeps of a request. Imports nothing that is slow to load."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from corpus.errors import ConfigError

Mode = Literal["reply", "echo", "obey"]
Hang = Literal["connect", "tls", "headers", "first_token", "between_tokens"]


@dataclass(frozen=True, slots=True)
class FakeBehaviour:
    """How the fake answers, in every format. Every knob that is left alone is off.

    `{model}` in `reply` stands for the model that was asked. `tokens` is the length of an answer of numbered words, in
    the place of `reply`. With `fail_first`, only so many calls get `status`.
    `hang`: connect = no connection comes about; tls = one does, but nothing is read or answered on it; both hold for a
    server that is started so, and are as headers in one that runs already.
    `finish_reason` is sent as it is, whatever the format. `omit_done` leaves out [DONE] or message_stop; Google's
    format has no such end. `refusal` with an empty reply is, in Google's format, a prompt that was blocked.
    Units: `..._s` seconds; tokens are words with the space before them.
    Raises: ConfigError where a knob needs another one that was left alone.
    """

    mode: Mode = "reply"
    reply: str = "The fake model says hello."
    tokens: int | None = None
    models: tuple[str, ...] = ()
    api_key: str | None = None
    context_tokens: int | None = None
    cached_tokens: int = 0
    first_token_delay_s: float = 0.0
    tokens_per_second: float | None = None
    status: int = 200
    error_message: str = "the fake was told to fail"
    retry_after: str | None = None
    fail_first: int | None = None
    redirect_to: str | None = None
    hang: Hang | None = None
    cut_after_tokens: int | None = None
    end_after_tokens: int | None = None
    malformed_event_after_tokens: int | None = None
    error_after_tokens: int | None = None
    omit_usage: bool = False
    omit_done: bool = False
    keep_open: bool = False
    finish_reason: str | None = None
    tool_call: bool = False
    refusal: bool = False
    content_type: str = "text/event-stream"
    huge_answer_bytes: int = 0
    huge_in_one_event: bool = False

    def __post_init__(self) -> None:
        if self.fail_first is not None and self.status == 200:
            raise ConfigError("the fake's fail_first needs a status to fail with, such as 429")


@dataclass(slots=True)
class Recorded:
    """One request as it arrived, and how it ended. Times are seconds of the monotonic clock."""

    number: int
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    arrived_at: float
    client: tuple[str, int] | None = None
    query: str = ""
    tokens_sent: int = 0
    closed_early: bool = False
    ended_at: float | None = None

    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)
