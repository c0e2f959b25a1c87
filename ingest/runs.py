"""The report of a run that is at work: data_dir/runs/<run id>.json, which corpus/runs.py reads."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from corpus.errors import ConfigError, NotWritten
from corpus.run_report import Status
from corpus.runs import (
    ID,
    killed,
    never_began,
    next_run_id,
    now,
    output_path,
    read_run,
    read_runs,
    run_ids,
    runs_folder,
    write_run,
)
from ingest.report import Event, Listener

EVERY_S = 1.0
"""How often a run that is at work says how far it is; a new step is said at once."""


class RunLog:
    """The report of a run that is at work. That it cannot be written, on a full disk for one, never ends the run."""

    def __init__(self, data_dir: Path, run_id: str | None, keep: int) -> None:
        """The caller holds the job's lock, so whatever else says that it is running was killed: `killed`, marked as such."""
        if run_id is not None and not _is_free(data_dir, run_id):
            raise ConfigError(f"run id {run_id[:40]!r} is taken, or not like 000001-0123abcd; leave --run-id out")
        self.run_id = run_id or next_run_id(data_dir)
        self._data_dir = data_dir
        self._started, self._said_at, self._step = time.monotonic(), 0.0, ""
        self._fields: dict[str, Any] = {
            "run": self.run_id,
            "status": "running",
            "started_at": now(),
            "pid": os.getpid(),
        }
        self.killed: list[dict[str, Any]] = []
        for report in read_runs(data_dir):
            if report["run"] != self.run_id and (report.get("status") == "running" or never_began(report)):
                self.killed.append(killed(report))
                self._write(self.killed[-1])
        self._write(self._fields)
        self._tidy(keep)

    def _tidy(self, keep: int) -> None:
        """Remove the oldest reports, and what a run was writing when it was killed."""
        gone = run_ids(self._data_dir)[:-keep]
        reports = [runs_folder(self._data_dir) / f"{name}.json" for name in gone]
        outputs = [output_path(self._data_dir, name) for name in gone]
        for path in [*runs_folder(self._data_dir).glob(".*"), *outputs, *reports]:
            path.unlink(missing_ok=True)

    def hearing(self, listener: Listener) -> Listener:
        """The listener, with the report following."""

        def hear(event: Event) -> None:
            listener(event)
            if event.step != self._step or time.monotonic() - self._said_at >= EVERY_S:
                self._step, self._said_at = event.step, time.monotonic()
                self._write({**self._fields, "progress": {
                    "step": event.step, "done_bytes": event.done_bytes, "total_bytes": event.total_bytes,
                    "files": event.files, "embedded": event.embedded,
                }})  # fmt: skip

        return hear

    def end(self, status: Status, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Write how the run ended, and give it back."""
        took_s = round(time.monotonic() - self._started, 3)
        ended = {**fields, **self._fields, "status": status, "ended_at": now(), "took_s": took_s}
        self._write(ended)
        return ended

    def note(self, ended: dict[str, Any], **fields: Any) -> None:
        """Add to what was written at the end."""
        self._write({**ended, **fields})

    def _write(self, report: Mapping[str, Any]) -> None:
        with suppress(NotWritten):
            write_run(self._data_dir, report)


def _is_free(data_dir: Path, run_id: str) -> bool:
    """Whether a run may have this id: nobody has it, or it was reserved for one that has not begun."""
    if not ID.fullmatch(run_id):
        return False
    return run_id not in run_ids(data_dir) or read_run(data_dir, run_id).get("status") == "starting"
