"""Chooses who answers a prompt, and passes the answer on. Only here does a second backend step in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from app.llm.backend import Backend, Delta, Finished, Prompt
from app.llm.clearance import clearance_of, is_cleared
from app.llm.openai import OpenAIBackend
from app.llm.settings import LlmSettings
from corpus.egress import Egress
from corpus.errors import (
    ArchivistError,
    BackendError,
    BackendFailed,
    BackendMalformed,
    BackendNotConfigured,
    BackendRateLimited,
    BackendRejected,
    BackendTimeout,
    BackendUnreachable,
    EgressRefused,
    Invalid,
    NotCleared,
)
from corpus.settings import LabelSettings

EXTRACTIVE = "extractive"

_log = structlog.get_logger("archivist.llm")


@dataclass(frozen=True, slots=True)
class Route:
    """Who answers, and why, in a short sentence for people."""

    provider: str
    model: str
    reason: str


@dataclass(frozen=True, slots=True)
class Choice:
    """What was decided before anything was sent. `may_fall_back`: whether extractive answers if this backend fails."""

    backend: Backend
    route: Route
    may_fall_back: bool


@dataclass(slots=True)
class _Provider:
    backend: OpenAIBackend
    last_failure: str | None = None
    failed_at: datetime | None = None
    answered_at: datetime | None = None


class Gateway:
    """Every LLM call of the service goes through here. Belongs to one event loop."""

    def __init__(self, settings: LlmSettings, labels: LabelSettings, extractive: Backend, egress: Egress) -> None:
        self._settings, self._labels, self._extractive = settings, labels, extractive
        self._providers = {
            name: _Provider(OpenAIBackend(name, provider, egress, clearance_of(name, provider, labels)))
            for name, provider in settings.providers.items()
        }

    def choose(self, prompt_label: str, requested: str | None = None) -> Choice:
        """Who answers a prompt of this label; nothing is called.

        A label that the provider is not cleared for sends the prompt to the extractive backend, whoever asked for what.
        Raises: Invalid, NotCleared, BackendNotConfigured.
        """
        name = self._settings.default if requested is None else self._known(requested)
        why = "the default provider" if requested is None else "chosen by the caller"
        if name == EXTRACTIVE:
            return Choice(self._extractive, _route(self._extractive, why), may_fall_back=False)
        backend = self._providers[name].backend
        if not is_cleared(prompt_label, backend.clearance, self._labels):
            reason = f"the passages are labelled {prompt_label!r}, provider {name!r} is cleared for {backend.clearance!r}"
            _log.info("provider not cleared", action="not_cleared", provider=name, label=prompt_label)
            if self._settings.extractive_fallback:
                return self._fallback(reason)
            raise NotCleared(name, f"{reason}, and llm.extractive_fallback is off")
        problem = backend.problem
        if problem is not None:
            if requested is None and self._settings.extractive_fallback:
                return self._fallback(f"provider {name!r} is not configured: {problem}")
            raise BackendNotConfigured(name, problem)
        return Choice(backend, _route(backend, why), requested is None and self._settings.extractive_fallback)

    async def stream(self, prompt: Prompt, requested: str | None = None) -> AsyncGenerator[Route | Delta | Finished, None]:
        """The route taken, then the answer. A second route follows only where the first failed before its first word.

        Consume it within `contextlib.aclosing`: closing it ends the upstream call.
        Raises: what `choose` raises, and a BackendError or EgressRefused where nobody else may answer.
        """
        choice = self.choose(prompt.label, requested)
        yield choice.route
        began = False
        try:
            async with aclosing(self._answer(choice.backend, prompt)) as events:
                async for event in events:
                    began = True
                    yield event
            return
        except (BackendError, EgressRefused) as error:
            if began or not choice.may_fall_back:
                raise
            reason = f"provider {choice.route.provider!r} failed: {_short(error)}"
        fallback = self._fallback(reason)
        yield fallback.route
        async with aclosing(fallback.backend.stream(prompt)) as events:
            async for event in events:
                yield event

    async def complete(self, prompt: Prompt, requested: str | None = None, *, timeout_s: float = 10.0) -> str:
        """The whole text of a short answer by an LLM, such as a rewritten question; under the same clearance.

        The extractive backend cannot write, so it never steps in here.
        Raises: Invalid, NotCleared, BackendNotConfigured (no LLM is configured), another BackendError, EgressRefused.
        """
        choice = self.choose(prompt.label, requested)
        if choice.backend is self._extractive:
            name = self._settings.default if requested is None else requested
            if name == EXTRACTIVE:
                raise BackendNotConfigured(EXTRACTIVE, "it quotes and cannot write; set llm.default to an LLM provider")
            if not is_cleared(prompt.label, self._providers[name].backend.clearance, self._labels):
                raise NotCleared(name, f"it is not cleared for a prompt labelled {prompt.label!r}")
            raise BackendNotConfigured(name, self._providers[name].backend.problem or "it cannot be called")
        parts: list[str] = []
        try:
            async with asyncio.timeout(timeout_s), aclosing(self._answer(choice.backend, prompt)) as events:
                async for event in events:
                    if isinstance(event, Delta):
                        parts.append(event.text)
        except TimeoutError as error:
            raise BackendTimeout(choice.route.provider, "total", timeout_s) from error
        return "".join(parts)

    def status(self) -> dict[str, object]:
        """What is known without calling anybody. `down`: the default provider failed last time, or lacks a key."""
        providers = {name: _status(provider) for name, provider in self._providers.items()}
        default = providers.get(self._settings.default)
        return {
            "default": self._settings.default,
            "down": default is not None and bool(default["down"]),
            "providers": providers,
        }

    async def close(self) -> None:
        """Closes the backends; the egress belongs to whoever built it."""
        for provider in self._providers.values():
            await provider.backend.close()
        await self._extractive.close()

    def _known(self, requested: str) -> str:
        if not self._settings.caller_may_choose:
            raise Invalid("callers may not choose a provider here; leave `provider` out", field="provider")
        if requested != EXTRACTIVE and requested not in self._providers:
            known = ", ".join([EXTRACTIVE, *self._providers])
            raise Invalid(f"no provider {requested[:80]!r}; known: {known}", field="provider")
        return requested

    def _fallback(self, reason: str) -> Choice:
        return Choice(self._extractive, _route(self._extractive, f"{EXTRACTIVE}: {reason}"), may_fall_back=False)

    async def _answer(self, backend: Backend, prompt: Prompt) -> AsyncGenerator[Delta | Finished, None]:
        """The backend's own stream; how it ended is remembered for `status`, unless the caller left."""
        try:
            async with aclosing(backend.stream(prompt)) as events:
                async for event in events:
                    if isinstance(event, Finished):
                        self._note_success(backend.provider)
                    yield event
        except (BackendError, EgressRefused) as error:
            self._note_failure(backend.provider, error)
            raise

    def _note_success(self, name: str) -> None:
        if name in self._providers:
            provider = self._providers[name]
            provider.last_failure, provider.answered_at = None, datetime.now(UTC)

    def _note_failure(self, name: str, error: ArchivistError) -> None:
        _log.warning("provider failed", action="provider_failed", provider=name, kind=type(error).__name__)
        if name not in self._providers or (isinstance(error, BackendRejected) and error.status not in (401, 403, 404)):
            return  # one request was at fault, not the provider
        provider = self._providers[name]
        provider.last_failure, provider.failed_at = type(error).__name__, datetime.now(UTC)


def _route(backend: Backend, reason: str) -> Route:
    return Route(backend.provider, backend.model, reason)


def _short(error: ArchivistError) -> str:
    """What went wrong, for whoever asked: no address, and nothing that the provider said, which may repeat the prompt."""
    match error:
        case BackendTimeout():
            return f"no {error.stage.replace('_', ' ')} within {error.waited_s:g} s"
        case BackendRateLimited():
            return "rate limited (429)"
        case BackendRejected() | BackendFailed():
            return f"HTTP {error.status}"
        case BackendUnreachable():
            return "could not connect"
        case BackendMalformed():
            return "its answer was cut off or is not the protocol"
        case _:
            return "it could not be called"


def _status(provider: _Provider) -> dict[str, object]:
    problem = provider.backend.problem
    return {
        "model": provider.backend.model,
        "clearance": provider.backend.clearance,
        "configured": problem is None,
        "problem": problem,
        "down": problem is not None or provider.last_failure is not None,
        "last_failure": provider.last_failure,
        "failed_at": None if provider.failed_at is None else provider.failed_at.isoformat(),
        "answered_at": None if provider.answered_at is None else provider.answered_at.isoformat(),
    }
