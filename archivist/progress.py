"""How a run of the job shows itself: a progress bar with rate and time left on a terminal, one JSON line a step otherwise."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn, TransferSpeedColumn

from ingest.report import Event, Listener, Report


@contextmanager
def shown() -> Iterator[Listener]:
    """A listener for the job, that shows on standard error what it hears."""
    if not sys.stderr.isatty():
        yield _json_line
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[chunks]} chunks embedded"),
        TransferSpeedColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("reading the sources", total=None, chunks=0)
        yield lambda event: _advance(progress, task, event)


def _advance(progress: Progress, task: TaskID, event: Event) -> None:
    progress.update(
        task,
        description=event.message[:40],
        total=event.total_bytes or None,
        completed=event.done_bytes,
        chunks=event.embedded,
    )


def _json_line(event: Event) -> None:
    fields = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "action": f"ingest_{event.step}",
        "message": event.message,
        "done_bytes": event.done_bytes,
        "total_bytes": event.total_bytes,
        "files": event.files,
        "embedded": event.embedded,
    }
    print(json.dumps(fields, ensure_ascii=False), file=sys.stderr, flush=True)  # noqa: T201 - the command's output


def summary(report: Report) -> str:
    """What a run did, for people."""
    lines = []
    if report.published:
        lines.append(
            f"Published {report.snapshot}: {report.documents} documents, {report.chunks} chunks "
            f"({report.embedded} embedded, {report.reused} reused) in {report.took_s:.1f} s."
        )
        changes = f"{report.added} added, {report.changed} changed, {report.removed} removed, {report.kept} unchanged"
        lines.append(f"Files: {changes}.")
    else:
        lines.append(
            f"Nothing changed: {report.kept} files, {report.documents} documents in {report.snapshot}. Nothing was embedded."
        )
    lines += [f"Note: {note}." for note in report.notes]
    if report.failures:
        lines.append(f"{len(report.failures)} could not be read:")
        for failure in report.failures:
            item = f" [{failure.item}]" if failure.item else ""
            lines.append(f"  {failure.path}{item}: {failure.reason}; {failure.advice}")
    return "\n".join(lines)
