"""Every LLM call of the service. Only here does a second provider step in.

The plan names a chain; it is tried in order, for as long as nothing has reached the caller.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import replace

import structlog

from app.llm.backend import Backend, Delta, Finished, Prompt, Usage
from app.llm.budgets import Budgets, Spending
from app.llm.clearance import clearance_of
from app.llm.cost import Spent, priced
from app.llm.plan import Asker, Plan, Planner, Route, short
from app.llm.provider import Provider, Work, digest_of_files, extractive_provider, open_provider
from app.llm.routes import Chosen
from app.llm.settings import EXTRACTIVE, FIXED, LlmSettings
from app.llm.wire import BYTES_PER_TOKEN, estimate_prompt_tokens
from app.metrics import Metrics
from corpus.errors import (
    BackendError,
    BackendNotConfigured,
    BudgetSpent,
    EgressRefused,
    NotCleared,
    Overloaded,
)
from corpus.settings import LabelSettings

_log = structlog.get_logger("archivist.llm")


class Gateway:
    """Every LLM call of the service goes through here. Belongs to one event loop."""

    def __init__(
        self,
        settings: LlmSettings,
        labels: LabelSettings,
        extractive: Backend,
        spending: Spending,
        metrics: Metrics,
        previous: Gateway | None = None,
    ) -> None:
        """With `previous`, providers whose settings are the same go on as they are: their queues, breakers and processes.

        Raises: ConfigError, of a provider's clearance or certificate file.
        """
        self._settings, self._labels = settings, labels
        self._spending, self._metrics = spending, metrics
        self._budgets = Budgets(settings.budgets, spending)
        before = previous._extractive if previous is not None else None
        self._extractive: Provider = extractive_provider(extractive, metrics, before)
        self._providers: dict[str, Provider] = {}
        for name, provider in settings.providers.items():
            clearance = clearance_of(name, provider, labels)
            old = previous._providers.get(name) if previous is not None else None
            same = old is not None and old.settings == provider and old.backend.clearance == clearance
            if old is not None and same and old.files == digest_of_files(provider):
                self._providers[name] = old
            else:
                self._providers[name] = open_provider(name, provider, clearance, metrics)
        self._planner = Planner(settings, labels, self._providers, self._extractive, self._budgets, metrics)
        self._inside: dict[str | None, int] = previous._inside if previous is not None else {}

    async def start(self) -> None:
        """Begin to load what is run by the service itself, and show the providers that there are now."""
        self._metrics.forget_gauges()
        for provider in self._providers.values():
            provider.show_breaker()
            await provider.start()
        self.show_budgets()

    @contextmanager
    def entered(self, requested: str | None = None) -> Iterator[None]:
        """A place at the door, before any work is done for a question: as many as its providers have, and who is asked for by
        name has places of its own.

        Raises: Overloaded where all are taken.
        """
        known = requested is not None and (requested == EXTRACTIVE or requested in self._providers)
        door = requested if known else None
        names = {requested} if known else {name for chain in self._chains() for name in chain}
        places = [self._provider(name).places for name in names if name is not None]
        inside = self._inside.get(door, 0)
        if inside >= sum(each.total for each in places):
            raise Overloaded(f"questions being answered: {inside}", min(each.wait_s for each in places))
        self._inside[door] = inside + 1
        try:
            yield
        finally:
            self._inside[door] -= 1

    def check(self, requested: str | None) -> None:
        """Whether a caller may choose this provider. Raises: Invalid, BackendNotConfigured."""
        self._planner.check(requested)

    def fixed_answer(self, question: str, asker: Asker) -> tuple[Route, str] | None:
        """The fixed answer of a rule that can be seen to hold before anything is searched; None in all other cases."""
        return self._planner.fixed_answer(question, asker)

    async def stream(self, prompt: Prompt, asker: Asker) -> AsyncGenerator[Route | Delta | Finished, None]:
        """The route taken, then the answer. A further route follows only where the one before failed before its first word.

        Consume it within `contextlib.aclosing`: closing it ends the upstream call.
        Raises: Invalid, NotCleared, BackendNotConfigured, BudgetSpent, Overloaded, and a BackendError or EgressRefused
        where nobody else may answer.
        """
        plan = self._planner.plan(prompt, asker)
        if plan.answer:
            yield Route(FIXED, FIXED, plan.reason)
            yield Delta(plan.answer)
            yield Finished(Usage())
            return
        prompt = replace(prompt, deadline=self._deadline(asker))
        passed, full = list(plan.passed), None
        for provider in plan.providers:
            is_last = provider is plan.providers[-1]
            if is_last and plan.tail and full is not None:
                raise full  # an answer that this machine computes does not help where many wait already
            yield Route(provider.name, provider.backend.model, plan.told(passed, is_tail=is_last and plan.tail))
            began = False
            try:
                async with aclosing(self._call(provider, prompt, asker, plan)) as events:
                    async for event in events:
                        began = True
                        yield event
                return
            except Overloaded as error:
                if is_last:
                    raise
                full = error
                passed.append(f"provider {provider.name!r} is full")
            except BudgetSpent as error:
                if is_last:
                    raise
                passed.append(f"budget {error.budget!r} has no room for provider {provider.name!r}")
            except (BackendError, EgressRefused) as error:
                if began:
                    raise
                if is_last:
                    raise full or error from error
                passed.append(f"provider {provider.name!r} failed: {short(error)}")

    async def complete(self, prompt: Prompt, asker: Asker, *, timeout_s: float = 10.0) -> str:
        """The whole text of a short answer by an LLM, such as a rewritten question; under the same clearance and budgets.

        The extractive backend cannot write, so it never steps in here, and no rule is looked at.
        Raises: as `stream` does; BackendNotConfigured where no LLM is.
        """
        chain = self._settings.chain if asker.requested is None else (asker.requested,)
        plan = self._planner.plan(prompt, asker, Chosen(None, chain, "", ""))
        providers = [provider for provider in plan.providers if provider is not self._extractive]
        if not providers and plan.barred is not None:
            raise NotCleared(plan.barred, "; ".join(plan.passed))
        if not providers:
            raise BackendNotConfigured(EXTRACTIVE, "it quotes and cannot write, and no LLM may be called; see llm.default")
        deadline = min(self._deadline(asker), asyncio.get_running_loop().time() + timeout_s)
        prompt = replace(prompt, deadline=deadline)
        for provider in providers:
            parts: list[str] = []
            try:
                async with aclosing(self._call(provider, prompt, asker, plan)) as events:
                    async for event in events:
                        if isinstance(event, Delta):
                            parts.append(event.text)
                return "".join(parts)
            except (BackendError, EgressRefused, Overloaded, BudgetSpent):
                if provider is providers[-1]:
                    raise
        raise AssertionError("the last provider either answers or raises")

    def files_changed(self) -> bool:
        """Whether a file that a provider's settings name holds something else than when the provider was opened."""
        opened = self._providers.values()
        return any(
            provider.settings is not None and provider.files != digest_of_files(provider.settings) for provider in opened
        )

    def status(self) -> dict[str, object]:
        """What is known without calling anybody. `down`: the default provider failed last time, or lacks something."""
        default = self._providers.get(self._settings.default)
        return {
            "default": self._settings.default,
            "down": default is not None and default.is_down,
            "providers": {name: provider.status() for name, provider in self._providers.items()},
        }

    def show_budgets(self) -> None:
        """What is used of each budget, as metrics."""
        self._metrics.show_budgets(self._budgets.levels())

    async def close(self, kept_by: Sequence[Gateway] = ()) -> None:
        """Close the providers, but for those that other gateways go on with."""
        kept = [provider for gateway in kept_by for provider in gateway._providers.values()]
        for provider in self._providers.values():
            if not any(provider is other for other in kept):
                await provider.close()
        if not kept_by:
            await self._extractive.close()

    async def _call(
        self, provider: Provider, prompt: Prompt, asker: Asker, plan: Plan
    ) -> AsyncGenerator[Delta | Finished, None]:
        """One provider's answer, with what it cost. However it ends, what it used is noted."""
        if plan.in_budget:
            standing = self._planner.standing(provider, prompt, asker)
            if standing.spent is not None or standing.providers is not None:
                raise BudgetSpent(standing.name, standing.retry_after_s)
        estimate = self._planner.estimate(provider, prompt)
        usage: Usage | None = None
        work, characters = Work(), 0
        # Held from here on, with nothing awaited since the budgets were asked.
        with self._spending.hold(asker.owner, estimate.usd, estimate.tokens):
            try:
                async with provider.answering(prompt, work) as stream:
                    async for event in stream:
                        if isinstance(event, Finished):
                            usage = priced(event.usage, provider.name, self._settings)
                            event = replace(event, usage=usage)
                        else:
                            characters += len(event.text)
                        yield event
            finally:
                if work.begun and provider is not self._extractive:
                    self._count(provider, asker, usage or self._estimated(provider, prompt, characters))

    def _deadline(self, asker: Asker) -> float:
        """By when all that is asked for one question must be there; from its first call on."""
        if asker.deadline is None:
            asker.deadline = asyncio.get_running_loop().time() + self._settings.answer_within_s
        return asker.deadline

    def _estimated(self, provider: Provider, prompt: Prompt, characters: int) -> Usage:
        """What a call used that was broken off."""
        counted = Usage(estimate_prompt_tokens(prompt), math.ceil(characters / BYTES_PER_TOKEN), estimated=True)
        return priced(counted, provider.name, self._settings)

    def _count(self, provider: Provider, asker: Asker, usage: Usage) -> None:
        spent = Spent(asker.owner, provider.name, provider.backend.model, usage)
        asker.spent.append(spent)
        self._spending.add(spent)
        self._metrics.count_usage(provider.name, usage)
        self.show_budgets()

    def _provider(self, name: str) -> Provider:
        return self._extractive if name == EXTRACTIVE else self._providers[name]

    def _chains(self) -> Iterator[Sequence[str]]:
        """Every chain that the configuration names."""
        yield self._settings.chain
        yield from (route.providers for route in self._settings.routes if route.providers)
        yield from (budget.then for budget in self._settings.budgets if budget.then)
