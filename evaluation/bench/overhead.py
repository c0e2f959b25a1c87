"""What the gateway and the whole service cost a streamed token, beside a bare client of the same fake LLM, round by round."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from app.answering.extractive import ExtractiveBackend
from app.llm.backend import Delta, Prompt
from app.llm.budgets import Spending
from app.llm.gateway import Gateway
from app.llm.plan import Asker
from app.llm.settings import LlmSettings
from app.metrics import Metrics
from corpus.embedders.embedder import Embedder
from corpus.settings import LabelSettings
from corpus.types import Message, Vectors
from evaluation.bench.bare import FORMATS, QUESTION, BareClient, Streamed, require_tokens
from evaluation.bench.children import RunningService, running_fake_llm
from evaluation.bench.figures import Aim, BenchError, Figure, percentile
from evaluation.bench.generated import questions
from evaluation.bench.machine import event_loop_s
from evaluation.bench.options import Options, generated_service

PART = "gateway"
PROVIDER = "fake"
TOKENS, SERVICE_TOKENS, SHORT = 2000, 500, 5
ROUNDS, SHORT_ROUNDS, WARM_UP = 20, 100, 2
PER_TOKEN = Aim(1.3)
TO_FIRST_TOKEN = Aim(5)
US = 1e6
MS = 1e3


@dataclass(frozen=True, slots=True)
class Pair:
    """The same answer twice, one right after the other."""

    ours: Streamed
    bare: Streamed


def provider(address: str, kind: str = "openai") -> dict[str, Any]:
    """A provider's settings for a fake LLM."""
    return {"base_url": address + FORMATS[kind].base, "model": "fake", "kind": kind}


def open_gateway(llm: Mapping[str, Any]) -> Gateway:
    """A gateway in this process that asks only the providers it is given."""

    async def embed(embedder: Embedder, texts: Sequence[str]) -> Vectors:
        raise BenchError("the extractive backend was asked, and it is switched off here")

    settings = LlmSettings.model_validate({**llm, "extractive_fallback": False})
    labels = LabelSettings()
    return Gateway(settings, labels, ExtractiveBackend(embed, labels.order[-1]), Spending(), Metrics())


async def stream_gateway(gateway: Gateway, tokens: int) -> Streamed:
    """One answer through the gateway. Raises: BenchError where it is not so many tokens long."""
    prompt = Prompt(messages=(Message("user", QUESTION),), label=LabelSettings().order[0], max_tokens=tokens)
    count, first, last = 0, 0.0, 0.0
    cpu, began = time.process_time(), time.perf_counter()
    async with aclosing(gateway.stream(prompt, Asker("bench"))) as events:
        async for event in events:
            if type(event) is Delta:
                last = time.perf_counter()
                first = first or last
                count += 1
    took_s = time.perf_counter() - began
    require_tokens("the gateway", count, tokens)
    return Streamed(count, first - began, last - began, took_s, time.process_time() - cpu)


async def stream_service(client: BareClient, question: str, pid: int, tokens: int) -> Streamed:
    """One answer of the service; `cpu_s` is what its event loop computed between the first token and the last.

    Raises: BenchError where another provider answered than the fake.
    """
    count, first, last, by = 0, 0.0, 0.0, ""
    cpu = cpu_end = 0.0
    began = time.perf_counter()
    async with aclosing(client.events(question)) as events:
        async for name, event in events:
            if name == "delta":
                last = time.perf_counter()
                if not count:
                    first, cpu = last, event_loop_s(pid) or 0.0
                count += len(event["text"].split())
            elif name == "done":
                cpu_end, by = event_loop_s(pid) or 0.0, event["provider"]
    took_s = time.perf_counter() - began
    if by != PROVIDER:
        raise BenchError(f"the service's answer came from {by!r}, not from the fake LLM; is ARCHIVIST_LLM__… set?")
    require_tokens("the service", count, tokens)
    return Streamed(count, first - began, last - began, took_s, cpu_end - cpu)


async def rounds(
    ours: Callable[[], Awaitable[Streamed]], bare: Callable[[], Awaitable[Streamed]], count: int, warm_up: int = WARM_UP
) -> list[Pair]:
    """So many pairs after the warm-up; whoever goes first takes turns."""
    pairs = []
    for number in range(warm_up + count):
        if number % 2:
            mine = await ours()
            pairs.append(Pair(mine, await bare()))
        else:
            theirs = await bare()
            pairs.append(Pair(await ours(), theirs))
    return pairs[warm_up:]


