"""One provider in service: its backend, its places, its breaker, and what is known of its last calls."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import stamina
import structlog

from app.llm.anthropic import AnthropicBackend
from app.llm.backend import Backend, Delta, Finished, Prompt
from app.llm.breaker import Breaker
from app.llm.google import GoogleBackend
from app.llm.llamacpp import LlamaCppBackend
from app.llm.openai import OpenAIBackend
from app.llm.places import Places
from app.llm.remote import HttpBackend
from app.llm.settings import EXTRACTIVE, ProviderSettings
from app.logs import error_fields
from app.metrics import Metrics
from corpus.egress import Egress
from corpus.errors import (
    ArchivistError,
    BackendError,
    BackendFailed,
    BackendLeftAlone,
    BackendMalformed,
    BackendRateLimited,
    BackendRejected,
    BackendTimeout,
    BackendUnreachable,
    BackendWordless,
    EgressRefused,
)

Events = AsyncGenerator[Delta | Finished, None]

EXTRACTIVE_CONCURRENT, EXTRACTIVE_QUEUED, EXTRACTIVE_QUEUE_S = 4, 64, 60.0
"""The extractive backend computes on one thread: more at a time would only wait there."""

LONGEST_RETRY_WAIT_S = 5.0
"""A provider that asks for more is left alone for so long, and the next one asked."""

LONGEST_HOLD_S = 900.0
"""However long a provider asks to be left alone: after that one call tries it."""

RETRY_WAIT_S = 0.2

LEAST_S = 0.2
"""A call with less time than that is not begun."""

SLOW_S = 20.0
"""A provider that gives nothing in so long is slow, whosever limit it was."""

# Its own hook would log what a provider said; what is worth a line is logged here.
stamina.instrumentation.set_on_retry_hooks([])

OF_THE_PROVIDER = (401, 403, 404, 408)
"""Refusals that the next request would get too; any other 4xx is the fault of one request."""

_log = structlog.get_logger("archivist.llm")


@dataclass(slots=True)
class Work:
    """What one call meant to the provider: whether it may have worked on it, and will want to be paid, whatever came of it."""

    begun: bool = False
    ticket: int = 0
    entered_at: float = 0.0


@dataclass(slots=True)
class Provider:
    """A provider that is called. It outlives a reload of the configuration that leaves its settings as they are.

    `files` is a digest of the files that its settings name, as they were when it was opened.
    """

    name: str
    settings: ProviderSettings | None
    backend: Backend
    places: Places
    breaker: Breaker
    metrics: Metrics
    egress: Egress | None = None
    files: str = ""
    last_failure: str | None = None
    failed_at: datetime | None = None
    answered_at: datetime | None = None

    @property
    def problem(self) -> str | None:
        """What is missing before it can be called; None if nothing is."""
        return self.backend.problem if isinstance(self.backend, HttpBackend | LlamaCppBackend) else None

    @property
    def is_down(self) -> bool:
        """Whether its last call failed, or it cannot be called at all."""
        return self.problem is not None or self.last_failure is not None

    @asynccontextmanager
    async def answering(self, prompt: Prompt, work: Work) -> AsyncIterator[AsyncIterator[Delta | Finished]]:
        """A place, then the call, tried again while nothing has arrived; leaving the block ends it. Keeps `work` up to date.

        Raises: Overloaded (the queue is full), a BackendError, EgressRefused.
        """
        if self.breaker.refuses:
            raise self._left_alone()
        loop = asyncio.get_running_loop()
        queue_s = self.settings.queue_timeout_s if self.settings else EXTRACTIVE_QUEUE_S
        if prompt.deadline is not None:
            queue_s = min(queue_s, max(0.0, prompt.deadline - loop.time()))
            if queue_s < LEAST_S and self.settings is not None:
                raise BackendTimeout(self.name, "total", 0.0)  # others took the time, so nothing is held against this one
        try:
            await self.places.take(f"LLM provider {self.name!r}", queue_s)
        except TimeoutError as error:
            raise BackendTimeout(self.name, "queue", queue_s) from error
        began = loop.time()
        try:
            async with self._entered(prompt, work) as stream:
                yield stream
        finally:
            self.places.give(loop.time() - began)

    @asynccontextmanager
    async def _entered(self, prompt: Prompt, work: Work) -> AsyncIterator[AsyncIterator[Delta | Finished]]:
        self._enter(work)
        began = asyncio.get_running_loop().time()
        try:
            first, rest = await self._begin(prompt, work)
            self.breaker.began(work.ticket)
            self.show_breaker()
            self.metrics.observe_first_token(self.name, asyncio.get_running_loop().time() - began)
            async with aclosing(rest), aclosing(self._all(first, rest, work)) as events:
                yield events
        except (BackendError, EgressRefused) as error:
            self._failed(error, prompt, work)
            raise
        except Exception as error:  # boundary: whatever a provider's bytes bring about must not end the chain
            _log.error("unexpected error of a backend", action="backend_broke", provider=self.name, **error_fields(error))
            broken = BackendMalformed(self.name, f"its answer could not be read ({type(error).__name__})")
            self._failed(broken, prompt, work)
            raise broken from error
        finally:
            self.breaker.abandoned(work.ticket)

    def _enter(self, work: Work) -> None:
        ticket = self.breaker.enter()
        if ticket is None:
            raise self._left_alone()
        work.ticket, work.entered_at = ticket, asyncio.get_running_loop().time()

    async def _begin(self, prompt: Prompt, work: Work) -> tuple[Delta | Finished, Events]:
        attempts = 1 + (self.settings.retries if self.settings else 0)

        def wait_s(error: Exception) -> float | bool:
            wait = _retry_wait_s(error)
            self._obey(error)
            too_late = prompt.deadline is not None and asyncio.get_running_loop().time() + wait > prompt.deadline
            return False if too_late else wait

        async for attempt in stamina.retry_context(on=wait_s, attempts=attempts, timeout=None):
            if attempt.num > 1:
                # It may have asked others meanwhile to leave it alone, for a moment longer than this call.
                await asyncio.sleep(min(self.breaker.opens_in_s, RETRY_WAIT_S))
                self._enter(work)
                self.metrics.count_retry(self.name)
            if self.settings is not None:
                _log.info(
                    "prompt sent",
                    action="prompt_sent",
                    provider=self.name,
                    model=self.backend.model,
                    label=prompt.label,
                    attempt=attempt.num,
                    chunks=list(prompt.rests_on),
                )
            with attempt:
                events = self.backend.stream(prompt)
                work.begun = True
                try:
                    return await anext(events), events
                except BaseException as error:
                    work.begun = _was_worked_on(error)
                    await events.aclose()
                    raise
        raise AssertionError("the last attempt either returns or raises")

    async def _all(self, first: Delta | Finished, rest: Events, work: Work) -> Events:
        if isinstance(first, Finished):
            self._succeeded(work)
        yield first
        async for event in rest:
            if type(event) is Finished:
                self._succeeded(work)
            yield event

    def _obey(self, error: Exception) -> None:
        """Leave the provider alone for as long as it asked, all calls of it."""
        if isinstance(error, BackendRateLimited | BackendFailed) and error.retry_after_s:
            self.breaker.hold(min(error.retry_after_s, LONGEST_HOLD_S))
            self.show_breaker()

    def _succeeded(self, work: Work) -> None:
        self.breaker.succeeded(work.ticket)
        self.last_failure, self.answered_at = None, datetime.now(UTC)
        self.metrics.count_call(self.name, "answered")
        self.show_breaker()

    def show_breaker(self) -> None:
        """Tell the metrics whether it is left alone."""
        self.metrics.show_breaker(self.name, is_open=self.breaker.phase != "closed")

    def _failed(self, error: ArchivistError, prompt: Prompt, work: Work) -> None:
        """Note a failure; only what says something of the provider, and not of one request, counts against it."""
        self.metrics.count_call(self.name, type(error).__name__)
        stage = error.stage if isinstance(error, BackendTimeout) else None
        _log.warning("provider failed", action="provider_failed", provider=self.name, kind=type(error).__name__, stage=stage)
        if isinstance(error, BackendWordless) or (isinstance(error, BackendRejected) and error.status not in OF_THE_PROVIDER):
            return
        now = asyncio.get_running_loop().time()
        ran_out = isinstance(error, BackendTimeout) and prompt.deadline is not None and now >= prompt.deadline - 0.05
        if isinstance(error, BackendLeftAlone) or (ran_out and now - work.entered_at < SLOW_S):
            return  # others took the question's time, and the provider had too little of it to be judged by
        self.last_failure, self.failed_at = type(error).__name__, datetime.now(UTC)
        before = self.breaker.phase
        self.breaker.failed(work.ticket)
        self._obey(error)
        if self.breaker.phase == "open" and before != "open":
            _log.warning(
                "provider left alone", action="breaker_open", provider=self.name, for_s=round(self.breaker.opens_in_s, 1)
            )
        self.show_breaker()

    def _left_alone(self) -> BackendLeftAlone:
        self.metrics.count_call(self.name, "left_alone")
        return BackendLeftAlone(self.name, self.breaker.opens_in_s)

    def status(self) -> dict[str, object]:
        """What is known without calling it."""
        return {
            "model": self.backend.model,
            "clearance": self.backend.clearance,
            "problem": self.problem,
            "down": self.is_down,
            "breaker": self.breaker.phase,
            "running": self.places.running,
            "waiting": self.places.waiting,
            "last_failure": self.last_failure,
            "failed_at": None if self.failed_at is None else self.failed_at.isoformat(),
            "answered_at": None if self.answered_at is None else self.answered_at.isoformat(),
        }

    async def start(self) -> None:
        """Begin to load a model that the service runs itself."""
        if isinstance(self.backend, LlamaCppBackend):
            await self.backend.start()

    async def close(self) -> None:
        """End what it holds: connections, or the child process that runs its model."""
        await self.backend.close()
        if self.egress is not None:
            await self.egress.close()


def open_provider(name: str, settings: ProviderSettings, clearance: str, metrics: Metrics) -> Provider:
    """A provider as configured; nothing is called. Raises: ConfigError, of a certificate file that cannot be used."""
    places = Places(settings.concurrency, settings.max_queued)
    breaker = Breaker(settings.breaker_failures, settings.breaker_open_s)
    files = digest_of_files(settings)
    if settings.kind == "llamacpp":
        return Provider(name, settings, LlamaCppBackend(name, settings, clearance), places, breaker, metrics, files=files)
    egress = Egress(
        [settings.base_url],
        ca_file=settings.ca_file,
        proxy=settings.proxy,
        max_connections=settings.concurrency + 1,
    )
    match settings.kind:
        case "openai":
            backend: Backend = OpenAIBackend(name, settings, egress, clearance)
        case "anthropic":
            backend = AnthropicBackend(name, settings, egress, clearance)
        case "google":
            backend = GoogleBackend(name, settings, egress, clearance)
    return Provider(name, settings, backend, places, breaker, metrics, egress, files)


def digest_of_files(settings: ProviderSettings) -> str:
    """What the files hold that the settings name and that may change under the same name: certificates, a chat template."""
    digest = hashlib.sha256()
    for path in (settings.ca_file, settings.chat_template):
        with suppress(OSError):  # told by whoever needs it
            digest.update(b"" if path is None else path.read_bytes())
        digest.update(b"\x00")
    return digest.hexdigest()


def extractive_provider(backend: Backend, metrics: Metrics, previous: Provider | None) -> Provider:
    """The built-in backend, which never fails; its queue goes on from one configuration to the next."""
    places = previous.places if previous is not None else Places(EXTRACTIVE_CONCURRENT, EXTRACTIVE_QUEUED)
    return Provider(EXTRACTIVE, None, backend, places, Breaker(1, 1.0), metrics)


def _was_worked_on(error: BaseException) -> bool:
    """Whether a provider that sent no word may have computed: it was too slow, its words were withheld, or its caller left."""
    match error:
        case BackendTimeout(stage=stage):
            return stage in ("first_token", "total")
        case BackendWordless():
            return True
        case _:
            return not isinstance(error, Exception)


def _retry_wait_s(error: Exception) -> float | Literal[False]:
    """Seconds after which the same call may go out again; False where it may not.

    A time-out is not tried again: whoever asked has waited already, and the next provider may be well.
    """
    match error:
        case BackendLeftAlone():
            return False
        case BackendRateLimited(retry_after_s=float(wait)) | BackendFailed(retry_after_s=float(wait)):
            return wait if wait <= LONGEST_RETRY_WAIT_S else False
        case BackendWordless():
            return False
        case BackendRateLimited() | BackendUnreachable() | BackendFailed() | BackendMalformed():
            return RETRY_WAIT_S
        case _:
            return False
