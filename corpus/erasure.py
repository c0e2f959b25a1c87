"""Removes for good what is not served any more: old snapshots, and the vectors that a run left for the next one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from corpus.disk import sync
from corpus.effects import Effects
from corpus.errors import ConfigError
from corpus.published import current_id, held, number_of, purge, remove_litter, snapshot_ids
from corpus.standing import Rested, standing
from corpus.store import Store
from corpus.stored import Stored

WORK = "work/embeddings.db"
UPLOADS, SIDECARS = "uploads", (".meta.yaml", ".meta.yml")
"""The folder of uploaded files in the data folder, which is the name of their source too; what may stand beside a file."""


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
    files = forget_work(data_dir)
    wanted = [name for name in snapshot_ids(data_dir)[:-keep] if name not in (current, held(data_dir))]
    removed = purge(data_dir, keep)
    sync(data_dir / "snapshots")
    return Erased(tuple(removed), tuple(name for name in wanted if name not in removed), tuple(files))


def forget_work(data_dir: Path) -> list[str]:
    """Remove the vectors that wait for the next run; the files that went, by their places under the data folder."""
    files = []
    for suffix in ("", "-journal", "-wal", "-shm"):
        left = data_dir / f"{WORK}{suffix}"
        if left.exists():
            left.unlink()
            files.append(f"{WORK}{suffix}")
    return files


def files_served(data_dir: Path) -> list[tuple[str, str]]:
    """Source's name and path of the files of the current snapshot, those aside of which a document is withheld.

    Raises: NoSnapshot, SnapshotDamaged.
    """
    stored = Stored(data_dir / "snapshots" / current_id(data_dir) / "chunks.db")
    try:
        withheld = {(record.collection, record.path) for record in stored.effect_records() if record.withheld}
        return [key for file in stored.files() if (key := (file.collection, file.path)) not in withheld]
    finally:
        stored.close()


def erase_uploads(data_dir: Path) -> tuple[list[str], dict[str, list[str]]]:
    """Remove the uploaded files of which every document was deleted, and what stood beside them.

    Returns the files that went, and those that stay because other documents are in them, by their places under the data
    folder, each with the ids of those in it that were deleted.
    """
    folder = data_dir / UPLOADS
    stored = Stored(data_dir / "snapshots" / current_id(data_dir) / "chunks.db")
    try:
        deleted: dict[str, list[str]] = defaultdict(list)
        for record in stored.effect_records():
            if record.is_deleted and record.collection == UPLOADS:
                deleted[record.path].append(record.document_id)
        kept = {path: ids for path, ids in deleted.items() if stored.documents_in(UPLOADS, path)}
    finally:
        stored.close()
    gone = []
    for path in sorted(deleted.keys() - kept.keys()):
        for name in (path, *(f"{path}{suffix}" for suffix in SIDECARS)):
            if (folder / name).is_file():
                (folder / name).unlink()
                gone.append(f"{UPLOADS}/{name}")
    if gone:
        sync(folder)
    return gone, {f"{UPLOADS}/{path}": ids for path, ids in sorted(kept.items()) if (folder / path).is_file()}


def standing_anywhere(data_dir: Path, effects: Effects, wanted: Sequence[Rested]) -> set[Rested]:
    """Those of some versions of documents that stand in any snapshot there is, and were not deleted.

    Raises: SnapshotDamaged where one cannot be read: what is in it is not known to be gone then.
    """
    found: set[Rested] = set()
    for name in snapshot_ids(data_dir):
        with closing(Store(data_dir / "snapshots" / name / "chunks.db", number=number_of(name))) as store:
            found |= standing(store.stored, effects, store.overlaid_by(effects), wanted, None).keys()
    return found
