"""What a run has to do: a pure function of what lies in the sources now and what the parent snapshot was made from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from corpus.store import FileRecord


@dataclass(frozen=True, slots=True)
class Plan:
    """Files by what happens to them, each list ordered by collection and path."""

    added: tuple[FileRecord, ...]
    changed: tuple[FileRecord, ...]
    kept: tuple[FileRecord, ...]
    removed: tuple[FileRecord, ...]

    @property
    def is_empty(self) -> bool:
        """Whether nothing has to be done."""
        return not (self.added or self.changed or self.removed)


def plan(now: Iterable[FileRecord], before: Iterable[FileRecord]) -> Plan:
    """Compare by content hash, never by time. A file whose rules changed (groups, label, reader) counts as changed."""
    known = {(file.collection, file.path): file for file in before}
    added, changed, kept = [], [], []
    present = set()
    for file in sorted(now, key=_key):
        present.add(_key(file))
        old = known.get(_key(file))
        if old is None:
            added.append(file)
        elif (old.content_hash, old.rules_hash) != (file.content_hash, file.rules_hash):
            changed.append(file)
        else:
            kept.append(file)
    removed = sorted((file for key, file in known.items() if key not in present), key=_key)
    return Plan(tuple(added), tuple(changed), tuple(kept), tuple(removed))


def _key(file: FileRecord) -> tuple[str, str]:
    return file.collection, file.path
