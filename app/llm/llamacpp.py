"""A GGUF file that the service runs itself: a llama.cpp server in a child process, spoken to as `openai` over loopback.

The child is started by `start` or by the first question, and again by the next question after it died. It ends with
this process, however that ends.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import re
import secrets
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from pathlib import Path

import structlog

from app.llm.backend import Delta, Finished, Prompt
from app.llm.openai import OpenAIBackend
from app.llm.settings import ProviderSettings
from corpus.egress import Egress
from corpus.errors import BackendNotConfigured, BackendTimeout, BackendUnreachable

RESTART_S = 5.0
"""A child that dies is started again no sooner than this after its last start."""

END_S = 5.0
ENDED = "its process was ended"
KEPT_LINES, KEPT_BYTES = 20, 8192
"""How much of what a child says while it loads is kept for the log."""

_CHILD = Path(__file__).with_name("llamacpp_child.py")
_LOG_PREFIX = re.compile(r"^[\d.]+ [A-Z] +(?:\S+ +)?\S+: ")

_log = structlog.get_logger("archivist.llm")


class LlamaCppBackend:
    """One GGUF file, run by a child process. Belongs to one event loop."""

    def __init__(self, provider: str, settings: ProviderSettings, clearance: str) -> None:
        self.provider, self.model, self.clearance = provider, settings.model, clearance
        self._settings = settings
        self._child: _Child | None = None
        self._is_closed = False

    def __repr__(self) -> str:
        return f"LlamaCppBackend({self.provider!r}, model={self.model!r}, model_path={str(self._settings.model_path)!r})"

    @property
    def problem(self) -> str | None:
        """What is missing before it can be called; None if nothing is. A file is looked at only where no child runs."""
        if self._child is not None and self._child.ended is None:
            return None
        return problem_of(self._settings)

    @property
    def pid(self) -> int | None:
        """The child's, if one runs."""
        return None if self._child is None or self._child.ended is not None else self._child.pid

    async def start(self) -> None:
        """Begin loading, in the background. What is missing or goes wrong is told to whoever calls it."""
        with suppress(BackendNotConfigured, BackendUnreachable):
            self._living_child()

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Delta | Finished, None]:
        """The answer as it arrives. See `Backend`. The first token's limit holds for loading and that token together."""
        limit_s = self._settings.first_token_timeout_s
        loop = asyncio.get_running_loop()
        began = loop.time()
        child = await self._ready(prompt.deadline)
        left_s = limit_s - (loop.time() - began)
        settings = child.remote_settings.model_copy(update={"first_token_timeout_s": max(0.001, left_s)})
        backend = OpenAIBackend(self.provider, settings, child.egress, self.clearance)
        try:
            async with aclosing(backend.stream(prompt)) as events:
                async for event in events:
                    yield event
        except BackendTimeout as error:
            if error.stage != "first_token":
                raise
            raise BackendTimeout(self.provider, "first_token", limit_s) from error

    async def models(self) -> frozenset[str] | None:
        """What it serves, which is one model, once that is loaded. Raises: a BackendError."""
        child = await self._ready(None)
        return await OpenAIBackend(self.provider, child.remote_settings, child.egress, self.clearance).models()

    async def close(self) -> None:
        """End the child. Nothing starts it again."""
        self._is_closed = True
        if self._child is not None:
            await self._child.close()

    async def _ready(self, deadline: float | None) -> _Child:
        """The child, listening. Raises: BackendNotConfigured, BackendUnreachable, BackendTimeout."""
        child = self._living_child()
        stage, limit_s = "first_token", self._settings.first_token_timeout_s
        if deadline is not None and (left_s := deadline - asyncio.get_running_loop().time()) < limit_s:
            stage, limit_s = "total", max(0.0, left_s)
        try:
            async with asyncio.timeout(limit_s):
                await child.settled.wait()
        except TimeoutError as error:
            raise BackendTimeout(self.provider, stage, limit_s) from error
        if child.ended is not None:
            raise BackendUnreachable(self.provider, child.ended)
        return child

    def _living_child(self) -> _Child:
        """The child that loads or listens, started if there is none."""
        if self._is_closed:
            raise BackendUnreachable(self.provider, "the service is ending, or its configuration was replaced")
        if self._child is not None and self._child.ended is None:
            return self._child
        now = asyncio.get_running_loop().time()
        if self._child is not None and (wait_s := self._child.started_at + RESTART_S - now) > 0:
            raise BackendUnreachable(self.provider, f"{self._child.ended}; started again in {wait_s:.0f} s at the earliest")
        problem = problem_of(self._settings)
        if problem is not None:
            raise BackendNotConfigured(self.provider, problem)
        self._child = _Child(self.provider, self._settings)
        return self._child


