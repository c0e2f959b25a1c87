"""What every LLM backend must do, run over each of them: see `app.llm.backend.Backend`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass

import pytest

from app.answering.extractive import ExtractiveBackend
from app.llm.anthropic import AnthropicBackend
from app.llm.backend import Backend, Delta, Finished, Prompt
from app.llm.fake.behaviour import FakeBehaviour
from app.llm.google import GoogleBackend
from app.llm.openai import OpenAIBackend
from app.llm.settings import ProviderSettings
from corpus.egress import Egress
from corpus.embedders.embedder import Embedder
from corpus.errors import BackendRejected
from corpus.types import Message, Vectors
from tests.app.answering.passages import passage
from tests.servers import LLAMA_CONTEXT_TOKENS, RunningFake, running_fake_llm, running_llama

pytestmark = pytest.mark.anyio

LONG = 900

WIRES = ["openai on llama.cpp", "anthropic on llama.cpp", "openai on fake", "anthropic on fake", "google on fake"]
RemoteBackend = OpenAIBackend | AnthropicBackend | GoogleBackend
BACKENDS: dict[str, type[RemoteBackend]] = {
    "openai": OpenAIBackend,
    "anthropic": AnthropicBackend,
    "google": GoogleBackend,
}


@dataclass(frozen=True, slots=True)
class Subject:
    """A backend under test. `at_work` counts the calls that its server is answering right now.

    `stops_within_s`: a busy machine gives a real model little time between two tokens, where it looks for a client who left.
    """

    backend: RemoteBackend
    at_work: Callable[[], Awaitable[int]]
    elsewhere: Callable[[str], Backend]
    stops_within_s: float


@dataclass(frozen=True, slots=True)
class Server:
    """A server and the format to speak with it; `fake` is None where it is a real one."""

    kind: str
    address: str
    path: str
    fake: RunningFake | None


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def llama() -> Iterator[str]:
    with running_llama() as address:
        yield address


@pytest.fixture(scope="module")
def paced_fake() -> Iterator[RunningFake]:
    reply = " ".join(["word"] * LONG)
    behaviour = FakeBehaviour(reply=reply, tokens_per_second=200, context_tokens=LLAMA_CONTEXT_TOKENS)
    with running_fake_llm(behaviour) as fake:
        yield fake


@contextmanager
def server_of(request: pytest.FixtureRequest) -> Iterator[Server]:
    """The server that a parameter such as "anthropic on llama.cpp" names, and the format to speak with it."""
    kind, _, name = request.param.partition(" on ")
    if name == "llama.cpp":
        yield Server(kind, str(request.getfixturevalue("llama")), "/v1", None)
    else:
        fake: RunningFake = request.getfixturevalue("paced_fake")
        yield Server(kind, fake.base_url.removesuffix("/v1"), "/v1beta" if kind == "google" else "/v1", fake)


def backend_at(server: Server, path: str, egress: Egress) -> RemoteBackend:
    """The backend for one format at a path of the server."""
    settings = ProviderSettings.model_validate(
        {"kind": server.kind, "base_url": f"{server.address}{path}", "model": "any", "temperature": 0}
    )
    return BACKENDS[server.kind]("tested", settings, egress, clearance="secret")


@pytest.fixture(params=WIRES)
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    """Each backend in turn, with each server that speaks its format."""
    with server_of(request) as server:
        egress = Egress([server.address])

        async def at_work() -> int:
            if server.fake is not None:
                return sum(recorded.ended_at is None for recorded in server.fake.requests)
            status, slots = await egress.call_json(f"{server.address}/slots")
            assert status == 200
            assert isinstance(slots, list)
            return sum(bool(slot["is_processing"]) for slot in slots)

        backend = backend_at(server, server.path, egress)
        stops_within_s = 4 if server.fake is None else 1
        yield Subject(backend, at_work, lambda path: backend_at(server, path, egress), stops_within_s)
        await egress.close()


def asking(text: str, max_tokens: int) -> Prompt:
    return Prompt(messages=(Message("user", text),), label="public", max_tokens=max_tokens)


async def all_of(backend: Backend, prompt: Prompt) -> list[Delta | Finished]:
    async with aclosing(backend.stream(prompt)) as events:
        return [event async for event in events]


async def idle(subject: Subject) -> bool:
    deadline = time.monotonic() + subject.stops_within_s
    while await subject.at_work():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.02)
    return True


async def test_an_answer_is_deltas_and_one_finished_with_its_usage(subject: Subject) -> None:
    """Eight tokens asked for come as text and then one Finished that counts them."""
    *deltas, finished = await all_of(subject.backend, asking("Count on: one, two, three, four,", 8))
    assert deltas
    assert all(isinstance(delta, Delta) and delta.text for delta in deltas)
    assert isinstance(finished, Finished)
    assert finished.reason == "length"
    assert finished.usage.completion_tokens == 8
    assert finished.usage.prompt_tokens > 5
    assert not finished.usage.estimated


async def test_text_arrives_while_the_answer_is_still_being_written(subject: Subject) -> None:
    """The first delta is there when the server is still at work."""
    async with aclosing(subject.backend.stream(asking("Write a long story.", LONG))) as events:
        first = await anext(events)
        assert isinstance(first, Delta)
        assert await subject.at_work() == 1
    assert await idle(subject)


async def test_closing_the_stream_ends_the_upstream_call_within_a_second(subject: Subject) -> None:
    """A caller who stops reading after three deltas leaves no work behind on the server."""
    async with aclosing(subject.backend.stream(asking("Write a long story.", LONG))) as events:
        for _ in range(3):
            await anext(events)
    assert await idle(subject)


async def test_cancelling_the_task_ends_the_upstream_call_within_a_second(subject: Subject) -> None:
    """A cancelled task leaves no work behind on the server, and the backend answers the next call."""
    began = asyncio.Event()

    async def read() -> None:
        async with aclosing(subject.backend.stream(asking("Write a long story.", LONG))) as events:
            async for _ in events:
                began.set()

    task = asyncio.create_task(read())
    await asyncio.wait_for(began.wait(), 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await idle(subject)
    assert isinstance((await all_of(subject.backend, asking("Count: one, two,", 2)))[-1], Finished)


async def test_a_stream_may_be_read_by_one_task_and_finished_by_another(subject: Subject) -> None:
    """The first event can be awaited before a response is begun, and the rest inside it."""
    events = subject.backend.stream(asking("Count on: one, two, three,", 6))
    first = await asyncio.create_task(_next(events))

    async def rest() -> list[Delta | Finished]:
        async with aclosing(events):
            return [event async for event in events]

    everything = [first, *await asyncio.create_task(rest())]
    assert isinstance(everything[-1], Finished)
    assert everything[-1].usage.completion_tokens == 6


async def _next(events: AsyncIterator[Delta | Finished]) -> Delta | Finished:
    return await anext(events)


@pytest.fixture(params=[*WIRES, "extractive"])
async def any_backend(request: pytest.FixtureRequest) -> AsyncIterator[Backend]:
    """Each backend in turn, also the one that needs no server."""
    if request.param == "extractive":

        async def embed(embedder: Embedder, texts: Sequence[str]) -> Vectors:
            return await asyncio.to_thread(embedder.embed_queries, texts)

        yield ExtractiveBackend(embed, clearance="secret")
        return
    with server_of(request) as server:
        egress = Egress([server.address])
        yield backend_at(server, server.path, egress)
        await egress.close()


def quoting(embedder: Embedder, text: str) -> Prompt:
    """A prompt with passages, for backends that write and for one that quotes."""
    passages = (
        passage("Leave is requested in the portal. The portal opens at 8:30.", number=1),
        passage("Leave that is left over may be used until March. Ask the personnel office for an exception.", number=2),
    )
    message = Message("user", f"{passages[0].text}\n{passages[1].text}\n{text}")
    return Prompt(
        (message,), "internal", 12, question=text, standalone=text, passages=passages, nearness=0.7, embedder=embedder
    )


async def test_every_backend_gives_text_and_then_one_finished(any_backend: Backend, embedder: Embedder) -> None:
    """Deltas with text, exactly one Finished, and it is the last; provider, model and clearance are named."""
    *deltas, finished = await all_of(any_backend, quoting(embedder, "Where is leave requested?"))
    assert deltas
    assert all(isinstance(delta, Delta) and delta.text for delta in deltas)
    assert isinstance(finished, Finished)
    assert not finished.abstained
    assert finished.usage.cost_usd == 0.0
    assert any_backend.provider
    assert any_backend.model
    assert any_backend.clearance == "secret"


async def test_every_backend_may_be_left_and_asked_again(any_backend: Backend, embedder: Embedder) -> None:
    """A reader who stops after the first delta, and one who is cancelled before it, leave a backend that answers."""
    async with aclosing(any_backend.stream(quoting(embedder, "Where is leave requested?"))) as events:
        assert isinstance(await anext(events), Delta)
    task = asyncio.create_task(all_of(any_backend, quoting(embedder, "Until when may leave be used?")))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert isinstance((await all_of(any_backend, quoting(embedder, "Where is leave requested?")))[-1], Finished)


async def test_every_backend_answers_many_at_once(any_backend: Backend, embedder: Embedder) -> None:
    """Six streams on one event loop each end with a Finished of their own, and say what each says alone."""
    questions = ["Where is leave requested?", "Who grants an exception?"] * 3
    answers = await asyncio.gather(*(all_of(any_backend, quoting(embedder, question)) for question in questions))
    assert all([isinstance(event, Finished) for event in answer] == [False] * (len(answer) - 1) + [True] for answer in answers)
    if any_backend.provider == "extractive":
        assert answers[0] == answers[2] == answers[4] != answers[1]


async def test_calls_do_not_mix(subject: Subject) -> None:
    """Six calls at once each get their own number of tokens."""
    lengths = [3, 4, 5, 6, 7, 8]
    answers = await asyncio.gather(*(all_of(subject.backend, asking("Count on: one, two,", n)) for n in lengths))
    counted = [answer[-1].usage.completion_tokens for answer in answers if isinstance(answer[-1], Finished)]
    assert counted == lengths


async def test_a_prompt_that_is_too_long_is_refused_with_the_counts(subject: Subject) -> None:
    """The error says that the context is too small, how small, and which key to lower."""
    with pytest.raises(BackendRejected, match=rf"context.*\b{LLAMA_CONTEXT_TOKENS}\b.*prompt\.budget_tokens") as caught:
        await all_of(subject.backend, asking("word " * 3000, 8))
    assert caught.value.status == 400


async def test_a_wrong_path_is_refused_with_the_address(subject: Subject) -> None:
    """A base_url with a wrong path names the address to mend."""
    with pytest.raises(BackendRejected, match=r"no such model or path \(404\): File Not Found.*/elsewhere") as caught:
        await all_of(subject.elsewhere("/elsewhere"), asking("Hello", 8))
    assert caught.value.status == 404


async def test_tokens_that_were_cached_are_counted_within_the_prompt(subject: Subject) -> None:
    """The same prompt twice has the same length, whatever part of it the server still had."""
    prompt = asking("Count on: one, two, three, four, five, six, seven, eight, nine,", 2)
    ends = [(await all_of(subject.backend, prompt))[-1] for _ in range(2)]
    first, second = (end.usage for end in ends if isinstance(end, Finished))
    assert first.prompt_tokens == second.prompt_tokens
    assert 0 <= second.cached_tokens <= second.prompt_tokens


async def test_the_models_are_listed(subject: Subject) -> None:
    """Every server under test keeps a list with one model in it; the fake knows any other by name too."""
    models = await subject.backend.models()
    assert models is not None
    assert len(models - {"any"}) == 1
