"""What is being served: a snapshot and the embedder of its vectors, opened once, shared by requests, and replaced together
while serving without one of them failing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from app.embedders import Embedders
from corpus.embedders.embedder import Embedder
from corpus.errors import ArchivistError, EmbedderError, EmbedderMismatch, NoSnapshot, SnapshotDamaged
from corpus.overlay import Overlay
from corpus.published import current_id
from corpus.settings import SearchSettings
from corpus.snapshot import OpenSnapshot, open_current

RETRY_S = 15.0
"""Seconds until a model that could not be opened is tried again: a run may have exported it anew."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Leased:
    """A snapshot, and the embedder whose vectors are its own: they come and go together."""

    snapshot: OpenSnapshot
    embedder: Embedder


@dataclass(slots=True)
class _Served:
    leased: Leased
    readers: int = 0
    retired: bool = False


class SnapshotHolder:
    """Leases the current snapshot and its embedder. Safe for use by several threads."""

    def __init__(self, data_dir: Path, search: SearchSettings, embedders: Embedders, overlay: Overlay | None = None) -> None:
        self._overlay = overlay
        self._data_dir, self._search, self._embedders = data_dir, search, embedders
        self._lock, self._refreshing = threading.Lock(), threading.Lock()
        self._retry_at = float("inf")
        self._served: _Served | None = None
        self._seen: str | None = None
        self._problem: ArchivistError | None = None

    @contextmanager
    def lease(self) -> Iterator[Leased]:
        """What is served, for as long as the block runs; it is not closed before.

        Raises: NoSnapshot, SnapshotDamaged or an EmbedderError where nothing can be served.
        """
        with self._lock:
            served = self._served
            if served is None:
                raise _again(self._problem or NoSnapshot(str(self._data_dir)))
            served.readers += 1
        try:
            yield served.leased
        finally:
            with self._lock:
                served.readers -= 1
                close = served.retired and served.readers == 0
            if close:
                self._close(served.leased)

    def why_not(self, snapshot_id: str) -> str | None:
        """Why a snapshot that was activated is not what is served; None where it is."""
        with self._lock:
            if self._served is not None and self._served.leased.snapshot.id == snapshot_id:
                return None
            return str(self._problem) if self._problem is not None else "another one was activated meanwhile"

    def status(self) -> list[str]:
        """Short codes for /readyz; empty when the newest snapshot is served."""
        with self._lock:
            match self._problem:
                case None:
                    return []
                case NoSnapshot():
                    return ["no_snapshot"]
                case EmbedderMismatch():
                    return ["embedder_mismatch"]
                case EmbedderError():
                    return ["embedder_unavailable"]
                case _:
                    return ["snapshot_damaged" if self._served is None else "previous_snapshot"]

    def refresh(self) -> bool:
        """Look at CURRENT; open what it names if that is new, and its embedder. The old pair serves until the new one is open.

        Returns whether another snapshot is served now. Takes as long as a model takes to load.
        """
        with self._refreshing:
            return self._refresh()

    def _refresh(self) -> bool:
        try:
            named: str | None = current_id(self._data_dir)
        except NoSnapshot as error:
            named = None
            self._note(error)
        except SnapshotDamaged as error:
            named = f"damaged {error.snapshot}"
        if named is None or (named == self._seen and time.monotonic() < self._retry_at):
            return False
        self._retry_at = float("inf")
        try:
            opened, problem = self._open()
        except (NoSnapshot, SnapshotDamaged, EmbedderError) as error:
            self._seen = named
            if isinstance(error, EmbedderError):
                self._retry_at = time.monotonic() + RETRY_S
            _log.error("snapshot cannot be served", action="snapshot_refused", snapshot=named, error=str(error))
            self._note(error)
            return False
        self._seen = named
        return self._swap(opened, problem)

    def _open(self) -> tuple[Leased, SnapshotDamaged | None]:
        snapshot, problem = open_current(self._data_dir, self._search, self._overlay)
        try:
            return Leased(snapshot, self._embedders.take(snapshot.manifest.embedder)), problem
        except BaseException:
            snapshot.close()
            raise

    def _swap(self, opened: Leased, problem: SnapshotDamaged | None) -> bool:
        snapshot = opened.snapshot
        with self._lock:
            old = self._served
            if old is not None and old.leased.snapshot.id == snapshot.id:
                self._problem, close = problem, opened
            else:
                self._served, self._problem = _Served(opened), problem
                close = None
                if old is not None:
                    old.retired = True
                    close = old.leased if old.readers == 0 else None
        if close is not None:
            self._close(close)
        if problem is not None:
            _log.error("an older snapshot is served", action="snapshot_fallback", snapshot=snapshot.id, error=str(problem))
        made = snapshot.manifest
        _log.info(
            "snapshot served", action="snapshot_served", snapshot=made.id, chunks=made.chunks, embedder=made.embedder.model
        )
        return close is not opened

    def _close(self, leased: Leased) -> None:
        leased.snapshot.close()
        self._embedders.give_back(leased.snapshot.manifest.embedder)

    def _note(self, problem: ArchivistError) -> None:
        with self._lock:
            # With a snapshot in service, a CURRENT that is gone is no news: what is served stays whole.
            if self._served is None or not isinstance(problem, NoSnapshot):
                self._problem = problem

    def close(self) -> None:
        """Close what is served."""
        with self._lock:
            served, self._served = self._served, None
        if served is not None:
            self._close(served.leased)


def _again(problem: ArchivistError) -> ArchivistError:
    """A new instance of an error that is kept: each time that one instance is raised, its traceback grows."""
    fresh = type(problem).__new__(type(problem), *problem.args)
    fresh.__dict__.update(problem.__dict__)
    return fresh
