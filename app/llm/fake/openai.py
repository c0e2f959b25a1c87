"""OpenAI's Chat Completions, as the fake speaks them; errors of the context's length as llama.cpp words them.

Source: https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from app.llm.fake.behaviour import FakeBehaviour, Recorded
from app.llm.fake.format import GAP, Answer, Call, Reply, event, halves, text_of

KINDS = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class OpenAIFormat:
    """The Format of that name."""

    def key_of(self, request: Recorded) -> str | None:
        bearer = request.headers.get("authorization")
        return request.headers.get("api-key") if bearer is None else bearer.removeprefix("Bearer ")

    def wrong_key(self, sent: str | None) -> Reply:
        return _error(401, f"Incorrect API key provided: {sent or ''}.", "invalid_request_error")

    def unreadable(self, message: str) -> Reply:
        return _error(400, message, "invalid_request_error")

    def unknown_model(self, model: str) -> Reply:
        return _error(404, f"The model `{model}` does not exist", "model_not_found")

    def overflow(self, prompt_tokens: int, context_tokens: int) -> Reply:
        message = f"request ({prompt_tokens} tokens) exceeds the available context size ({context_tokens} tokens)"
        counts = {"n_prompt_tokens": prompt_tokens, "n_ctx": context_tokens}
        return _error(400, message, "exceed_context_size_error", **counts)

    def failure(self, status: int, message: str, retry_after: str | None) -> Reply:
        reply = _error(status, message, KINDS.get(status, "server_error" if status >= 500 else "invalid_request_error"))
        return reply if retry_after is None else Reply(status, reply.body, {"retry-after": retry_after})

    def listed(self, models: Sequence[str], behaviour: FakeBehaviour) -> object:
        return {"object": "list", "data": [self.described(model, behaviour) for model in models]}

    def described(self, model: str, behaviour: FakeBehaviour) -> object:
        return {"id": model, "object": "model", "created": 0, "owned_by": "archivist"}

    def read(self, request: Recorded) -> Call:
        body = request.json()
        return Call(
            model=str(body.get("model", "fake")),
            prompt="\n".join(text_of(message["content"]) for message in body["messages"]),
            max_tokens=body.get("max_tokens") or body.get("max_completion_tokens"),
            streams=bool(body.get("stream")),
            wants_usage=bool((body.get("stream_options") or {}).get("include_usage")),
        )

    def whole(self, answer: Answer, text: str) -> object:
        message: dict[str, object] = {"role": "assistant", "content": text}
        if answer.behaviour.refusal:
            message |= {"content": None, "refusal": text}
        if answer.behaviour.tool_call:
            message["tool_calls"] = [TOOL_CALL]
        choice = {"index": 0, "message": message, "finish_reason": _reason(answer)}
        envelope = _envelope(answer, "chat.completion")
        return {**envelope, "choices": [choice], **_usage(answer, len(answer.tokens))}

    def opening(self, answer: Answer) -> Sequence[bytes]:
        return [_chunk(answer, {"role": "assistant", "content": ""})]

    def around(self, answer: Answer) -> tuple[bytes, bytes]:
        return halves(_chunk(answer, {"refusal" if answer.behaviour.refusal else "content": GAP}))

    def ending(self, answer: Answer, sent: int) -> Sequence[bytes]:
        events = []
        if answer.behaviour.tool_call:
            events.append(_chunk(answer, {"tool_calls": [{"index": 0, **TOOL_CALL}]}))
        events.append(_chunk(answer, {}, _reason(answer)))
        if answer.with_usage:
            events.append(event({**_envelope(answer, "chat.completion.chunk"), "choices": [], **_usage(answer, sent)}))
        if not answer.behaviour.omit_done:
            events.append(b"data: [DONE]\n\n")
        return events

    def malformed_event(self) -> bytes:
        return b'data: {"choices": [{"delta": {"content": "half an ev\n\n'

    def error_event(self, message: str) -> bytes:
        return event({"error": {"code": 500, "message": message, "type": "server_error"}})


TOOL_CALL = {"id": "call_fake", "type": "function", "function": {"name": "search", "arguments": "{}"}}


def _error(status: int, message: str, kind: str, **more: object) -> Reply:
    return Reply(status, {"error": {"code": status, "message": message, "type": kind, "param": None, **more}})


def _reason(answer: Answer) -> str:
    if answer.behaviour.finish_reason is not None:
        return answer.behaviour.finish_reason
    return "tool_calls" if answer.behaviour.tool_call else "length" if answer.is_cut else "stop"


def _chunk(answer: Answer, delta: Mapping[str, object], finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return event({**_envelope(answer, "chat.completion.chunk"), "choices": [choice]})


def _envelope(answer: Answer, kind: str) -> dict[str, object]:
    return {"id": f"chatcmpl-fake-{answer.number}", "object": kind, "created": int(time.time()), "model": answer.model}


def _usage(answer: Answer, sent: int) -> dict[str, object]:
    if not answer.with_usage:
        return {}
    counts = {
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": sent,
        "total_tokens": answer.prompt_tokens + sent,
        "prompt_tokens_details": {"cached_tokens": answer.cached_tokens},
    }
    return {"usage": counts}
