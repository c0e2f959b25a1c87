"""Callers who leave without a word: the provider is told within a second, and nothing of them stays behind."""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from app.access import authenticate
from app.llm.fake.behaviour import FakeBehaviour
from app.llm.settings import LlmSettings, ProviderSettings
from app.state.messages import StoredMessage
from corpus.embedders.embedder import Embedder
from corpus.types import Vectors
from tests.app.serving import settings_of
from tests.app.sockets import QUESTION, Caller, Served, asked, eventually, open_sockets, serving_here
from tests.servers import RunningFake, running_fake_llm

pytestmark = pytest.mark.anyio

NOTICED_WITHIN_S = 1.0
COUNTS = [10, pytest.param(200, marks=pytest.mark.nightly)]
WAYS: dict[str, tuple[str, dict[str, object]]] = {
    "stream": ("/v1/ask", {"question": QUESTION, "stream": True}),
    "whole": ("/v1/ask", {"question": QUESTION}),
    "openai": ("/v1/chat/completions", {"messages": [{"role": "user", "content": QUESTION}], "stream": True}),
}
WORDS = " ".join(f"word{number}" for number in range(1, 500))


class HeldEmbedder:
    """The real embedder, whose questions can be held up for as long as a test wants."""

    def __init__(self, real: Embedder) -> None:
        self._real = real
        self.engine, self.graph = real.engine, real.graph
        self.model, self.fingerprint, self.dimension = real.model, real.fingerprint, real.dimension
        self.max_tokens, self.special_tokens = real.max_tokens, real.special_tokens
        self.free, self.arrived = threading.Event(), threading.Event()
        self.free.set()

    def count_tokens(self, text: str) -> int:
        return self._real.count_tokens(text)

    def embed_documents(self, texts: Sequence[str]) -> Vectors:
        return self._real.embed_documents(texts)

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        self.arrived.set()
        assert self.free.wait(30), "nobody let the question go on"
        return self._real.embed_queries(texts)


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


def llm_of(fake: RunningFake, queued: int = 0) -> LlmSettings:
    """One provider with one place, so that a place which is lost is a place too many."""
    acme = ProviderSettings(base_url=fake.base_url, model="fake", max_concurrent=1, max_queued=queued)
    return LlmSettings(default="acme", providers={"acme": acme}, extractive_fallback=False)


def stored(served: Served) -> list[StoredMessage]:
    """Every answer in the database."""
    state, owner = served.services.state, authenticate(served.services.settings.server, None).owner
    conversations, _ = state.conversations(owner, None, 1000)
    found = [message for each in conversations for message in state.messages(owner, each.conversation_id)[0]]
    return [message for message in found if message.role == "assistant"]


def completion_tokens(served: Served) -> int:
    """What the database says was written for us today."""
    return sum(row.completion_tokens for row in served.services.state.spending_of(datetime.now(UTC).date()))


def prompt_tokens(served: Served) -> int:
    """What the database says was sent today."""
    return sum(row.prompt_tokens for row in served.services.state.spending_of(datetime.now(UTC).date()))


class Baseline:
    """What the service held before anybody left."""

    def __init__(self) -> None:
        self._tasks, self._sockets = len(asyncio.all_tasks()), open_sockets()

    async def is_back(self, served: Served) -> bool:
        """Whether no more is held than then, within a second or two."""

        def holds_no_more() -> bool:
            provider = served.provider("acme")
            return (provider["running"], provider["waiting"], open_sockets() <= self._sockets) == (0, 0, True)

        back = await eventually(holds_no_more, 2)
        for _ in range(100):
            if len(asyncio.all_tasks()) <= self._tasks:
                return back
            await asyncio.sleep(0.02)
        return False


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("moment", ["headers", "first_token", "mid-stream"])
async def test_b2_the_provider_notices_that_the_caller_left(site: Path, fake: RunningFake, moment: str, count: int) -> None:
    """Before the first word or after some, in each way of asking: the call ends within 1 s, each time; nothing stays behind."""
    seeded = random.Random(4711)
    slowest, with_words = 0.0, 0
    async with (
        serving_here(settings_of(site / "data", llm=llm_of(fake))) as served,
        httpx.AsyncClient(base_url=served.address, timeout=30) as client,
    ):
        assert (await asked(client)).ended == "done"
        baseline = Baseline()
        for _ in range(count):
            fake.requests.clear()
            way = seeded.choice(list(WAYS))
            if moment == "mid-stream":
                fake.behave(FakeBehaviour(reply=WORDS, tokens_per_second=200))
            else:
                fake.behave(FakeBehaviour(hang="headers" if moment == "headers" else "first_token"))
            path, body = WAYS[way]
            caller = await Caller.asking(served.port, body, path)
            assert await eventually(lambda: fake.requests, 5)
            if moment == "mid-stream" and way != "whole":
                await caller.sees(b"word3")
            elif moment == "mid-stream":
                assert await eventually(lambda: fake.requests[0].tokens_sent > 3, 5)
            with_words += moment == "mid-stream" and way != "openai"
            await asyncio.sleep(seeded.random() * 0.02)
            left_at = time.monotonic()
            caller.hang_up()
            assert await eventually(lambda: fake.requests[0].ended_at, 5)
            assert fake.requests[0].closed_early
            slowest = max(slowest, (fake.requests[0].ended_at or 0.0) - left_at)
            assert await baseline.is_back(served)
        assert slowest < NOTICED_WITHIN_S
        assert sorted(message.status for message in stored(served)) == ["cancelled"] * with_words + ["complete"]
        fake.behave(FakeBehaviour())
        assert (await asked(client)).ended == "done"
        assert served.provider("acme")["breaker"] == "closed"


