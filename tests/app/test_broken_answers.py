"""Providers that fail in the middle of an answer, hang or die: what callers see of it, and what is stored."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionChunk

from app.llm.fake.behaviour import FakeBehaviour
from app.llm.settings import LlmSettings
from tests.app.serving import Serve, ServiceClient, settings_of
from tests.app.sockets import QUESTION, Streamed, asked, serving_here
from tests.servers import RunningFake, free_port, running_fake_llm, unanswering_port, unconnectable_port

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
LONGEST = 50
REPLY = " ".join(["{model}"] * 60)
FAULTS = ("cut_after_tokens", "end_after_tokens", "error_after_tokens", "malformed_event_after_tokens")
SOME = sorted({1, LONGEST, *random.Random(4711).sample(range(2, LONGEST), 3)})
POSITIONS = [
    pytest.param(SOME, id="some positions"),
    pytest.param(range(1, LONGEST + 1), marks=pytest.mark.nightly, id="all positions"),
]
SLACK_S = 1.0


@pytest.fixture(scope="module")
def fake_server() -> Iterator[RunningFake]:
    with running_fake_llm() as fake:
        yield fake


@pytest.fixture
def fake(fake_server: RunningFake) -> RunningFake:
    """The fake LLM, which names the model that was asked in each of its words."""
    fake_server.behave(FakeBehaviour(reply=REPLY))
    fake_server.requests.clear()
    return fake_server


def llm_of(fake: RunningFake, *, primary: dict[str, object] | None = None, **changes: object) -> LlmSettings:
    """`primary`, then `spare`, then quotations."""
    providers: dict[str, Any] = {
        name: {"base_url": fake.base_url, "model": name, "breaker_failures": 1_000_000, "max_concurrent": 32}
        for name in ("primary", "spare")
    }
    providers["primary"].update(primary or {})
    return LlmSettings.model_validate({"default": "primary", "fallbacks": ["spare"], "providers": providers, **changes})


async def answers_stored(client: ServiceClient) -> list[dict[str, Any]]:
    """The assistant's messages, of all conversations."""
    found = []
    for conversation in (await client.get("/v1/conversations", params={"limit": 200})).json()["conversations"]:
        shown = (await client.get(f"/v1/conversations/{conversation['conversation_id']}")).json()
        found += [message for message in shown["messages"] if message["role"] == "assistant"]
    return found


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("fault", FAULTS)
async def test_b4_a_stream_that_breaks_ends_in_an_error_and_nobody_goes_on(
    serve: Serve, fake: RunningFake, fault: str, positions: list[int]
) -> None:
    """After k words: those words and no other, then `error`, never `done`; stored as failed; the fallback is not asked."""
    async with serve(llm=llm_of(fake)) as client:
        for count in positions:
            fake.behave(FakeBehaviour(reply=REPLY, **{fault: count}))  # type: ignore[arg-type]
            got = await asked(client)
            assert (got.status, got.ended, got.text) == (200, "error", " ".join(["primary"] * count))
            assert (got.data["status"], "'primary'" in got.data["detail"]) == (502, True)
        kept = await answers_stored(client)
        assert {message["status"] for message in kept} == {"failed"}
        assert sorted(len(message["content"].split()) for message in kept) == list(positions)
    assert {request.json()["model"] for request in fake.requests} == {"primary"}
    assert len(fake.requests) == len(positions)


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("fault", FAULTS)
async def test_b4_a_whole_answer_that_breaks_is_an_error(
    serve: Serve, fake: RunningFake, fault: str, positions: list[int]
) -> None:
    """Who does not stream gets 502 and not a word of half an answer, in both formats; ours is stored as failed."""
    async with serve(llm=llm_of(fake)) as client:
        for count in positions:
            fake.behave(FakeBehaviour(reply=REPLY, **{fault: count}))  # type: ignore[arg-type]
            ours = await client.post("/v1/ask", json={"question": QUESTION})
            theirs = await client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": QUESTION}]})
            assert (ours.status_code, theirs.status_code) == (502, 502)
            assert ours.headers["content-type"] == "application/problem+json"
            assert "primary primary" not in ours.text + theirs.text
        assert [message["status"] for message in await answers_stored(client)] == ["failed"] * len(positions)
    assert {request.json()["model"] for request in fake.requests} == {"primary"}


