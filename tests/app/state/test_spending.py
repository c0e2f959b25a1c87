"""What was spent is kept by day, owner and model."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from app.llm.backend import Usage
from app.llm.cost import SpendingRow, Spent
from app.state.state import State
from corpus.errors import StateError

DAY = date(2026, 11, 23)


@pytest.fixture
def state(tmp_path: Path) -> State:
    """An open, empty database."""
    return State(tmp_path / "service.db")


def spent(owner: str = "anna", provider: str = "cloud", model: str = "large-7", usage: Usage | None = None) -> Spent:
    """A call of 100 tokens in, 40 of them cached, and 7 out, for a quarter of a dollar."""
    return Spent(owner, provider, model, usage or Usage(100, 7, cached_tokens=40, cost_usd=0.25))


def test_calls_add_up_in_one_row(tmp_path: Path) -> None:
    """Two calls in one batch and one in another are one row with their sums, after a restart too."""
    state = State(tmp_path / "service.db")
    state.add_spending([spent(), spent(usage=Usage(1, 2, cached_tokens=1, cost_usd=0.5))], DAY)
    state.add_spending([spent(usage=Usage(10, 20, cost_usd=None))], DAY)
    state.close()
    assert State(tmp_path / "service.db").spending_of(DAY) == (
        SpendingRow(
            day=DAY,
            owner="anna",
            provider="cloud",
            model="large-7",
            calls=3,
            prompt_tokens=111,
            cached_tokens=41,
            completion_tokens=29,
            cost_usd=0.75,
            unpriced_calls=1,
        ),
    )


def test_each_owner_provider_and_model_has_its_row(state: State) -> None:
    """A call that differs in one of them is counted apart; rows come by owner, provider and model."""
    state.add_spending([spent("ben"), spent(), spent(model="small-7"), spent(provider="azure"), spent()], DAY)
    assert [(each.owner, each.provider, each.model, each.calls) for each in state.spending_of(DAY)] == [
        ("anna", "azure", "large-7", 1),
        ("anna", "cloud", "large-7", 2),
        ("anna", "cloud", "small-7", 1),
        ("ben", "cloud", "large-7", 1),
    ]


def test_days_are_apart(state: State) -> None:
    """A day's rows are its own; since a day means that day and those after it, in order."""
    days = [DAY + timedelta(days=number) for number in (8, 0, -1)]
    for day in days:
        state.add_spending([spent()], day)
    assert [(each.day, each.calls) for each in state.spending_of(DAY)] == [(DAY, 1)]
    assert [each.day for each in state.spending_since(DAY)] == [DAY, DAY + timedelta(days=8)]
    assert state.spending_of(DAY + timedelta(days=1)) == ()


def test_without_a_day_it_is_today(state: State) -> None:
    """The day is that of UTC."""
    before = datetime.now(UTC).date()
    state.add_spending([spent()])
    after = datetime.now(UTC).date()
    (row,) = state.spending_since(before)
    assert row.day in (before, after)


def test_nothing_spent_writes_nothing(state: State) -> None:
    """An empty batch is no error and no row."""
    state.add_spending([], DAY)
    assert state.spending_since(date(2000, 1, 1)) == ()


def test_a_batch_is_written_whole_or_not_at_all(state: State) -> None:
    """One call that cannot be written takes the whole batch with it."""
    broken = Spent("anna", "cloud", None, Usage(1, 1))  # type: ignore[arg-type]
    with pytest.raises(StateError, match="NOT NULL"):
        state.add_spending([spent(), broken], DAY)
    assert state.spending_of(DAY) == ()


def test_calls_counted_at_once_all_arrive(state: State) -> None:
    """Eight threads that write to the same row, and to one of their own, lose nothing."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: state.add_spending([spent(), spent(f"owner{number % 8}")], DAY), range(40)))
    rows = {each.owner: each for each in state.spending_of(DAY)}
    assert (rows["anna"].calls, rows["anna"].prompt_tokens, rows["anna"].cost_usd) == (40, 4000, 10.0)
    assert {owner: each.calls for owner, each in rows.items() if owner != "anna"} == {f"owner{n}": 5 for n in range(8)}


def test_deleting_a_conversation_does_not_give_money_back(state: State) -> None:
    """Spending holds no text and outlives what it was spent on."""
    conversation_id = state.create_conversation("anna", "When are expense reports due?")
    state.add_spending([spent()], DAY)
    state.delete_conversation("anna", conversation_id)
    assert [each.calls for each in state.spending_of(DAY)] == [1]
