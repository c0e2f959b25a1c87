"""What the service adds before an LLM's first token: history, search, prompt, and passing the stream on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from evaluation.bench.children import running_fake_llm
from evaluation.bench.client import Client
from evaluation.bench.figures import Aim, BenchError, Figure, Part, percentile
from evaluation.bench.generated import questions
from evaluation.bench.options import Options, generated_service

PART = "first_token"
WARM_UP, PAIRS = 10, 60
PROVIDER = "fake"
STAGES = ("history", "embed", "search", "prompt", "first_token")


@dataclass(frozen=True, slots=True)
class Pair:
    """Milliseconds to the first token of one question: through the service, by its own clock's stages, and without it."""

    through_ms: float
    stages_ms: Mapping[str, float]
    bare_ms: float


def measure_first_token(options: Options) -> Part:
    """The service in front of a fake LLM that answers at once, minus a bare client of the same fake, question by question."""
    asked = questions(WARM_UP + PAIRS)
    with running_fake_llm(options.scratch) as llm:
        providers = {PROVIDER: {"base_url": f"{llm.address}/v1", "model": "fake"}}
        with generated_service(options, {"default": PROVIDER, "providers": providers}) as service:
            options.say(f"streaming {PAIRS} pairs of answers")
            ours, bare = Client(service.address, options.key), Client(llm.address)
            try:
                pairs = [_pair(ours, bare, question, ours_first=number % 2 == 0) for number, question in enumerate(asked)]
            finally:
                ours.close()
                bare.close()
    measured = pairs[WARM_UP:]
    added = [pair.through_ms - pair.bare_ms for pair in measured]
    data = f"{options.generated}; {PAIRS} interleaved pairs, LLM without delay"
    figures = [
        Figure(PART, "added to the first token, median", percentile(added, 50), "ms", data, Aim(40)),
        Figure(PART, "added to the first token, p95", percentile(added, 95), "ms", data),
        Figure(PART, "first token of the LLM alone", percentile([pair.bare_ms for pair in measured], 50), "ms", data),
    ]
    for stage in STAGES:
        took = [pair.stages_ms[stage] for pair in measured]
        figures.append(Figure(PART, f"of which {stage}, as timings_ms says", percentile(took, 50), "ms", data))
    return Part(tuple(figures))


def _pair(ours: Client, bare: Client, question: str, *, ours_first: bool) -> Pair:
    """The same question both ways; whoever goes first takes turns."""
    if ours_first:
        through, stages = through_service_ms(ours, question)
        return Pair(through, stages, bare_ms(bare, question))
    alone = bare_ms(bare, question)
    return Pair(*through_service_ms(ours, question), alone)


def through_service_ms(client: Client, question: str) -> tuple[float, Mapping[str, float]]:
    """Milliseconds to the first `delta` event, and the service's own timings.

    Raises: BenchError where another provider answered than the fake.
    """
    first, event, done = None, b"", {}
    for at_ms, line in client.stream("/v1/ask", {"question": question, "stream": True}):
        if line.startswith(b"event: "):
            event = line.removeprefix(b"event: ")
        if event == b"delta" and first is None:
            first = at_ms
        if event == b"done" and line.startswith(b"data: "):
            done = json.loads(line.removeprefix(b"data: "))
    if first is None or done.get("provider") != PROVIDER:
        said = done.get("provider")
        raise BenchError(f"the service's answer came from {said!r}, not from the fake LLM; is ARCHIVIST_LLM__… set?")
    return first, done["timings_ms"]


def bare_ms(client: Client, question: str) -> float:
    """Milliseconds to the first word of the LLM itself."""
    body = {"model": "fake", "messages": [{"role": "user", "content": question}], "stream": True}
    first = None
    for at_ms, line in client.stream("/v1/chat/completions", body):
        if first is None and line.startswith(b"data: {"):
            choices = json.loads(line.removeprefix(b"data: "))["choices"]
            first = at_ms if choices and choices[0]["delta"].get("content") else None
    if first is None:
        raise BenchError("the fake LLM streamed no word")
    return first
