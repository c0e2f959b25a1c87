"""The data folder's published snapshots: which there are, which one is current, which is held, and which old ones go."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
from contextlib import suppress
from pathlib import Path

from corpus.disk import sync, writing
from corpus.embedders.graph import remove_graphs, remove_unfinished
from corpus.errors import NoSnapshot, SnapshotDamaged, SnapshotError
from corpus.manifest import read_manifest

ID = re.compile(r"\d{6,}-[0-9a-f]{8}")
BUILDING, REMOVING = ".building-", ".removing-"
MODELS = "models"
"""The folder of exported models in the data folder."""


def snapshot_ids(data_dir: Path) -> list[str]:
    """The ids of the published snapshots, oldest first."""
    folder = data_dir / "snapshots"
    names = [entry.name for entry in folder.iterdir() if ID.fullmatch(entry.name)] if folder.is_dir() else []
    return sorted(names, key=lambda name: (number_of(name), name))


def number_of(snapshot_id: str) -> int:
    """What orders snapshots."""
    return int(snapshot_id.split("-")[0])


def current_id(data_dir: Path) -> str:
    """The id that CURRENT names.

    Raises: NoSnapshot; SnapshotDamaged where the file does not hold an id.
    """
    try:
        name = (data_dir / "CURRENT").read_text(encoding="utf-8", errors="replace").strip()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NoSnapshot(str(data_dir)) from error
    if not ID.fullmatch(name):
        raise SnapshotDamaged(name[:80], f"{data_dir / 'CURRENT'} does not hold a snapshot's id")
    return name


def point_to(data_dir: Path, snapshot_id: str) -> None:
    """Make a snapshot the current one, atomically. Raises: NotWritten."""
    beside = data_dir / f".CURRENT-{secrets.token_hex(4)}"
    with writing(data_dir / "CURRENT"):
        # The first time, the data folder itself is new.
        sync(data_dir.resolve().parent)
        try:
            with beside.open("w", encoding="utf-8") as file:
                file.write(snapshot_id + "\n")
                file.flush()
                os.fsync(file.fileno())
            beside.replace(data_dir / "CURRENT")
        except OSError:
            with suppress(OSError):
                beside.unlink(missing_ok=True)
            raise
        sync(data_dir)


def purge(data_dir: Path, keep: int) -> list[str]:
    """Remove all but the newest `keep` snapshots, never the current one and none in use; and what a killed run left.

    The caller holds the job's lock.
    """
    folder = data_dir / "snapshots"
    current = current_id(data_dir)
    removed = []
    for name in snapshot_ids(data_dir)[:-keep]:
        if name != current and _remove_unused(folder / name):
            removed.append(name)
    _remove_unnamed_graphs(data_dir)
    return removed


def graph_of_current(data_dir: Path) -> str | None:
    """The exported model that the current snapshot names; None where there is neither."""
    try:
        return read_manifest(data_dir / "snapshots" / current_id(data_dir)).embedder.graph
    except SnapshotError:
        return None


def remove_litter(data_dir: Path) -> None:
    """Remove what a killed run left. The caller holds the job's lock."""
    folder = data_dir / "snapshots"
    for left in [*folder.glob(f"{BUILDING}*"), *folder.glob(f"{REMOVING}*"), *data_dir.glob(".CURRENT-*")]:
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    remove_unfinished(data_dir / MODELS)


def _remove_unnamed_graphs(data_dir: Path) -> None:
    """Remove the exported models that no snapshot names; none while a manifest cannot be read, which may name one."""
    try:
        manifests = [read_manifest(data_dir / "snapshots" / name) for name in snapshot_ids(data_dir)]
    except SnapshotDamaged:
        return
    remove_graphs(data_dir / MODELS, {manifest.embedder.graph for manifest in manifests})


def _remove_unused(folder: Path) -> bool:
    """Remove a snapshot, unless somebody holds it open. Whoever opens it meanwhile waits, and then finds it gone."""
    try:
        with (folder / "manifest.json").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(folder)
    except FileNotFoundError:
        _remove(folder)
    except BlockingIOError:
        return False
    return True


def _remove(folder: Path) -> None:
    """Remove a snapshot; a crash on the way leaves no half of one under its name."""
    doomed = folder.with_name(f"{REMOVING}{folder.name}")
    folder.rename(doomed)
    shutil.rmtree(doomed)
