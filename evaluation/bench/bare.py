"""A bare client: httpx, lines, JSON, and nothing besides. What the gateway and the service are measured against."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import httpx

from evaluation.bench.figures import BenchError

TIMEOUT_S = 120
QUESTION = "How many days of leave do I have?"
OK = 200


@dataclass(frozen=True, slots=True)
class Streamed:
    """One streamed answer. Units: seconds since the request began; `cpu_s` is the time this process computed for it."""

    tokens: int
    first_s: float
    last_s: float
    took_s: float
    cpu_s: float

    @property
    def between_s(self) -> float:
        """Seconds from one token to the next, on the average."""
        return (self.last_s - self.first_s) / max(1, self.tokens - 1)


@dataclass(frozen=True, slots=True)
class Format:
    """A wire format, as far as this client must know it: where to ask, what to send, the text of one event."""

    base: str
    path: str
    headers: Mapping[str, str]
    body: Callable[[int], dict[str, Any]]
    text_of: Callable[[Any], str | None]


def _openai_text(event: Any) -> str | None:
    choices = event["choices"]
    text: str | None = choices[0]["delta"].get("content") if choices else None
    return text


def _anthropic_text(event: Any) -> str | None:
    text: str | None = event["delta"]["text"] if event["type"] == "content_block_delta" else None
    return text


def _google_text(event: Any) -> str | None:
    candidates = event.get("candidates")
    parts = candidates[0].get("content", {}).get("parts") if candidates else None
    text: str | None = parts[0].get("text") if parts else None
    return text


FORMATS: dict[str, Format] = {
    "openai": Format(
        "/v1",
        "/chat/completions",
        {},
        lambda tokens: {
            "model": "fake",
            "messages": [{"role": "user", "content": QUESTION}],
            "max_tokens": tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
        },
        _openai_text,
    ),
    "anthropic": Format(
        "/v1",
        "/messages",
        {"anthropic-version": "2023-06-01"},
        lambda tokens: {
            "model": "fake",
            "messages": [{"role": "user", "content": QUESTION}],
            "max_tokens": tokens,
            "stream": True,
        },
        _anthropic_text,
    ),
    "google": Format(
        "/v1beta",
        "/models/fake:streamGenerateContent?alt=sse",
        {},
        lambda tokens: {
            "contents": [{"role": "user", "parts": [{"text": QUESTION}]}],
            "generationConfig": {"maxOutputTokens": tokens},
        },
        _google_text,
    ),
}


class BareClient:
    """A client of one server on this machine, with as many connections as it needs. `key` is the service's bearer key."""

    def __init__(self, address: str, key: str | None = None) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        self._client = httpx.AsyncClient(
            base_url=address, headers=headers, limits=limits, timeout=TIMEOUT_S, trust_env=False
        )  # fmt: skip

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._client.aclose()

    async def stream(self, wire: Format, tokens: int) -> Streamed:
        """One answer of the LLM itself. Raises: BenchError where it is not so many tokens long."""
        count, first, last = 0, 0.0, 0.0
        cpu, began = time.process_time(), time.perf_counter()
        sent = self._client.stream("POST", wire.base + wire.path, headers=wire.headers, json=wire.body(tokens))
        async with sent as response:
            async for line in response.aiter_lines():
                if line.startswith("data: {") and wire.text_of(json.loads(line[6:])):
                    last = time.perf_counter()
                    first = first or last
                    count += 1
        took_s = time.perf_counter() - began
        require_tokens("the bare client", count, tokens)
        return Streamed(count, first - began, last - began, took_s, time.process_time() - cpu)

    async def events(self, question: str) -> AsyncGenerator[tuple[str, Any], None]:
        """The events of a streamed answer of the service, by name; fewer where the connection breaks.

        Consume it within `contextlib.aclosing`. Raises: BenchError where there is no stream.
        """
        name = ""
        try:
            async with self._client.stream("POST", "/v1/ask", json={"question": question, "stream": True}) as response:
                if response.status_code != OK:
                    said = (await response.aread())[:300].decode(errors="replace")
                    raise BenchError(f"POST /v1/ask was answered with {response.status_code}, not {OK}: {said}")
                async for line in response.aiter_lines():
                    if line.startswith("event: "):
                        name = line[7:]
                    elif line.startswith("data: "):
                        yield name, json.loads(line[6:])
        except httpx.HTTPError:
            return  # what is missing then says enough


def require_tokens(who: str, count: int, tokens: int) -> None:
    """Raises: BenchError where an answer has another length than was asked for."""
    if count != tokens:
        raise BenchError(f"{who} received {count} tokens of the fake LLM's {tokens}, so there is nothing to compare")
