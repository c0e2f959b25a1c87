"""Whatever is asked, configured and broken: nothing above a provider's clearance is in any byte that it is sent."""

from __future__ import annotations

import json
import logging
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog.testing

from app.llm.fake.behaviour import FakeBehaviour
from app.llm.settings import LlmSettings
from app.main import create_app
from app.settings import HistorySettings, PromptSettings, ServiceSettings
from corpus.embedders.embedder import Embedder
from ingest import job
from tests.app.labelled import CLEARANCES, ORDER, TOPICS, Labelled, Providers, corpus_rules, labelled, running_providers, write
from tests.app.serving import PROMPTS, ServiceClient, composed, settings_of
from tests.making import job_settings

pytestmark = pytest.mark.anyio

SEED = 20261123
TURNS = 5
PER_CONFIGURATION = 4
"""Conversations that are held under one configuration before the next is put in force."""

ASKED = ("What does the {} cost?", "Who runs the {}?", "What must be said about the {}?", "How is the {} called?")
FOLLOWING = ("And what about that?", "Who says so?", "Why is it called so?", "And how much does it cost?")
FAILED = {429, 502, 503, 504}
"""What the service may answer where no provider does; anything else but 200 is a mistake."""


@pytest.fixture(scope="module")
def corpus() -> Labelled:
    return labelled(SEED)


