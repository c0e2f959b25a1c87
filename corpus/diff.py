"""What one snapshot's documents have that another's have not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from corpus.records import DocumentSummary
from corpus.stored import Stored
from corpus.types import MOVED_FROM


@dataclass(frozen=True, slots=True)
class Named:
    """A document, as a person knows it. `was` is the source of a moved one before."""

    document_id: str
    source: str
    collection: str
    was: str | None = None


@dataclass(frozen=True, slots=True)
class Access:
    """A document that others may see now, or that is labelled otherwise: before, and now."""

    document_id: str
    source: str
    collection: str
    labels: tuple[str, str]
    groups: tuple[tuple[str, ...], tuple[str, ...]]


@dataclass(slots=True)
class Difference:
    """From one snapshot to another. A moved document is neither added nor gone; one may be in several of the others.

    Order: by document id; moved ones and then `access` likewise.
    """

    added: list[Named] = field(default_factory=list)
    changed: list[Named] = field(default_factory=list)
    gone: list[Named] = field(default_factory=list)
    moved: list[Named] = field(default_factory=list)
    access: list[Access] = field(default_factory=list)
    kept: int = 0

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def difference(before: Path, now: Path) -> Difference:
    """Compare the documents of two snapshots' folders. Raises: SnapshotDamaged."""
    one = Stored(before / "chunks.db")
    try:
        other = Stored(now / "chunks.db")
        try:
            return _difference(one, other)
        finally:
            other.close()
    finally:
        one.close()


def _difference(before: Stored, now: Stored) -> Difference:
    found = Difference()
    gone: dict[str, DocumentSummary] = {}
    added: list[DocumentSummary] = []
    for old, new in _side_by_side(before.summaries(), now.summaries()):
        if new is None:
            assert old is not None, "a pair has one of the two"
            gone[old.document_id] = old
        elif old is None:
            added.append(new)
        else:
            _compare(found, old, new)
    for new in added:
        earlier = next((each for each in new.metadata.get(MOVED_FROM, "").split() if each in gone), None)
        if earlier is None:
            found.added.append(_named(new))
            continue
        old = gone.pop(earlier)
        found.moved.append(Named(new.document_id, new.source, new.collection, old.source))
        _compare(found, old, new)
    found.gone += [_named(old) for old in gone.values()]
    return found


def _compare(found: Difference, old: DocumentSummary, new: DocumentSummary) -> None:
    if old.version != new.version:
        found.changed.append(_named(new))
    else:
        found.kept += 1
    if old.label != new.label or set(old.groups) != set(new.groups):
        access = Access(new.document_id, new.source, new.collection, (old.label, new.label), (old.groups, new.groups))
        found.access.append(access)


def _side_by_side(
    before: Iterator[DocumentSummary], now: Iterator[DocumentSummary]
) -> Iterator[tuple[DocumentSummary | None, DocumentSummary | None]]:
    """Documents of two ordered lists, those with one id together; neither list is ever whole in memory."""
    old, new = next(before, None), next(now, None)
    while old is not None or new is not None:
        if new is None or (old is not None and old.document_id < new.document_id):
            yield old, None
            old = next(before, None)
        elif old is None or new.document_id < old.document_id:
            yield None, new
            new = next(now, None)
        else:
            yield old, new
            old, new = next(before, None), next(now, None)


def _named(document: DocumentSummary) -> Named:
    return Named(document.document_id, document.source, document.collection)