async def read_into(chunks: list[ChatCompletionChunk], stream: openai.AsyncStream[ChatCompletionChunk]) -> None:
    """Keep what comes until it ends or fails."""
    async for chunk in stream:
        chunks.append(chunk)


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("fault", FAULTS)
async def test_b4_openais_client_raises_where_a_stream_breaks(
    site: Path, fake: RunningFake, fault: str, positions: list[int]
) -> None:
    """The words so far, then the official client's own exception; no finish reason and no second model's words."""
    async with (
        serving_here(settings_of(site / "data", llm=llm_of(fake))) as served,
        openai.AsyncOpenAI(base_url=f"{served.address}/v1", api_key="none", max_retries=0) as client,
    ):
        for count in positions:
            fake.behave(FakeBehaviour(reply=REPLY, **{fault: count}))  # type: ignore[arg-type]
            chunks: list[ChatCompletionChunk] = []
            stream = await client.chat.completions.create(
                model="archivist", messages=[{"role": "user", "content": QUESTION}], stream=True
            )
            with pytest.raises(openai.APIError):
                await read_into(chunks, stream)
            assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == " ".join(["primary"] * count)
            assert {chunk.choices[0].finish_reason for chunk in chunks} == {None}
    assert {request.json()["model"] for request in fake.requests} == {"primary"}


@pytest.mark.parametrize("how", ["refused connection", "connection that hangs", "no such path", "silence"])
async def test_b3_before_the_first_word_the_fallback_answers_and_nobody_notices(
    serve: Serve, fake: RunningFake, how: str
) -> None:
    """A failure before the first word ends in one whole answer by the next provider, which the route tells of."""
    with unconnectable_port() as unconnectable, unanswering_port() as unanswering:
        base_url = {
            "refused connection": f"http://127.0.0.1:{free_port()}/v1",
            "connection that hangs": f"http://127.0.0.1:{unconnectable}/v1",
            "no such path": fake.google_base_url,
            "silence": f"http://127.0.0.1:{unanswering}/v1",
        }[how]
        limits = {"connect_timeout_s": 0.3, "first_token_timeout_s": 0.3}
        async with serve(llm=llm_of(fake, primary={"base_url": base_url, **limits})) as client:
            got = await asked(client)
            assert (got.ended, got.sources, got.text) == ("done", 1, " ".join(["spare"] * 60))
            assert got.data["provider"] == "spare"
            assert got.data["route"].startswith("fallback: provider 'primary' failed: ")
            assert [message["status"] for message in await answers_stored(client)] == ["complete"]


async def test_b3_retries_queue_and_fallbacks_keep_the_deadline_of_an_answer(serve: Serve, fake: RunningFake) -> None:
    """32 callers, two providers that hang, two places, retries: after answer_within_s and a second nobody waits any more."""
    fake.behave(FakeBehaviour(hang="first_token"))
    at: dict[str, object] = {"max_concurrent": 2, "max_queued": 30, "retries": 3, "first_token_timeout_s": 0.9}
    providers = {name: {"base_url": fake.base_url, "model": name, **at} for name in ("one", "two")}
    llm = {"default": "one", "fallbacks": ["two"], "providers": providers, "extractive_fallback": False, "answer_within_s": 1.5}
    async with serve(llm=LlmSettings.model_validate(llm)) as client:
        await client.post("/v1/search", json={"query": QUESTION})
        began = time.monotonic()
        await asyncio.gather(*(client.post("/v1/search", json={"query": QUESTION}) for _ in range(32)))
        searched_s = 0.5 + time.monotonic() - began  # until all 32 have their passages, whatever else this machine does
        streams = await asyncio.gather(*(asked(client) for _ in range(16)), *(asked(client, provider="one") for _ in range(16)))
        assert {got.ended for got in streams} == {"error"}
        assert {got.data["status"] for got in streams} <= {503, 504}
        assert max(got.took_s for got in streams) < 1.5 + SLACK_S + searched_s
        providers_now = client.services.gateway.status()["providers"]
    assert isinstance(providers_now, dict)
    assert [(each["running"], each["waiting"]) for each in providers_now.values()] == [(0, 0), (0, 0)]


