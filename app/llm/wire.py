"""What every wire format shares: the stages and their limits, keys, counting, and how a stream must end.

A wire format is a file beside this one: it builds the request and reads an event into a `Piece`; `converse` does the
rest.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

from app.llm.backend import Delta, Finished, Prompt, Usage
from app.llm.rejections import Call, rejection
from app.llm.settings import ProviderSettings
from corpus.egress import Answer, Egress, Timeouts
from corpus.errors import (
    BackendError,
    BackendMalformed,
    BackendNotConfigured,
    BackendTimeout,
    BackendUnreachable,
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
BYTES_PER_TOKEN = 4
"""Where nobody counted. Source: the rule of thumb in OpenAI's documentation, 4 characters of English a token."""


@dataclass(slots=True)  # not frozen: one is made for every token, and freezing triples what that costs
class Piece:
    """What one event of a provider's stream says. `thinking` is a token that is not part of the answer."""

    text: str = ""
    thinking: bool = False
    called_tool: bool = False
    refused: bool = False
    reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    last: bool = False


async def converse(
    egress: Egress, call: Call, prompt: Prompt, parse: Callable[[Call, str], Piece]
) -> AsyncGenerator[Delta | Finished, None]:
    """Sends the call and yields the answer as the `Backend` protocol promises it."""
    loop = asyncio.get_running_loop()
    settings = call.settings
    timeouts = Timeouts(
        connect_s=settings.connect_timeout_s,
        response_s=settings.first_token_timeout_s,
        total_s=settings.total_timeout_s,
    )
    stage, limit_s = "first_token", settings.first_token_timeout_s
    received = _Received()
    complete_by: float | None = None
    headers = {**call.headers, "Accept": "text/event-stream"}
    try:
        async with egress.stream(call.url, headers=headers, json=call.payload, timeouts=timeouts) as answer:
            await _require_event_stream(call, answer)
            deadline = answer.requested_at + limit_s
            while True:
                try:
                    events = await answer.next_events(deadline)
                except EgressError:
                    if complete_by is None:
                        raise
                    break  # the answer is complete; only its usage or the end of the body is missing
                if events is None:
                    break
                tokens_before = received.tokens
                for event in events:
                    text = received.take(parse(call, event))
                    if text:
                        yield Delta(text)
                if received.ended:
                    complete_by = deadline = loop.time() + DRAIN_S
                elif received.reason is not None:
                    complete_by = deadline = complete_by or loop.time() + USAGE_GRACE_S
                elif received.tokens > tokens_before:
                    stage, limit_s = "between_tokens", settings.between_tokens_timeout_s
                    deadline = loop.time() + limit_s
    except EgressError as error:
        raise _backend_error(call, error, stage, limit_s, received.tokens) from error
    if complete_by is None:
        raise BackendMalformed(call.provider, f"the answer was cut off after {received.tokens} tokens")
    if not received.began:
        raise BackendMalformed(call.provider, received.why_empty())
    yield Finished(received.usage(prompt), "refusal" if received.refused else received.reason or "stop")


@dataclass(slots=True)
class _Received:
    """What has arrived of one answer. `tokens` counts every event that carried one, the unseen ones too."""

    tokens: int = 0
    text_bytes: int = 0
    held: str = ""
    began: bool = False
    refused: bool = False
    called_tool: bool = False
    reason: str | None = None
    ended: bool = False
    prompt_tokens: int | None = None
    completion_tokens: int | None = None

    def take(self, piece: Piece) -> str:
        """The text to pass on now. White space before the first word is held back: alone it would be no answer."""
        if piece.reason is not None:
            self.reason = piece.reason
        if piece.prompt_tokens is not None:
            self.prompt_tokens = piece.prompt_tokens
        if piece.completion_tokens is not None:
            self.completion_tokens = piece.completion_tokens
        self.ended = self.ended or piece.last
        self.refused = self.refused or piece.refused
        self.called_tool = self.called_tool or piece.called_tool
        if not piece.text:
            self.tokens += piece.thinking
            return ""
        self.tokens += 1
        self.text_bytes += len(piece.text.encode())
        if self.began:
            return piece.text
        self.held += piece.text
        self.began = not self.held.isspace()
        return self.held if self.began else ""

    def usage(self, prompt: Prompt) -> Usage:
        """What the provider reported, and a count of ours for what it did not."""
        counted = max(self.tokens, math.ceil(self.text_bytes / BYTES_PER_TOKEN))
        return Usage(
            prompt_tokens=estimate_prompt_tokens(prompt) if self.prompt_tokens is None else self.prompt_tokens,
            completion_tokens=counted if self.completion_tokens is None else self.completion_tokens,
            estimated=self.prompt_tokens is None or self.completion_tokens is None,
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


def key_problem(settings: ProviderSettings) -> str | None:
    """What is wrong with a provider's key, in words that name where it should come from; None if nothing is."""
    if settings.api_key is None:
        if settings.api_key_env is not None:
            return f"its key is missing: the environment variable {settings.api_key_env!r} is not set"
        if settings.api_key_file is not None:
            return f"its key is missing: there is none in the file {str(settings.api_key_file)!r}"
        return None
    key = settings.api_key.get_secret_value().strip()
    if not key:
        return "its key is empty; set it, or leave api_key out for a server that wants none"
    if not key.isascii() or not key.isprintable() or " " in key:
        return "its key holds a space, a line end or a letter that no key has; was it copied whole?"
    return None


def secret_of(provider: str, settings: ProviderSettings) -> str | None:
    """A provider's key, None where it needs none. Raises: BackendNotConfigured if it is missing or cannot be one."""
    problem = key_problem(settings)
    if problem is not None:
        raise BackendNotConfigured(provider, problem)
    return None if settings.api_key is None else settings.api_key.get_secret_value().strip()


def parse_object(call: Call, event: str) -> dict[str, object]:
    """The JSON object that an event's data must be. Raises: BackendMalformed."""
    try:
        value = json.loads(event)
    except ValueError as error:
        raise BackendMalformed(call.provider, "sent an event that is not JSON; the answer is not complete") from error
    if not isinstance(value, dict):
        raise BackendMalformed(call.provider, f"sent an event that is a {type(value).__name__}, not an object")
    return value


def whole(text: str) -> str:
    """The text with half surrogates, which JSON can carry and UTF-8 cannot, replaced."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


async def _require_event_stream(call: Call, answer: Answer) -> None:
    if answer.status != 200:
        deadline = asyncio.get_running_loop().time() + min(ERROR_BODY_S, call.settings.first_token_timeout_s)
        try:
            body = (await answer.body(deadline)).decode("utf-8", "replace")
        except EgressError:
            body = ""  # the status says enough
        try:
            parsed: object = json.loads(body)
        except ValueError:
            parsed = None
        raise rejection(call, answer.status, parsed, body, answer.header("retry-after"))
    content_type = (answer.header("content-type") or "").split(";")[0].strip().lower()
    if content_type != "text/event-stream":
        raise BackendMalformed(
            call.provider, f"answered with {content_type[:60]!r} instead of a stream of events; is base_url right?"
        )


def _backend_error(call: Call, error: EgressError, stage: str, limit_s: float, tokens: int) -> BackendError | EgressRefused:
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
