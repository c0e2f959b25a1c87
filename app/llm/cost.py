"""What a call cost: tokens times the prices of the configuration. Pure; imports only settings and types of ours."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date

from app.llm.backend import Usage
from app.llm.settings import EXTRACTIVE, LlmSettings, PriceSettings

TOKENS_PRICED = 1_000_000
"""Tokens that a price is for."""

DECIMALS = 12
"""Of a cost in US dollars: a price per million tokens with six decimals is still exact."""


@dataclass(frozen=True, slots=True)
class Spent:
    """One call that was made: for whom, by whom, and what it took; its `usage` is priced."""

    owner: str
    provider: str
    model: str
    usage: Usage


@dataclass(frozen=True, slots=True)
class SpendingRow:
    """All calls of one owner to one model in one day (UTC).

    `cost_usd` is the sum of what is known; `unpriced_calls` are those whose price is not.
    """

    day: date
    owner: str
    provider: str
    model: str
    calls: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    cost_usd: float
    unpriced_calls: int


def priced(usage: Usage, provider: str, settings: LlmSettings) -> Usage:
    """The usage of a call to `provider` with its cost.

    cost = ((prompt - cached) x input + cached x cached_input + completion x output) / 1,000,000, rounded to 12 decimals.
    The price is the provider's own in `prices`, else the one of its model's name. Without either, what runs on this machine
    costs nothing, and elsewhere the cost is not known: None.
    """
    return replace(usage, cost_usd=_cost_usd(usage, provider, settings))


def _cost_usd(usage: Usage, provider: str, settings: LlmSettings) -> float | None:
    if provider == EXTRACTIVE:
        return 0.0
    configured = settings.providers.get(provider)
    price = settings.prices.get(provider)
    if price is None and configured is not None:
        price = settings.prices.get(configured.model)
    if price is not None:
        return _of_tokens(usage, price)
    return 0.0 if configured is not None and configured.is_local else None


def _of_tokens(usage: Usage, price: PriceSettings) -> float:
    cached_input_usd = price.input_usd if price.cached_input_usd is None else price.cached_input_usd
    # A provider that reports more cached than it was sent would make the rest of the prompt cost less than nothing.
    cached = min(usage.cached_tokens, usage.prompt_tokens)
    dollars = (
        (usage.prompt_tokens - cached) * price.input_usd
        + cached * cached_input_usd
        + usage.completion_tokens * price.output_usd
    )
    return round(dollars / TOKENS_PRICED, DECIMALS)