@pytest.fixture(scope="module")
def data_dir(corpus: Labelled, embedder: Embedder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus, published. Not changed by any test here."""
    root = tmp_path_factory.mktemp("labelled")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ingest.model.open_embedder", lambda settings, **_: embedder)
        job.run(job_settings(root / "data", write(corpus, root / "documents"), rules=corpus_rules()))
    return root / "data"


@pytest.fixture(scope="module")
def providers() -> Iterator[Providers]:
    with running_providers() as found:
        yield found


def chain_of(chance: random.Random, *last: str) -> list[str]:
    """Some of the providers, in any order; now and then with something last."""
    return [*chance.sample(list(CLEARANCES), chance.randint(1, 3)), *chance.choice(((), last))]


def configuration(chance: random.Random, base: ServiceSettings, providers: Providers) -> ServiceSettings:
    """Any chain, rules that would send everything anywhere, budgets that are spent, and any way to read the history."""
    chain = chain_of(chance)
    routes: list[dict[str, Any]] = [
        {"name": "labels", "when": {"labels": chance.sample(ORDER, 2)}, "providers": chain_of(chance, "extractive")},
        {"name": "turns", "when": {"min_turn": chance.randint(2, 4)}, "providers": chain_of(chance)},
        {"name": "words", "when": {"matches": "cost|called"}, "providers": ["commercial", "partner"]},
        {"name": "all", "providers": chain_of(chance)},
    ]
    budgets: list[dict[str, Any]] = [
        {"name": "spent", "max_tokens": 1, "then": chain_of(chance, "extractive")},
        {"name": "mine", "per": "caller", "max_tokens": 10**9, "then": ["commercial"]},
    ]
    quirks = {"retries": chance.choice((0, 0, 1)), "breaker_failures": chance.choice((1, 3, 50)), "breaker_open_s": 0.3}
    llm = LlmSettings.model_validate(
        {
            "default": chain[0],
            "fallbacks": chain[1:],
            "providers": providers.settings(**quirks),
            "extractive_fallback": chance.random() < 0.8,
            "routes": chance.sample(routes, chance.randint(0, 2)),
            "budgets": chance.sample(budgets, chance.randint(0, 1)),
        }
    )
    strategy = chance.choice(("llm", "llm", "gated", "last_turn"))
    return base.model_copy(
        update={
            "llm": llm,
            "history": HistorySettings.model_validate({"strategy": strategy}),
            "prompt": PromptSettings(folder=PROMPTS, answer_tokens=chance.choice((32, 200))),
        }
    )


def behaviour(chance: random.Random) -> FakeBehaviour:
    """A model that repeats what it is sent or obeys it, and a fault in two cases of five."""
    faults: tuple[dict[str, Any], ...] = (
        {"status": 429},
        {"status": 500},
        {"hang": "headers"},
        {"hang": "between_tokens"},
        {"cut_after_tokens": chance.choice((0, 3))},
        {"malformed_event_after_tokens": chance.choice((0, 3))},
        {"status": 503, "fail_first": 1, "retry_after": "0"},
    )
    fault = chance.choice(faults) if chance.random() < 0.4 else {}
    return FakeBehaviour(mode=chance.choice(("echo", "echo", "obey", "reply")), **fault)


@dataclass(slots=True)
class Conversation:
    """One conversation of a kind: stored, stateless, or in OpenAI's format."""

    client: ServiceClient
    chance: random.Random
    kind: str
    topics: tuple[str, ...]
    statuses: Counter[int]
    answered_by: Counter[str]
    conversation_id: str | None = None
    messages: list[dict[str, Any]] = field(default_factory=list)

    async def ask(self) -> None:
        """One turn, streamed or not, with or without a provider asked for by name."""
        about = self.chance.choice(ASKED).format(self.chance.choice(self.topics))
        question = self.chance.choice(FOLLOWING) if self.messages and self.chance.random() < 0.3 else about
        provider = self.chance.choice((None, None, "extractive", *CLEARANCES))
        stream = self.chance.random() < 0.3
        if self.kind == "openai":
            body: dict[str, Any] = {
                "model": f"archivist/{provider}" if provider else "archivist",
                "messages": [*self.messages, {"role": "user", "content": [{"type": "text", "text": question}]}],
            }
            response = await self.client.post("/v1/chat/completions", json={**body, "stream": stream})
        else:
            body = {"question": question, "provider": provider, "top_k": self.chance.choice((1, 1, 2, 8))}
            if self.kind == "stateless":
                body["messages"] = self.messages
            elif self.conversation_id is not None:
                body["conversation_id"] = self.conversation_id
            response = await self.client.post("/v1/ask", json={**body, "stream": stream})
        self.statuses[response.status_code] += 1
        assert response.status_code == 200 or response.status_code in FAILED, response.text
        if response.status_code == 200:
            self._remember(question, told(response.text, self.kind, stream))

    def _remember(self, question: str, answer: dict[str, Any] | None) -> None:
        if answer is None:
            return  # the stream broke off
        self.answered_by[answer["provider"]] += 1
        self.conversation_id = answer["conversation_id"]
        text = answer["answer"]
        if self.chance.random() < 0.2:
            text = text[: len(text) // 2] + self.chance.choice(("", " and so on"))  # a client that edits what it was told
        if self.chance.random() < 0.3:
            self.messages.clear()  # a client that sends the newest turn alone
        self.messages += [{"role": "user", "content": question}, {"role": "assistant", "content": text}]


def told(text: str, kind: str, stream: bool) -> dict[str, Any] | None:
    """The answer in a response, None where its stream ended with an error."""
    if kind == "openai":
        parts = [text] if not stream else [line[6:] for line in text.splitlines() if line.startswith("data: {")]
        chunks = [json.loads(part) for part in parts]
        if any("error" in chunk for chunk in chunks):
            return None
        choices = [choice.get("message") or choice["delta"] for chunk in chunks for choice in chunk["choices"]]
        return {"answer": "".join(c.get("content") or "" for c in choices), "provider": "openai", "conversation_id": None}
    if not stream:
        whole: dict[str, Any] = json.loads(text)
        return whole
    event, data = text.strip().rsplit("\n\n", 1)[-1].split("\n", 1)
    assert event in ("event: done", "event: error"), text
    done: dict[str, Any] = json.loads(data.removeprefix("data: "))
    return done if event == "event: done" else None


@contextmanager
def logs() -> Iterator[list[str]]:
    """Every line that is logged meanwhile, ours and those of libraries."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    try:
        with structlog.testing.capture_logs() as ours:
            yield lines
            lines += [json.dumps(record, default=str) for record in ours]
    finally:
        logging.getLogger().removeHandler(handler)


async def converse(data_dir: Path, corpus: Labelled, providers: Providers, conversations: int) -> None:
    """Hold so many conversations while configurations and faults change, and look at every byte that was sent."""
    providers.clear()
    for fake in providers.fakes.values():
        fake.behave(FakeBehaviour())
    base = settings_of(data_dir)
    app = create_app(base, composed(base))
    current = app.state.current
    statuses: Counter[int] = Counter()
    answered_by: Counter[str] = Counter()
    received: dict[str, set[str]] = {name: set() for name in CLEARANCES}
    topics = [topic for label in ORDER for topic in TOPICS[label]] + ["bicycle", "merger", "weather"]
    transport = httpx.ASGITransport(app=app)
    with logs() as lines:
        async with app.router.lifespan_context(app), ServiceClient(current.services, transport) as client:
            for number in range(conversations):
                chance = random.Random(SEED + number)
                if number % PER_CONFIGURATION == 0:
                    await current.replace(configuration(chance, base, providers))
                kind = chance.choice(("stored", "stateless", "openai"))
                about = tuple(chance.sample(topics, 3))
                conversation = Conversation(client, chance, kind, about, statuses, answered_by)
                for turn in range(TURNS):
                    for fake in providers.fakes.values():
                        fake.behave(behaviour(chance))
                    await conversation.ask()
                    leaks = providers.leaks(corpus)
                    assert leaks == {}, f"seed {SEED + number}, conversation {number}, turn {turn + 1}, {kind}"
                    for name in CLEARANCES:
                        received[name] |= corpus.labels_in(providers.sent(name))
                    providers.clear()
            metrics = (await client.get("/metrics")).text
    # Enough went each way for the above to mean something.
    assert received == {"local": set(ORDER), "partner": {"public", "internal"}, "commercial": {"public"}}, (
        statuses,
        answered_by,
    )
    assert all(answered_by[name] > 0 for name in (*CLEARANCES, "extractive")), answered_by
    assert statuses[200] > conversations * TURNS // 2, statuses
    assert sum(statuses[status] for status in FAILED) > 0, statuses
    for provider, label in (("commercial", "internal"), ("commercial", "secret"), ("partner", "confidential")):
        assert f'archivist_clearance_decisions_total{{decision="not_cleared",label="{label}",provider="{provider}"}}' in metrics
    logged = "\n".join(lines)
    assert '"action": "route"' in logged
    assert corpus.derived([logged], "public") == []
    assert not [topic for topic in topics if f" the {topic}" in logged]


async def test_f1_thirty_conversations_leak_nothing(data_dir: Path, corpus: Labelled, providers: Providers) -> None:
    """Stored, stateless, in OpenAI's format; with faults, retries, fallbacks, rules, budgets and rewrites; no byte leaks."""
    await converse(data_dir, corpus, providers, 30)


@pytest.mark.nightly
@pytest.mark.timeout(3600)
async def test_f1_a_thousand_conversations_leak_nothing(data_dir: Path, corpus: Labelled, providers: Providers) -> None:
    """The same, a thousand times."""
    await converse(data_dir, corpus, providers, 1000)


def test_f1_the_detector_finds_what_is_above_a_label(corpus: Labelled) -> None:
    """A canary is found also in pieces, eight words in a row without one, seven not; what is cleared is not."""
    secret = sorted(corpus.canaries["secret"])[0]
    assert corpus.derived([f"so {secret.upper()} it is"], "confidential") == [secret]
    assert corpus.derived([f"{secret[:4]} {secret[4:]}"], "public") == [secret]
    assert corpus.derived([secret], "secret") == []
    run = next(run for run in sorted(corpus.runs["internal"]) if not corpus.canaries["internal"] & set(run))
    assert corpus.derived([" ".join(run)], "public") == [" ".join(run)]
    assert corpus.derived([" ".join(run[:7])], "public") == []
    assert corpus.derived([" ".join(run)], "internal") == []
