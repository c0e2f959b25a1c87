"""What was spent today, and what budgets say to one more call."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from app.llm.backend import Usage
from app.llm.budgets import Budgets, Spending, Totals
from app.llm.cost import SpendingRow, Spent
from app.llm.settings import BudgetSettings
from app.state.state import State

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
FREE = Totals()
CHEAP = Totals(usd=0.000001)


class Clock:
    """A clock that the test sets."""

    def __init__(self, time: datetime = NOON) -> None:
        self.time = time

    def __call__(self) -> datetime:
        return self.time


@pytest.fixture
def clock() -> Clock:
    """Noon, until the test says otherwise."""
    return Clock()


@pytest.fixture
def spending(clock: Clock) -> Spending:
    """Nothing spent yet."""
    return Spending((), clock)


def budget(name: str = "daily", **values: Any) -> BudgetSettings:
    """A budget of ten dollars for all, unless something else is given."""
    limit = {} if "max_tokens" in values else {"max_usd": 10}
    return BudgetSettings.model_validate({"name": name, **limit, **values})


def spent(usd: float | None, owner: str = "anna", tokens: int = 0) -> Spent:
    """A call that cost so much."""
    return Spent(owner, "cloud", "large-7", Usage(prompt_tokens=tokens, cost_usd=usd))


def row(day: date, owner: str, usd: float, prompt: int, completion: int) -> SpendingRow:
    """What the database knows of a day."""
    return SpendingRow(day, owner, "cloud", "large-7", 3, prompt, 0, completion, usd, 1)


def test_spending_is_counted_by_owner_and_for_all(spending: Spending) -> None:
    """Each owner has a sum, the service the sum of all; tokens are those of prompts and answers, cached ones once."""
    spending.add(Spent("anna", "cloud", "large-7", Usage(100, 20, cached_tokens=90, cost_usd=0.5)))
    spending.add(spent(0.25, "ben", 7))
    assert spending.totals("anna") == Totals(0.5, 120)
    assert spending.totals("ben") == Totals(0.25, 7)
    assert spending.totals("nobody") == Totals(0.0, 0)
    assert spending.totals(None) == Totals(0.75, 127)


def test_an_unknown_cost_counts_in_tokens_alone(spending: Spending) -> None:
    """A call without a price adds no money, so a money budget does not see it and a token budget does."""
    spending.add(spent(None, tokens=900))
    assert spending.totals(None) == Totals(0.0, 900)
    standing = Budgets([budget("money", max_usd=0.01), budget("tokens", max_tokens=900)], spending).standing("anna", CHEAP)
    assert (standing.spent, standing.notes) == ("tokens", ("budget 'tokens' is spent",))


def test_a_restart_begins_from_the_rows_of_today(clock: Clock) -> None:
    """Rows of today are counted, of other days not."""
    today = NOON.date()
    rows = [row(today, "anna", 1.5, 100, 10), row(today, "ben", 2, 5, 1), row(today - timedelta(1), "anna", 9, 9, 9)]
    spending = Spending(rows, clock)
    assert (spending.totals("anna"), spending.totals(None)) == (Totals(1.5, 110), Totals(3.5, 116))


def test_the_database_gives_back_the_totals_that_were_in_memory(tmp_path: Path, clock: Clock) -> None:
    """What was added to both before a restart is the same after it, the day named by whoever counted."""
    state, before = State(tmp_path / "service.db"), Spending((), clock)
    for each in (spent(0.25, "anna", 10), spent(None, "anna", 5), spent(0.5, "ben", 1)):
        state.add_spending([each], before.add(each))
    state.close()
    after = Spending(State(tmp_path / "service.db").spending_of(NOON.date()), clock)
    for owner in ("anna", "ben", None):
        assert after.totals(owner) == before.totals(owner)
    assert after.totals(None) == Totals(0.75, 16)


def test_at_midnight_utc_all_begins_anew(clock: Clock, spending: Spending) -> None:
    """A second before midnight the day's sums stand, at midnight they are gone; what follows counts towards the new day."""
    assert spending.add(spent(10)) == date(2026, 11, 23)
    budgets = Budgets([budget()], spending)
    clock.time = datetime(2026, 11, 23, 23, 59, 59, tzinfo=UTC)
    assert (budgets.standing("anna", CHEAP).spent, budgets.standing("anna", CHEAP).retry_after_s) == ("daily", 1)
    clock.time = datetime(2026, 11, 24, tzinfo=UTC)
    assert spending.totals(None) == spending.totals("anna") == FREE
    standing = budgets.standing("anna", CHEAP)
    assert (standing.spent, standing.retry_after_s, standing.levels) == (None, 86_400, {"daily": 0.0})
    assert spending.add(spent(1)) == date(2026, 11, 24)
    assert spending.totals(None) == Totals(1, 0)


