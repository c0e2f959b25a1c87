"""How a run of the job shows itself: a progress bar with rate and time left on a terminal, one JSON line a step otherwise."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn, TransferSpeedColumn

from ingest.report import Event, Listener, Report

if TYPE_CHECKING:
    from corpus.records import FileRecord
    from ingest.preview import Preview

LISTED = 20
"""Files of each kind that a plan names; all of them stand in its JSON."""


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
        moved = f"{report.moved} moved, " if report.moved else ""
        changes = f"{report.added} added, {report.changed} changed, {moved}{report.removed} removed, {report.kept} unchanged"
        lines.append(f"Files: {changes}.")
    else:
        lines.append(
            f"Nothing changed: {report.kept} files, {report.documents} documents in {report.snapshot}. Nothing was embedded."
        )
    if report.withheld:
        lines.append(f"{report.withheld} documents of the sources are withheld: deleted, or given to nobody any more.")
    lines += [f"Note: {note}." for note in report.notes]
    if report.failures:
        stale = f" ({report.stale} of them pages that stand as an earlier run fetched them)" if report.stale else ""
        lines.append(f"{len(report.failures)} could not be read{stale}:")
        for failure in report.failures:
            item = f" [{failure.item}]" if failure.item else ""
            lines.append(f"  {failure.path}{item}: {failure.reason}; {failure.advice}")
    return "\n".join(lines)


def plan_summary(preview: Preview) -> str:
    """What a run would do, for people."""
    todo = preview.todo
    against = f"Compared with {preview.parent}" if preview.parent else "Nothing is published yet"
    lines = [f"{against}; nothing was written."]
    if preview.remake:
        lines.append("Model or chunking differ from the snapshot's: every file is read and embedded again.")
    if preview.overridden:
        lines.append(
            f"Deleted, revoked or relabelled since, or that undone: {preview.overridden} documents; their files change."
        )
    names = {"added": todo.added, "changed": todo.changed, "removed": todo.removed}
    for name, files in names.items():
        lines.append(_counted(name, files))
        lines += [f"  {file.collection}: {file.path}" for file in files[:LISTED]]
    lines.append(_counted("moved", [move.now for move in todo.moved]))
    for move in todo.moved[:LISTED]:
        lines.append(f"  {move.before.collection}: {move.before.path} -> {move.now.collection}: {move.now.path}")
    lines.append(_counted("kept", todo.kept))
    if preview.problems:
        lines.append(f"{len(preview.problems)} cannot be read:")
        lines += [f"  {problem.path}: {problem.reason}; {problem.advice}" for problem in preview.problems]
    lines += [f"The run would stop: {reason}." for reason in preview.refused]
    return "\n".join(lines)


def _counted(name: str, files: Sequence[FileRecord]) -> str:
    return f"{name:<8}{len(files):>8,} files {_size(sum(file.size_bytes for file in files)):>12}"


def _size(size_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:,.1f} TB"