@pytest.mark.parametrize("stage", ["connect", "TLS", "headers", "first token", "between tokens", "total"])
async def test_b6_a_hang_ends_with_a_typed_error(serve: Serve, fake: RunningFake, stage: str) -> None:
    """Wherever a provider hangs, its caller gets 504 in time; in a stream as the last event."""
    with unconnectable_port() as unconnectable, unanswering_port() as unanswering:
        stages: dict[str, tuple[dict[str, object], FakeBehaviour]] = {
            "connect": ({"base_url": f"http://127.0.0.1:{unconnectable}/v1", "connect_timeout_s": 0.3}, FakeBehaviour()),
            "TLS": ({"base_url": f"https://127.0.0.1:{unanswering}/v1", "connect_timeout_s": 0.3}, FakeBehaviour()),
            "headers": ({"first_token_timeout_s": 0.3}, FakeBehaviour(hang="headers")),
            "first token": ({"first_token_timeout_s": 0.3}, FakeBehaviour(hang="first_token")),
            "between tokens": ({"between_tokens_timeout_s": 0.3}, FakeBehaviour(hang="between_tokens")),
            "total": ({"total_timeout_s": 0.3}, FakeBehaviour(tokens=500, tokens_per_second=20)),
        }
        primary, behaviour = stages[stage]
        fake.behave(behaviour)
        async with serve(llm=llm_of(fake, primary=primary)) as client:
            await client.post("/v1/search", json={"query": QUESTION})
            got = await asked(client, provider="primary")
            plain = await client.post("/v1/ask", json={"question": QUESTION, "provider": "primary"})
    assert (got.ended, got.data["status"], got.data["type"]) == ("error", 504, "urn:archivist:problem:backend-timeout")
    assert bool(got.text) == (stage in ("between tokens", "total"))
    assert 0.3 < got.took_s < 0.3 + SLACK_S
    assert (plain.status_code, plain.json()["type"]) == (504, "urn:archivist:problem:backend-timeout")


KILLED = """
import sys
from app.llm.fake.behaviour import FakeBehaviour
from app.llm.fake.server import run_fake_llm
behaviour = FakeBehaviour(reply=sys.argv[1], first_token_delay_s=float(sys.argv[2]), tokens_per_second=float(sys.argv[3]))
run_fake_llm("127.0.0.1", 0, behaviour, on_ready=lambda address: print(address, flush=True))
"""


@contextmanager
def fake_in_a_process(first_token_delay_s: float, tokens_per_second: float) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A fake LLM that can be killed; its address and its process."""
    knobs = [REPLY, str(first_token_delay_s), str(tokens_per_second)]
    with subprocess.Popen([sys.executable, "-c", KILLED, *knobs], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            address = process.stdout.readline().strip()
            assert address.startswith("http://127.0.0.1:"), "the fake LLM did not start"
            yield f"{address}/v1", process
        finally:
            process.kill()


@pytest.mark.parametrize("seed", [4711, *(pytest.param(seed, marks=pytest.mark.nightly) for seed in range(10))])
async def test_b5_a_provider_that_is_killed_under_load(site: Path, fake: RunningFake, seed: int) -> None:
    """Who had seen a word gets `error`, who had not gets the fallback's whole answer; none hangs, none is half an answer."""
    # Killed at somebody's first word and not at some time: how far the others are by then hangs on what else is going on here.
    streams, arriving_s, killed_at_word_of = 20, 1.0, random.Random(seed).randint(4, 14)
    begun = 0
    with fake_in_a_process(0.7, 10) as (address, process):
        llm = llm_of(fake, primary={"base_url": address})
        async with (
            serving_here(settings_of(site / "data", llm=llm)) as served,
            httpx.AsyncClient(base_url=served.address, timeout=30) as client,
        ):
            await client.post("/v1/search", json={"query": QUESTION})

            def one_more() -> None:
                nonlocal begun, killed_at
                begun += 1
                if begun == killed_at_word_of:
                    process.kill()
                    killed_at = time.monotonic()

            async def ask_at(number: int) -> Streamed:
                await asyncio.sleep(arriving_s * number / streams)
                return await asked(client, begun=one_more)

            killed_at = 0.0
            results = await asyncio.gather(*(ask_at(number) for number in range(streams)))
            lasted_s = time.monotonic() - killed_at
            assert served.provider("primary")["running"] == served.provider("spare")["running"] == 0
            later = await asked(client)
    spared = [got for got in results if got.ended == "done"]
    broken = [got for got in results if got.ended == "error"]
    assert len(spared) + len(broken) == streams
    assert {(got.text, got.data["provider"]) for got in spared} == {(" ".join(["spare"] * 60), "spare")}
    assert all(set(got.text.split()) == {"primary"} and len(got.text.split()) < 60 for got in broken)
    assert min(len(spared), len(broken)) >= 2
    assert lasted_s < 5
    assert (later.ended, set(later.text.split())) == ("done", {"spare"})
    assert "127.0.0.1" not in json.dumps(later.data)
