"""Anthropic's Messages, as the fake speaks them.

Source: https://platform.claude.com/docs/en/api/messages, .../build-with-claude/streaming, .../api/errors
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.llm.fake.behaviour import FakeBehaviour, Recorded
from app.llm.fake.format import GAP, Answer, Call, Reply, Unreadable, event, halves, text_of

KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
FIELDS = frozenset(
    """
    cache_control container context_management inference_geo max_tokens mcp_servers messages metadata model output_config
    output_format service_tier speed stop_sequences stream system temperature thinking tool_choice tools top_k top_p
    """.split()  # noqa: SIM905 - a list of words reads better so
)


class AnthropicFormat:
    """The Format of that name."""

    def key_of(self, request: Recorded) -> str | None:
        return request.headers.get("x-api-key")

    def wrong_key(self, sent: str | None) -> Reply:
        return _error(401, "x-api-key header is required" if sent is None else "invalid x-api-key")

    def unreadable(self, message: str) -> Reply:
        return _error(400, message)

    def unknown_model(self, model: str) -> Reply:
        return _error(404, f"model: {model}")

    def overflow(self, prompt_tokens: int, context_tokens: int) -> Reply:
        return _error(400, f"prompt is too long: {prompt_tokens} tokens > {context_tokens} maximum")

    def failure(self, status: int, message: str, retry_after: str | None) -> Reply:
        reply = _error(status, message)
        return reply if retry_after is None else Reply(status, reply.body, {**reply.headers, "retry-after": retry_after})

    def listed(self, models: Sequence[str], behaviour: FakeBehaviour) -> object:
        data = [self.described(model, behaviour) for model in models]
        return {"data": data, "has_more": False, "first_id": models[0], "last_id": models[-1]}

    def described(self, model: str, behaviour: FakeBehaviour) -> object:
        return {"type": "model", "id": model, "display_name": model, "created_at": "2026-01-01T00:00:00Z"}

    def read(self, request: Recorded) -> Call:
        if "anthropic-version" not in request.headers:
            raise Unreadable("anthropic-version: header is required")
        body: dict[str, Any] = request.json()
        for name in ("model", "max_tokens", "messages"):
            if name not in body:
                raise Unreadable(f"{name}: Field required")
        for name in body:
            if name not in FIELDS:
                raise Unreadable(f"{name}: Extra inputs are not permitted")
        if not body["messages"]:
            raise Unreadable("messages: at least one message is required")
        for index, message in enumerate(body["messages"]):
            if message["role"] not in ("user", "assistant"):
                raise Unreadable(f"messages.{index}.role: Input should be 'user' or 'assistant'")
        system = [text_of(body["system"])] if "system" in body else []
        return Call(
            model=str(body["model"]),
            prompt="\n".join([*system, *(text_of(message["content"]) for message in body["messages"])]),
            max_tokens=int(body["max_tokens"]),
            streams=bool(body.get("stream")),
        )

    def whole(self, answer: Answer, text: str) -> object:
        content: list[dict[str, object]] = [{"type": "text", "text": text}] if text else []
        if answer.behaviour.tool_call:
            content.append(TOOL_USE)
        reason = {"stop_reason": _reason(answer), "stop_sequence": None}
        return {**_message(answer, len(answer.tokens)), "content": content, **reason}

    def opening(self, answer: Answer) -> Sequence[bytes]:
        return [
            _event("message_start", message=_message(answer, 1)),
            _event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
            _event("ping"),
        ]

    def around(self, answer: Answer) -> tuple[bytes, bytes]:
        return halves(_event("content_block_delta", index=0, delta={"type": "text_delta", "text": GAP}))

    def ending(self, answer: Answer, sent: int) -> Sequence[bytes]:
        events = [_event("content_block_stop", index=0)]
        if answer.behaviour.tool_call:
            arguments = {"type": "input_json_delta", "partial_json": "{}"}
            events.append(_event("content_block_start", index=1, content_block=TOOL_USE))
            events.append(_event("content_block_delta", index=1, delta=arguments))
            events.append(_event("content_block_stop", index=1))
        delta = {"stop_reason": _reason(answer), "stop_sequence": None}
        usage = {"usage": {"output_tokens": sent}} if answer.with_usage else {}
        events.append(_event("message_delta", delta=delta, **usage))
        if not answer.behaviour.omit_done:
            events.append(_event("message_stop"))
        return events

    def malformed_event(self) -> bytes:
        return b'event: content_block_delta\ndata: {"type": "content_block_delta", "delta": {"text": "half an ev\n\n'

    def error_event(self, message: str) -> bytes:
        return _event("error", error={"type": "overloaded_error", "message": message})


TOOL_USE: dict[str, object] = {"type": "tool_use", "id": "toolu_fake", "name": "search", "input": {}}


def _event(name: str, **fields: object) -> bytes:
    return event({"type": name, **fields}, name)


def _error(status: int, message: str) -> Reply:
    kind = KINDS.get(status, "api_error" if status >= 500 else "invalid_request_error")
    body = {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_fake"}
    return Reply(status, body, {"request-id": "req_fake"})


def _reason(answer: Answer) -> str:
    if answer.behaviour.finish_reason is not None:
        return answer.behaviour.finish_reason
    if answer.behaviour.refusal:
        return "refusal"
    return "tool_use" if answer.behaviour.tool_call else "max_tokens" if answer.is_cut else "end_turn"


def _message(answer: Answer, output_tokens: int) -> dict[str, object]:
    message: dict[str, object] = {
        "id": f"msg_fake_{answer.number}",
        "type": "message",
        "role": "assistant",
        "model": answer.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }
    if answer.with_usage:
        message["usage"] = {
            "input_tokens": answer.prompt_tokens - answer.cached_tokens,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": answer.cached_tokens,
            "output_tokens": output_tokens,
        }
    return message
