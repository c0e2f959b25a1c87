"""Providers that fail: one that is killed while many streams come from it, and one that nobody runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, aclosing, contextmanager
from dataclasses import dataclass

import structlog

from evaluation.bench.bare import BareClient
from evaluation.bench.children import RunningFake, free_port, running_fake_llm
from evaluation.bench.figures import Aim, BenchError, Figure, percentile
from evaluation.bench.generated import questions
from evaluation.bench.options import Options, generated_service
from evaluation.bench.overhead import MS, PART, SHORT, Pair, open_gateway, provider, rounds, stream_gateway

PRIMARY, SPARE = "primary", "spare"
STREAMS = 50
ARRIVING_S = 2.0
FIRST_TOKEN_S = 0.8
STREAMED_BEFORE = 1 / 3
"""The share of requests that must have a word before their LLM is killed; as many still wait for one then."""

LOOK_EVERY_S, BEGIN_WITHIN_S = 0.005, 60
WORDS, WORDS_PER_SECOND = 60, 20
REFUSED_ROUNDS = 20
NEVER, OPEN_S = 1_000_000, 600


@dataclass(slots=True)
class Outcome:
    """One request: its text, and how it ended (`done`, `error`, `refused`, or empty where the connection was cut)."""

    text: str = ""
    ended: str = ""

    @property
    def failed_before_a_word(self) -> bool:
        """Whether a caller who had seen nothing yet got nothing."""
        return not self.text and self.ended != "done"

    @property
    def went_wrong_after_a_word(self) -> bool:
        """Whether a caller who had seen words was left with them, or with another model's words behind them."""
        return bool(self.text) and self.ended != "error" and (self.ended != "done" or len(set(self.text.split())) > 1)

    def ended_whole_by(self, name: str) -> bool:
        """Whether it is one provider's whole answer."""
        return self.ended == "done" and self.text.split() == [name] * WORDS


def measure_killed(options: Options, streams: int = STREAMS) -> list[Figure]:
    """Requests arrive, some have streamed, some wait for a first token, and then their provider dies (SIGKILL)."""
    slow = ("--first-token-delay-s", str(FIRST_TOKEN_S), "--tokens-per-second", str(WORDS_PER_SECOND))
    with ExitStack() as stack:
        primary = stack.enter_context(running_fake_llm(options.scratch, "--reply", _reply(PRIMARY), *slow))
        spare = stack.enter_context(running_fake_llm(options.scratch, "--reply", _reply(SPARE)))
        llm = {
            "default": PRIMARY,
            "fallbacks": [SPARE],
            "extractive_fallback": False,
            "providers": {
                name: {**provider(fake.address), "max_concurrent": streams}
                for name, fake in ((PRIMARY, primary), (SPARE, spare))
            },
        }
        service = stack.enter_context(generated_service(options, llm))
        options.say(f"killing the LLM under {streams} streams")
        outcomes = asyncio.run(_kill_under_load(service.address, options.key, questions(streams), primary))
    return killed_figures(outcomes)


def killed_figures(outcomes: Sequence[Outcome]) -> list[Figure]:
    """How many went wrong. Raises: BenchError where the kill did not meet requests of both kinds."""
    spared = sum(outcome.ended_whole_by(SPARE) for outcome in outcomes)
    told = sum(bool(outcome.text) and outcome.ended == "error" for outcome in outcomes)
    failed = sum(outcome.failed_before_a_word for outcome in outcomes)
    wrong = sum(outcome.went_wrong_after_a_word for outcome in outcomes)
    if not spared + failed or not told + wrong:
        raise BenchError(f"{told} streams ended in an error and {spared} by the fallback; none of one kind proves nothing")
    data = f"{len(outcomes)} requests as their LLM is killed: {told} end in an error event, {spared} by the fallback"
    return [
        Figure(PART, "killed LLM: requests that had not streamed and failed", failed, "requests", data, Aim(0)),
        Figure(PART, "killed LLM: streams that did not end in an error event", wrong, "requests", data, Aim(0)),
    ]


async def measure_refused(address: str, count: int = REFUSED_ROUNDS) -> list[Figure]:
    """The fallback's first token after a refused connection, and with the breaker open, minus its own."""
    with _quiet():
        refused = await _fallback_pairs(address, count, {"breaker_failures": NEVER})
        left_alone = await _fallback_pairs(address, count, {"breaker_failures": 1, "breaker_open_s": OPEN_S})
    return [
        *refused_figures("fallback after a refused connection, added to its first token", refused, Aim(1000)),
        *refused_figures("fallback while the breaker is open, added to its first token", left_alone, Aim(50)),
    ]


async def _fallback_pairs(address: str, count: int, breaker: Mapping[str, float]) -> list[Pair]:
    """Through a chain whose first provider nobody runs, and from the second provider at once."""
    spare = provider(address)
    nobody = {**provider(f"http://127.0.0.1:{free_port()}"), **breaker}
    gateway = open_gateway({"default": PRIMARY, "fallbacks": [SPARE], "providers": {PRIMARY: nobody, SPARE: spare}})
    own = open_gateway({"default": SPARE, "providers": {SPARE: spare}})
    try:
        return await rounds(lambda: stream_gateway(gateway, SHORT), lambda: stream_gateway(own, SHORT), count)
    finally:
        await gateway.close()
        await own.close()


def refused_figures(name: str, pairs: Sequence[Pair], aim: Aim) -> list[Figure]:
    """The slowest must be fast enough."""
    added = [MS * (pair.ours.first_s - pair.bare.first_s) for pair in pairs]
    data = f"{len(pairs)} alternating pairs"
    return [
        Figure(PART, f"{name}, slowest", max(added), "ms", data, aim),
        Figure(PART, f"{name}, median", percentile(added, 50), "ms", data),
    ]


async def _kill_under_load(address: str, key: str | None, asked: Sequence[str], primary: RunningFake) -> list[Outcome]:
    loop = asyncio.get_running_loop()
    began = loop.time()
    outcomes = [Outcome() for _ in asked]
    async with BareClient(address, key) as client, asyncio.TaskGroup() as group:
        for number, (question, outcome) in enumerate(zip(asked, outcomes, strict=True)):
            group.create_task(_ask_at(client, question, began + ARRIVING_S * number / len(asked), outcome))
        while sum(bool(outcome.text) for outcome in outcomes) < STREAMED_BEFORE * len(asked):
            if loop.time() > began + BEGIN_WITHIN_S:
                raise BenchError(f"too few of {len(asked)} streams began within {BEGIN_WITHIN_S} s; is the machine busy?")
            await asyncio.sleep(LOOK_EVERY_S)
        primary.kill()
    return outcomes


async def _ask_at(client: BareClient, question: str, at: float, outcome: Outcome) -> None:
    await asyncio.sleep(at - asyncio.get_running_loop().time())
    try:
        async with aclosing(client.events(question)) as events:
            async for name, event in events:
                if name == "delta":
                    outcome.text += event["text"]
                elif name in ("done", "error"):
                    outcome.ended = name
    except BenchError:
        outcome.ended = "refused"


def _reply(name: str) -> str:
    return " ".join([name] * WORDS)


@contextmanager
def _quiet() -> Iterator[None]:
    """The failures here are ordered; nobody needs to read of them."""
    before: Callable[..., object] = structlog.get_config()["wrapper_class"]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    try:
        yield
    finally:
        structlog.configure(wrapper_class=before)  # type: ignore[arg-type]
