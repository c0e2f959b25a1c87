"""Google's Gemini generateContent, as the fake speaks it.

Source: https://ai.google.dev/api/generate-content, https://ai.google.dev/api/models, https://google.aip.dev/193
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs

from app.llm.fake.behaviour import FakeBehaviour, Recorded
from app.llm.fake.format import GAP, Answer, Call, Reply, Unreadable, event, halves

PATH = re.compile(r"/v1beta/models/(?P<model>[^:]+):(?P<method>generateContent|streamGenerateContent)")
CODES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
FIELDS = frozenset(
    """
    cachedContent contents generationConfig model safetySettings serviceTier store systemInstruction toolConfig tools
    """.split()  # noqa: SIM905 - a list of words reads better so
)
CONFIG_FIELDS = frozenset(
    """
    audioTimestamp candidateCount enableAffectiveDialog enableEnhancedCivicAnswers frequencyPenalty imageConfig logprobs
    maxOutputTokens mediaResolution presencePenalty responseFormat responseJsonSchema responseLogprobs responseMimeType
    responseModalities responseSchema seed speechConfig stopSequences temperature thinkingConfig topK topP
    """.split()  # noqa: SIM905 - as above
)
LONGEST_PROMPT = 1_048_576


class GoogleFormat:
    """The Format of that name."""

    def key_of(self, request: Recorded) -> str | None:
        return request.headers.get("x-goog-api-key") or next(iter(parse_qs(request.query).get("key", [])), None)

    def wrong_key(self, sent: str | None) -> Reply:
        if sent is None:
            return _error(403, "Method doesn't allow unregistered callers. Please use API Key to call this API.")
        message = "API key not valid. Please pass a valid API key."
        info = {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": "API_KEY_INVALID",
            "domain": "googleapis.com",
            "metadata": {"service": "generativelanguage.googleapis.com"},
        }
        localized = {"@type": "type.googleapis.com/google.rpc.LocalizedMessage", "locale": "en-US", "message": message}
        return _error(400, message, [info, localized])

    def unreadable(self, message: str) -> Reply:
        return _error(400, message)

    def unknown_model(self, model: str) -> Reply:
        return _error(
            404,
            f"models/{model} is not found for API version v1beta, or is not supported for generateContent. "
            "Call ListModels to see the list of available models and their supported methods.",
        )

    def overflow(self, prompt_tokens: int, context_tokens: int) -> Reply:
        message = f"The input token count ({prompt_tokens}) exceeds the maximum number of tokens allowed ({context_tokens})."
        return _error(400, message)

    def failure(self, status: int, message: str, retry_after: str | None) -> Reply:
        """Seconds to wait stand in the body, as Google sends them; a date has no place there: it is a header."""
        if retry_after is None:
            return _error(status, message)
        if re.fullmatch(r"\d+(\.\d+)?", retry_after):
            info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{retry_after}s"}
            return _error(status, message, [info])
        return Reply(status, _error(status, message).body, {"retry-after": retry_after})

    def listed(self, models: Sequence[str], behaviour: FakeBehaviour) -> object:
        return {"models": [self.described(model, behaviour) for model in models]}

    def described(self, model: str, behaviour: FakeBehaviour) -> object:
        return {
            "name": f"models/{model}",
            "version": "001",
            "displayName": model,
            "inputTokenLimit": behaviour.context_tokens or LONGEST_PROMPT,
            "outputTokenLimit": 65_536,
            "supportedGenerationMethods": ["generateContent", "countTokens"],
        }

    def read(self, request: Recorded) -> Call:
        asked = PATH.fullmatch(request.path)
        if asked is None:
            raise Unreadable(f"no model in {request.path!r}")
        streams = asked["method"] == "streamGenerateContent"
        if streams and parse_qs(request.query).get("alt") != ["sse"]:
            raise Unreadable("the fake streams server-sent events only; ask for them with alt=sse")
        body = _known(request.json(), FIELDS, "")
        config = _known(body.get("generationConfig") or {}, CONFIG_FIELDS, " at 'generation_config'")
        if not body.get("contents"):
            raise Unreadable("* GenerateContentRequest.contents: contents is not specified")
        for content in body["contents"]:
            if content.get("role", "user") not in ("user", "model"):
                raise Unreadable("Please use a valid role: user, model.")
        contents = [body["systemInstruction"]] if "systemInstruction" in body else []
        return Call(
            model=asked["model"],
            prompt="\n".join(part["text"] for content in [*contents, *body["contents"]] for part in content["parts"]),
            max_tokens=config.get("maxOutputTokens"),
            streams=streams,
        )

    def whole(self, answer: Answer, text: str) -> object:
        return _response(answer, _candidates(answer, text, is_last=True), len(answer.tokens))

    def opening(self, answer: Answer) -> Sequence[bytes]:
        return []

    def around(self, answer: Answer) -> tuple[bytes, bytes]:
        return halves(event(_response(answer, _candidates(answer, GAP, is_last=False), None)))

    def ending(self, answer: Answer, sent: int) -> Sequence[bytes]:
        return [event(_response(answer, _candidates(answer, "", is_last=True), sent))]

    def malformed_event(self) -> bytes:
        return b'data: {"candidates": [{"content": {"parts": [{"text": "half an ev\n\n'

    def error_event(self, message: str) -> bytes:
        return event(_error(503, message).body)


def _known(given: Mapping[str, Any], known: frozenset[str], where: str) -> dict[str, Any]:
    """The fields in the spelling of `known`; Google takes them in snake_case too, and refuses any other."""
    fields = {}
    for name, value in given.items():
        spelled = re.sub(r"_([a-z])", lambda found: found[1].upper(), name)
        if spelled not in known:
            raise Unreadable(f'Invalid JSON payload received. Unknown name "{name}"{where}: Cannot find field.')
        fields[spelled] = value
    return fields


def _error(status: int, message: str, details: Sequence[Mapping[str, object]] = ()) -> Reply:
    error: dict[str, object] = {"code": status, "message": message, "status": CODES.get(status, "UNKNOWN")}
    return Reply(status, {"error": {**error, **({"details": details} if details else {})}})


def _candidates(answer: Answer, text: str, *, is_last: bool) -> dict[str, object]:
    behaviour = answer.behaviour
    if is_last and behaviour.refusal and not answer.tokens:
        return {"promptFeedback": {"blockReason": "SAFETY"}}
    parts: list[dict[str, object]] = [{"text": text}]
    if is_last and behaviour.tool_call:
        parts.append({"functionCall": {"name": "search", "args": {}}})
    candidate: dict[str, object] = {"content": {"parts": parts, "role": "model"}, "index": 0}
    if is_last:
        reason = "SAFETY" if behaviour.refusal else "MAX_TOKENS" if answer.is_cut else "STOP"
        candidate["finishReason"] = behaviour.finish_reason or reason
    return {"candidates": [candidate]}


def _response(answer: Answer, body: dict[str, object], sent: int | None) -> dict[str, object]:
    """One GenerateContentResponse; `sent` is None in those of a stream that do not count the answer's tokens."""
    if answer.with_usage:
        usage = {"promptTokenCount": answer.prompt_tokens, "totalTokenCount": answer.prompt_tokens + (sent or 0)}
        if sent is not None:
            usage["candidatesTokenCount"] = sent
        if answer.cached_tokens:
            usage["cachedContentTokenCount"] = answer.cached_tokens
        body["usageMetadata"] = usage
    return {**body, "modelVersion": answer.model, "responseId": f"fake-{answer.number}"}