class _Child:
    """One run of the child process, from its start to its end.

    `settled` is set once it listens or has ended; `ended` says why, from then on. `egress` and `remote_settings` are
    there while it listens.
    """

    egress: Egress
    remote_settings: ProviderSettings

    def __init__(self, provider: str, settings: ProviderSettings) -> None:
        self._provider, self._settings = provider, settings
        self.settled = asyncio.Event()
        self.ended: str | None = None
        self.pid: int | None = None
        self._key = secrets.token_urlsafe(32)
        self._said = b""
        self._loop = asyncio.get_running_loop()
        self.started_at = self._loop.time()
        self._life = asyncio.create_task(self._live(), name=f"llamacpp {provider}")

    async def close(self) -> None:
        self._life.cancel()
        await asyncio.wait({self._life})
        self.ended = self.ended or ENDED  # a task that is cancelled before its first step never takes one
        self.settled.set()

    async def _live(self) -> None:
        reason = ENDED
        try:
            reason = await self._run()
            _log.warning(
                "local model ended", action="llamacpp_ended", provider=self._provider, reason=reason, stderr=self._lines()
            )
        except OSError as error:
            reason = f"its process could not be started: {error.strerror}"
            _log.warning("local model not started", action="llamacpp_not_started", provider=self._provider, reason=reason)
        finally:
            self.ended = reason
            self.settled.set()

    async def _run(self) -> str:
        """Start it, load, and wait for its end: why it ended."""
        # By its path and with -P: a package named `app` in the folder that the service was started in is not ours. In a
        # session of its own: Ctrl-C in a terminal is for the service, which first lets running answers finish.
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", str(_CHILD), stdin=PIPE, stdout=PIPE, stderr=PIPE, start_new_session=True
        )
        self.pid = process.pid
        listening = asyncio.create_task(self._keep_what_it_says(process))
        try:
            answer = await self._ask(process)
            if "address" in answer:
                await self._serve(process, answer["address"])
                return f"its process ended ({_how(process)})"
            with suppress(TimeoutError):
                async with asyncio.timeout(END_S):
                    await process.wait()
            await _end(process)
            await listening
            why = next(iter(self._lines()), None) or answer.get("error") or f"its process ended ({_how(process)})"
            return f"the model did not load: {_LOG_PREFIX.sub('', why)}; see model_path, context_tokens and the log"
        finally:
            await _end(process)
            await listening

    async def _ask(self, process: Process) -> dict[str, str]:
        """Tell the child what to run: where it listens or what went wrong; nothing if it died before it could say."""
        assert process.stdin is not None
        assert process.stdout is not None
        settings = self._settings
        wanted = {
            "parent_pid": os.getpid(),
            "model_path": str(settings.model_path),
            "model": settings.model,
            "context_tokens": settings.context,
            "concurrency": settings.concurrency,
            "threads": settings.threads,
            "chat_template": None if settings.chat_template is None else str(settings.chat_template),
            "api_key": self._key,
        }
        with suppress(ConnectionError):
            process.stdin.write(json.dumps(wanted).encode("ascii") + b"\n")
            await process.stdin.drain()
        line = await process.stdout.readline()
        answer: dict[str, str] = json.loads(line) if line.endswith(b"\n") else {}
        return answer

    async def _serve(self, process: Process, address: str) -> None:
        kept = self._settings.model_dump(exclude_unset=True, exclude={"kind", "model_path", "chat_template", "threads"})
        # llama.cpp closes connections that it said it would keep, which failed 11 calls of 120.
        kept |= {"base_url": f"{address}/v1", "api_key": self._key, "headers": {"Connection": "close"}}
        self.remote_settings = ProviderSettings.model_validate(kept)
        self.egress = Egress([address], max_connections=self._settings.concurrency + 1)
        took_ms = round((self._loop.time() - self.started_at) * 1000)
        _log.info("local model loaded", action="llamacpp_loaded", provider=self._provider, pid=process.pid, took_ms=took_ms)
        self.settled.set()
        try:
            await process.wait()
        finally:
            await self.egress.close()

    async def _keep_what_it_says(self, process: Process) -> None:
        """Only while it loads: once it listens, and has seen a prompt, it closes this pipe."""
        assert process.stderr is not None
        while chunk := await process.stderr.read(KEPT_BYTES):
            self._said = (self._said + chunk)[-KEPT_BYTES:]

    def _lines(self) -> list[str]:
        lines = self._said.decode("utf-8", "replace").splitlines()
        return [line.strip()[:300] for line in lines if line.strip()][-KEPT_LINES:]


async def _end(process: Process) -> None:
    """Ask the child to end, then make it."""
    assert process.stdin is not None
    process.stdin.close()
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(END_S):
            await process.wait()
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _how(process: Process) -> str:
    code = process.returncode
    if code is None or code >= 0:
        return f"exit status {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    return f"{name}; was memory short?" if name == "SIGKILL" else name


def problem_of(settings: ProviderSettings) -> str | None:
    """Why a GGUF file cannot be run as configured, in words that name the next step; None if nothing is seen to be wrong."""
    if importlib.util.find_spec("xllamacpp") is None:
        return "xllamacpp is not installed; in the checkout, run `pip install '.[local]'`"
    path = settings.model_path
    if path is None or not path.is_file():
        return f"model_path {str(path)!r} is not a file; download a GGUF file and name it here"
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        return f"model_path {str(path)!r} cannot be read: {error.strerror}"
    if magic != b"GGUF":
        return f"model_path {str(path)!r} is not a GGUF file; it begins with {magic!r}"
    if settings.chat_template is not None and not settings.chat_template.is_file():
        return f"chat_template {str(settings.chat_template)!r} is not a file"
    return None
