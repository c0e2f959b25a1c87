"""How long the service takes to be ready, against the model library alone, how much memory it holds, and what it imports."""

from __future__ import annotations

from statistics import median

from evaluation.bench.children import RunningService, ingest, library_alone_s, running_service
from evaluation.bench.client import timed_requests
from evaluation.bench.figures import Aim, Figure, Part
from evaluation.bench.machine import maps, resident_mb
from evaluation.bench.options import Options

PART = "startup"
RUNS, SEARCHES, ANSWERS = 3, 100, 10
QUESTION = "How many days does a working student get?"
RESIDENT = Aim(350)


def measure_startup(options: Options) -> Part:
    """Fresh processes over the sample documents in turn, after one of each that only fills the file cache."""
    data_dir = options.scratch / "startup"
    options.say("ingesting the documents")
    ingest(options.config, data_dir)
    services, libraries = [], []
    held: list[Figure] = []
    for run in range(RUNS + 1):
        options.say(f"starting the model library and the service, {run} of {RUNS}")
        libraries.append(library_alone_s(options.settings.embedder))
        with running_service(options.config, data_dir, options.key) as service:
            services.append(service.ready_s)
            if run == RUNS:
                held = _held(options, service)
    ready, library = median(services[1:]), median(libraries[1:])
    data = f"{options.config.stem}; median of {RUNS} alternating starts"
    figures = (
        Figure(PART, "service, start to ready", ready, "s", data, Aim(2)),
        Figure(PART, "import and load of the model library alone", library, "s", data),
        Figure(PART, "service ready / model library alone", ready / library, "x", data, Aim(1.3)),
    )
    return Part((*figures, *held))


def _held(options: Options, service: RunningService) -> list[Figure]:
    """Memory and libraries; without Linux' /proc nothing is known of them."""
    figures = [_memory(service, "when it is ready", RESIDENT)]
    timed_requests(service.address, options.key, "/v1/search", [{"query": QUESTION}] * SEARCHES, 1)
    figures.append(_memory(service, f"after {SEARCHES} searches", RESIDENT))
    timed_requests(service.address, options.key, "/v1/ask", [{"question": QUESTION, "messages": []}] * ANSWERS, 1)
    # The first answer loads what tells the languages of questions apart.
    figures.append(_memory(service, f"after {ANSWERS} answers", None))
    with_torch = maps(service.pid, "libtorch")
    if with_torch is not None:
        figures.append([Figure(PART, "services that loaded torch", int(with_torch), "", "of 1", Aim(0))])
    return [figure for found in figures for figure in found]


def _memory(service: RunningService, when: str, aim: Aim | None) -> list[Figure]:
    memory = resident_mb(service.pid)
    return [] if memory is None else [Figure(PART, f"resident memory of the service, {when}", memory, "MB", "of 1", aim)]
