"""generateContent, the wire format of Google's Gemini."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any
from urllib.parse import quote

from app.llm.backend import Delta, Finished, FinishReason, Prompt
from app.llm.rejections import Call, stream_error
from app.llm.remote import HttpBackend, instructions, turns
from app.llm.wire import Piece, converse, count_of, object_in, parse_object, whole
from corpus.errors import BackendMalformed

REASONS: dict[str, FinishReason] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "SAFETY": "refusal",
    "RECITATION": "refusal",
    "BLOCKLIST": "refusal",
    "PROHIBITED_CONTENT": "refusal",
    "SPII": "refusal",
}
"""From `finishReason` to ours; whatever else it says is `other`. Source: https://ai.google.dev/api/generate-content."""

TOOL_REASONS = ("MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS")
UNSET = (None, "", "FINISH_REASON_UNSPECIFIED", "BLOCK_REASON_UNSPECIFIED")


class GoogleBackend(HttpBackend):
    """One provider and model behind a generateContent address."""

    key_header = "x-goog-api-key"
    key_prefix = ""
    list_query = (("pageSize", "1000"),)

    def stream(self, prompt: Prompt) -> AsyncGenerator[Delta | Finished, None]:
        """The answer as it arrives. See `Backend`."""
        return converse(self._egress, lambda: self._content(prompt), prompt, read_event)

    def _content(self, prompt: Prompt) -> Call:
        said = turns((message for message in prompt.messages if message.role != "system"), _role_of)
        limits: dict[str, object] = {"maxOutputTokens": prompt.max_tokens}
        if self._settings.temperature is not None:
            limits["temperature"] = self._settings.temperature
        payload: dict[str, object] = {
            "contents": [{"role": role, "parts": [{"text": text}]} for role, text in said],
            "generationConfig": limits,
        }
        if system := instructions(prompt.messages):
            payload["systemInstruction"] = {"parts": [{"text": system}]}
        # Tuned models have a folder of their own: tunedModels/name.
        model = self.model if "/" in self.model else f"models/{self.model}"
        return self._call(f"/{quote(model, safe='/:@')}:streamGenerateContent", {"alt": "sse"}, payload)


def read_event(call: Call, event: str) -> Piece:
    """One event of a streamGenerateContent stream. Unknown fields are ignored. Raises: a BackendError."""
    body = parse_object(call, event)
    if body.get("error"):
        raise stream_error(call, body["error"])
    candidates, usage, feedback = body.get("candidates"), body.get("usageMetadata"), body.get("promptFeedback")
    if candidates is None and not usage and not feedback:
        raise BackendMalformed(call.provider, "sent an event without `candidates`; is that a generateContent address?")
    if candidates is not None and not isinstance(candidates, list):
        raise BackendMalformed(call.provider, "sent an event whose `candidates` are not a list")
    piece = _read_candidate(call, candidates[0]) if candidates else Piece()
    if feedback and object_in(call, body, "promptFeedback").get("blockReason") not in UNSET:
        piece.refused, piece.reason = True, "refusal"
    if usage:
        counts = object_in(call, body, "usageMetadata")
        written, thought = count_of(counts.get("candidatesTokenCount")), count_of(counts.get("thoughtsTokenCount"))
        piece.prompt_tokens = count_of(counts.get("promptTokenCount"))
        piece.completion_tokens = None if written is None and thought is None else count_of((written or 0) + (thought or 0))
        piece.cached_tokens = count_of(counts.get("cachedContentTokenCount"))
    return piece


def _read_candidate(call: Call, candidate: object) -> Piece:
    if not isinstance(candidate, dict):
        raise BackendMalformed(call.provider, "sent an event whose candidate is not an object")
    parts: Any = object_in(call, candidate, "content").get("parts") or []
    if not isinstance(parts, list):
        raise BackendMalformed(call.provider, "sent an event whose `parts` are not a list of objects")
    piece = Piece()
    for part in parts:
        if not isinstance(part, dict):
            raise BackendMalformed(call.provider, "sent an event whose `parts` are not a list of objects")
        text = part.get("text")
        if part.get("thought"):
            piece.thinking = True
        elif isinstance(text, str):
            piece.text += whole(text)
        elif "functionCall" in part:
            piece.thinking = piece.called_tool = True
    finish = candidate.get("finishReason")
    if isinstance(finish, str) and finish not in UNSET:
        piece.reason = REASONS.get(finish, "other")
        piece.called_tool = piece.called_tool or finish in TOOL_REASONS
    return piece


def _role_of(role: str) -> str:
    return "model" if role == "assistant" else role
