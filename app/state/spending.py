"""What was spent, by day, owner and model: what budgets begin from after a restart. No text, only numbers and names."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from app.llm.cost import SpendingRow, Spent
from app.state.database import Database
from app.state.tables import spending

_COUNTED = ("calls", "prompt_tokens", "cached_tokens", "completion_tokens", "cost_usd", "unpriced_calls")


class DailySpending(Database):
    """What is kept of spending."""

    def add_spending(self, rows: Sequence[Spent], day: date | None = None) -> None:
        """Count calls towards a day (UTC; None = today) in one transaction. Deleting conversations does not undo it."""
        if not rows:
            return
        day = day or datetime.now(UTC).date()
        upsert = insert(spending)
        sums = {name: spending.c[name] + upsert.excluded[name] for name in _COUNTED}
        with self._write() as connection:
            connection.execute(upsert.on_conflict_do_update(set_=sums), [_values(day, spent) for spent in rows])

    def spending_of(self, day: date) -> tuple[SpendingRow, ...]:
        """What was spent on a day (UTC). Order: owner, provider, model."""
        return self._spending(spending.c.day == day.isoformat())

    def spending_since(self, day: date) -> tuple[SpendingRow, ...]:
        """What was spent on a day and after it (UTC). Order: day, owner, provider, model."""
        return self._spending(spending.c.day >= day.isoformat())

    def _spending(self, condition: sa.ColumnElement[bool]) -> tuple[SpendingRow, ...]:
        query = sa.select(spending).where(condition).order_by(*spending.primary_key)
        with self._read() as connection:
            rows = connection.execute(query).all()
        return tuple(SpendingRow(date.fromisoformat(row.day), *row[1:]) for row in rows)


def _values(day: date, spent: Spent) -> dict[str, Any]:
    usage = spent.usage
    return {
        "day": day.isoformat(),
        "owner": spent.owner,
        "provider": spent.provider,
        "model": spent.model,
        "calls": 1,
        "prompt_tokens": usage.prompt_tokens,
        "cached_tokens": usage.cached_tokens,
        "completion_tokens": usage.completion_tokens,
        "cost_usd": usage.cost_usd or 0.0,
        "unpriced_calls": int(usage.cost_usd is None),
    }
