"""The fake LLM's server: it answers in three wire formats on one port, misbehaves on command, records all it was sent.

`archivist fake-llm` runs it. It is a bare ASGI application, because what it must get wrong (a stream that is cut, an
event that is not JSON, an answer that never begins) no framework lets one get wrong.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import closing
from pathlib import Path
from typing import Any

import uvicorn

from app.listening import bound_socket
from app.llm.fake import google
from app.llm.fake.anthropic import AnthropicFormat
from app.llm.fake.behaviour import FakeBehaviour, Recorded
from app.llm.fake.format import Answer, Call, Format, Reply, Unreadable
from app.llm.fake.google import GoogleFormat
from app.llm.fake.openai import OpenAIFormat
from app.llm.fake.record import Record
from app.llm.fake.sending import Cut, Send, for_ever, send_reply, send_stream, send_whole
from app.llm.fake.silence import silent_listener
from app.loopback import is_loopback_host
from corpus.errors import ConfigError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

OPENAI, ANTHROPIC, GOOGLE = OpenAIFormat(), AnthropicFormat(), GoogleFormat()
# Azure has OpenAI's format under addresses of its own.
CALLS: tuple[tuple[re.Pattern[str], Format], ...] = (
    (re.compile(r"(/v1|/openai/v1|/openai/deployments/[^/]+)/chat/completions"), OPENAI),
    (re.compile(r"/v1/messages"), ANTHROPIC),
    (google.PATH, GOOGLE),
)
MODELS = re.compile(r"/(?P<version>v1|v1beta)/models(/(?P<model>[^:]+))?")


class FakeLlm:
    """The ASGI application. `behaviour` may be replaced at any time and holds from the next request on.

    With `remember` off, `requests` stays empty, for a server that runs long.
    """

    def __init__(self, behaviour: FakeBehaviour, record_path: Path | None = None, *, remember: bool = True) -> None:
        self.requests: list[Recorded] = []
        self._behaviour = behaviour
        self._failed = 0
        self._arrived = 0
        self._record = Record(record_path)
        self._remember = remember

    @property
    def state(self) -> FakeLlm:
        """Itself, so that `app.state.behaviour` reads as in any other application."""
        return self

    @property
    def behaviour(self) -> FakeBehaviour:
        """How it answers. Setting it starts the count of `fail_first` anew."""
        return self._behaviour

    @behaviour.setter
    def behaviour(self, behaviour: FakeBehaviour) -> None:
        self._behaviour, self._failed = behaviour, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"the fake LLM speaks HTTP only, not {scope['type']!r}")
        request = Recorded(
            number=self._arrived,
            method=scope["method"],
            path=scope["path"],
            query=scope["query_string"].decode("latin-1"),
            headers={name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]},
            body=await _body(receive),
            arrived_at=time.monotonic(),
            client=scope.get("client"),
        )
        self._arrived += 1
        if self._remember:
            self.requests.append(request)
        self._record.began(request)
        answering = asyncio.create_task(self._answer(request, send, self._behaviour))
        leaving = asyncio.create_task(_until_disconnect(receive))
        try:
            await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
            request.closed_early = not answering.done()
        finally:
            for task in (answering, leaving):
                task.cancel()
            results = await asyncio.gather(answering, leaving, return_exceptions=True)
            request.ended_at = time.monotonic()
            self._record.ended(request)
        problem = results[0]
        if isinstance(problem, Exception) and not isinstance(problem, Cut | OSError):
            raise problem  # a cut needs nothing more: the server closes a connection whose answer was left incomplete

    async def _answer(self, request: Recorded, send: Send, behaviour: FakeBehaviour) -> None:
        if request.method == "GET":
            await send_reply(send, _looked_up(request, behaviour))
            return
        wire = next((wire for path, wire in CALLS if path.fullmatch(request.path)), None)
        if request.method == "POST" and wire is not None:
            await self._call(wire, request, send, behaviour)
        else:
            await send_reply(send, _format_of(request).failure(404, "File Not Found", None))

    async def _call(self, wire: Format, request: Recorded, send: Send, behaviour: FakeBehaviour) -> None:
        if behaviour.hang in ("connect", "tls", "headers"):
            await for_ever()
        if behaviour.redirect_to is not None:
            await send_reply(send, Reply(307, {}, {"location": behaviour.redirect_to}))
            return
        key = wire.key_of(request)
        if behaviour.api_key is not None and key != behaviour.api_key:
            await send_reply(send, wire.wrong_key(key))
            return
        if behaviour.status != 200 and (behaviour.fail_first is None or self._failed < behaviour.fail_first):
            self._failed += 1
            await send_reply(send, wire.failure(behaviour.status, behaviour.error_message, behaviour.retry_after))
            return
        try:
            call = wire.read(request)
        except Unreadable as error:
            await send_reply(send, wire.unreadable(str(error)))
            return
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            await send_reply(send, wire.unreadable(f"cannot read the request: {type(error).__name__}"))
            return
        prompt_tokens = len(call.prompt.split())
        if behaviour.models and call.model not in behaviour.models:
            await send_reply(send, wire.unknown_model(call.model))
        elif behaviour.context_tokens is not None and prompt_tokens > behaviour.context_tokens:
            await send_reply(send, wire.overflow(prompt_tokens, behaviour.context_tokens))
        elif call.streams:
            await send_stream(wire, _answer_to(call, request, behaviour, prompt_tokens), request, send)
        else:
            await send_whole(wire, _answer_to(call, request, behaviour, prompt_tokens), request, send)


def _looked_up(request: Recorded, behaviour: FakeBehaviour) -> Reply:
    """What a GET finds: the fake's health, its models, one model."""
    wire = _format_of(request)
    if request.path == "/health":
        return Reply(200, {"status": "ok"})
    asked = MODELS.fullmatch(request.path)
    if asked is None:
        return wire.failure(404, "File Not Found", None)
    key = wire.key_of(request)
    if behaviour.api_key is not None and key != behaviour.api_key:
        return wire.wrong_key(key)
    models = behaviour.models or ("fake",)
    if asked["model"] is None:
        return Reply(200, wire.listed(models, behaviour))
    if behaviour.models and asked["model"] not in models:
        return wire.unknown_model(asked["model"])
    return Reply(200, wire.described(asked["model"], behaviour))


