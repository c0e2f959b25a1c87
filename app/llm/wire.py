"""What every wire format shares: the stages and their limits, counting, and how a stream must end.

A wire format is a file beside this one: it builds the request and reads an event into a `Piece`; `converse` does the
rest.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any

from app.llm.backend import Delta, Finished, FinishReason, Prompt, Usage
from app.llm.rejections import Call, redacted, rejection
from corpus.egress import Answer, Egress, Timeouts
from corpus.errors import (
    BackendError,
    BackendMalformed,
    BackendTimeout,
    BackendUnreachable,
    BackendWordless,
    EgressBroken,
    EgressError,
    EgressRefused,
    EgressTimeout,
    EgressUnreachable,
)

USAGE_GRACE_S = 2.0
"""How long an answer that is complete waits for its usage; some servers say they send it and do not."""

DRAIN_S = 0.1
"""How long a finished stream waits for the end of its body, so that the connection can be used again."""

ERROR_BODY_S = 5.0
NO_SUCH_PATH = (404, 405, 501)
BYTES_PER_TOKEN = 4
"""Where nobody counted. Source: the rule of thumb in OpenAI's documentation, 4 characters of English a token."""

MOST_TOKENS = 100_000_000
"""A larger count is not believed: no model's context holds so many, and one such number would spend a day's budget."""

_MEDIA_TYPE = re.compile(r"[\w.+-]+/[\w.+-]+", re.ASCII)


@dataclass(slots=True)  # not frozen: one is made for every token, and freezing triples what that costs
class Piece:
    """What one event of a provider's stream says. `thinking` is a token that is not part of the answer.

    A `reason` ends the answer, the event's own text included. Counts are of the whole call so far.
    """

    text: str = ""
    thinking: bool = False
    called_tool: bool = False
    refused: bool = False
    reason: FinishReason | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    last: bool = False


async def converse(
    egress: Egress, prepare: Callable[[], Call], prompt: Prompt, read_event: Callable[[Call, str], Piece]
) -> AsyncGenerator[Delta | Finished, None]:
    """Sends the call and yields the answer as the `Backend` protocol promises it."""
    call = prepare()
    loop = asyncio.get_running_loop()
    settings = call.settings
    total_s = settings.total_timeout_s
    if prompt.deadline is not None:
        total_s = min(total_s, prompt.deadline - loop.time())
        if total_s <= 0:
            raise BackendTimeout(call.provider, "total", 0.0)
    timeouts = Timeouts(connect_s=settings.connect_timeout_s, response_s=settings.first_token_timeout_s, total_s=total_s)
    stage, limit_s = "first_token", settings.first_token_timeout_s
    received = _Received()
    complete_by: float | None = None
    headers = {"accept": "text/event-stream", **call.headers}
    try:
        async with egress.stream(call.url, headers=headers, json=call.payload, timeouts=timeouts) as answer:
            await _require_event_stream(call, answer)
            deadline = answer.requested_at + limit_s
            while True:
                try:
                    events = await answer.next_events(deadline)
                except EgressError:
                    if not received.is_complete:
                        raise
                    break  # only the usage or the end of the body is missing
                if events is None:
                    break
                tokens_before = received.tokens
                for event in events:
                    text = received.take(read_event(call, event))
                    if text:
                        yield Delta(text)
                if received.ended:
                    complete_by = deadline = loop.time() + DRAIN_S
                elif received.is_settled:
                    complete_by = deadline = complete_by or loop.time() + USAGE_GRACE_S
                elif received.tokens > tokens_before:
                    stage, limit_s = "between_tokens", settings.between_tokens_timeout_s
                    complete_by, deadline = None, loop.time() + limit_s
    except EgressError as error:
        raise backend_error(call, error, stage, limit_s, received.tokens) from error
    if not received.ended and received.reason is None:
        raise BackendMalformed(call.provider, f"the answer was cut off after {received.tokens} tokens")
    if not received.began:
        raise BackendWordless(call.provider, received.why_empty())
    # A mark of the end says that nothing is missing, and not why the answer ended.
    yield Finished(received.usage(prompt), "refusal" if received.refused else received.reason or "other")


