"""The history of runs: data_dir/runs/<run id>.json, one report a run, written while it is at work and when it ends.

Reports hold names, numbers and reasons, never a document's text.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from corpus.errors import ConfigError
from ingest.report import Event, Listener

ID = re.compile(r"\d{6,}-[0-9a-f]{8}")
EVERY_S = 1.0
"""How often a run that is at work says how far it is; a new step is said at once."""

Status = Literal["running", "published", "unchanged", "refused", "failed", "killed"]


def next_run_id(data_dir: Path) -> str:
    """An id for a run that is about to begin; ids are ordered by number, whatever the clock says."""
    number = max((int(name.split("-")[0]) for name in run_ids(data_dir)), default=0) + 1
    return f"{number:06d}-{secrets.token_hex(4)}"


def run_ids(data_dir: Path) -> list[str]:
    """The ids of the runs whose reports are kept, oldest first."""
    folder = data_dir / "runs"
    names = [entry.stem for entry in folder.glob("*.json")] if folder.is_dir() else []
    return sorted((name for name in names if ID.fullmatch(name)), key=lambda name: (int(name.split("-")[0]), name))


def read_run(data_dir: Path, run_id: str) -> dict[str, Any]:
    """The report of one run. Raises: ConfigError where there is none that can be read."""
    try:
        if not ID.fullmatch(run_id):
            raise ValueError("not an id")
        report = json.loads((data_dir / "runs" / f"{run_id}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"no report of a run {run_id[:40]!r} in {str(data_dir / 'runs')!r}; see `archivist runs list`"
        ) from error
    return dict(report)


def read_runs(data_dir: Path) -> list[dict[str, Any]]:
    """The reports that can be read, oldest first."""
    found = []
    for run_id in run_ids(data_dir):
        try:
            found.append(read_run(data_dir, run_id))
        except ConfigError:
            continue
    return found


class RunLog:
    """The report of a run that is at work. That it cannot be written, on a full disk for one, never ends the run."""

    def __init__(self, data_dir: Path, run_id: str | None, keep: int) -> None:
        """The caller holds the job's lock, so whatever else says that it is running was killed."""
        if run_id is not None and (not ID.fullmatch(run_id) or run_id in run_ids(data_dir)):
            raise ConfigError(f"run id {run_id[:40]!r} is taken, or not like 000001-0123abcd; leave --run-id out")
        self.run_id = run_id or next_run_id(data_dir)
        self._folder = data_dir / "runs"
        self._started, self._said_at, self._step = time.monotonic(), 0.0, ""
        self._fields: dict[str, Any] = {
            "run": self.run_id,
            "status": "running",
            "started_at": _now(),
            "pid": os.getpid(),
        }
        for report in read_runs(data_dir):
            if report.get("status") == "running":
                self._write({**report, "status": "killed", "error": "the process ended without a word"})
        self._write(self._fields)
        killed = self._folder.glob(".*")  # what a run was writing when it was killed
        for old in [*killed, *(self._folder / f"{name}.json" for name in run_ids(data_dir)[:-keep])]:
            old.unlink(missing_ok=True)

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
        ended = {**fields, **self._fields, "status": status, "ended_at": _now(), "took_s": took_s}
        self._write(ended)
        return ended

    def note(self, ended: dict[str, Any], **fields: Any) -> None:
        """Add to what was written at the end."""
        self._write({**ended, **fields})

    def _write(self, report: Mapping[str, Any]) -> None:
        beside = self._folder / f".{report['run']}-{secrets.token_hex(4)}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with beside.open("w", encoding="utf-8") as file:
                json.dump(report, file, indent=1, ensure_ascii=False, default=str)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self._folder / f"{report['run']}.json")
        except OSError:
            with suppress(OSError):
                beside.unlink(missing_ok=True)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
