"""Chooses who answers a prompt, and passes the answer on. Only here does a second provider step in.

What is decided, in this order: the rule that the question falls under, what may still be spent, who is cleared for the
prompt's label, who can be called. The chain that is left is tried in order, for as long as nothing has reached the caller.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field, replace

import structlog

from app.llm.backend import Backend, Delta, Finished, Prompt, Usage
from app.llm.budgets import Budgets, Spending, Totals
from app.llm.clearance import clearance_of, is_cleared
from app.llm.cost import Spent, priced
from app.llm.provider import Provider, Work, digest_of_files, extractive_provider, open_provider
from app.llm.routes import Asked, Chosen, Routes, Signals
from app.llm.settings import EXTRACTIVE, FIXED, LlmSettings
from app.llm.wire import BYTES_PER_TOKEN, estimate_prompt_tokens
from app.metrics import Metrics
from corpus.errors import (
    ArchivistError,
    BackendError,
    BackendFailed,
    BackendLeftAlone,
    BackendMalformed,
    BackendNotConfigured,
    BackendRateLimited,
    BackendRejected,
    BackendTimeout,
    BackendUnreachable,
    BackendWordless,
    BudgetSpent,
    EgressRefused,
    Invalid,
    NotCleared,
    Overloaded,
)
from corpus.settings import LabelSettings

REQUESTED, DEFAULT = "chosen by the caller", "the default provider"

_log = structlog.get_logger("archivist.llm")


@dataclass(frozen=True, slots=True)
class Route:
    """Who answers, and why, in a short sentence for people."""

    provider: str
    model: str
    reason: str


@dataclass(slots=True)
class Asker:
    """Who asks, and what of it the gateway needs. `requested` is the caller's own choice of a provider, `turn` counts from 1.

    `spent` grows by what each call to a provider used, also one that was broken off.
    """

    owner: str
    requested: str | None = None
    turn: int = 1
    spent: list[Spent] = field(default_factory=list)

    @property
    def usage(self) -> Usage:
        """All that was used so far."""
        return sum((spent.usage for spent in self.spent), Usage())


@dataclass(frozen=True, slots=True)
class Plan:
    """What was decided before anything was sent: whom to try, in order, and why; or a fixed answer.

    `passed` says who was left out, and why; `barred` is the first who may not see the label. `tail`: whether extractive
    stands at the end because the fallback is on, rather than by somebody's choice. `estimate` is what the answer takes at most.
    """

    providers: tuple[Provider, ...]
    reason: str
    passed: tuple[str, ...] = ()
    barred: str | None = None
    answer: str = ""
    tail: bool = False
    estimate: Totals = field(default_factory=Totals)

    def told(self, passed: Sequence[str], *, is_tail: bool) -> str:
        """Why the one who answers now does, in words for people; `passed` are those who were tried or left out before."""
        if is_tail and passed:
            return "; ".join(
                [f"{EXTRACTIVE}: {passed[0]}", *passed[1:], *([] if self.reason in (DEFAULT, REQUESTED) else [self.reason])]
            )
        if passed and self.reason == DEFAULT:
            return "; ".join([f"fallback: {passed[0]}", *passed[1:]])
        return "; ".join([self.reason, *passed])


@dataclass(slots=True)
class _Inside:
    """How many questions are being answered. Shared by the gateways of all configurations."""

    count: int = 0


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
        self._routes = Routes(settings)
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
        self._inside: _Inside = previous._inside if previous is not None else _Inside()
        in_use = {name for chain in self._chains() for name in chain}
        self._most_inside = sum(self._provider(name).places.total for name in in_use)

    async def start(self) -> None:
        """Begin to load what is run by the service itself."""
        for provider in self._providers.values():
            await provider.start()

    @contextmanager
    def entered(self) -> Iterator[None]:
        """A place at the door, before any work is done for a question. Raises: Overloaded where all places are taken."""
        if self._inside.count >= self._most_inside:
            waits = [self._provider(name).places.wait_s for name in self._settings.chain]
            raise Overloaded(f"{self._inside.count} questions are being answered", min(waits))
        self._inside.count += 1
        try:
            yield
        finally:
            self._inside.count -= 1

    def check(self, requested: str | None) -> None:
        """Whether a caller may choose this provider. Raises: Invalid, BackendNotConfigured."""
        if requested is None:
            return
        if not self._settings.caller_may_choose:
            raise Invalid("callers may not choose a provider here; leave `provider` out", field="provider")
        if requested != EXTRACTIVE and requested not in self._providers:
            known = ", ".join([EXTRACTIVE, *self._providers])
            raise Invalid(f"no provider {requested[:80]!r}; known: {known}", field="provider")
        problem = self._provider(requested).problem
        if problem is not None:
            raise BackendNotConfigured(requested, problem)

    def fixed_answer(self, question: str, asker: Asker) -> tuple[Route, str] | None:
        """The fixed answer of a rule that can be seen to hold before anything is searched; None in all other cases."""
        if asker.requested is not None:
            return None
        chosen = self._routes.early(Asked(question, asker.turn))
        if chosen is None or not chosen.answer:
            return None
        _log.info("answered by a rule", action="route", rule=chosen.rule)
        return Route(FIXED, FIXED, chosen.reason), chosen.answer

    async def stream(self, prompt: Prompt, asker: Asker) -> AsyncGenerator[Route | Delta | Finished, None]:
        """The route taken, then the answer. A further route follows only where the one before failed before its first word.

        Consume it within `contextlib.aclosing`: closing it ends the upstream call.
        Raises: Invalid, NotCleared, BackendNotConfigured, BudgetSpent, Overloaded, and a BackendError or EgressRefused
        where nobody else may answer.
        """
        plan = self._plan(prompt, asker)
        if plan.answer:
            yield Route(FIXED, FIXED, plan.reason)
            yield Delta(plan.answer)
            yield Finished(Usage())
            return
        prompt = replace(prompt, deadline=asyncio.get_running_loop().time() + self._settings.answer_within_s)
        passed, full = list(plan.passed), None
        # Held from here on, with nothing awaited since the budgets were asked.
        with self._spending.hold(asker.owner, plan.estimate.usd, plan.estimate.tokens):
            for provider in plan.providers:
                is_last = provider is plan.providers[-1]
                if is_last and plan.tail and full is not None:
                    raise full  # an answer that this machine computes does not help where many wait already
                yield Route(provider.name, provider.backend.model, plan.told(passed, is_tail=is_last and plan.tail))
                began = False
                try:
                    async with aclosing(self._call(provider, prompt, asker)) as events:
                        async for event in events:
                            began = True
                            yield event
                    return
                except Overloaded as error:
                    if is_last:
                        raise
                    full = error
                    passed.append(f"provider {provider.name!r} is full")
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
        plan = self._plan(prompt, asker, Chosen(None, chain, "", ""))
        providers = [provider for provider in plan.providers if provider is not self._extractive]
        if not providers and plan.barred is not None:
            raise NotCleared(plan.barred, "; ".join(plan.passed))
        if not providers:
            raise BackendNotConfigured(EXTRACTIVE, "it quotes and cannot write, and no LLM may be called; see llm.default")
        prompt = replace(prompt, deadline=asyncio.get_running_loop().time() + timeout_s)
        with self._spending.hold(asker.owner, plan.estimate.usd, plan.estimate.tokens):
            for provider in providers:
                parts: list[str] = []
                try:
                    async with aclosing(self._call(provider, prompt, asker)) as events:
                        async for event in events:
                            if isinstance(event, Delta):
                                parts.append(event.text)
                    return "".join(parts)
                except (BackendError, EgressRefused, Overloaded):
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

    def _plan(self, prompt: Prompt, asker: Asker, chosen: Chosen | None = None) -> Plan:
        """Rule, budgets, clearance, in this order. Raises: Invalid, BudgetSpent, NotCleared, BackendNotConfigured."""
        self.check(asker.requested)
        if chosen is None:
            chosen = self._choose(prompt, asker)
        if chosen.answer:
            return Plan((), chosen.reason, answer=chosen.answer)
        reason, chain = chosen.reason, chosen.providers
        if chain[0] != EXTRACTIVE:
            standing = self._budgets.standing(asker.owner, self._estimate(prompt, chain))
            if standing.spent is not None:
                raise BudgetSpent(standing.spent, standing.retry_after_s)
            reason = "; ".join([reason, *standing.notes])
            chain = standing.providers or chain
        return replace(self._cleared(chain, prompt.label, reason, asker), estimate=self._estimate(prompt, chain))

    def _choose(self, prompt: Prompt, asker: Asker) -> Chosen:
        if asker.requested is not None:
            return Chosen(None, (asker.requested,), "", REQUESTED)
        signals = Signals(prompt.label, prompt.nearness, prompt.coverage)
        return self._routes.choose(Asked(prompt.question, asker.turn), signals)

    def _cleared(self, chain: Sequence[str], label: str, reason: str, asker: Asker) -> Plan:
        """The chain without those who may not see the label, and without those who cannot be called."""
        providers: list[Provider] = []
        passed: list[str] = []
        barred: str | None = None
        for name in chain:
            provider = self._provider(name)
            cleared = is_cleared(label, provider.backend.clearance, self._labels)
            self._metrics.count_clearance(name, label, cleared)
            if not cleared:
                why = f"the passages are labelled {label!r}, provider {name!r} is cleared for {provider.backend.clearance!r}"
                barred = barred or name
                passed.append(why)
            elif provider.problem is not None:
                _log.warning("provider cannot be called", action="not_configured", provider=name, problem=provider.problem)
                passed.append(f"provider {name!r} is not configured")
            else:
                providers.append(provider)
        _log.info(
            "route chosen", action="route", label=label, chain=list(chain), cleared=[provider.name for provider in providers]
        )  # fmt: skip
        may_end_extractive = self._settings.extractive_fallback and EXTRACTIVE not in chain
        tail = may_end_extractive and (asker.requested is None or not providers)
        if tail:
            providers.append(self._extractive)
        if not providers:
            if barred is not None:
                raise NotCleared(barred, f"{'; '.join(passed)}, and llm.extractive_fallback is off")
            raise BackendNotConfigured(chain[0], self._provider(chain[0]).problem or "it cannot be called")
        return Plan(tuple(providers), reason, tuple(passed), barred, tail=tail)

    async def _call(self, provider: Provider, prompt: Prompt, asker: Asker) -> AsyncGenerator[Delta | Finished, None]:
        """One provider's answer, with what it cost. However it ends, what it used is noted."""
        usage: Usage | None = None
        work, characters = Work(), 0
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

    def _estimate(self, prompt: Prompt, chain: Sequence[str]) -> Totals:
        """What the call takes at most, about: by the dearest of the chain."""
        if chain[0] == EXTRACTIVE:
            return Totals()
        prompt_tokens = estimate_prompt_tokens(prompt)
        each = [
            Totals.of(priced(Usage(prompt_tokens, self._most_tokens(name, prompt)), name, self._settings)) for name in chain
        ]
        return Totals(max(totals.usd for totals in each), max(totals.tokens for totals in each))

    def _most_tokens(self, name: str, prompt: Prompt) -> int:
        settings = self._provider(name).settings
        return prompt.max_tokens if settings is None else max(prompt.max_tokens, settings.most_tokens_in_body)

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


def short(error: ArchivistError) -> str:
    """What went wrong, for whoever asked: no address, and nothing that the provider said, which may repeat the prompt."""
    match error:
        case BackendTimeout():
            return f"{error.waited_for} within {error.waited_s:.3g} s"
        case BackendRateLimited():
            return "rate limited (429)"
        case BackendRejected() | BackendFailed():
            return f"HTTP {error.status}"
        case BackendLeftAlone():
            return "left alone after failures"
        case BackendUnreachable():
            return "could not connect"
        case BackendWordless():
            return "its answer holds no text"
        case BackendMalformed():
            return "its answer was cut off or is not the protocol"
        case _:
            return "it could not be called"