def test_midnight_is_that_of_utc_whatever_zone_the_clock_has(clock: Clock, spending: Spending) -> None:
    """Midnight in Berlin is 23:00 UTC of the same day: nothing begins anew."""
    spending.add(spent(1))
    clock.time = datetime(2026, 11, 24, 0, 0, tzinfo=timezone(timedelta(hours=1)))
    assert spending.totals(None) == Totals(1, 0)
    assert spending.until_midnight_s() == 3600


def test_a_clock_set_back_does_not_forget(clock: Clock, spending: Spending) -> None:
    """A clock that is corrected across midnight, backwards, leaves the sums alone."""
    spending.add(spent(1))
    clock.time = NOON - timedelta(days=1)
    assert spending.totals(None) == Totals(1, 0)
    assert spending.add(spent(1)) == NOON.date()


def test_what_is_held_counts_until_it_is_let_go(spending: Spending) -> None:
    """An estimate is part of the owner's and the service's totals while it is held, also where the answer fails."""
    with spending.hold("anna", 0.3, 500), spending.hold("ben", 0.1, 1):
        assert spending.totals("anna") == Totals(0.3, 500)
        assert spending.totals(None) == Totals(0.4, 501)
    assert spending.totals(None) == FREE

    with pytest.raises(ConnectionError), spending.hold("anna", 1, 1):
        raise ConnectionError
    assert spending.totals(None) == spending.totals("anna") == FREE


def test_what_is_held_over_midnight_counts_towards_the_new_day(clock: Clock, spending: Spending) -> None:
    """Its cost will come after midnight, so its place is kept there."""
    with spending.hold("anna", 4, 0):
        clock.time = NOON + timedelta(days=1)
        assert spending.totals(None) == Totals(4, 0)
        spending.add(spent(3))
    assert spending.totals(None) == Totals(3, 0)


@pytest.mark.parametrize(
    ("used", "notes"),
    [
        (7.99, ()),
        (8.0, ("budget 'daily' is at 80 %",)),
        (8.399, ("budget 'daily' is at 83 %",)),
        (8.7, ("budget 'daily' is at 87 %",)),
        (9.999, ("budget 'daily' is at 99 %",)),
    ],
)
def test_a_budget_warns_from_its_share_on(spending: Spending, used: float, notes: tuple[str, ...]) -> None:
    """From 80 % of ten dollars on the route says how far it is, rounded down; nothing is refused."""
    spending.add(spent(used))
    standing = Budgets([budget()], spending).standing("anna", CHEAP)
    assert (standing.notes, standing.spent, standing.providers) == (notes, None, None)
    assert standing.levels == {"daily": pytest.approx(used / 10)}


def test_a_spent_budget_refuses_and_says_until_when(spending: Spending) -> None:
    """At the limit the budget is named, with the seconds to midnight."""
    spending.add(spent(10))
    standing = Budgets([budget()], spending).standing("anna", CHEAP)
    assert (standing.spent, standing.retry_after_s, standing.providers) == ("daily", 12 * 3600, None)
    assert standing.levels == {"daily": 1.0}


@pytest.mark.parametrize(("estimate", "refused"), [(0.5, None), (0.500001, "daily"), (400.0, "daily")])
def test_a_call_that_would_pass_the_limit_is_refused(spending: Spending, estimate: float, refused: str | None) -> None:
    """Half a dollar is left: a call of exactly that goes through, a dearer one does not."""
    spending.add(spent(9.5))
    assert Budgets([budget()], spending).standing("anna", Totals(estimate)).spent == refused


def test_too_little_for_a_call_is_not_called_spent(spending: Spending) -> None:
    """Where a call is merely too dear for what is left, the note says so, and a cheaper one still goes the usual way."""
    spending.add(spent(2.5))
    budgets = Budgets([budget(then=["near"])], spending)
    standing = budgets.standing("anna", Totals(8))
    assert standing.notes == ("budget 'daily' is at 25 %, too little is left for this call",)
    assert standing.providers == ("near",)
    assert budgets.standing("anna", Totals(7)).providers is None