def _format_of(request: Recorded) -> Format:
    """The format of a request by its path, and by its headers where two formats share the path."""
    if request.path.startswith("/v1beta/"):
        return GOOGLE
    return ANTHROPIC if "anthropic-version" in request.headers else OPENAI


def _answer_to(call: Call, request: Recorded, behaviour: FakeBehaviour, prompt_tokens: int) -> Answer:
    tokens = _tokens(behaviour, call)
    return Answer(
        behaviour=behaviour,
        number=request.number,
        model=call.model,
        tokens=tokens[: call.max_tokens],
        is_cut=call.max_tokens is not None and len(tokens) > call.max_tokens,
        prompt_tokens=prompt_tokens,
        with_usage=not behaviour.omit_usage and (call.wants_usage or not call.streams),
    )


def _tokens(behaviour: FakeBehaviour, call: Call) -> list[str]:
    if behaviour.tokens is not None:
        return [f"{' ' if number > 1 else ''}word{number}" for number in range(1, behaviour.tokens + 1)]
    text = behaviour.reply.replace("{model}", call.model)
    if behaviour.mode == "echo":
        text = call.prompt
    elif behaviour.mode == "obey":
        orders = re.findall(
            r"\b(?:say|reply with|answer with|respond with|output|print|write)\b[:\s]*[\"“']?([^\"”'\n]+)",
            call.prompt,
            flags=re.IGNORECASE,
        )
        text = "\n".join(order.strip() for order in orders) or text
    return re.findall(r"\s*\S+|\s+$", text)


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


def create_fake_llm(behaviour: FakeBehaviour | None = None, record_path: Path | None = None) -> FakeLlm:
    """The application. With `record_path`, every request and its end is a line of that file; keys only as a hash."""
    return FakeLlm(behaviour or FakeBehaviour(), record_path)


def run_fake_llm(
    host: str,
    port: int,
    behaviour: FakeBehaviour,
    record_path: Path | None = None,
    on_ready: Callable[[str], None] = lambda address: None,
) -> None:
    """Serves until interrupted; `on_ready` is told the address, without a path, once the port is taken.

    Raises: ConfigError where other machines could reach it, or the port is in use.
    """
    if not is_loopback_host(host):
        raise ConfigError(f"the fake LLM listens on this machine only, not on {host!r}; use 127.0.0.1")
    bare = host.strip("[]")
    with closing(bound_socket(host, port)) as listener:
        address = f"http://{f'[{bare}]' if ':' in bare else bare}:{listener.getsockname()[1]}"
        if behaviour.hang == "connect" or behaviour.hang == "tls":
            with silent_listener(listener, connects=behaviour.hang == "tls"):
                on_ready(address)
                asyncio.run(for_ever())
            return
        app = FakeLlm(behaviour, record_path, remember=False)
        config = uvicorn.Config(app, log_level="critical", lifespan="off", timeout_graceful_shutdown=1)
        listener.listen()
        on_ready(address)
        uvicorn.Server(config).run(sockets=[listener])
