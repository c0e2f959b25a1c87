"""The data folder's published snapshots: which there are, which one is current, which is held, and which old ones go."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from corpus.disk import sync, writing
from corpus.embedders.graph import remove_graphs, remove_unfinished
from corpus.errors import NoSnapshot, RunRefused, SnapshotDamaged, SnapshotError
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
    with pointing(data_dir) as pointer:
        pointer.set_current(snapshot_id)


@dataclass(frozen=True, slots=True)
class Hold:
    """Which snapshot is held, and since when."""

    snapshot: str
    since: str

    @property
    def reason(self) -> str:
        """Why a run is refused, and what ends that."""
        return f"snapshot {self.snapshot!r} is held since {self.since}; run `archivist snapshots release` first"


class Pointer:
    """What CURRENT and HOLD say, for whoever may change it now."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir

    def set_current(self, snapshot_id: str) -> None:
        """Raises: NotWritten."""
        # The first time, the data folder itself is new.
        with writing(self._data_dir / "CURRENT"):
            sync(self._data_dir.resolve().parent)
        self._write("CURRENT", snapshot_id)

    def set_hold(self, snapshot_id: str) -> None:
        """Raises: NotWritten."""
        self._write("HOLD", f"{snapshot_id} {datetime.now(UTC).isoformat(timespec='seconds')}")

    def _write(self, name: str, text: str) -> None:
        beside = self._data_dir / f".{name}-{secrets.token_hex(4)}"
        with writing(self._data_dir / name):
            try:
                with beside.open("w", encoding="utf-8") as file:
                    file.write(text + "\n")
                    file.flush()
                    os.fsync(file.fileno())
                beside.replace(self._data_dir / name)
            except OSError:
                with suppress(OSError):
                    beside.unlink(missing_ok=True)
                raise
            sync(self._data_dir)


@contextmanager
def pointing(data_dir: Path) -> Iterator[Pointer]:
    """Nobody else changes CURRENT or HOLD, or removes a snapshot, while the block runs; it is short. Raises: NotWritten."""
    with writing(data_dir):
        folder = os.open(data_dir, os.O_RDONLY)
    try:
        with writing(data_dir):
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield Pointer(data_dir)
    finally:
        os.close(folder)


def hold_of(data_dir: Path) -> Hold | None:
    """The snapshot that is held, so that no run publishes another. Raises: SnapshotError where HOLD names none."""
    try:
        words = (data_dir / "HOLD").read_text(encoding="utf-8", errors="replace").split()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if len(words) != 2 or not ID.fullmatch(words[0]):
        raise SnapshotError(
            f"{data_dir / 'HOLD'} is {' '.join(words)[:80]!r}, which names no snapshot; "
            "activate one with --hold again, or run `archivist snapshots release`"
        )
    return Hold(*words)


def held(data_dir: Path) -> str | None:
    """The id of the snapshot that is held. Raises: SnapshotError where HOLD names none."""
    hold = hold_of(data_dir)
    return None if hold is None else hold.snapshot


def release(data_dir: Path) -> str | None:
    """Let runs publish again; the id of the snapshot that was held, None where none was. Raises: NotWritten."""
    with pointing(data_dir):
        try:
            snapshot = held(data_dir)
        except SnapshotError:
            snapshot = None
        with writing(data_dir / "HOLD"):
            (data_dir / "HOLD").unlink(missing_ok=True)
            sync(data_dir)
    return snapshot


def refuse_while_held(data_dir: Path) -> None:
    """What a run asks before it begins and before it publishes. Raises: RunRefused, SnapshotError where HOLD names none."""
    hold = hold_of(data_dir)
    if hold is not None:
        raise RunRefused(
            [hold.reason], f"snapshot {hold.snapshot!r} stays in service", {"snapshot": hold.snapshot, "failures": []}
        )


def purge(data_dir: Path, keep: int) -> list[str]:
    """Remove all but the newest `keep` snapshots; what a killed run left, too.

    The current one stays, the one that is held, and what is in use. The caller holds the job's lock.
    """
    folder = data_dir / "snapshots"
    removed = []
    for name in snapshot_ids(data_dir)[:-keep]:
        # Asked anew each time: an older one may have been activated meanwhile.
        with pointing(data_dir):
            if name not in (current_id(data_dir), held(data_dir)) and _remove_unused(folder / name):
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
    for left in [*folder.glob(f"{BUILDING}*"), *folder.glob(f"{REMOVING}*")]:
        shutil.rmtree(left)
    with pointing(data_dir):
        for left in [*data_dir.glob(".CURRENT-*"), *data_dir.glob(".HOLD-*")]:
            left.unlink()
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
