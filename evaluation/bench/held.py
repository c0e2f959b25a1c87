"""Many streams at a time, held for a minute: whether all of them end well, and whether the service's memory stays flat."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from evaluation.bench.bare import BareClient
from evaluation.bench.children import running_fake_llm
from evaluation.bench.figures import Aim, BenchError, Figure
from evaluation.bench.generated import questions
from evaluation.bench.machine import resident_mb
from evaluation.bench.options import Options, generated_service
from evaluation.bench.overhead import PART, PROVIDER, provider

STREAMS = 200
TOKENS_PER_SECOND = 2
BEGIN_WITHIN_S = 20
"""All streams must have begun by then: each takes a search, and searches queue for the processor."""

SETTLED_AFTER_S = 10
LOOK_EVERY_S = 0.05


@dataclass(slots=True)
class Stream:
    """One stream as its reader sees it. `ended` is the last event's name, empty where the stream broke off before one."""

    tokens: int = 0
    ended: str = ""
    provider: str = ""

    def is_whole(self, tokens: int) -> bool:
        """Whether it ended as it should, with every token."""
        return self.ended == "done" and self.provider == PROVIDER and self.tokens == tokens


@dataclass(frozen=True, slots=True)
class Held:
    """What came of them. Memory in MB: once it had settled, and at the end; None where the system has no /proc."""

    streams: Sequence[Stream]
    tokens: int
    settled_mb: float | None
    end_mb: float | None


def measure_held(options: Options, streams: int = STREAMS, begin_within_s: float = BEGIN_WITHIN_S) -> list[Figure]:
    """The service as a user runs it, in front of a fake LLM that speaks slowly."""
    tokens = round(TOKENS_PER_SECOND * (options.held_s + begin_within_s))
    knobs = ("--tokens", str(tokens), "--tokens-per-second", str(TOKENS_PER_SECOND))
    with running_fake_llm(options.scratch, *knobs) as fake:
        settings = {**provider(fake.address), "max_concurrent": streams}
        with generated_service(options, {"default": PROVIDER, "providers": {PROVIDER: settings}}) as service:
            options.say(f"holding {streams} streams for {options.held_s:g} s")
            held = asyncio.run(
                _hold(
                    service.address, options.key, questions(streams), tokens, options.held_s,
                    lambda: resident_mb(service.pid), begin_within_s,
                )
            )  # fmt: skip
    return held_figures(held, options.held_s)


def held_figures(held: Held, held_s: float) -> list[Figure]:
    """The streams that did not end well, and what the memory grew."""
    wrong = sum(not stream.is_whole(held.tokens) for stream in held.streams)
    data = f"{len(held.streams)} streams at a time for {held_s:g} s, {TOKENS_PER_SECOND} tokens/s each"
    figures = [Figure(PART, "held streams that failed", wrong, "requests", data, Aim(0))]
    if held.settled_mb is not None and held.end_mb is not None:
        settled_s = min(SETTLED_AFTER_S, held_s / 2)
        name = f"resident memory, {settled_s:g} s to {held_s:g} s"
        figures += [
            Figure(PART, f"{name}, grew by", held.end_mb - held.settled_mb, "MB", data, Aim(10)),
            Figure(PART, f"resident memory after {held_s:g} s", held.end_mb, "MB", data),
        ]
    return figures


async def _hold(
    address: str,
    key: str | None,
    asked: Sequence[str],
    tokens: int,
    held_s: float,
    memory: Callable[[], float | None],
    begin_within_s: float,
) -> Held:
    streams = [Stream() for _ in asked]
    async with BareClient(address, key) as client, asyncio.TaskGroup() as group:
        for stream, question in zip(streams, asked, strict=True):
            group.create_task(_read(client, question, stream))
        await _until_all_began(streams, begin_within_s)
        settled_s = min(SETTLED_AFTER_S, held_s / 2)
        await asyncio.sleep(settled_s)
        settled = memory()
        await asyncio.sleep(held_s - settled_s)
        end = memory()
        if any(stream.is_whole(tokens) for stream in streams):
            raise BenchError(f"a stream was over before all were held for {held_s:g} s; is the machine busy?")
    return Held(streams, tokens, settled, end)


async def _until_all_began(streams: Sequence[Stream], within_s: float) -> None:
    """Until each has a token or has ended. Raises: BenchError where that takes too long to hold them all together."""
    loop = asyncio.get_running_loop()
    late = loop.time() + within_s
    while not all(stream.tokens or stream.ended for stream in streams):
        if loop.time() > late:
            began = sum(bool(stream.tokens) for stream in streams)
            raise BenchError(f"only {began} of {len(streams)} streams began within {within_s:g} s; is the machine busy?")
        await asyncio.sleep(LOOK_EVERY_S)


async def _read(client: BareClient, question: str, stream: Stream) -> None:
    try:
        async with aclosing(client.events(question)) as events:
            async for name, event in events:
                if name == "delta":
                    stream.tokens += len(event["text"].split())
                elif name in ("done", "error"):
                    stream.ended, stream.provider = name, event.get("provider", "")
    except BenchError:
        stream.ended = "refused"
    stream.ended = stream.ended or "cut"