async def measure_overhead(
    address: str, tokens: int = TOKENS, count: int = ROUNDS, short_count: int = SHORT_ROUNDS
) -> list[Figure]:
    """Each wire format through the gateway and without it. The fake must answer at once, with at least so many tokens."""
    figures: list[Figure] = []
    for kind in FORMATS:
        long = await _gateway_pairs(address, kind, tokens, count)
        figures += overhead_figures(kind, tokens, long, await _gateway_pairs(address, kind, SHORT, short_count))
    return figures


async def _gateway_pairs(address: str, kind: str, tokens: int, count: int) -> list[Pair]:
    gateway = open_gateway({"default": PROVIDER, "providers": {PROVIDER: provider(address, kind)}})
    async with BareClient(address) as client:
        try:
            return await rounds(
                lambda: stream_gateway(gateway, tokens), lambda: client.stream(FORMATS[kind], tokens), count
            )  # fmt: skip
        finally:
            await gateway.close()


def overhead_figures(kind: str, tokens: int, long: Sequence[Pair], short: Sequence[Pair]) -> list[Figure]:
    """What the pairs say: medians of their ratios for a token, medians of their differences for the first one."""
    data = f"{kind}, {len(long)} alternating pairs of {tokens:,} tokens, fake LLM unpaced"
    wall = [pair.ours.took_s / pair.bare.took_s for pair in long]
    cpu = [pair.ours.cpu_s / pair.bare.cpu_s for pair in long]
    ours = [US * pair.ours.cpu_s / tokens for pair in long]
    bare = [US * pair.bare.cpu_s / tokens for pair in long]
    added = [MS * (pair.ours.first_s - pair.bare.first_s) for pair in short]
    alone = [MS * pair.bare.first_s for pair in short]
    first = f"{kind}, {len(short)} alternating pairs of {SHORT} tokens"
    return [
        Figure(PART, f"{kind}: time a token, gateway / bare client", percentile(wall, 50), "x", data, PER_TOKEN),
        Figure(PART, f"{kind}: processor time a token, gateway / bare client", percentile(cpu, 50), "x", data, PER_TOKEN),
        Figure(PART, f"{kind}: processor time a token, gateway", percentile(ours, 50), "µs", data),
        Figure(PART, f"{kind}: processor time a token, bare client", percentile(bare, 50), "µs", data),
        Figure(PART, f"{kind}: added to the first token", percentile(added, 50), "ms", first, TO_FIRST_TOKEN),
        Figure(PART, f"{kind}: first token, bare client", percentile(alone, 50), "ms", first),
    ]


def measure_service(options: Options, tokens: int = SERVICE_TOKENS, count: int = ROUNDS) -> list[Figure]:
    """The whole way of a token: POST /v1/ask in a process of its own, beside the bare client of the same fake LLM."""
    with running_fake_llm(options.scratch, "--reply", sentences(tokens)) as llm:
        providers = {PROVIDER: provider(llm.address)}
        with generated_service(options, {"default": PROVIDER, "providers": providers}) as service:
            options.say("streaming through the service and beside it")
            asked = questions(WARM_UP + count)
            pairs = asyncio.run(_service_pairs(service, options.key, llm.address, asked, tokens))
    return service_figures(pairs)


def sentences(words: int) -> str:
    """So many words in sentences: the service looks at each sentence, and one that never ends is the dearest."""
    said = (QUESTION.split() * (words // len(QUESTION.split()) + 1))[:words]
    return " ".join(said)


async def _service_pairs(
    service: RunningService, key: str | None, address: str, asked: Sequence[str], tokens: int
) -> list[Pair]:
    left = iter(asked)
    async with BareClient(service.address, key) as ours, BareClient(address) as alone:
        return await rounds(
            lambda: stream_service(ours, next(left), service.pid, tokens),
            lambda: alone.stream(FORMATS["openai"], tokens),
            len(asked) - WARM_UP,
        )


def service_figures(pairs: Sequence[Pair]) -> list[Figure]:
    """What the pairs say of the tokens between the first and the last."""
    data = f"POST /v1/ask, {len(pairs)} alternating pairs of {pairs[0].ours.tokens:,} tokens, fake LLM unpaced"
    ratio = [pair.ours.between_s / pair.bare.between_s for pair in pairs]
    ours = [US * pair.ours.between_s for pair in pairs]
    bare = [US * pair.bare.between_s for pair in pairs]
    figures = [
        Figure(PART, "service: time a token, service / bare client", percentile(ratio, 50), "x", data),
        Figure(PART, "service: time a token, service", percentile(ours, 50), "µs", data),
        Figure(PART, "service: time a token, bare client", percentile(bare, 50), "µs", data),
    ]
    cpu = [US * pair.ours.cpu_s / pair.ours.tokens for pair in pairs]
    if any(cpu):
        figures.append(Figure(PART, "service: processor time a token, its event loop", percentile(cpu, 50), "µs", data))
    return figures
