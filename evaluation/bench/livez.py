"""Whether the service still says that it lives while it is busy answering."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from threading import Event

from evaluation.bench.client import Client
from evaluation.bench.figures import Aim, Figure, Part, percentile
from evaluation.bench.generated import questions
from evaluation.bench.options import Options, generated_service

PART = "livez"
CLIENTS, EVERY_S, LASTS_S, SETTLE_S = 8, 0.01, 15.0, 1.0


def measure_livez(options: Options) -> Part:
    """GET /livez every 10 ms while eight clients get extractive answers as fast as they come."""
    asked = questions(1000)
    with generated_service(options) as service, ThreadPoolExecutor(CLIENTS) as pool:
        options.say(f"looking at /livez for {LASTS_S:.0f} s while {CLIENTS} clients ask")
        stop = Event()
        asking = [
            pool.submit(_ask_until, stop, service.address, options.key, asked[number::CLIENTS]) for number in range(CLIENTS)
        ]
        try:
            time.sleep(SETTLE_S)
            began = time.perf_counter()
            since_due, since_sent = watched(service.address, LASTS_S)
            took_s = time.perf_counter() - began
        finally:
            stop.set()
        answers = sum(future.result() for future in asking)
    data = f"{options.generated}; every 10 ms for {LASTS_S:.0f} s, {CLIENTS} clients ask ({answers / took_s:.0f} answers/s)"
    return Part(
        (
            Figure(PART, "/livez p50", percentile(since_due, 50), "ms", data),
            Figure(PART, "/livez p99", percentile(since_due, 99), "ms", data, Aim(50)),
            Figure(PART, "/livez slowest", max(since_due), "ms", data),
            Figure(PART, "/livez p99, since it was sent", percentile(since_sent, 99), "ms", data),
        )
    )


def watched(address: str, lasts_s: float) -> tuple[list[float], list[float]]:
    """Milliseconds of each look, since it was due and since it was sent.

    A look that is late because the one before it was slow counts from when it was due: a stall is not one slow look but all
    that should have been made meanwhile.
    """
    client = Client(address)
    since_due, since_sent = [], []
    began = time.perf_counter()
    try:
        for number in range(round(lasts_s / EVERY_S)):
            due = began + number * EVERY_S
            time.sleep(max(0.0, due - time.perf_counter()))
            since_sent.append(client.timed("GET", "/livez"))
            since_due.append((time.perf_counter() - due) * 1000)
    finally:
        client.close()
    return since_due, since_sent


def _ask_until(stop: Event, address: str, key: str | None, asked: list[str]) -> int:
    """Ask one question after the other; how many were answered."""
    client = Client(address, key)
    try:
        for number in count():
            if stop.is_set():
                return number
            client.post("/v1/ask", {"question": asked[number % len(asked)], "provider": "extractive"})
    finally:
        client.close()
    raise AssertionError("counting ends only when it is told to stop")