def test_ten_times_ten_cents_are_a_dollar(spending: Spending) -> None:
    """The rounding of floats neither refuses the last call that fits nor lets one more through."""
    budgets = Budgets([budget(max_usd=1)], spending)
    for _ in range(10):
        assert budgets.standing("anna", Totals(0.1)).spent is None
        spending.add(spent(0.1))
    assert spending.totals(None).usd != 1.0
    assert budgets.standing("anna", CHEAP).spent == "daily"


def test_tokens_and_money_are_counted_apart(spending: Spending) -> None:
    """A token budget knows no dollars and a money budget no tokens."""
    budgets = Budgets([budget("money", max_usd=1), budget("tokens", max_tokens=1000)], spending)
    spending.add(spent(0.5, tokens=999))
    assert budgets.standing("anna", Totals(0.5, 1)).spent is None
    assert budgets.standing("anna", Totals(0.6, 1)).spent == "money"
    assert budgets.standing("anna", Totals(0.5, 2)).spent == "tokens"
    assert budgets.levels() == {"money": 0.5, "tokens": 0.999}


def test_a_callers_budget_is_each_callers_own(spending: Spending) -> None:
    """Anna has spent hers and is refused, ben is not; a shared one counts both. Only shared ones have levels."""
    budgets = Budgets([budget("each", max_usd=2, per="caller"), budget("all", max_usd=4)], spending)
    spending.add(spent(2, "anna"))
    assert budgets.standing("anna", CHEAP).spent == "each"
    assert budgets.standing("ben", CHEAP).spent is None
    assert budgets.standing("ben", CHEAP).levels == {"all": 0.5}
    spending.add(spent(1.9, "ben"))
    assert budgets.standing("clara", Totals(0.2)).spent == "all"


def test_a_spent_budget_may_name_cheaper_providers(spending: Spending) -> None:
    """With `then` the call goes on, to those providers, and the note says why."""
    spending.add(spent(10))
    standing = Budgets([budget(then=["near", "extractive"])], spending).standing("anna", CHEAP)
    assert (standing.providers, standing.spent) == (("near", "extractive"), None)
    assert standing.notes == ("budget 'daily' is spent",)


@pytest.mark.parametrize(
    ("budgets", "providers", "refused"),
    [
        ([budget("a", then=["near"]), budget("b", then=["extractive"])], ("near",), None),
        ([budget("a", then=["near"]), budget("b"), budget("c")], None, "b"),
        ([budget("a", max_usd=99), budget("b", then=["near"])], ("near",), None),
        ([budget("a", max_usd=99, then=["near"])], None, None),
    ],
    ids=["first chain", "first refusal before any chain", "unspent ones are silent", "nothing spent"],
)
def test_of_several_spent_budgets_the_strictest_decides(
    spending: Spending, budgets: list[BudgetSettings], providers: tuple[str, ...] | None, refused: str | None
) -> None:
    """A refusal beats a chain; among equals the first in the configuration decides."""
    spending.add(spent(10))
    standing = Budgets(budgets, spending).standing("anna", CHEAP)
    assert (standing.providers, standing.spent) == (providers, refused)


def test_without_budgets_nothing_is_said(spending: Spending) -> None:
    """However much was spent."""
    spending.add(spent(1e6))
    standing = Budgets([], spending).standing("anna", Totals(1e6, 10**9))
    assert (standing.notes, standing.providers, standing.spent, standing.levels) == ((), None, None, {})


def test_a_crossing_is_logged_once_a_day(clock: Clock, spending: Spending) -> None:
    """One record at the warning, one at the end, none for what follows that day; the next day again, also after a reload."""
    settings = [budget(max_usd=10)]
    with capture_logs() as logs:
        for usd in (7, 1.5, 0.1, 1.4, 1):
            spending.add(spent(usd))
            Budgets(settings, spending).standing("anna", CHEAP)
            Budgets(settings, spending).standing("ben", CHEAP)
    assert [(each["action"], each["budget"], each["share"], each["log_level"]) for each in logs] == [
        ("budget_warned", "daily", 0.85, "warning"),
        ("budget_spent", "daily", 1.0, "warning"),
    ]
    assert [each.keys() & {"owner", "question", "prompt"} for each in logs] == [set(), set()]
    clock.time += timedelta(days=1)
    spending.add(spent(9))
    with capture_logs() as logs:
        Budgets(settings, spending).standing("anna", CHEAP)
    assert [each["action"] for each in logs] == ["budget_warned"]


