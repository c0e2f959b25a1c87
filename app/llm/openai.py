"""Chat Completions, the wire format of OpenAI, Ollama, vLLM, llama.cpp, LM Studio and many more."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from app.llm.backend import Delta, Finished, Prompt
from app.llm.rejections import Call, stream_error
from app.llm.settings import ProviderSettings
from app.llm.wire import Piece, converse, key_problem, parse_object, secret_of, whole
from corpus.egress import Egress
from corpus.errors import BackendMalformed

REASONS = {"stop": "stop", "length": "length", "content_filter": "refusal"}
"""From `finish_reason` to ours; whatever else a server says is `other`."""


class OpenAIBackend:
    """One provider and model behind a Chat Completions address. Always streams; keeps no text."""

    def __init__(self, provider: str, settings: ProviderSettings, egress: Egress, clearance: str) -> None:
        self.provider, self.model, self.clearance = provider, settings.model, clearance
        self._settings, self._egress = settings, egress

    def __repr__(self) -> str:
        return f"OpenAIBackend({self.provider!r}, model={self.model!r}, base_url={self._settings.base_url!r})"

    @property
    def problem(self) -> str | None:
        """What is missing before it can be called; None if nothing is."""
        return key_problem(self._settings)

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Delta | Finished, None]:
        """The answer as it arrives. See `Backend`."""
        secret = secret_of(self.provider, self._settings)
        call = Call(
            provider=self.provider,
            settings=self._settings,
            url=f"{self._settings.base_url}/chat/completions",
            headers={} if secret is None else {"Authorization": f"Bearer {secret}"},
            payload=self._payload(prompt),
            secret=secret,
        )
        async with aclosing(converse(self._egress, call, prompt, read_event)) as events:
            async for event in events:
                yield event

    async def close(self) -> None:
        """Nothing to close: the connections belong to the egress."""

    def _payload(self, prompt: Prompt) -> dict[str, object]:
        payload: dict[str, object] = {
            "model": self.model,
            "messages": [{"role": message.role, "content": message.content} for message in prompt.messages],
            self._settings.max_tokens_field: prompt.max_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self._settings.temperature is not None:
            payload["temperature"] = self._settings.temperature
        return payload


def read_event(call: Call, event: str) -> Piece:
    """One event of a Chat Completions stream. Unknown fields are ignored. Raises: a BackendError."""
    if event.startswith("[DONE]"):
        return Piece(last=True)
    body = parse_object(call, event)
    if body.get("error"):
        raise stream_error(call, body["error"])
    prompt_tokens = completion_tokens = None
    if usage := _object(call, body, "usage"):
        prompt_tokens, completion_tokens = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
    choices = body.get("choices")
    if not isinstance(choices, list):
        raise BackendMalformed(call.provider, "sent an event without `choices`; is that a Chat Completions address?")
    if not choices:
        return Piece(prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)
    choice = choices[0]
    if not isinstance(choice, dict):
        raise BackendMalformed(call.provider, "sent an event whose choice is not an object")
    delta = _object(call, choice, "delta")
    content, refusal, finish = delta.get("content"), delta.get("refusal"), choice.get("finish_reason")
    text = (content if isinstance(content, str) else "") + (refusal if isinstance(refusal, str) else "")
    called_tool = bool(delta.get("tool_calls") or delta.get("function_call"))
    return Piece(
        text=whole(text),
        thinking=called_tool or bool(delta.get("reasoning_content") or delta.get("reasoning")),
        called_tool=called_tool,
        refused=bool(refusal),
        reason=REASONS.get(finish, "other") if isinstance(finish, str) else None,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
    )


def _object(call: Call, parent: dict[str, Any], key: str) -> dict[str, Any]:
    value = parent.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BackendMalformed(call.provider, f"sent an event whose {key!r} is not an object")
    return value


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
