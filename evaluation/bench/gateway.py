"""The gateway's figures: what it costs, what it holds, and what becomes of a request whose provider fails."""

from __future__ import annotations

import asyncio

from evaluation.bench.children import running_fake_llm
from evaluation.bench.failing import measure_killed, measure_refused
from evaluation.bench.figures import Figure, Part
from evaluation.bench.generated import questions
from evaluation.bench.held import measure_held
from evaluation.bench.options import Options, generated_service
from evaluation.bench.overhead import (
    PROVIDER,
    ROUNDS,
    TOKENS,
    WARM_UP,
    measure_overhead,
    measure_service_tokens,
    provider,
)


def measure_gateway(options: Options) -> Part:
    """The gateway in this process, then the service in its own, each in front of fake LLMs in theirs."""
    with running_fake_llm(options.scratch, "--tokens", str(TOKENS)) as llm:
        options.say("streaming through the gateway and beside it")
        figures = asyncio.run(measure_overhead(llm))
        options.say("asking a provider that nobody runs")
        refused = asyncio.run(measure_refused(llm))
        figures += _service_tokens(options, llm.address)
    if options.held_s:
        figures += measure_held(options)
    figures += measure_killed(options)
    return Part((*figures, *refused))