@dataclass(slots=True)
class _Received:
    """What has arrived of one answer. `tokens` counts every event that carried one, the unseen ones too.

    Some servers give a reason with every event, or with an empty one before the first word. So a reason holds only
    until more text comes, and once that has happened (`went_on`) nothing but the end of the body ends the answer.
    """

    tokens: int = 0
    text_bytes: int = 0
    held: str = ""
    began: bool = False
    refused: bool = False
    called_tool: bool = False
    reason: FinishReason | None = None
    went_on: bool = False
    is_settled: bool = False
    ended: bool = False
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None

    @property
    def is_complete(self) -> bool:
        """Whether nothing is lost where no more can be read."""
        return self.ended or (self.reason is not None and not self.went_on)

    def take(self, piece: Piece) -> str:
        """The text to pass on now. White space before the first word is held back: alone it would be no answer."""
        text = piece.text
        if text:
            self.went_on = self.went_on or (self.reason is not None and self.began)
            self.reason, self.is_settled = piece.reason, False
            self.tokens += 1
            self.text_bytes += len(text) if text.isascii() else len(text.encode())
            if self.began:
                released = text
            else:
                self.held += text
                self.began = not self.held.isspace()
                released = self.held if self.began else ""
        else:
            released = ""
            self.tokens += piece.thinking
            if piece.reason is not None:
                self.reason, self.is_settled = piece.reason, self.began and not self.went_on
        if piece.prompt_tokens is not None:
            self.prompt_tokens = max(self.prompt_tokens or 0, piece.prompt_tokens)
        if piece.completion_tokens is not None:
            self.completion_tokens = max(self.completion_tokens or 0, piece.completion_tokens)
        if piece.cached_tokens is not None:
            self.cached_tokens = max(self.cached_tokens or 0, piece.cached_tokens)
        self.ended = self.ended or piece.last
        self.refused = self.refused or piece.refused
        self.called_tool = self.called_tool or piece.called_tool
        return released

    def usage(self, prompt: Prompt) -> Usage:
        """What the provider reported, and a count of ours for what it did not; no prompt and no answer takes 0 tokens."""
        counted = max(self.tokens, math.ceil(self.text_bytes / BYTES_PER_TOKEN))
        prompt_tokens = self.prompt_tokens or estimate_prompt_tokens(prompt)
        return Usage(
            prompt_tokens=prompt_tokens,
            completion_tokens=self.completion_tokens or counted,
            cached_tokens=min(self.cached_tokens or 0, prompt_tokens),
            estimated=not self.prompt_tokens or not self.completion_tokens,
        )

    def why_empty(self) -> str:
        """In words, why a complete answer holds no text."""
        if self.called_tool:
            return "called a tool instead of answering, and none was offered"
        if self.reason == "refusal":
            return "its content filter withheld the whole answer"
        if self.reason == "length":
            return "empty answer: all of max_tokens went by without a word of it; raise prompt.answer_tokens"
        return "empty answer"


def estimate_tokens(text: str) -> int:
    """A rough count for where nobody counted: four bytes of UTF-8 a token, rounded up."""
    return math.ceil(len(text.encode("utf-8", "replace")) / BYTES_PER_TOKEN)


def estimate_prompt_tokens(prompt: Prompt) -> int:
    """The same for a whole prompt, with four tokens a message for what marks its beginning and end."""
    return sum(estimate_tokens(message.content) + 4 for message in prompt.messages)


def parse_object(call: Call, event: str) -> dict[str, object]:
    """The JSON object that an event's data must be. Raises: BackendMalformed."""
    try:
        value = json.loads(event)
    except (ValueError, RecursionError) as error:
        raise BackendMalformed(call.provider, "sent an event that is not JSON; the answer is not complete") from error
    if not isinstance(value, dict):
        raise BackendMalformed(call.provider, f"sent an event that is a {type(value).__name__}, not an object")
    return value


def object_in(call: Call, parent: dict[str, Any], key: str) -> dict[str, Any]:
    """The object under a key, empty where there is none. Raises: BackendMalformed where it is something else."""
    value = parent.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BackendMalformed(call.provider, f"sent an event whose {key!r} is not an object")
    return value


def count_of(value: object) -> int | None:
    """A number of tokens; None for what can be none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS else None


def whole(text: str) -> str:
    """The text with half surrogates, which JSON can carry and UTF-8 cannot, replaced."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


async def fetch_json(egress: Egress, call: Call) -> object:
    """What a GET of the call's address says; None where there is no such path.

    Raises: a BackendError, EgressRefused.
    """
    settings = call.settings
    timeouts = Timeouts(
        connect_s=settings.connect_timeout_s, response_s=settings.first_token_timeout_s, total_s=settings.total_timeout_s
    )
    try:
        async with egress.stream(call.url, method="GET", headers=call.headers, timeouts=timeouts) as answer:
            if answer.status in NO_SUCH_PATH:
                return None
            if answer.status != 200:
                raise await _rejected(call, answer)
            body = await answer.body(answer.requested_at + timeouts.response_s)
    except EgressError as error:
        raise backend_error(call, error, "response", timeouts.response_s, 0) from error
    try:
        parsed: object = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BackendMalformed(call.provider, "answered with something that is not JSON; is base_url right?") from error
    return parsed


async def _require_event_stream(call: Call, answer: Answer) -> None:
    if answer.status != 200:
        raise await _rejected(call, answer)
    content_type = (answer.header("content-type") or "").split(";")[0].strip().lower()
    if content_type != "text/event-stream":
        said = redacted(content_type, call.secrets)
        named = repr(said) if len(said) <= 60 and _MEDIA_TYPE.fullmatch(said) else "something else"
        raise BackendMalformed(call.provider, f"answered with {named} instead of a stream of events; is base_url right?")


async def _rejected(call: Call, answer: Answer) -> BackendError:
    deadline = asyncio.get_running_loop().time() + min(ERROR_BODY_S, call.settings.first_token_timeout_s)
    try:
        body = (await answer.body(deadline)).decode("utf-8", "replace")
    except EgressError:
        body = ""  # the status says enough
    try:
        parsed: object = json.loads(body)
    except (ValueError, RecursionError):
        parsed = None
    return rejection(call, answer.status, parsed, body, answer.header("retry-after"))


def backend_error(call: Call, error: EgressError, stage: str, limit_s: float, tokens: int) -> BackendError | EgressRefused:
    """Our error for one of the egress: `stage` and `limit_s` are what was waited for, `tokens` what had come."""
    match error:
        case EgressRefused():
            return error
        case EgressUnreachable():
            return BackendUnreachable(call.provider, str(error))
        case EgressTimeout(stage="response"):
            return BackendTimeout(call.provider, stage, limit_s)
        case EgressTimeout():
            return BackendTimeout(call.provider, error.stage, error.waited_s)
        case EgressBroken() if tokens:
            return BackendMalformed(call.provider, f"the answer was cut off after {tokens} tokens: {error}")
        case _:
            return BackendMalformed(call.provider, str(error))
