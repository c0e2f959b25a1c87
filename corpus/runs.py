"""The history of runs as job and service read it: data_dir/runs/<run id>.json, one report a run (run_report.py).

The job writes its report while it is at work and when it ends. Who starts a run for somebody reserves its id first, so that it
can be followed from then on. Reports hold names, numbers and reasons, never a document's text.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from corpus.disk import writing
from corpus.errors import ConfigError
from corpus.lock import is_locked
from corpus.run_report import parse_report

ID = re.compile(r"\d{6,}-[0-9a-f]{8}")
STARTING_S = 120.0
"""A process that was started so long ago and has not said that it is at work will not."""

KILLED = "the process ended without a word"


def next_run_id(data_dir: Path) -> str:
    """An id for a run that is about to begin; ids are ordered by number, whatever the clock says."""
    number = max((_number(name) for name in run_ids(data_dir)), default=0) + 1
    return f"{number:06d}-{secrets.token_hex(4)}"


def run_ids(data_dir: Path) -> list[str]:
    """The ids of the runs whose reports are kept, oldest first."""
    folder = runs_folder(data_dir)
    names = [entry.stem for entry in folder.glob("*.json")] if folder.is_dir() else []
    return sorted((name for name in names if ID.fullmatch(name)), key=lambda name: (_number(name), name))


def read_run(data_dir: Path, run_id: str) -> dict[str, Any]:
    """The report of one run. Raises: ConfigError where there is none that can be read."""
    try:
        if not ID.fullmatch(run_id):
            raise ValueError("not an id")
        report = parse_report((runs_folder(data_dir) / f"{run_id}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"no report of a run {run_id[:40]!r} in {str(runs_folder(data_dir))!r}; see `archivist runs list`"
        ) from error
    return {**report, "run": run_id}


def read_runs(data_dir: Path) -> list[dict[str, Any]]:
    """The reports that can be read, oldest first."""
    found = []
    for run_id in run_ids(data_dir):
        try:
            found.append(read_run(data_dir, run_id))
        except ConfigError:
            continue
    return found


def follow_run(data_dir: Path, run_id: str) -> dict[str, Any]:
    """The report of one run as things stand now: one whose process has died says so. Raises: ConfigError."""
    report = read_run(data_dir, run_id)
    if report.get("status") == "running" and not is_locked(data_dir):
        # It may have ended since: a run writes down how before it lets go of the lock.
        report = read_run(data_dir, run_id)
        return killed(report) if report.get("status") == "running" else report
    return killed(report) if never_began(report) else report


def killed(report: Mapping[str, Any]) -> dict[str, Any]:
    """The report of a run whose process has died without writing down how it ended."""
    return {**report, "status": "killed", "error": KILLED}


def never_began(report: Mapping[str, Any]) -> bool:
    """Whether a run was started so long ago that it will not begin any more."""
    if report.get("status") != "starting":
        return False
    started = datetime.fromisoformat(report["started_at"])
    return (datetime.now(UTC) - started).total_seconds() > STARTING_S


def reserve_run(data_dir: Path) -> str:
    """Take the id of a run that is about to be started. Raises: NotWritten."""
    run_id = next_run_id(data_dir)
    write_run(data_dir, {"run": run_id, "status": "starting", "started_at": now()})
    return run_id


def write_run(data_dir: Path, report: Mapping[str, Any]) -> None:
    """Write a report durably, in one step. Raises: NotWritten."""
    with writing(runs_folder(data_dir)):
        try:
            _write(runs_folder(data_dir), report)
        except FileNotFoundError:
            # A run that begins removes what it takes for the litter of a killed one.
            _write(runs_folder(data_dir), report)


def _write(folder: Path, report: Mapping[str, Any]) -> None:
    beside = folder / f".{report['run']}-{secrets.token_hex(4)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with beside.open("w", encoding="utf-8") as file:
            json.dump(report, file, indent=1, ensure_ascii=False, default=str)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        beside.replace(folder / f"{report['run']}.json")
    except OSError:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise


def runs_folder(data_dir: Path) -> Path:
    """Where the reports lie."""
    return data_dir / "runs"


def output_path(data_dir: Path, run_id: str) -> Path:
    """What a run that was started for somebody printed."""
    return runs_folder(data_dir) / f"{run_id}.log"


def now() -> str:
    """The time as reports have it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _number(run_id: str) -> int:
    return int(run_id.split("-")[0])
