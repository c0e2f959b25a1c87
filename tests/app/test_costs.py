"""What an answer cost: in the response, in the conversation, in the day's sum, and what a budget does about it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime

import pytest

from app.llm.backend import Usage
from app.llm.cost import Spent
from app.llm.fake.behaviour import FakeBehaviour
from app.llm.settings import BudgetSettings, LlmSettings, PriceSettings, ProviderSettings
from app.settings import AnswerSettings
from tests.app.serving import Serve, ServiceClient
from tests.servers import RunningFake, running_fake_llm

pytestmark = pytest.mark.anyio

QUESTION = "When are expense reports due?"
PRICE = PriceSettings(input_usd=2.0, cached_input_usd=0.5, output_usd=8.0, as_of=date(2026, 11, 1))


@pytest.fixture(scope="module")
def fake_server() -> Iterator[RunningFake]:
    with running_fake_llm() as fake:
        yield fake


@pytest.fixture
def fake(fake_server: RunningFake) -> RunningFake:
    """The fake LLM, which names the model that was asked."""
    fake_server.behave(FakeBehaviour(reply="{model} says within 30 days [1]", cached_tokens=10))
    fake_server.requests.clear()
    return fake_server


def llm_of(fake: RunningFake, *budgets: BudgetSettings, **changes: object) -> LlmSettings:
    """Two priced providers; `large` is the default."""
    providers = {name: ProviderSettings(base_url=fake.base_url, model=name) for name in ("large", "small")}
    values: dict[str, object] = {"default": "large", "providers": providers, "prices": {"large": PRICE}, "budgets": budgets}
    return LlmSettings.model_validate(values | changes)


async def ask(client: ServiceClient, **body: object) -> dict[str, object]:
    response = await client.post("/v1/ask", json={"question": QUESTION, **body})
    assert response.status_code == 200, response.text
    answer: dict[str, object] = response.json()
    return answer


def spent_usd(client: ServiceClient) -> float:
    """What the database says was spent today."""
    return sum(row.cost_usd for row in client.services.state.spending_of(datetime.now(UTC).date()))


async def test_the_cost_is_tokens_times_prices(serve: Serve, fake: RunningFake) -> None:
    """Uncached, cached and answer tokens at their own prices; the same in the conversation and in the day's sum."""
    async with serve(llm=llm_of(fake)) as client:
        answer = await ask(client)
        usage = answer["usage"]
        assert isinstance(usage, dict)
        assert (usage["completion_tokens"], usage["cached_tokens"], usage["estimated"]) == (6, 10, False)
        expected = ((usage["prompt_tokens"] - 10) * 2.0 + 10 * 0.5 + 6 * 8.0) / 1_000_000
        assert usage["cost_usd"] == pytest.approx(expected, abs=1e-12)
        conversation = (await client.get(f"/v1/conversations/{answer['conversation_id']}")).json()
        assert conversation["messages"][-1]["usage"] == usage
        assert spent_usd(client) == pytest.approx(expected, abs=1e-12)


async def test_what_a_stateless_caller_costs_is_counted_too(serve: Serve, fake: RunningFake) -> None:
    """Nothing of the turn is stored, but its cost counts towards the day."""
    async with serve(llm=llm_of(fake)) as client:
        answer = await ask(client, messages=[])
        usage = answer["usage"]
        assert isinstance(usage, dict)
        assert spent_usd(client) == pytest.approx(usage["cost_usd"], abs=1e-12)
        assert (await client.get("/v1/conversations")).json()["conversations"] == []


async def test_a_provider_that_reports_nothing_is_counted_and_marked(serve: Serve, fake: RunningFake) -> None:
    """The counts are ours, and say so."""
    fake.behave(FakeBehaviour(reply="within 30 days [1]", omit_usage=True))
    async with serve(llm=llm_of(fake)) as client:
        usage = (await ask(client))["usage"]
    assert isinstance(usage, dict)
    assert usage["estimated"] is True
    assert usage["prompt_tokens"] > 100
    assert usage["cost_usd"] > 0


