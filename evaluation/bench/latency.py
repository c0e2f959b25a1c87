"""How long a search takes over HTTP, with one client and with eight, and how long its stages take."""

from __future__ import annotations

import time

from evaluation.bench.client import Client, timed_requests
from evaluation.bench.figures import Aim, Figure, Part, percentile
from evaluation.bench.generated import questions
from evaluation.bench.options import Options, generated_service

PART = "latency"
WARM_UP, REQUESTS, ASKS, CLIENTS = 20, 300, 60, 8
STAGES = ("embed", "search", "prompt", "generate", "total")


def measure_latency(options: Options) -> Part:
    """POST /v1/search against the service in a process of its own."""
    asked = questions(WARM_UP + 2 * REQUESTS + ASKS)
    bodies = [{"query": question} for question in asked]
    with generated_service(options) as service:
        options.say(f"searching {REQUESTS} times with one client, {REQUESTS} times with {CLIENTS}")
        timed_requests(service.address, options.key, "/v1/search", bodies[:WARM_UP], 1)
        alone = timed_requests(service.address, options.key, "/v1/search", bodies[WARM_UP : WARM_UP + REQUESTS], 1)
        began = time.perf_counter()
        together = timed_requests(service.address, options.key, "/v1/search", bodies[-REQUESTS - ASKS : -ASKS], CLIENTS)
        took_s = time.perf_counter() - began
        stages = _stages(options, service.address, asked[-ASKS:])
    data = f"{options.generated}; {REQUESTS} searches over HTTP"
    figures = [
        Figure(PART, "search p50, 1 client", percentile(alone, 50), "ms", data, Aim(35)),
        Figure(PART, "search p95, 1 client", percentile(alone, 95), "ms", data),
        Figure(PART, f"search p50, {CLIENTS} clients", percentile(together, 50), "ms", data),
        Figure(PART, f"search p95, {CLIENTS} clients", percentile(together, 95), "ms", data),
        Figure(PART, f"searches, {CLIENTS} clients", len(together) / took_s, "/s", data),
    ]
    data = f"{options.generated}; {ASKS} extractive answers, as timings_ms says"
    figures += [Figure(PART, f"ask, {stage} p50", percentile(took, 50), "ms", data) for stage, took in stages.items()]
    return Part(tuple(figures))


def _stages(options: Options, address: str, asked: list[str]) -> dict[str, list[float]]:
    """The stages as the service's own clock has them. A search has the first two of an answer's."""
    client = Client(address, options.key)
    try:
        timings = [
            client.post("/v1/ask", {"question": question, "messages": [], "provider": "extractive"})["timings_ms"]
            for question in asked
        ]
    finally:
        client.close()
    return {stage: [float(timing[stage]) for timing in timings if stage in timing] for stage in STAGES}
