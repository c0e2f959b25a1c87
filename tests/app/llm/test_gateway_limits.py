"""What binds all calls of one question, and all questions to one provider: money, time, and a wish to be left alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import pytest

from app.llm.backend import Delta, Finished, Prompt, Usage
from app.llm.budgets import Spending
from app.llm.fake.behaviour import FakeBehaviour
from app.llm.gateway import Gateway
from app.llm.plan import Asker, Route
from app.llm.settings import LlmSettings
from app.metrics import Metrics
from corpus.errors import ArchivistError, BudgetSpent, Overloaded
from corpus.settings import LabelSettings
from corpus.types import Message
from tests.app.llm.test_gateway import Quoting
from tests.servers import RunningFake

pytestmark = pytest.mark.anyio

PRICE = {"input_usd": 1000, "output_usd": 1000, "as_of": "2026-11-23"}
Make = Callable[..., Gateway]


@pytest.fixture
async def gateway_of(fake: RunningFake) -> AsyncIterator[Make]:
    """Makes a gateway; providers are given by what differs from the fake's address and a model of their own name."""
    opened: list[Gateway] = []

    def make(providers: dict[str, dict[str, Any]], metrics: Metrics | None = None, **llm: Any) -> Gateway:
        complete = {name: {"base_url": fake.base_url, "model": name, "retries": 0, **own} for name, own in providers.items()}
        first, *others = complete
        values = {"default": first, "fallbacks": others, "providers": complete, **llm}
        gateway = Gateway(LlmSettings.model_validate(values), LabelSettings(), Quoting(), Spending(), metrics or Metrics())
        opened.append(gateway)
        return gateway

    yield make
    for gateway in opened:
        await gateway.close()


def prompt_of(label: str = "internal") -> Prompt:
    return Prompt(messages=(Message("user", "How many days of leave?"),), label=label, max_tokens=16)


async def ask(gateway: Gateway, asker: Asker | None = None, label: str = "internal") -> tuple[str, str]:
    """Who answered, and why. Raises what the gateway raises."""
    routes: list[Route] = []
    async with aclosing(gateway.stream(prompt_of(label), asker or Asker("me"))) as events:
        async for event in events:
            if isinstance(event, Route):
                routes.append(event)
    return routes[-1].provider, routes[-1].reason


async def test_money_that_is_spent_leaves_the_free_ones_of_a_chain(gateway_of: Make) -> None:
    """The paid fallback is left out; the local default, which costs nothing, answers on."""
    gateway = gateway_of({"local": {}, "paid": {}}, prices={"paid": PRICE}, budgets=[{"name": "daily", "max_usd": 0.000001}])
    assert (await ask(gateway))[0] == "local"


async def test_a_provider_that_may_not_see_the_prompt_does_not_count_for_the_budget(
    gateway_of: Make, fake: RunningFake
) -> None:
    """Clearance is decided first: what the paid one would cost is nobody's business where it is not asked."""
    gateway = gateway_of(
        {"local": {}, "paid": {"clearance": "public"}}, prices={"paid": PRICE}, budgets=[{"name": "daily", "max_usd": 0.000001}]
    )
    assert (await ask(gateway, label="confidential"))[0] == "local"


async def test_each_further_provider_of_a_chain_must_fit_the_budget(gateway_of: Make, fake: RunningFake) -> None:
    """Three that take the prompt and answer nothing are paid for; the budget has no room for all of them."""
    fake.behave(FakeBehaviour(hang="first_token"))
    paid = {"first_token_timeout_s": 0.2}
    gateway = gateway_of(
        {"a": paid, "b": paid, "c": paid},
        prices=dict.fromkeys("abc", PRICE),
        budgets=[{"name": "daily", "max_usd": 0.04}],
        extractive_fallback=False,
    )
    asker = Asker("me")
    with pytest.raises(BudgetSpent, match="'daily'"):
        await ask(gateway, asker)
    assert asker.usage.cost_usd is not None
    assert 0 < asker.usage.cost_usd <= 0.04
    assert len(fake.requests) < 3


