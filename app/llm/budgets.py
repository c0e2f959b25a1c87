"""What has been spent today, and what the budgets say to one more call. In memory, for one event loop; imports no database."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta

import structlog

from app.llm.backend import Usage
from app.llm.cost import SpendingRow, Spent
from app.llm.settings import BudgetSettings

DECIMALS = 9
"""Of US dollars when they are compared with a limit: sums of floats are off by less, and no price is that small."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Totals:
    """Money and tokens. A call whose price is not known counts with its tokens and with no money."""

    usd: float = 0.0
    tokens: int = 0

    def __add__(self, other: Totals) -> Totals:
        """Both together."""
        return Totals(self.usd + other.usd, self.tokens + other.tokens)

    @classmethod
    def of(cls, usage: Usage) -> Totals:
        """What a call took, or is expected to take: its known cost, and its tokens, cached ones too."""
        return cls(usage.cost_usd or 0.0, usage.prompt_tokens + usage.completion_tokens)


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Spending:
    """What was spent since midnight (UTC), in all and by owner. Outlives the budgets, which change with the configuration.

    At midnight it begins anew by itself; what is held then is held from the new day, where its cost will be counted. A clock
    that is set back does not bring the old day back.
    """

    def __init__(self, rows_of_today: Iterable[SpendingRow] = (), now: Callable[[], datetime] = _utc_now) -> None:
        """`rows_of_today` are what the database knows of today; rows of other days are left out. `now` is aware of its zone."""
        self._now = now
        self._day = self._utc().date()
        self._service = Totals()
        self._owners: dict[str, Totals] = {}
        self._holds: dict[object, tuple[str, Totals]] = {}
        self._announced: set[Hashable] = set()
        for row in rows_of_today:
            if row.day == self._day:
                self._count(row.owner, Totals(row.cost_usd, row.prompt_tokens + row.completion_tokens))

    def add(self, spent: Spent) -> date:
        """Count a call that was made. Returns the day that it counts towards, for the database to name the same."""
        self._turn_day()
        self._count(spent.owner, Totals.of(spent.usage))
        return self._day

    def totals(self, owner: str | None) -> Totals:
        """What an owner spent today and holds; of the whole service for None."""
        self._turn_day()
        spent = self._service if owner is None else self._owners.get(owner, Totals())
        held = [totals for holder, totals in self._holds.values() if owner is None or holder == owner]
        # Summed afresh: what is added and taken away again would leave its rounding behind.
        return spent + Totals(math.fsum(each.usd for each in held), sum(each.tokens for each in held))

    @contextmanager
    def hold(self, owner: str, usd: float, tokens: int) -> Iterator[None]:
        """Count an estimate as spent for as long as an answer is being made, so that many at once do not overshoot.

        Enter it right after `Budgets.standing`, without an await between; `add` what it took, then leave it.
        """
        key = object()
        self._holds[key] = (owner, Totals(usd, tokens))
        try:
            yield
        finally:
            del self._holds[key]

    def is_first_today(self, event: Hashable) -> bool:
        """Whether this is asked of an event for the first time since midnight."""
        self._turn_day()
        if event in self._announced:
            return False
        self._announced.add(event)
        return True

    def until_midnight_s(self) -> float:
        """Seconds until the next day begins (UTC)."""
        now = self._utc()
        return (datetime.combine(now.date() + timedelta(days=1), time.min, UTC) - now).total_seconds()

    def _count(self, owner: str, totals: Totals) -> None:
        self._service += totals
        self._owners[owner] = self._owners.get(owner, Totals()) + totals

    def _turn_day(self) -> None:
        today = self._utc().date()
        if today > self._day:
            self._day, self._service = today, Totals()
            self._owners.clear()
            self._announced.clear()

    def _utc(self) -> datetime:
        return self._now().astimezone(UTC)


