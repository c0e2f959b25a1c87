"""Calls to the fake LLM in each of its formats, with a bare client, and what its streams hold."""

from __future__ import annotations

import json
import ssl
from typing import Any, Literal

import httpx

from tests.servers import RunningFake

Wire = Literal["openai", "anthropic", "google"]
WIRES: tuple[Wire, ...] = ("openai", "anthropic", "google")
Event = tuple[str | None, Any]
NO_AUTHORITIES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Nothing here is asked over TLS; loading the authorities would take longer than a test."""


def call_of(
    fake: RunningFake,
    wire: Wire,
    *,
    stream: bool = True,
    model: str = "m",
    question: str = "Say something.",
    max_tokens: int = 10_000,
    key: str | None = "sk-canary",
) -> httpx.Request:
    """A request as the format's publisher describes it."""
    message = {"role": "user", "content": question}
    body: dict[str, Any] = {"model": model, "messages": [message], "max_tokens": max_tokens, "stream": stream}
    match wire:
        case "openai":
            url, headers = f"{fake.base_url}/chat/completions", {"authorization": f"Bearer {key}"}
            body["stream_options"] = {"include_usage": True}
        case "anthropic":
            url, headers = f"{fake.base_url}/messages", {"x-api-key": str(key), "anthropic-version": "2023-06-01"}
        case "google":
            method = "streamGenerateContent?alt=sse" if stream else "generateContent"
            url, headers = f"{fake.google_base_url}/models/{model}:{method}", {"x-goog-api-key": str(key)}
            contents = [{"role": "user", "parts": [{"text": question}]}]
            body = {"contents": contents, "generationConfig": {"maxOutputTokens": max_tokens}}
    if key is None:
        headers = {name: value for name, value in headers.items() if name == "anthropic-version"}
    return httpx.Request("POST", url, json=body, headers=headers)


def answer_to(request: httpx.Request, timeout_s: float = 10) -> httpx.Response:
    """The whole answer."""
    with httpx.Client(timeout=timeout_s, trust_env=False, verify=NO_AUTHORITIES) as client:
        return client.send(request)


def body_until_silence(request: httpx.Request, silence_s: float = 0.15) -> str:
    """What comes of an answer until nothing comes for so long. Fails where the answer ends."""
    body = ""
    with httpx.Client(timeout=silence_s, trust_env=False, verify=NO_AUTHORITIES) as client:
        response = client.send(request, stream=True)
        assert response.status_code == 200
        try:
            for piece in response.iter_text():
                body += piece
        except httpx.ReadTimeout:
            return body
        finally:
            response.close()
    raise AssertionError(f"the answer ended: {body[-200:]!r}")


def events_of(body: str) -> list[Event]:
    """The name and the JSON value of each event; the text itself where it is not JSON."""
    events: list[Event] = []
    for block in body.split("\n\n")[:-1]:
        lines = dict(line.split(": ", 1) for line in block.split("\n"))
        try:
            value = json.loads(lines["data"])
        except ValueError:
            value = lines["data"]
        events.append((lines.get("event"), value))
    return events


def tokens_of(wire: Wire, events: list[Event]) -> list[str]:
    """The pieces of text that a stream's events carry."""
    found: list[str] = []
    for _, value in events:
        match wire, value:
            case "openai", {"choices": [{"delta": {"content": str(text)}}]}:
                found.append(text)
            case "anthropic", {"type": "content_block_delta", "delta": {"type": "text_delta", "text": text}}:
                found.append(text)
            case "google", {"candidates": [{"content": {"parts": [{"text": text}, *_]}}]}:
                found.append(text)
    return [text for text in found if text]


def finish_of(wire: Wire, events: list[Event]) -> str | None:
    """The finish reason that a stream states."""
    for _, value in events:
        match wire, value:
            case "openai", {"choices": [{"finish_reason": str(reason)}]}:
                return reason
            case "anthropic", {"type": "message_delta", "delta": {"stop_reason": reason}}:
                return str(reason)
            case "google", {"candidates": [{"finishReason": reason}]}:
                return str(reason)
    return None
