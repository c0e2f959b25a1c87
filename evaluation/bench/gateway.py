"""The gateway's figures: what it costs, what it holds, and what becomes of a request whose provider fails."""

from __future__ import annotations

import asyncio

from evaluation.bench.children import running_fake_llm
from evaluation.bench.failing import measure_killed, measure_refused
from evaluation.bench.figures import Part
from evaluation.bench.held import measure_held
from evaluation.bench.options import Options
from evaluation.bench.overhead import TOKENS, measure_overhead, measure_service


def measure_gateway(options: Options) -> Part:
    """The gateway in this process, then the service in its own, each in front of fake LLMs in theirs."""
    with running_fake_llm(options.scratch, "--tokens", str(TOKENS)) as llm:
        options.say("streaming through the gateway and beside it")
        figures = asyncio.run(measure_overhead(llm.address))
        options.say("asking a provider that nobody runs")
        refused = asyncio.run(measure_refused(llm.address))
    figures += measure_service(options)
    if options.held_s:
        figures += measure_held(options)
    return Part((*figures, *measure_killed(options), *refused))
