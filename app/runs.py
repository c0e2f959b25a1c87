"""Runs of the job, as the service starts and follows them. A run is a process of its own and outlives the service."""

from __future__ import annotations

import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog

from corpus.errors import ArchivistError, ConfigError, Conflict, NotFound, NotWritten
from corpus.lock import is_locked
from corpus.runs import follow_run, killed, now, output_path, read_run, reserve_run, run_ids, runs_folder, write_run

AT_WORK = ("starting", "running")
WELL = ("published", "unchanged")
"""Statuses of a run after which what is served is what the sources hold."""

ENDING_S = 10.0
LAST_WORDS_BYTES = 4_000

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Overview:
    """The history in a few numbers. `last` is the last run that has ended, None before there is one. Units: seconds (Unix)."""

    by_status: Mapping[str, int] = field(default_factory=dict)
    last: Mapping[str, Any] | None = None
    ended_at: float | None = None
    well_at: float | None = None


class Runs:
    """Starts runs, one at a time, and reads their reports. Safe for use by several threads."""

    def __init__(
        self, data_dir: Path, command: Sequence[str] = (), tell: Callable[[Mapping[str, Any]], str | None] = lambda report: None
    ) -> None:
        """`command` starts the job under the service's own configuration; empty where the service starts none.

        `tell` is called with the report of a run that was killed, and returns what came of it.
        """
        self._data_dir, self._command, self._tell = data_dir, tuple(command), tell
        self._lock = threading.Lock()
        self._started: tuple[str, subprocess.Popen[bytes]] | None = None
        self._known: dict[str, tuple[tuple[int, int], dict[str, Any]]] = {}

    def start(self, *, allow_removals: bool = False) -> str:
        """Start a run; its id. Its report is there when this returns. Raises: Conflict where one is at work; NotWritten."""
        if not self._command:
            raise Conflict("this service starts no runs; run `archivist ingest` beside it")
        with self._lock:
            self._refuse_second()
            run_id = reserve_run(self._data_dir)
            command = [*self._command, "--run-id", run_id, *(("--allow-removals",) if allow_removals else ())]
            try:
                with output_path(self._data_dir, run_id).open("wb") as output:
                    # A session of its own: neither Ctrl-C at the service's terminal nor the service's end reaches it.
                    process = subprocess.Popen(  # noqa: S603 - our own command, and an id of ours
                        command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
                    )
            except OSError as error:
                self._note({**read_run(self._data_dir, run_id), "status": "failed", "error": f"not started: {error.strerror}"})
                raise ArchivistError(f"run {run_id!r} could not be started ({error.strerror})") from error
            self._started = run_id, process
        _log.info("run started", action="run_started", run=run_id, pid=process.pid, allow_removals=allow_removals)
        threading.Thread(target=self._wait, args=(run_id, process), name=f"run-{run_id}", daemon=True).start()
        return run_id

    def _refuse_second(self) -> None:
        if self._started is not None:
            run_id, process = self._started
            with suppress(ConfigError, subprocess.TimeoutExpired):
                # One that says how it ended has nothing left to do but to end.
                if read_run(self._data_dir, run_id)["status"] not in AT_WORK:
                    process.wait(ENDING_S)
            if process.poll() is None:
                raise Conflict(f"run {run_id!r} is at work; follow it at /v1/ingest/{run_id}")
        if is_locked(self._data_dir):
            raise Conflict("another run, or a purge, is at work on the data folder; wait until it has ended")

    def _wait(self, run_id: str, process: subprocess.Popen[bytes]) -> None:
        """Write down how a run ended that could not do so itself: it was killed, or ended before it was at work."""
        code = process.wait()
        _log.info("run ended", action="run_ended", run=run_id, exit_code=code)
        try:
            report = read_run(self._data_dir, run_id)
        except ConfigError:
            return  # so many runs later that its report is not kept any more
        match report.get("status"):
            case "starting" if code > 0:
                error = _last_words(output_path(self._data_dir, run_id)) or f"it ended with exit code {code}"
                self._note({**report, "status": "failed", "ended_at": now(), "error": error, "exit_code": code})
            case "starting" | "running":
                died = {**killed(report), "ended_at": now()}
                self._note(died)
                told = self._tell(died)
                if told is not None:
                    self._note({**died, "webhook": told})
            case _:
                pass

    def _note(self, report: Mapping[str, Any]) -> None:
        with suppress(NotWritten):  # whoever follows the run still learns that it died
            write_run(self._data_dir, report)

    def report(self, run_id: str) -> dict[str, Any]:
        """The report of a run as things stand now. Raises: NotFound."""
        try:
            return follow_run(self._data_dir, run_id)
        except ConfigError as error:
            raise NotFound("run", run_id) from error

    def reports(self, before: str | None, limit: int) -> tuple[list[dict[str, Any]], bool]:
        """Reports that can be read, newest first, those older than the run `before`; and whether there are more."""
        ids = run_ids(self._data_dir)[::-1]
        if before is not None:
            ids = ids[ids.index(before) + 1 :] if before in ids else []
        found: list[dict[str, Any]] = []
        for run_id in ids:
            with suppress(NotFound):
                found.append(self.report(run_id))
            if len(found) > limit:
                break
        return found[:limit], len(found) > limit

    def overview(self) -> Overview:
        """The history in a few numbers. A report is read again only when it has changed."""
        ids = run_ids(self._data_dir)
        with self._lock:
            self._known = {run_id: known for run_id in ids if (known := self._looked_at(run_id)) is not None}
            reports = [report for _, report in self._known.values()]
        ended = [report for report in reports if report["status"] not in AT_WORK]
        well = [report for report in ended if report["status"] in WELL]
        return Overview(
            by_status=Counter(str(report["status"]) for report in reports),
            last=ended[-1] if ended else None,
            ended_at=_seconds(ended[-1].get("ended_at") or ended[-1].get("started_at")) if ended else None,
            well_at=_seconds(well[-1].get("ended_at")) if well else None,
        )

    def _looked_at(self, run_id: str) -> tuple[tuple[int, int], dict[str, Any]] | None:
        try:
            status = (runs_folder(self._data_dir) / f"{run_id}.json").stat()
            stamp = status.st_mtime_ns, status.st_size
            known = self._known.get(run_id)
            if known is not None and known[0] == stamp and known[1]["status"] not in AT_WORK:
                return known
            report = follow_run(self._data_dir, run_id)
        except (OSError, ConfigError):
            return None
        told = {name: report.get(name) for name in ("run", "status", "started_at", "ended_at", "took_s", "snapshot")}
        return stamp, {**told, "failures": len(report.get("failures") or ())}


def _last_words(output: Path) -> str:
    """What the command said why it ended: its last line that is addressed to a person."""
    try:
        with output.open("rb") as file:
            file.seek(max(0, output.stat().st_size - LAST_WORDS_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    return next((line.removeprefix("archivist: ") for line in reversed(lines) if line.startswith("archivist: ")), "")


def _seconds(written: object) -> float | None:
    try:
        return datetime.fromisoformat(str(written)).timestamp()
    except ValueError:
        return None
