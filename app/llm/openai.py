"""Chat Completions, the wire format of OpenAI, Azure, Ollama, vLLM, llama.cpp, LM Studio and many more."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from app.llm.backend import Delta, Finished, FinishReason, Prompt
from app.llm.rejections import Call, stream_error
from app.llm.remote import HttpBackend, turns
from app.llm.wire import Piece, converse, count_of, object_in, parse_object, whole
from corpus.errors import BackendMalformed

REASONS: dict[str, FinishReason] = {"stop": "stop", "length": "length", "content_filter": "refusal"}
"""From `finish_reason` to ours; whatever else a server says is `other`."""


class OpenAIBackend(HttpBackend):
    """One provider and model behind a Chat Completions address. What providers differ in is configuration."""

    def stream(self, prompt: Prompt) -> AsyncGenerator[Delta | Finished, None]:
        """The answer as it arrives. See `Backend`."""
        return converse(self._egress, lambda: self._chat(prompt), prompt, read_event)

    def _chat(self, prompt: Prompt) -> Call:
        settings = self._settings

        def role_of(role: str) -> str:
            return settings.system_role if role == "system" else role

        payload: dict[str, object] = {
            "model": self.model,
            "messages": [{"role": role, "content": text} for role, text in turns(prompt.messages, role_of)],
            settings.max_tokens_field: prompt.max_tokens,
            "stream": True,
        }
        if settings.stream_usage:
            payload["stream_options"] = {"include_usage": True}
        if settings.temperature is not None:
            payload["temperature"] = settings.temperature
        return self._call("/chat/completions", {}, payload)


def read_event(call: Call, event: str) -> Piece:
    """One event of a Chat Completions stream. Unknown fields are ignored. Raises: a BackendError."""
    if event.startswith("[DONE]"):
        return Piece(last=True)
    body = parse_object(call, event)
    if body.get("error"):
        raise stream_error(call, body["error"])
    choices = body.get("choices")
    if not isinstance(choices, list):
        raise BackendMalformed(call.provider, "sent an event without `choices`; is that a Chat Completions address?")
    piece = _read_choice(call, choices[0]) if choices else Piece()
    if usage := object_in(call, body, "usage"):
        cached = object_in(call, usage, "prompt_tokens_details").get("cached_tokens", usage.get("prompt_cache_hit_tokens"))
        piece.prompt_tokens = count_of(usage.get("prompt_tokens"))
        piece.completion_tokens = count_of(usage.get("completion_tokens"))
        piece.cached_tokens = count_of(cached)
    return piece


def _read_choice(call: Call, choice: object) -> Piece:
    if not isinstance(choice, dict):
        raise BackendMalformed(call.provider, "sent an event whose choice is not an object")
    delta, finish = object_in(call, choice, "delta"), choice.get("finish_reason")
    content = delta.get("content")
    if finish is None and isinstance(content, str) and content and len(delta) == 1:
        return Piece(whole(content))  # the way most events come
    refusal = delta.get("refusal")
    text = _text(content) + (refusal if isinstance(refusal, str) else "")
    called_tool = bool(delta.get("tool_calls") or delta.get("function_call"))
    thinks = delta.get("reasoning_content") or delta.get("reasoning") or (content and not text)
    return Piece(
        text=whole(text),
        thinking=called_tool or bool(thinks),
        called_tool=called_tool,
        refused=bool(refusal),
        reason=REASONS.get(finish, "other") if isinstance(finish, str) else None,
    )


def _text(content: Any) -> str:
    """Text, or the texts among parts; Mistral sends its model's thinking as parts of another type."""
    if isinstance(content, list):
        return "".join(part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str))
    return content if isinstance(content, str) else ""
