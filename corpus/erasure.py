"""Removes for good what is not served any more: old snapshots, and the vectors that a run left for the next one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from corpus.disk import sync
from corpus.errors import ConfigError
from corpus.published import current_id, held, purge, remove_litter, snapshot_ids
from corpus.store import Store

WORK = "work/embeddings.db"


@dataclass(frozen=True, slots=True)
class Erased:
    """What went, by its place under the data folder, and the snapshots that somebody has open and that therefore stayed."""

    snapshots: tuple[str, ...]
    in_use: tuple[str, ...]
    files: tuple[str, ...]


def erase_old(data_dir: Path, keep: int) -> Erased:
    """Remove all snapshots but the newest `keep` and the current one, litter, and vectors that wait for the next run.

    The caller holds the job's lock. Raises: NoSnapshot, SnapshotDamaged where CURRENT names none.
    """
    if keep < 1:
        raise ConfigError(f"keep is {keep}; at least 1 snapshot stays, the current one")
    current = current_id(data_dir)
    remove_litter(data_dir)
    files = []
    for suffix in ("", "-journal", "-wal", "-shm"):
        left = data_dir / f"{WORK}{suffix}"
        if left.exists():
            left.unlink()
            files.append(f"{WORK}{suffix}")
    wanted = [name for name in snapshot_ids(data_dir)[:-keep] if name not in (current, held(data_dir))]
    removed = purge(data_dir, keep)
    sync(data_dir / "snapshots")
    return Erased(tuple(removed), tuple(name for name in wanted if name not in removed), tuple(files))


def files_served(data_dir: Path) -> list[tuple[str, str]]:
    """Source's name and path of the files that the current snapshot was made from. Raises: NoSnapshot, SnapshotDamaged."""
    store = Store(data_dir / "snapshots" / current_id(data_dir) / "chunks.db")
    try:
        return [(file.collection, file.path) for file in store.files()]
    finally:
        store.close()


def documents_there(data_dir: Path, document_ids: Sequence[str]) -> set[str]:
    """Those of some documents that stand in any snapshot there is.

    Raises: SnapshotDamaged where one cannot be read: what is in it is not known to be gone then.
    """
    found: set[str] = set()
    for name in snapshot_ids(data_dir):
        store = Store(data_dir / "snapshots" / name / "chunks.db")
        try:
            found |= store.present(document_ids)
        finally:
            store.close()
    return found
