"""How long the service takes to be ready, against the model library alone, and how much memory it holds."""

from __future__ import annotations

from statistics import median

from evaluation.bench.children import library_alone_s
from evaluation.bench.client import timed_requests
from evaluation.bench.figures import Aim, Figure, Part
from evaluation.bench.generated import questions
from evaluation.bench.machine import resident_mb
from evaluation.bench.options import Options, generated_service

PART = "startup"
RUNS, SEARCHES = 3, 100


def measure_startup(options: Options) -> Part:
    """Fresh processes in turn, after one of each that only fills the file cache."""
    bodies = [{"query": question} for question in questions(SEARCHES)]
    services, libraries, memory = [], [], None
    for run in range(RUNS + 1):
        options.say(f"starting the model library and the service, {run} of {RUNS}")
        libraries.append(library_alone_s(options.settings.embedder))
        with generated_service(options) as service:
            services.append(service.ready_s)
            if run == RUNS:
                timed_requests(service.address, options.key, "/v1/search", bodies, 1)
                memory = resident_mb(service.pid)
    ready, library = median(services[1:]), median(libraries[1:])
    data = f"{options.generated}; median of {RUNS} alternating starts"
    figures = [
        Figure(PART, "service ready / model library alone", ready / library, "x", data, Aim(1.3)),
        Figure(PART, "service, start to ready", ready, "s", data),
        Figure(PART, "import and load of the model alone", library, "s", data),
    ]
    if memory is not None:
        searched = f"{options.generated}; after {SEARCHES} searches"
        figures.append(Figure(PART, "resident memory of the service", memory, "MB", searched, Aim(1000)))
    return Part(tuple(figures))
