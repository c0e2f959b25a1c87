"""More callers than there are places: who is answered, who is refused, how fast, and what the refusal says."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator, Sequence
from math import ceil
from pathlib import Path

import httpx
import openai
import pytest

from app.llm.fake.behaviour import FakeBehaviour, Recorded
from app.llm.settings import LlmSettings, ProviderSettings
from tests.app.serving import settings_of
from tests.app.sockets import QUESTION, Caller, Streamed, asked, eventually, open_sockets, resident_bytes, serving_here
from tests.servers import RunningFake, running_fake_llm

pytestmark = pytest.mark.anyio

CONCURRENT, QUEUED = 4, 4
ASKERS = 4 * (CONCURRENT + QUEUED)
COMES_BACK_S = 0.5
"""About how long a caller who was refused stays away; it was told to for longer."""

REFUSED_WITHIN_S = 0.1
NOTED_WITHIN_S = 0.1
GOODPUT = 0.9
MEMORY_BYTES = 32 * 2**20


@pytest.fixture(scope="module")
def fake_server() -> Iterator[RunningFake]:
    with running_fake_llm() as fake:
        yield fake


@pytest.fixture
def fake(fake_server: RunningFake) -> RunningFake:
    """The fake LLM, with nothing recorded."""
    fake_server.behave(FakeBehaviour())
    fake_server.requests.clear()
    return fake_server


def llm_of(fake: RunningFake, concurrent: int, queued: int) -> LlmSettings:
    """One provider with so many places, and nobody to step in."""
    acme = ProviderSettings(base_url=fake.base_url, model="fake", max_concurrent=concurrent, max_queued=queued)
    return LlmSettings(default="acme", providers={"acme": acme}, extractive_fallback=False)


def quantile(values: Sequence[float], share: float) -> float:
    """The value that so many of all do not exceed."""
    return sorted(values)[ceil(share * len(values)) - 1]


def busy_share(requests: Sequence[Recorded], since: float, until: float) -> float:
    """How much of its capacity the provider was kept at work, between two times."""
    spent = [min(request.ended_at or until, until) - max(request.arrived_at, since) for request in requests]
    return sum(max(0.0, each) for each in spent) / (CONCURRENT * (until - since))


def most_at_once(requests: Sequence[Recorded]) -> int:
    """How many calls the provider had at a time, at most; its last byte is sent a moment before it has noted the end."""
    ends = [((request.ended_at or 0) - NOTED_WITHIN_S, -1) for request in requests]
    changes = sorted([(request.arrived_at, 1) for request in requests] + ends)
    running = most = 0
    for _, change in changes:
        running += change
        most = max(most, running)
    return most


@pytest.mark.parametrize(
    ("answer_s", "lasts_s", "is_alone"),
    [(0.5, 4.0, False), pytest.param(2.0, 60.0, True, marks=pytest.mark.nightly)],
    ids=["short, on a shared machine", "long, alone"],
)
async def test_b1_four_times_as_many_callers_as_there_are_places(
    site: Path, fake: RunningFake, answer_s: float, lasts_s: float, is_alone: bool
) -> None:
    """The queue stays bounded, the rest is refused within 100 ms, whoever is let in is answered, and capacity is used."""
    fake.behave(FakeBehaviour(reply="Within 30 days [1]", first_token_delay_s=answer_s))
    results: list[Streamed] = []
    looks_s: list[float] = []
    most_waiting, seeded = 0, random.Random(4711)
    limits = httpx.Limits(max_connections=ASKERS + 1)
    async with (
        serving_here(settings_of(site / "data", llm=llm_of(fake, CONCURRENT, QUEUED))) as served,
        httpx.AsyncClient(base_url=served.address, timeout=60, limits=limits) as client,
    ):
        await asyncio.gather(*(asked(client) for _ in range(ASKERS)))
        fake.requests.clear()
        memory, sockets = resident_bytes(), open_sockets()
        ends_at = time.monotonic() + lasts_s

        async def come_again() -> None:
            nonlocal most_waiting
            await asyncio.sleep(COMES_BACK_S * seeded.random())
            while time.monotonic() < ends_at:
                result = await asked(client)
                results.append(result)
                most_waiting = max(most_waiting, served.provider("acme")["waiting"])
                if result.status != 200:
                    await asyncio.sleep(COMES_BACK_S * (0.5 + seeded.random()))

        async def look() -> None:
            while time.monotonic() < ends_at:
                began = time.perf_counter()
                assert (await client.get("/livez")).status_code == 200
                looks_s.append(time.perf_counter() - began)
                await asyncio.sleep(0.02)

        async with asyncio.TaskGroup() as group:
            group.create_task(look())
            for _ in range(ASKERS):
                group.create_task(come_again())
        grown = resident_bytes() - memory
        assert open_sockets() <= sockets + 2  # both ends of the connection of whoever looked
        assert (served.provider("acme")["running"], served.provider("acme")["waiting"]) == (0, 0)

    accepted = [result for result in results if result.status == 200]
    refused = [result for result in results if result.status != 200]
    assert {result.status for result in refused} == {429}
    assert all(1 <= int(result.retry_after or 0) <= 60 for result in refused)
    assert {(result.text, result.ended) for result in accepted} == {("Within 30 days [1]", "done")}
    assert len(accepted) == len(fake.requests)
    assert (most_at_once(fake.requests), most_waiting <= QUEUED) == (CONCURRENT, True)
    assert len(refused) > len(accepted) > lasts_s / answer_s
    # What else this machine is busy with delays a request that asks for nothing, too, and makes the slowest say little.
    share = 0.99 if is_alone else 0.5
    excused_s = 0.0 if is_alone else quantile(looks_s, share)
    # Between two answers a place waits for two such requests: the end of the one has to come here, the other to go there.
    wanted = GOODPUT * answer_s / (answer_s + 2 * excused_s)
    measured = {
        "refused within, s": quantile([result.took_s for result in refused], share),
        "excused, s": excused_s,
        "capacity used": busy_share(fake.requests, fake.requests[CONCURRENT - 1].arrived_at, ends_at),
        "memory grown, MiB": grown / 2**20,
    }
    assert measured["refused within, s"] <= REFUSED_WITHIN_S + excused_s, measured
    assert measured["capacity used"] >= wanted, (measured, wanted)
    assert grown <= MEMORY_BYTES, measured


async def test_b1_a_refusal_is_told_before_any_work_is_done(site: Path, fake: RunningFake) -> None:
    """With the only place taken, each way of asking is 429 with Retry-After, and nothing is stored, searched or sent."""
    fake.behave(FakeBehaviour(hang="first_token"))
    async with (
        serving_here(settings_of(site / "data", llm=llm_of(fake, 1, 0))) as served,
        httpx.AsyncClient(base_url=served.address, timeout=30) as client,
    ):
        holding = await Caller.asking(served.port, {"question": QUESTION, "stream": True})
        assert await eventually(lambda: fake.requests, 5)
        message = {"role": "user", "content": QUESTION}
        for stream in (False, True):
            response = await client.post("/v1/ask", json={"question": QUESTION, "stream": stream})
            assert (response.status_code, response.json()["type"]) == (429, "urn:archivist:problem:overloaded")
            assert int(response.headers["retry-after"]) >= 1
            response = await client.post("/v1/chat/completions", json={"messages": [message], "stream": stream})
            assert (response.status_code, response.json()["error"]["type"]) == (429, "rate_limit_error")
            assert int(response.headers["retry-after"]) >= 1
        assert (await client.get("/v1/conversations")).json()["conversations"] == []
        assert len(fake.requests) == 1
        holding.hang_up()
        fake.behave(FakeBehaviour())
        for _ in range(100):
            again = await asked(client)
            if again.status != 429:
                break
            await asyncio.sleep(0.02)
        assert (again.status, again.ended) == (200, "done")


async def test_b1_the_official_client_takes_it_for_a_rate_limit(site: Path, fake: RunningFake) -> None:
    """Our 429 is OpenAI's: its client raises RateLimitError with our Retry-After, and comes back by itself if it may."""
    async with (
        serving_here(settings_of(site / "data", llm=llm_of(fake, 1, 0))) as served,
        httpx.AsyncClient(base_url=served.address, timeout=30) as client,
        openai.AsyncOpenAI(base_url=f"{served.address}/v1", api_key="none", max_retries=0) as impatient,
        openai.AsyncOpenAI(base_url=f"{served.address}/v1", api_key="none", max_retries=3) as patient,
    ):
        for _ in range(8):  # so that the service has seen how short a wait is
            assert (await asked(client)).ended == "done"
        fake.behave(FakeBehaviour(reply="Within 30 days [1]", first_token_delay_s=0.8))
        fake.requests.clear()
        holding = await Caller.asking(served.port, {"question": QUESTION, "stream": True})
        assert await eventually(lambda: fake.requests, 5)
        for stream in (False, True):
            with pytest.raises(openai.RateLimitError) as caught:
                await impatient.chat.completions.create(
                    model="archivist", messages=[{"role": "user", "content": QUESTION}], stream=stream
                )
            assert (caught.value.code, caught.value.type) == ("overloaded", "rate_limit_error")
            assert 1 <= int(caught.value.response.headers["retry-after"]) <= 60
        completion = await patient.chat.completions.create(model="archivist", messages=[{"role": "user", "content": QUESTION}])
        assert completion.choices[0].message.content == "Within 30 days [1]"
        holding.hang_up()


async def test_b1_a_provider_asked_for_by_name_that_is_full_is_429(site: Path, fake: RunningFake) -> None:
    """Nobody steps in for it; in a stream, which has begun with its sources, the last event says the same."""
    fake.behave(FakeBehaviour(hang="first_token"))
    providers = {
        name: ProviderSettings(base_url=fake.base_url, model=name, max_concurrent=1, max_queued=0) for name in ("one", "two")
    }
    llm = LlmSettings(default="one", fallbacks=("two",), providers=providers)
    async with (
        serving_here(settings_of(site / "data", llm=llm)) as served,
        httpx.AsyncClient(base_url=served.address, timeout=30) as client,
    ):
        holding = await Caller.asking(served.port, {"question": QUESTION, "stream": True})
        assert await eventually(lambda: fake.requests, 5)
        plain = await client.post("/v1/ask", json={"question": QUESTION, "provider": "one"})
        assert (plain.status_code, int(plain.headers["retry-after"]) >= 1) == (429, True)
        streamed = await asked(client, provider="one")
        assert (streamed.ended, streamed.data["status"], streamed.text) == ("error", 429, "")
        holding.hang_up()