@pytest.mark.parametrize("count", COUNTS)
async def test_b2_leaving_during_retrieval_calls_nobody(site: Path, fake: RunningFake, embedder: Embedder, count: int) -> None:
    """A caller who leaves while passages are looked for costs no call, in each way of asking; nothing stays behind."""
    seeded, held = random.Random(4711), HeldEmbedder(embedder)
    async with (
        serving_here(settings_of(site / "data", llm=llm_of(fake)), held) as served,
        httpx.AsyncClient(base_url=served.address, timeout=30) as client,
    ):
        assert (await asked(client)).ended == "done"
        fake.requests.clear()
        baseline = Baseline()
        for _ in range(count):
            held.arrived.clear()
            held.free.clear()
            path, body = WAYS[seeded.choice(list(WAYS))]
            caller = await Caller.asking(served.port, body, path)
            assert await eventually(held.arrived.is_set, 5)
            caller.hang_up()
            await asyncio.sleep(seeded.random() * 0.03)
            held.free.set()
            assert await baseline.is_back(served)
        assert fake.requests == []
        assert [message.status for message in stored(served)] == ["complete"]
        assert (await asked(client)).ended == "done"


async def test_b2_leaving_the_queue_calls_nobody(site: Path, fake: RunningFake) -> None:
    """A caller who leaves while waiting for a place gives the place in the queue to the next, and costs no call."""
    fake.behave(FakeBehaviour(hang="first_token"))
    async with (
        serving_here(settings_of(site / "data", llm=llm_of(fake, queued=1))) as served,
        httpx.AsyncClient(base_url=served.address, timeout=30) as client,
    ):
        holding = await Caller.asking(served.port, WAYS["stream"][1])
        assert await eventually(lambda: fake.requests, 5)
        for _ in range(5):
            waiting = await Caller.asking(served.port, WAYS["stream"][1])
            assert await eventually(lambda: served.provider("acme")["waiting"] == 1, 5)
            waiting.hang_up()
            assert await eventually(lambda: served.provider("acme")["waiting"] == 0, NOTICED_WITHIN_S)
        holding.hang_up()
        assert await eventually(lambda: fake.requests[0].closed_early, NOTICED_WITHIN_S)
        fake.behave(FakeBehaviour())
        assert (await asked(client)).ended == "done"
        assert len(fake.requests) == 2


async def test_b2_what_had_come_is_stored_as_cancelled_and_counted(site: Path, fake: RunningFake) -> None:
    """The words shown are kept and marked; their tokens are an estimate of ours, in the conversation and in the day's sum."""
    async with (
        serving_here(settings_of(site / "data", llm=llm_of(fake))) as served,
        httpx.AsyncClient(base_url=served.address, timeout=30) as client,
    ):
        assert (await asked(client)).ended == "done"
        before = completion_tokens(served)
        fake.behave(FakeBehaviour(reply=WORDS, tokens_per_second=200))
        caller = await Caller.asking(served.port, WAYS["stream"][1])
        seen = await caller.sees(b"word20")
        caller.hang_up()
        assert await eventually(lambda: len(stored(served)) == 2, 5)
        (cancelled,) = [message for message in stored(served) if message.status != "complete"]
        assert (cancelled.status, cancelled.provider) == ("cancelled", "acme")
        assert WORDS.startswith(cancelled.content)
        assert "word19" in cancelled.content
        assert len(cancelled.content) < len(WORDS) / 2
        assert b"event: done" not in seen
        assert cancelled.usage is not None
        assert cancelled.usage.estimated
        assert cancelled.usage.prompt_tokens > 100
        assert len(cancelled.content) / 5 < cancelled.usage.completion_tokens < len(cancelled.content)
        assert completion_tokens(served) - before == cancelled.usage.completion_tokens


async def test_b2_leaving_before_the_first_word_is_no_conversation(site: Path, fake: RunningFake) -> None:
    """A first question without an answer is not stored; in a conversation that exists its turn is stored as cancelled."""
    async with (
        serving_here(settings_of(site / "data", llm=llm_of(fake))) as served,
        httpx.AsyncClient(base_url=served.address, timeout=30) as client,
    ):
        begun = (await asked(client)).data["conversation_id"]
        baseline = Baseline()
        fake.behave(FakeBehaviour(hang="first_token"))
        for more, statuses in (({}, ["complete"]), ({"conversation_id": begun}, ["complete", "cancelled"])):
            fake.requests.clear()
            caller = await Caller.asking(served.port, {"question": QUESTION, "stream": True, **more})
            assert await eventually(lambda: fake.requests, 5)
            caller.hang_up()
            assert await baseline.is_back(served)
            assert [message.status for message in stored(served)] == statuses


async def test_b2_a_prompt_is_counted_even_where_its_caller_left_before_the_first_word(site: Path, fake: RunningFake) -> None:
    """The provider was at work on it; where the caller left the queue it was not, and nothing is counted."""
    async with (
        serving_here(settings_of(site / "data", llm=llm_of(fake, queued=1))) as served,
        httpx.AsyncClient(base_url=served.address, timeout=30) as client,
    ):
        assert (await asked(client)).ended == "done"
        before, baseline = prompt_tokens(served), Baseline()
        fake.behave(FakeBehaviour(hang="first_token"))
        fake.requests.clear()
        caller, queued = [await Caller.asking(served.port, WAYS["stream"][1]) for _ in range(2)]
        assert await eventually(lambda: fake.requests and served.provider("acme")["waiting"], 5)
        queued.hang_up()
        assert await eventually(lambda: served.provider("acme")["waiting"] == 0, 5)
        caller.hang_up()
        assert await baseline.is_back(served)
        sent = len(json.dumps(fake.requests[0].json()["messages"]))
        assert sent / 8 < prompt_tokens(served) - before < sent / 2
