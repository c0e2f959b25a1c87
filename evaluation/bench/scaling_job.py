"""The job over invented files, in a process of its own: `python -m evaluation.bench.scaling_job`, its settings on stdin.

On stdout stand lines of JSON: `said` as it goes on, and `report` with `embedding_s` at the end.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from evaluation.bench.invented_embedder import InventedEmbedder
from ingest.job import run
from ingest.report import Event
from ingest.settings import JobSettings

SAY_EVERY_S = 15.0


class _Progress:
    """Says now and then how far the run is."""

    def __init__(self) -> None:
        self._said = time.monotonic()

    def __call__(self, event: Event) -> None:
        if time.monotonic() - self._said > SAY_EVERY_S:
            self._said = time.monotonic()
            done = 100 * event.done_bytes / max(1, event.total_bytes)
            _write({"said": f"{event.step}: {event.files:,} files, {done:.0f} %, {event.embedded:,} embedded"})


def main() -> None:
    """Run the job."""
    embedder = InventedEmbedder()
    report = run(JobSettings.model_validate_json(sys.stdin.read()), _Progress(), allow_removals=True, embedder=embedder)
    _write({"report": report.as_json(), "embedding_s": embedder.took_s})


def _write(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
