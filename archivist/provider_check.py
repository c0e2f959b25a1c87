"""One tiny call to each provider, and what it shows. It holds nothing of any document, and is not tried again."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Literal

from app.llm.backend import Delta, Finished, Prompt
from app.llm.clearance import clearance_of
from app.llm.llamacpp import LlamaCppBackend
from app.llm.provider import Provider, open_provider
from app.llm.remote import HttpBackend
from app.llm.settings import ProviderSettings
from app.metrics import Metrics
from app.settings import ServiceSettings
from corpus.errors import (
    ArchivistError,
    BackendError,
    BackendNotConfigured,
    BackendTimeout,
    BackendUnreachable,
    BackendWordless,
    EgressRefused,
)
from corpus.types import Message

ANSWER_S, LIST_S = 25.0, 5.0
"""For one provider's answer and for its list of models, whatever its own limits are; all are called at once."""

QUESTION = "Reply with the word ready."
ANSWER_TOKENS = 16


@dataclass(frozen=True, slots=True)
class ProviderCheck:
    """What one call showed; None where it did not come to that. `reason` says why it failed, in the provider's words too.

    `usage`: whether the provider counted tokens, or we estimate. `model_present` is None where it keeps no list of models.
    """

    provider: str
    kind: str
    model: str
    in_use: bool
    result: Literal["ok", "failed", "no key"]
    reachable: bool | None = None
    model_present: bool | None = None
    streams: bool | None = None
    usage: Literal["yes", "estimated"] | None = None
    first_token_s: float | None = None
    reason: str | None = None

    @property
    def counts_as_failed(self) -> bool:
        """A missing key counts only where the configuration sends questions there."""
        return self.result == "failed" or (self.result == "no key" and self.in_use)


async def check_providers(settings: ServiceSettings, in_use: Collection[str]) -> list[ProviderCheck]:
    """Call every provider at once, and say what came of it, in the order of the configuration."""
    metrics = Metrics()

    async def checked(name: str, configured: ProviderSettings) -> ProviderCheck:
        is_used = name in in_use
        try:
            provider = open_provider(name, configured, clearance_of(name, configured, settings.labels), metrics)
            return await _check(provider, settings, in_use=is_used)
        except Exception as error:  # noqa: BLE001 - boundary: what is wrong with one provider must not hide the others
            reason = str(error) if isinstance(error, ArchivistError) else f"the check itself failed: {type(error).__name__}"
            return ProviderCheck(name, configured.kind, configured.model, is_used, "failed", reason=reason)

    return list(await asyncio.gather(*(checked(name, each) for name, each in settings.llm.providers.items())))


async def _check(provider: Provider, settings: ServiceSettings, *, in_use: bool) -> ProviderCheck:
    assert provider.settings is not None, "only the extractive backend has no settings, and it is not called"
    kind, problem = provider.settings.kind, provider.problem
    check = ProviderCheck(provider.name, kind, provider.backend.model, in_use, "failed", reason=problem)
    try:
        if problem is not None:
            return check if kind == "llamacpp" else replace(check, result="no key")
        check = await _called(provider, check, settings)
        return replace(check, model_present=await _is_model_listed(provider)) if check.reachable else check
    finally:
        await provider.close()


async def _called(provider: Provider, check: ProviderCheck, settings: ServiceSettings) -> ProviderCheck:
    prompt = Prompt((Message("user", QUESTION),), settings.labels.order[0], ANSWER_TOKENS, question=QUESTION)
    try:
        async with asyncio.timeout(ANSWER_S):
            try:
                return await _answered(provider, check, prompt)
            except BackendWordless:
                # A model that thinks can use all of that up before its first word: give it what an answer gets.
                return await _answered(provider, check, replace(prompt, max_tokens=settings.prompt.answer_tokens))
    except TimeoutError:
        return replace(check, reason=f"no answer within {ANSWER_S:g} s; is it overloaded or still loading?")
    except (BackendError, EgressRefused) as error:
        return replace(check, reachable=_was_reached(error), reason=str(error))


async def _answered(provider: Provider, check: ProviderCheck, prompt: Prompt) -> ProviderCheck:
    loop = asyncio.get_running_loop()
    began = loop.time()
    first_token_s: float | None = None
    async with aclosing(provider.backend.stream(prompt)) as events:
        async for event in events:
            if isinstance(event, Delta) and first_token_s is None:
                first_token_s = loop.time() - began
            if isinstance(event, Finished):
                return replace(
                    check,
                    result="ok",
                    reachable=True,
                    streams=True,
                    usage="estimated" if event.usage.estimated else "yes",
                    first_token_s=first_token_s,
                )
    raise AssertionError("a backend ends with Finished or an error")


async def _is_model_listed(provider: Provider) -> bool | None:
    """A provider that answers and does not tell its models is none that failed."""
    assert isinstance(provider.backend, HttpBackend | LlamaCppBackend)
    try:
        async with asyncio.timeout(LIST_S):
            models = await provider.backend.models()
    except (BackendError, EgressRefused, TimeoutError):
        return None
    return None if models is None else provider.backend.model in models


def _was_reached(error: BackendError | EgressRefused) -> bool:
    match error:
        case EgressRefused() | BackendUnreachable() | BackendNotConfigured() | BackendTimeout(stage="connect" | "pool"):
            return False
        case _:
            return True
