"""Messages, the wire format of Anthropic; llama.cpp, vLLM and others speak it too."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from app.llm.backend import Delta, Finished, FinishReason, Prompt
from app.llm.rejections import Call, stream_error
from app.llm.remote import HttpBackend, instructions, turns
from app.llm.wire import Piece, converse, count_of, object_in, parse_object, whole
from corpus.errors import BackendMalformed

VERSION = "2023-06-01"
"""Of the format, not of a model. Source: https://docs.claude.com/en/api/versioning."""

REASONS: dict[str, FinishReason] = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "refusal": "refusal"}
"""From `stop_reason` to ours; whatever else a server says is `other`."""

TOOL_BLOCKS = ("tool_use", "server_tool_use")


class AnthropicBackend(HttpBackend):
    """One provider and model behind a Messages address."""

    key_header = "x-api-key"
    key_prefix = ""
    format_headers = (("anthropic-version", VERSION),)
    list_query = (("limit", "1000"),)

    def stream(self, prompt: Prompt) -> AsyncGenerator[Delta | Finished, None]:
        """The answer as it arrives. See `Backend`."""
        return converse(self._egress, lambda: self._message(prompt), prompt, read_event)

    def _message(self, prompt: Prompt) -> Call:
        said = turns(message for message in prompt.messages if message.role != "system")
        payload: dict[str, object] = {
            "model": self.model,
            "max_tokens": prompt.max_tokens,
            "messages": [{"role": role, "content": text} for role, text in said],
            "stream": True,
        }
        if system := instructions(prompt.messages):
            payload["system"] = system
        if self._settings.temperature is not None:
            payload["temperature"] = self._settings.temperature
        return self._call("/messages", {}, payload)


def read_event(call: Call, event: str) -> Piece:
    """One event of a Messages stream. Kinds of events that are not known are ignored, as the format demands.

    Raises: a BackendError.
    """
    body = parse_object(call, event)
    match body.get("type"):
        case "content_block_delta":
            return _read_delta(object_in(call, body, "delta"))
        case "content_block_start":
            return _read_block(object_in(call, body, "content_block"))
        case "message_start":
            return _read_usage(object_in(call, object_in(call, body, "message"), "usage"))
        case "message_delta":
            usage = object_in(call, body, "usage")
            stop = object_in(call, body, "delta").get("stop_reason")
            piece = _read_usage(usage)
            piece.completion_tokens = count_of(usage.get("output_tokens"))
            piece.reason = REASONS.get(stop, "other") if isinstance(stop, str) else None
            piece.called_tool = stop == "tool_use"
            return piece
        case "message_stop":
            return Piece(last=True)
        case "error":
            raise stream_error(call, body.get("error"))
        case str():
            return Piece()
        case _:
            raise BackendMalformed(call.provider, "sent an event without a `type`; is that a Messages address?")


def _read_delta(delta: dict[str, Any]) -> Piece:
    kind, text = delta.get("type"), delta.get("text")
    if kind == "text_delta" and isinstance(text, str):
        return Piece(whole(text))
    called_tool = kind == "input_json_delta"
    return Piece(thinking=called_tool or kind == "thinking_delta", called_tool=called_tool)


def _read_block(block: dict[str, Any]) -> Piece:
    kind, text = block.get("type"), block.get("text")
    if kind == "text" and isinstance(text, str):
        return Piece(whole(text))
    return Piece(called_tool=kind in TOOL_BLOCKS)


def _read_usage(usage: dict[str, Any]) -> Piece:
    """What the prompt took: `input_tokens` leaves out what was read from the cache and what was written to it."""
    fresh = count_of(usage.get("input_tokens"))
    read, written = count_of(usage.get("cache_read_input_tokens")), count_of(usage.get("cache_creation_input_tokens"))
    whole_prompt = None if fresh is None else count_of(fresh + (read or 0) + (written or 0))
    return Piece(prompt_tokens=whole_prompt, cached_tokens=read)
