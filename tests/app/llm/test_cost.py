"""Tokens times prices."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.llm.backend import Usage
from app.llm.cost import priced
from app.llm.settings import LlmSettings

FAR = {"base_url": "https://llm.example.com/v1", "clearance": "public"}
NEAR = {"base_url": "http://127.0.0.1:11434/v1"}


def settings(**prices: dict[str, float]) -> LlmSettings:
    """Three providers, two of which have the same model, and prices."""
    values: dict[str, Any] = {
        "providers": {
            "cloud": {**FAR, "model": "large-7"},
            "reseller": {**FAR, "model": "large-7"},
            "near": {**NEAR, "model": "gemma"},
            "embedded": {"kind": "llamacpp", "model_path": "gemma.gguf", "model": "gemma"},
        },
        "prices": {name.replace("_", "-"): {**price, "as_of": "2026-11-23"} for name, price in prices.items()},
    }
    return LlmSettings.model_validate(values)


def test_a_cost_is_tokens_times_the_price_of_a_million() -> None:
    """1,200 tokens in at $ 3 and 350 out at $ 15 a million cost $ 0.00885."""
    usage = priced(Usage(1200, 350, estimated=True), "cloud", settings(cloud={"input_usd": 3, "output_usd": 15}))
    assert usage == Usage(1200, 350, cost_usd=0.00885, estimated=True)


def test_cached_tokens_have_their_own_price() -> None:
    """Of 1,000 tokens 900 were cached at a tenth: 100 x 3 + 900 x 0.3 + 10 x 15 = 720 millionths."""
    prices = settings(cloud={"input_usd": 3, "cached_input_usd": 0.3, "output_usd": 15})
    assert priced(Usage(1000, 10, cached_tokens=900), "cloud", prices).cost_usd == 0.00072


def test_a_cache_may_be_free() -> None:
    """A price of zero for cached tokens is a price, not a missing one."""
    prices = settings(cloud={"input_usd": 3, "cached_input_usd": 0, "output_usd": 15})
    assert priced(Usage(1000, 0, cached_tokens=900), "cloud", prices).cost_usd == 0.0003


def test_without_a_price_of_their_own_cached_tokens_cost_what_others_do() -> None:
    """No cached_input_usd means input_usd."""
    prices = settings(cloud={"input_usd": 3, "output_usd": 15})
    assert priced(Usage(1000, 0, cached_tokens=900), "cloud", prices).cost_usd == 0.003


def test_more_cached_than_sent_costs_no_less_than_all_cached() -> None:
    """A provider's wrong count does not make a call earn money."""
    prices = settings(cloud={"input_usd": 3, "cached_input_usd": 0.3, "output_usd": 15})
    assert priced(Usage(1000, 0, cached_tokens=5000), "cloud", prices).cost_usd == 0.0003


def test_the_providers_own_price_comes_before_its_models() -> None:
    """Two providers of one model: the one with a price of its own has that, the other the model's."""
    prices = settings(reseller={"input_usd": 4, "output_usd": 0}, large_7={"input_usd": 3, "output_usd": 0})
    million = Usage(1_000_000)
    assert priced(million, "cloud", prices).cost_usd == 3
    assert priced(million, "reseller", prices).cost_usd == 4


def test_a_cost_is_exact_to_the_last_token() -> None:
    """One token at $ 0.075 a million is 75 billionths, not a float beside it; three at $ 0.1 are $ 0.0000003."""
    assert priced(Usage(1, 0), "cloud", settings(cloud={"input_usd": 0.075, "output_usd": 0})).cost_usd == 7.5e-08
    assert priced(Usage(0, 3), "cloud", settings(cloud={"input_usd": 0, "output_usd": 0.1})).cost_usd == 3e-07


@pytest.mark.parametrize(
    ("provider", "cost_usd"),
    [("cloud", None), ("near", 0.0), ("embedded", 0.0), ("extractive", 0.0), ("removed", None)],
)
def test_without_a_price_only_what_runs_here_is_free(provider: str, cost_usd: float | None) -> None:
    """Elsewhere a missing price is not known rather than zero, and so is that of a provider which is not configured."""
    assert priced(Usage(1000, 10), provider, settings()).cost_usd == cost_usd


def test_what_runs_here_may_have_a_price() -> None:
    """Electricity is not free: a price that is given counts for a provider on this machine too."""
    assert priced(Usage(1_000_000), "near", settings(gemma={"input_usd": 0.02, "output_usd": 0})).cost_usd == 0.02


def test_extractive_is_free_whatever_the_prices_say() -> None:
    """The built-in backend calls nobody."""
    assert priced(Usage(10, 10), "extractive", settings(cloud={"input_usd": 5, "output_usd": 5})).cost_usd == 0


@given(
    prompt=st.integers(0, 10**7),
    cached=st.integers(0, 10**7),
    completion=st.integers(0, 10**6),
    cents=st.tuples(st.integers(0, 10_000), st.integers(0, 10_000), st.integers(0, 10_000)),
)
def test_the_cost_is_that_of_whole_numbers(prompt: int, cached: int, completion: int, cents: tuple[int, int, int]) -> None:
    """For prices in whole cents the cost is the same as counted in integers."""
    cached_cents, input_cents = sorted(cents[:2])
    output_cents = cents[2]
    prices = settings(
        cloud={
            "input_usd": input_cents / 100,
            "cached_input_usd": cached_cents / 100,
            "output_usd": output_cents / 100,
        }
    )
    cached_counted = min(cached, prompt)
    hundred_millionths = (prompt - cached_counted) * input_cents + cached_counted * cached_cents + completion * output_cents
    cost = priced(Usage(prompt, completion, cached_tokens=cached), "cloud", prices).cost_usd
    assert cost == pytest.approx(hundred_millionths / 10**8, rel=1e-12, abs=1e-12)