def test_a_callers_crossing_names_the_caller(spending: Spending) -> None:
    """Two callers who spend a budget of their own are two records; a raised limit that is reached is one more."""
    spending.add(spent(3, "anna"))
    spending.add(spent(3, "ben"))
    with capture_logs() as logs:
        for limit in (3, 3, 2):
            budgets = Budgets([budget("each", max_usd=limit, per="caller")], spending)
            budgets.standing("anna", CHEAP)
            budgets.standing("ben", CHEAP)
    assert [(each["action"], each["owner"], each["share"]) for each in logs] == [
        ("budget_spent", "anna", 1.0),
        ("budget_spent", "ben", 1.0),
        ("budget_spent", "anna", 1.5),
        ("budget_spent", "ben", 1.5),
    ]


def test_fifty_at_once_do_not_overshoot(spending: Spending) -> None:
    """Of fifty calls at once that may cost a dollar each, ten go through a budget of ten dollars."""
    budgets = Budgets([budget()], spending)
    refused: list[float] = []

    async def call() -> None:
        if budgets.standing("anna", Totals(1)).spent:
            refused.append(1)
            return
        with spending.hold("anna", 1, 0):
            await asyncio.sleep(0.01)
            spending.add(spent(1))

    async def all_at_once() -> None:
        await asyncio.gather(*(call() for _ in range(50)))

    asyncio.run(all_at_once())
    assert len(refused) == 40
    assert spending.totals(None) == Totals(10, 0)


@given(
    limits=st.tuples(st.integers(1, 60), st.integers(1, 60), st.integers(1, 60)),
    steps=st.lists(
        st.one_of(
            st.tuples(st.sampled_from(["anna", "ben", "clara"]), st.integers(0, 20), st.integers(0, 20), st.integers(0, 20)),
            st.integers(0, 30),
        ),
        max_size=40,
    ),
)
def test_estimates_that_are_upper_bounds_keep_every_limit(limits: tuple[int, int, int], steps: list[Any]) -> None:
    """Whatever begins and ends in whatever order, no limit is ever passed, and nothing is refused that would have fitted."""
    all_cents, each_cents, all_tokens = limits
    spending = Spending((), Clock())
    budgets = Budgets(
        [
            budget("all", max_usd=all_cents / 100),
            budget("each", max_usd=each_cents / 100, per="caller"),
            budget("tokens", max_tokens=all_tokens),
        ],
        spending,
    )
    # The same in whole cents, kept by the test: [owner, cents, tokens] of what is held or was spent.
    booked: list[list[Any]] = []
    running: list[tuple[Any, list[Any], int, int]] = []
    for step in steps:
        if isinstance(step, int):
            if running:
                hold, booking, cents, tokens = running.pop(step % len(running))
                spending.add(spent(cents / 100, booking[0], tokens))
                hold.__exit__(None, None, None)
                booking[1:] = [cents, tokens]
        else:
            owner, cents, tokens, saved = step
            by_all, by_tokens = sum(each[1] for each in booked), sum(each[2] for each in booked)
            by_owner = sum(each[1] for each in booked if each[0] == owner)
            fits = (
                (cents == 0 or by_all + cents <= all_cents)
                and (cents == 0 or by_owner + cents <= each_cents)
                and max(by_tokens + tokens, by_tokens + 1) <= all_tokens
            )
            assert (budgets.standing(owner, Totals(cents / 100, tokens)).spent is None) == fits
            if fits:
                hold = spending.hold(owner, cents / 100, tokens)
                hold.__enter__()
                booking = [owner, cents, tokens]
                booked.append(booking)
                running.append((hold, booking, max(cents - saved, 0), max(tokens - saved, 0)))
        totals = spending.totals(None)
        assert round(totals.usd, 9) <= all_cents / 100
        assert totals.tokens <= all_tokens
        for owner in ("anna", "ben", "clara"):
            assert round(spending.totals(owner).usd, 9) <= each_cents / 100


def test_a_call_that_costs_nothing_is_not_kept_back_by_money() -> None:
    """A free model answers on though the money is spent, without a word of it; a budget of tokens holds for it too."""
    spending = Spending()
    spending.add(Spent("anna", "acme", "large", Usage(900, 100, cost_usd=2.0)))
    money = Budgets([budget("money", max_usd=1.0)], spending)
    assert money.standing("anna", CHEAP).spent == "money"
    assert (money.standing("anna", FREE).spent, money.standing("anna", FREE).notes) == (None, ())
    assert Budgets([budget("tokens", max_tokens=900)], spending).standing("anna", FREE).spent == "tokens"
