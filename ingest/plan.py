"""What a run has to do: a pure function of what lies in the sources now and what the parent snapshot was made from."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from corpus.records import FileRecord


@dataclass(frozen=True, slots=True)
class Move:
    """A file whose content lay elsewhere before."""

    before: FileRecord
    now: FileRecord


@dataclass(frozen=True, slots=True)
class Plan:
    """Files by what happens to them, each list ordered by collection and path."""

    added: tuple[FileRecord, ...]
    changed: tuple[FileRecord, ...]
    moved: tuple[Move, ...]
    kept: tuple[FileRecord, ...]
    removed: tuple[FileRecord, ...]

    @property
    def is_empty(self) -> bool:
        """Whether nothing has to be done."""
        return not (self.added or self.changed or self.moved or self.removed)

    def as_json(self) -> dict[str, Any]:
        """Counts, sizes and paths as plain values; of what is kept only the numbers."""
        parts = {"added": self.added, "changed": self.changed, "removed": self.removed}
        moves = [{"from": _shown(move.before), "to": _shown(move.now)} for move in self.moved]
        return {
            **{name: {**_size(files), "paths": [_shown(file) for file in files]} for name, files in parts.items()},
            "moved": {**_size([move.now for move in self.moved]), "paths": moves},
            "kept": _size(self.kept),
        }


def plan(
    now: Iterable[FileRecord],
    before: Iterable[FileRecord],
    *,
    remake: bool = False,
    overridden: Container[tuple[str, str]] = frozenset(),
) -> Plan:
    """Compare by content hash, never by time. A file whose rules changed (groups, label, reader) counts as changed, and so
    does one that is `overridden`: of a document of which something else is decided now.

    A file that is new under its name and has the content of one that is gone was moved; of several alike, the first in the
    order of their names, those of the same source before others. `remake`: what the parent has cannot be kept as it is
    (another model, other chunks), so that every file that is still there counts as changed.
    """
    known = {_key(file): file for file in before}
    new, changed, kept = [], [], []
    present = set()
    for file in sorted(now, key=_key):
        present.add(_key(file))
        old = known.get(_key(file))
        if old is None:
            new.append(file)
        elif remake or _key(file) in overridden or (old.content_hash, old.rules_hash) != (file.content_hash, file.rules_hash):
            changed.append(file)
        else:
            kept.append(file)
    gone = sorted((file for key, file in known.items() if key not in present), key=_key)
    moved = _moves(new, gone)
    left, arrived = {_key(move.before) for move in moved}, {_key(move.now) for move in moved}
    return Plan(
        added=tuple(file for file in new if _key(file) not in arrived),
        changed=tuple(changed),
        moved=moved,
        kept=tuple(kept),
        removed=tuple(file for file in gone if _key(file) not in left),
    )


def _moves(new: Sequence[FileRecord], gone: Sequence[FileRecord]) -> tuple[Move, ...]:
    found: dict[tuple[str, str], Move] = {}
    for same_source in (True, False):
        waiting: dict[tuple[str | None, ...], deque[FileRecord]] = defaultdict(deque)
        left = {_key(move.before) for move in found.values()}
        for file in gone:
            if file.content_hash is not None and _key(file) not in left:
                waiting[_match(file, same_source)].append(file)
        for file in new:
            if _key(file) not in found and waiting.get(_match(file, same_source)):
                found[_key(file)] = Move(waiting[_match(file, same_source)].popleft(), file)
    return tuple(found[key] for key in sorted(found))


def _match(file: FileRecord, same_source: bool) -> tuple[str | None, ...]:
    return (file.content_hash, file.collection) if same_source else (file.content_hash,)


def _key(file: FileRecord) -> tuple[str, str]:
    return file.collection, file.path


def _size(files: Sequence[FileRecord]) -> dict[str, int]:
    return {"files": len(files), "bytes": sum(file.size_bytes for file in files)}


def _shown(file: FileRecord) -> dict[str, str | int]:
    return {"source": file.collection, "path": file.path, "size_bytes": file.size_bytes}
