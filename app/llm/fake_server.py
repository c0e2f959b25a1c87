"""A stand-in LLM: a loopback server in OpenAI's format that can misbehave on command and records all it was sent.

`archivist fake-llm` runs it. It is a bare ASGI application, because what it must get wrong (a stream that is cut, an
event that is not JSON, an answer that never begins) no framework lets one get wrong.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, MutableMapping
from contextlib import aclosing, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import uvicorn

from app.listening import bound_socket
from app.loopback import is_loopback_host
from corpus.errors import ConfigError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

FILLER = "All work and no play makes a dull answer. "


@dataclass(frozen=True, slots=True)
class FakeBehaviour:
    """How the fake answers. Every knob that is left alone is off.

    Units: `..._s` seconds; tokens are words with the space before them.
    """

    mode: Literal["reply", "echo", "obey"] = "reply"
    reply: str = "The fake model says hello."
    models: tuple[str, ...] = ()
    api_key: str | None = None
    context_tokens: int | None = None
    first_token_delay_s: float = 0.0
    tokens_per_second: float | None = None
    status: int = 200
    error_message: str = "the fake was told to fail"
    retry_after: str | None = None
    redirect_to: str | None = None
    hang: Literal["headers", "first_token", "between_tokens"] | None = None
    cut_after_tokens: int | None = None
    end_after_tokens: int | None = None
    malformed_event_after_tokens: int | None = None
    error_after_tokens: int | None = None
    omit_usage: bool = False
    omit_done: bool = False
    keep_open: bool = False
    finish_reason: str | None = None
    tool_call: bool = False
    refusal: bool = False
    content_type: str = "text/event-stream"
    huge_answer_bytes: int = 0
    huge_in_one_event: bool = False


@dataclass(slots=True)
class Recorded:
    """One request as it arrived, and how it ended. Times are seconds of the monotonic clock."""

    number: int
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    arrived_at: float
    client: tuple[str, int] | None = None
    tokens_sent: int = 0
    closed_early: bool = False
    ended_at: float | None = None

    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


class _Cut(Exception):
    """Ends the connection in the middle of an answer."""


class FakeLlm:
    """The ASGI application. `behaviour` may be replaced at any time and holds from the next request on."""

    def __init__(self, behaviour: FakeBehaviour, record_path: Path | None = None) -> None:
        self.behaviour = behaviour
        self.requests: list[Recorded] = []
        self._record_path = record_path

    @property
    def state(self) -> FakeLlm:
        """Itself, so that `app.state.behaviour` reads as in any other application."""
        return self

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"the fake LLM speaks HTTP only, not {scope['type']!r}")
        request = Recorded(
            number=len(self.requests),
            method=scope["method"],
            path=scope["path"],
            headers={name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]},
            body=await _body(receive),
            arrived_at=time.monotonic(),
            client=scope.get("client"),
        )
        self.requests.append(request)
        self._record(_as_line(request))
        answering = asyncio.create_task(self._answer(request, send, self.behaviour))
        leaving = asyncio.create_task(_until_disconnect(receive))
        try:
            await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
            request.closed_early = not answering.done()
        finally:
            for task in (answering, leaving):
                task.cancel()
            results = await asyncio.gather(answering, leaving, return_exceptions=True)
            request.ended_at = time.monotonic()
            self._record(
                {
                    "number": request.number,
                    "closed_early": request.closed_early,
                    "tokens_sent": request.tokens_sent,
                    "took_s": round(request.ended_at - request.arrived_at, 3),
                }
            )
        problem = results[0]
        if isinstance(problem, Exception) and not isinstance(problem, _Cut | OSError):
            raise problem  # a cut needs nothing more: the server closes a connection whose answer was left incomplete

    async def _answer(self, request: Recorded, send: Send, behaviour: FakeBehaviour) -> None:
        match request.method, request.path:
            case "GET", "/health":
                await _send_json(send, 200, {"status": "ok"})
            case "GET", "/v1/models":
                models = behaviour.models or ("fake",)
                listed = [{"id": model, "object": "model", "owned_by": "archivist"} for model in models]
                await _send_json(send, 200, {"object": "list", "data": listed})
            case "POST", "/v1/chat/completions":
                await self._complete(request, send, behaviour)
            case _:
                await _send_error(send, 404, "File Not Found", "not_found_error")

    async def _complete(self, request: Recorded, send: Send, behaviour: FakeBehaviour) -> None:
        if behaviour.hang == "headers":
            await asyncio.Event().wait()
        if behaviour.redirect_to is not None:
            await _send_json(send, 307, {}, {"location": behaviour.redirect_to})
            return
        if behaviour.api_key is not None and request.headers.get("authorization") != f"Bearer {behaviour.api_key}":
            sent = request.headers.get("authorization", "").removeprefix("Bearer ")
            await _send_error(send, 401, f"Incorrect API key provided: {sent}.", "invalid_request_error")
            return
        if behaviour.status != 200:
            extra = {} if behaviour.retry_after is None else {"retry-after": behaviour.retry_after}
            await _send_error(send, behaviour.status, behaviour.error_message, "fake_error", extra)
            return
        try:
            body = request.json()
            prompt = "\n".join(message["content"] for message in body["messages"])
        except (ValueError, KeyError, TypeError) as error:
            await _send_error(send, 400, f"cannot read the request: {type(error).__name__}", "invalid_request_error")
            return
        model = str(body.get("model", "fake"))
        if behaviour.models and model not in behaviour.models:
            await _send_error(send, 404, f"The model `{model}` does not exist", "model_not_found")
            return
        prompt_tokens = len(prompt.split())
        if behaviour.context_tokens is not None and prompt_tokens > behaviour.context_tokens:
            await _send_overflow(send, prompt_tokens, behaviour.context_tokens)
            return
        tokens = _tokens_of(_reply(behaviour, prompt))
        limit = body.get("max_tokens") or body.get("max_completion_tokens")
        reason = behaviour.finish_reason or ("length" if limit is not None and len(tokens) > limit else "stop")
        answer = _Answer(behaviour, request, model, tokens[:limit], reason, prompt_tokens)
        if not body.get("stream"):
            await asyncio.sleep(behaviour.first_token_delay_s)
            await _send_json(send, 200, answer.as_completion())
            return
        wants_usage = bool((body.get("stream_options") or {}).get("include_usage"))
        await _send_start(send, 200, behaviour.content_type)
        async with aclosing(answer.as_events(wants_usage and not behaviour.omit_usage)) as events:
            async for event in events:
                await send({"type": "http.response.body", "body": event, "more_body": True})
                await asyncio.sleep(0)  # sending to a client who left returns at once; let that be noticed
        if behaviour.keep_open:
            await asyncio.Event().wait()
        await send({"type": "http.response.body", "body": b""})

    def _record(self, line: Mapping[str, object]) -> None:
        if self._record_path is not None:
            with self._record_path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")


@dataclass(frozen=True, slots=True)
class _Answer:
    behaviour: FakeBehaviour
    request: Recorded
    model: str
    tokens: list[str]
    reason: str
    prompt_tokens: int

    def as_completion(self) -> dict[str, object]:
        self.request.tokens_sent = len(self.tokens)
        message = {"role": "assistant", "content": "".join(self.tokens)}
        return {
            **self._envelope("chat.completion"),
            "choices": [{"index": 0, "message": message, "finish_reason": self.reason}],
            "usage": self._usage(),
        }

    async def as_events(self, with_usage: bool) -> AsyncGenerator[bytes, None]:
        behaviour = self.behaviour
        yield self._event({"role": "assistant", "content": ""})
        if behaviour.hang == "first_token":
            await asyncio.Event().wait()
        await asyncio.sleep(behaviour.first_token_delay_s)
        if behaviour.huge_answer_bytes:
            async for event in self._huge():
                yield event
        else:
            async for event in self._paced():
                yield event
        if behaviour.end_after_tokens is not None:
            return
        if behaviour.tool_call:
            yield self._event({"tool_calls": [{"index": 0, "function": {"name": "search", "arguments": "{}"}}]})
        yield self._event({}, finish_reason="tool_calls" if behaviour.tool_call else self.reason)
        if with_usage:
            yield _data({**self._envelope("chat.completion.chunk"), "choices": [], "usage": self._usage()})
        if not behaviour.omit_done:
            yield b"data: [DONE]\n\n"

    async def _paced(self) -> AsyncGenerator[bytes, None]:
        """One event a token, and whatever was ordered to go wrong after so many of them."""
        behaviour = self.behaviour
        began = time.monotonic()
        for sent in range(len(self.tokens) + 1):
            if sent == behaviour.cut_after_tokens:
                raise _Cut
            if sent == behaviour.end_after_tokens:
                return
            if sent == behaviour.malformed_event_after_tokens:
                yield b'data: {"choices": [{"delta": {"content": "half an ev\n\n'
            if sent == behaviour.error_after_tokens:
                yield _data({"error": {"code": 500, "message": behaviour.error_message, "type": "server_error"}})
                return
            if sent == 1 and behaviour.hang == "between_tokens":
                await asyncio.Event().wait()
            if sent == len(self.tokens):
                return
            if behaviour.tokens_per_second is not None:
                await asyncio.sleep(max(0.0, began + sent / behaviour.tokens_per_second - time.monotonic()))
            yield self._event({"refusal" if behaviour.refusal else "content": self.tokens[sent]})
            self.request.tokens_sent += 1

    async def _huge(self) -> AsyncGenerator[bytes, None]:
        """So many bytes of filler: an endless line, or events of ordinary size."""
        left = self.behaviour.huge_answer_bytes
        block = FILLER * 1000
        if self.behaviour.huge_in_one_event:
            yield b'data: {"choices": [{"index": 0, "delta": {"content": "'
            while left > 0:
                yield block.encode()
                left -= len(block)
            yield b'"}}]}\n\n'
            return
        while left > 0:
            yield self._event({"content": block})
            self.request.tokens_sent += 1
            left -= len(block)

    def _event(self, delta: Mapping[str, object], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return _data({**self._envelope("chat.completion.chunk"), "choices": [choice]})

    def _envelope(self, kind: str) -> dict[str, object]:
        return {"id": f"fake-{self.request.number}", "object": kind, "created": int(time.time()), "model": self.model}

    def _usage(self) -> dict[str, int]:
        sent = self.request.tokens_sent
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": sent,
            "total_tokens": self.prompt_tokens + sent,
        }


def create_fake_llm(behaviour: FakeBehaviour | None = None, record_path: Path | None = None) -> FakeLlm:
    """The application. With `record_path`, every request and its end is a line of that file; keys only as a hash."""
    return FakeLlm(behaviour or FakeBehaviour(), record_path)


def run_fake_llm(
    host: str,
    port: int,
    behaviour: FakeBehaviour,
    record_path: Path | None = None,
    on_ready: Callable[[str], None] = lambda base_url: None,
) -> None:
    """Serves until interrupted; `on_ready` is told the base URL once the port is taken.

    Raises: ConfigError where other machines could reach it, or the port is in use.
    """
    if not is_loopback_host(host):
        raise ConfigError(f"the fake LLM listens on this machine only, not on {host!r}; use 127.0.0.1")
    with closing(bound_socket(host, port)) as listener:
        app = create_fake_llm(behaviour, record_path)
        config = uvicorn.Config(app, log_level="critical", lifespan="off", timeout_graceful_shutdown=1)
        listener.listen()
        on_ready(f"http://{host}:{listener.getsockname()[1]}/v1")
        uvicorn.Server(config).run(sockets=[listener])


def _reply(behaviour: FakeBehaviour, prompt: str) -> str:
    match behaviour.mode:
        case "reply":
            return behaviour.reply
        case "echo":
            return prompt
        case "obey":
            orders = re.findall(
                r"\b(?:say|reply with|answer with|respond with|output|print|write)\b[:\s]*[\"“']?([^\"”'\n]+)",
                prompt,
                flags=re.IGNORECASE,
            )
            return "\n".join(order.strip() for order in orders) or behaviour.reply


def _tokens_of(text: str) -> list[str]:
    return re.findall(r"\s*\S+|\s+$", text)


def _as_line(request: Recorded) -> dict[str, object]:
    headers = {
        name: f"sha256 {hashlib.sha256(value.encode()).hexdigest()[:16]}" if name == "authorization" else value
        for name, value in request.headers.items()
    }
    return {
        "number": request.number,
        "method": request.method,
        "path": request.path,
        "headers": headers,
        "body": request.body.decode("utf-8", "replace"),
    }


def _data(value: Mapping[str, object]) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


async def _body(receive: Receive) -> bytes:
    parts: list[bytes] = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


async def _until_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send_start(send: Send, status: int, content_type: str, headers: Mapping[str, str] | None = None) -> None:
    everything = {"content-type": content_type, **(headers or {})}
    encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in everything.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})


async def _send_json(send: Send, status: int, body: object, headers: Mapping[str, str] | None = None) -> None:
    await _send_start(send, status, "application/json", headers)
    await send({"type": "http.response.body", "body": json.dumps(body).encode()})


async def _send_error(send: Send, status: int, message: str, kind: str, headers: Mapping[str, str] | None = None) -> None:
    await _send_json(send, status, {"error": {"code": status, "message": message, "type": kind}}, headers)


async def _send_overflow(send: Send, prompt_tokens: int, context_tokens: int) -> None:
    message = f"request ({prompt_tokens} tokens) exceeds the available context size ({context_tokens} tokens)"
    error = {
        "code": 400,
        "message": message,
        "type": "exceed_context_size_error",
        "n_prompt_tokens": prompt_tokens,
        "n_ctx": context_tokens,
    }
    await _send_json(send, 400, {"error": error})