async def test_a_retry_after_holds_for_every_call(gateway_of: Make, fake: RunningFake) -> None:
    """While one call waits as it was told, no other goes out, new or tried again."""
    fake.behave(FakeBehaviour(status=429, retry_after="1"))
    gateway = gateway_of({"acme": {"retries": 1, "breaker_failures": 100}})
    first = asyncio.create_task(ask(gateway))
    await asyncio.sleep(0.3)
    others = [await ask(gateway) for _ in range(3)]
    assert [provider for provider, _ in others] == ["extractive"] * 3
    assert "left alone" in others[0][1]
    await first
    times = [request.arrived_at for request in fake.requests]
    assert len(times) == 2
    assert times[1] - times[0] >= 1.0


async def test_a_retry_after_of_years_is_cut_to_minutes(gateway_of: Make, fake: RunningFake) -> None:
    """A provider that asks for thirty years is tried again the same day."""
    fake.behave(FakeBehaviour(status=429, retry_after="999999999"))
    gateway = gateway_of({"acme": {}})
    await ask(gateway)
    assert 0 < gateway._providers["acme"].breaker.opens_in_s <= 900


async def test_one_deadline_covers_the_rewrite_and_the_answer(gateway_of: Make, fake: RunningFake) -> None:
    """What the rewrite took is gone for the answer."""
    fake.behave(FakeBehaviour(hang="first_token"))
    gateway = gateway_of({"acme": {}}, answer_within_s=1)
    asker = Asker("me")
    began = time.monotonic()
    with pytest.raises(ArchivistError):
        await gateway.complete(prompt_of(), asker, timeout_s=0.6)
    assert (await ask(gateway, asker))[0] == "extractive"
    assert time.monotonic() - began < 1.5


async def test_a_full_default_does_not_close_the_door_to_another_provider(gateway_of: Make) -> None:
    """Who is asked for by name has places of its own."""
    gateway = gateway_of({"small": {"max_concurrent": 1, "max_queued": 0}, "big": {}}, fallbacks=[])
    with gateway.entered():
        with pytest.raises(Overloaded), gateway.entered():
            pass
        with gateway.entered("big"), gateway.entered("big"):
            pass


async def test_whatever_a_backend_raises_the_chain_goes_on(gateway_of: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that nobody foresaw is the provider's failure, and the next one answers."""
    gateway = gateway_of({"acme": {}, "spare": {}})

    async def broken(_prompt: Prompt) -> AsyncIterator[Delta | Finished]:
        raise OverflowError("what was sent is too large")
        yield Finished(Usage())

    monkeypatch.setattr(gateway._providers["acme"].backend, "stream", broken)
    provider, reason = await ask(gateway)
    assert (provider, reason) == ("spare", "fallback: provider 'acme' failed: its answer was cut off or is not the protocol")


async def test_gauges_show_only_what_there_is(gateway_of: Make, fake: RunningFake) -> None:
    """A provider and a budget that a reload removed are not shown any more."""
    metrics = Metrics()
    fake.behave(FakeBehaviour(status=500))
    old = gateway_of({"gone": {"breaker_failures": 1}}, metrics, budgets=[{"name": "old", "max_tokens": 10**6}])
    await old.start()
    await ask(old)
    assert 'archivist_llm_breaker_open{provider="gone"} 1.0' in metrics.text().decode()
    await gateway_of({"new": {}}, metrics, budgets=[{"name": "young", "max_tokens": 10**6}]).start()
    shown = metrics.text().decode()
    assert 'archivist_llm_breaker_open{provider="new"} 0.0' in shown
    assert 'archivist_budget_used_share{budget="young"} 0.0' in shown
    assert 'breaker_open{provider="gone"}' not in shown
    assert 'budget="old"' not in shown