async def test_a_model_on_this_machine_without_a_price_costs_nothing(serve: Serve, fake: RunningFake) -> None:
    """Its tokens are counted all the same."""
    async with serve(llm=llm_of(fake, prices={})) as client:
        usage = (await ask(client))["usage"]
        assert isinstance(usage, dict)
        assert usage["cost_usd"] == 0.0
        assert usage["prompt_tokens"] > 0


async def test_a_spent_budget_refuses_until_tomorrow(serve: Serve, fake: RunningFake) -> None:
    """429 with the seconds to midnight; the provider is not called, and quoting is still to be had by name."""
    budget = BudgetSettings(name="daily", max_tokens=2000)
    async with serve(llm=llm_of(fake, budget)) as client:
        while (response := await client.post("/v1/ask", json={"question": QUESTION})).status_code == 200:
            assert len(fake.requests) < 10
        calls = len(fake.requests)
        assert response.status_code == 429
        assert 0 < int(response.headers["retry-after"]) <= 86_400
        assert response.json()["type"] == "urn:archivist:problem:budget-spent"
        assert "'daily'" in response.json()["detail"]
        assert (await ask(client, provider="extractive"))["provider"] == "extractive"
        assert len(fake.requests) == calls


async def test_a_spent_budget_falls_to_a_cheaper_chain(serve: Serve, fake: RunningFake) -> None:
    """A money budget that is spent sends the question to the free model, and the route says why."""
    budget = BudgetSettings(name="daily", max_usd=0.0048, then=("small",))  # room for one estimate, and not for two
    async with serve(llm=llm_of(fake, budget)) as client:
        answers = [await ask(client) for _ in range(3)]
    assert [answer["provider"] for answer in answers] == ["large", "small", "small"]
    assert "budget 'daily'" in str(answers[-1]["route"])
    assert "small says" in str(answers[-1]["answer"])


async def test_a_budget_per_caller_is_each_callers_own(serve: Serve, fake: RunningFake) -> None:
    """What others spent does not count."""
    budget = BudgetSettings(name="each", per="caller", max_tokens=2000)
    async with serve(llm=llm_of(fake, budget)) as client:
        client.services.process.spending.add(Spent("somebody-else", "large", "large", Usage(5000, 0)))
        assert (await ask(client))["provider"] == "large"


async def test_what_was_spent_outlives_a_restart(serve: Serve, fake: RunningFake) -> None:
    """The day's sum is read from the database at the start."""
    async with serve(llm=llm_of(fake)) as client:
        await ask(client)
        before = client.services.process.spending.totals(None)
    async with serve(llm=llm_of(fake)) as client:
        assert client.services.process.spending.totals(None).tokens == before.tokens > 0
        metrics = (await client.get("/metrics")).text
    assert "archivist_cost_usd_total" in metrics


async def test_a_fixed_answer_asks_nobody(serve: Serve, fake: RunningFake) -> None:
    """A rule with an answer: no search, no model, no cost, and the route names the rule."""
    llm = llm_of(fake, routes=[{"name": "greeting", "when": {"exact": ["hello"]}, "answer": "Ask me about the handbook."}])
    async with serve(llm=llm) as client:
        response = await client.post("/v1/ask", json={"question": "Hello!"})
        answer = response.json()
    assert (answer["answer"], answer["provider"], answer["citations"]) == ("Ask me about the handbook.", "fixed", [])
    assert "rule 'greeting'" in answer["route"]
    assert answer["usage"]["prompt_tokens"] == 0
    assert fake.requests == []


async def test_a_rule_sends_weak_retrieval_to_the_larger_model(serve: Serve, fake: RunningFake) -> None:
    """The small model first; where the passages are far from the question, the large one."""
    llm = llm_of(
        fake,
        default="small",
        routes=[{"name": "weak", "when": {"max_coverage": 0.4}, "providers": ["large", "small"]}],
    )
    async with serve(llm=llm, answer=AnswerSettings(abstain_below=0)) as client:
        near = await ask(client)
        far = (await client.post("/v1/ask", json={"question": "Which zebra won the regatta in Lisbon harbour?"})).json()
    assert (near["provider"], far["provider"]) == ("small", "large")
    assert "rule 'weak' (coverage" in far["route"]