@dataclass(frozen=True, slots=True)
class Standing:
    """What the budgets say to one call.

    `notes` are sentences for the answer's route. `spent` names the budget that refuses the call. Otherwise `providers` are
    the ones to use instead of the usual, None where the usual may be. `name` is the budget that decided. `levels` are the
    shares used of the budgets that all callers share, by name, what is held included.
    """

    notes: tuple[str, ...] = ()
    providers: tuple[str, ...] | None = None
    spent: str | None = None
    name: str = ""
    retry_after_s: float = 0.0
    levels: Mapping[str, float] = field(default_factory=dict)


class Budgets:
    """The budgets of one configuration over what was spent today.

    A budget is spent for a call when nothing is left of it (held estimates count as used), or less than the call's own
    estimate: a hard ceiling wherever estimates are upper bounds and what is spent is refused. Where several are spent, one
    that refuses beats any that names other providers; among equals the first in the configuration decides. A money budget
    counts known costs only, and says nothing of a call that costs nothing. What is held may raise a budget to its warning
    or its end for a while only.
    """

    def __init__(self, settings: Sequence[BudgetSettings], spending: Spending) -> None:
        self._settings, self._spending = tuple(settings), spending

    def standing(self, owner: str, estimate: Totals) -> Standing:
        """What the budgets say to one more call of `owner` that takes `estimate` at most.

        The first call in a day that finds a budget at its `warn_at`, or spent, is logged.
        """
        notes: list[str] = []
        refusing: list[BudgetSettings] = []
        cheaper: list[BudgetSettings] = []
        for budget in self._settings:
            if budget.max_usd is not None and estimate.usd == 0:
                continue  # what costs nothing is not kept from anybody by money
            share = self._share(budget, owner)
            if self._is_spent(budget, owner, estimate):
                (cheaper if budget.then else refusing).append(budget)
                left = "is spent" if share >= 1 else f"is at {_percent(share)}, too little is left for this call"
                notes.append(f"budget {budget.name!r} {left}")
                self._announce("budget_spent", budget, owner, share)
            elif share >= budget.warn_at:
                notes.append(f"budget {budget.name!r} is at {_percent(share)}")
                self._announce("budget_warned", budget, owner, share)
        return Standing(
            notes=tuple(notes),
            providers=cheaper[0].then if cheaper and not refusing else None,
            spent=refusing[0].name if refusing else None,
            name=next((each.name for each in (*refusing, *cheaper)), ""),
            retry_after_s=self._spending.until_midnight_s(),
            levels=self.levels(),
        )

    def levels(self) -> dict[str, float]:
        """The share used of each budget that all callers share, by name, what is held included; over 1 where it was passed."""
        return {budget.name: self._share(budget, None) for budget in self._settings if budget.per == "service"}

    def _is_spent(self, budget: BudgetSettings, owner: str, estimate: Totals) -> bool:
        used = self._used(budget, owner)
        wanted = _counted(budget, used + estimate)
        return _counted(budget, used) >= _limit(budget) or wanted > _limit(budget)

    def _share(self, budget: BudgetSettings, owner: str | None) -> float:
        return _counted(budget, self._used(budget, owner)) / _limit(budget)

    def _used(self, budget: BudgetSettings, owner: str | None) -> Totals:
        return self._spending.totals(owner if budget.per == "caller" else None)

    def _announce(self, action: str, budget: BudgetSettings, owner: str, share: float) -> None:
        whose = {"owner": owner} if budget.per == "caller" else {}
        # By the whole budget, not by its name: one that was changed while the service ran speaks up again.
        if not self._spending.is_first_today((action, budget, *whose.values())):
            return
        message = "a budget is spent" if action == "budget_spent" else "a budget is nearly spent"
        _log.warning(message, action=action, budget=budget.name, share=round(share, 4), **whose)


def _counted(budget: BudgetSettings, totals: Totals) -> float:
    return totals.tokens if budget.max_usd is None else round(totals.usd, DECIMALS)


def _limit(budget: BudgetSettings) -> float:
    limit = budget.max_tokens if budget.max_usd is None else budget.max_usd
    assert limit is not None, "settings see to it that a budget has one limit"
    return limit


def _percent(share: float) -> str:
    """Rounded down: what is at 100 % is spent."""
    return f"{math.floor(round(share * 100, 6))} %"
