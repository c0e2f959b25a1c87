"""Stops a run that would remove far too much: an empty mount looks like a folder from which everything was deleted.

Pure functions; they give the reasons to stop, none where there is none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable

from corpus.records import FileRecord
from ingest.plan import Plan

FEW = 1
"""So many that are gone are never a mass of them, whatever their share: a small corpus loses a third with one file."""

FLAG = "if that is meant, run again with --allow-removals"


def removals(todo: Plan, now: Iterable[FileRecord], before: Collection[FileRecord], max_share: float) -> list[str]:
    """Reasons in the plan: a source without a file that had some, or too large a share of all files gone."""
    present = {file.collection for file in now}
    had = Counter(file.collection for file in before)
    gone = Counter(file.collection for file in todo.removed)
    moved_away = Counter(move.before.collection for move in todo.moved)
    reasons = [
        f"source {name!r} is empty, and {count:,} of its {_files(had[name])} would be removed; is it mounted? {FLAG}"
        for name, count in sorted(gone.items())
        if name not in present and count + moved_away[name] == had[name]
    ]
    return reasons or _share(len(todo.removed), len(before), max_share, "files")


def vanished(gone: int, before: int, max_share: float) -> list[str]:
    """The reason at the end of a run: too many documents gone, by files that are gone, shrunk, or cannot be read any more."""
    return _share(gone, before, max_share, "documents")


def _share(gone: int, before: int, max_share: float, what: str) -> list[str]:
    if gone <= FEW or gone <= max_share * before:
        return []
    counts = f"{gone:,} of {before:,} {what} ({gone / before:.0%}) would be removed"
    return [f"{counts}, more than ingest.max_removed_share {max_share:g} allows; {FLAG}"]


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count:,} files"
