"""Who is tried for a prompt, in which order, and why: decided before anything is sent. Calls nobody.

What is decided, in this order: the rule that the question falls under, who is cleared for the prompt's label, who can be
called, what may still be spent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import structlog

from app.llm.backend import Prompt, Usage
from app.llm.budgets import Budgets, Standing, Totals
from app.llm.clearance import is_cleared
from app.llm.cost import Spent, priced
from app.llm.provider import Provider
from app.llm.routes import Asked, Chosen, Routes, Signals
from app.llm.settings import EXTRACTIVE, FIXED, LlmSettings
from app.llm.wire import estimate_prompt_tokens
from app.metrics import Metrics
from corpus.errors import (
    ArchivistError,
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
    Invalid,
    NotCleared,
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

    `spent` grows by what each call to a provider used, also one that was broken off. `deadline` is a time of the event loop's
    clock for all that is asked for one question; set by the first call.
    """

    owner: str
    requested: str | None = None
    turn: int = 1
    spent: list[Spent] = field(default_factory=list)
    deadline: float | None = None

    @property
    def usage(self) -> Usage:
        """All that was used so far."""
        return sum((spent.usage for spent in self.spent), Usage())


@dataclass(frozen=True, slots=True)
class Plan:
    """What was decided before anything was sent: whom to try, in order, and why; or a fixed answer.

    `passed` says who was left out, and why; `barred` is the first who may not see the label. `tail`: whether extractive
    stands at the end because the fallback is on, rather than by somebody's choice. `in_budget`: whether budgets are asked about
    each provider; not about those that stand in where one is spent.
    """

    providers: tuple[Provider, ...]
    reason: str
    passed: tuple[str, ...] = ()
    barred: str | None = None
    answer: str = ""
    tail: bool = False
    in_budget: bool = True

    def told(self, passed: Sequence[str], *, is_tail: bool) -> str:
        """Why the one who answers now does, in words for people; `passed` are those who were tried or left out before."""
        if is_tail and passed:
            return "; ".join(
                [f"{EXTRACTIVE}: {passed[0]}", *passed[1:], *([] if self.reason in (DEFAULT, REQUESTED) else [self.reason])]
            )
        if passed and self.reason == DEFAULT:
            return "; ".join([f"fallback: {passed[0]}", *passed[1:]])
        return "; ".join([self.reason, *passed])


class Planner:
    """The decisions of one configuration."""

    def __init__(
        self,
        settings: LlmSettings,
        labels: LabelSettings,
        providers: Mapping[str, Provider],
        extractive: Provider,
        budgets: Budgets,
        metrics: Metrics,
    ) -> None:
        """Raises: ConfigError, of a rule that can never hold."""
        self._settings, self._labels, self._budgets, self._metrics = settings, labels, budgets, metrics
        self._providers, self._extractive = providers, extractive
        self._routes = Routes(settings)

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

    def plan(self, prompt: Prompt, asker: Asker, chosen: Chosen | None = None) -> Plan:
        """Rule, clearance, budgets, in this order. Raises: Invalid, BudgetSpent, NotCleared, BackendNotConfigured."""
        self.check(asker.requested)
        if chosen is None:
            chosen = self._choose(prompt, asker)
        if chosen.answer:
            return Plan((), chosen.reason, answer=chosen.answer)
        plan = self._cleared(chosen.providers, prompt.label, chosen.reason, asker)
        return self._within_budget(plan, prompt, asker)

    def _within_budget(self, plan: Plan, prompt: Prompt, asker: Asker) -> Plan:
        """The plan without those that a budget has no room for, or with those that stand in for them.

        Who comes first decides: where it has no room and a budget names providers, they are the chain.
        """
        allowed: list[Provider] = []
        notes: list[str] = []
        refused: Standing | None = None
        for provider in plan.providers:
            standing = self.standing(provider, prompt, asker)
            notes += [note for note in standing.notes if note not in notes]
            if standing.spent is None and standing.providers is None:
                allowed.append(provider)
                continue
            refused = refused or standing
            if provider is plan.providers[0] and standing.providers is not None:
                reason = "; ".join([plan.reason, *notes])
                return replace(self._cleared(standing.providers, prompt.label, reason, asker), in_budget=False)
        if refused is not None and (not allowed or (plan.tail and allowed == [self._extractive])):
            raise BudgetSpent(refused.name, refused.retry_after_s)
        return replace(plan, providers=tuple(allowed), reason="; ".join([plan.reason, *notes]))

    def standing(self, provider: Provider, prompt: Prompt, asker: Asker) -> Standing:
        """What the budgets say to one call of a provider."""
        if provider is self._extractive:
            return Standing()
        return self._budgets.standing(asker.owner, self.estimate(provider, prompt))

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

    def estimate(self, provider: Provider, prompt: Prompt) -> Totals:
        """What a call takes at most, about."""
        if provider.settings is None:
            return Totals()
        most = Usage(estimate_prompt_tokens(prompt), max(prompt.max_tokens, provider.settings.most_tokens_in_body))
        return Totals.of(priced(most, provider.name, self._settings))

    def _provider(self, name: str) -> Provider:
        return self._extractive if name == EXTRACTIVE else self._providers[name]


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
