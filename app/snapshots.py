"""The snapshot being served: opened once, shared by requests, replaced while serving without one of them failing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from corpus.errors import ArchivistError, EmbedderMismatch, NoSnapshot, SnapshotDamaged
from corpus.published import current_id
from corpus.settings import SearchSettings
from corpus.snapshot import OpenSnapshot, open_current

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Served:
    snapshot: OpenSnapshot
    readers: int = 0
    retired: bool = False


class SnapshotHolder:
    """Leases the current snapshot. Safe for use by several threads; `refresh` is called by one at a time."""

    def __init__(self, data_dir: Path, search: SearchSettings, fingerprint: str, model: str) -> None:
        self._data_dir, self._search, self._fingerprint, self._model = data_dir, search, fingerprint, model
        self._lock = threading.Lock()
        self._served: _Served | None = None
        self._seen: str | None = None
        self._problem: ArchivistError | None = None

    @contextmanager
    def lease(self) -> Iterator[OpenSnapshot]:
        """The snapshot for as long as the block runs; it is not closed before.

        Raises: NoSnapshot, SnapshotDamaged or EmbedderMismatch where none can be served.
        """
        with self._lock:
            served = self._served
            if served is None:
                raise _again(self._problem or NoSnapshot(str(self._data_dir)))
            served.readers += 1
        try:
            yield served.snapshot
        finally:
            with self._lock:
                served.readers -= 1
                close = served.retired and served.readers == 0
            if close:
                served.snapshot.close()

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
                case _:
                    return ["snapshot_damaged" if self._served is None else "previous_snapshot"]

    def refresh(self) -> bool:
        """Look at CURRENT; open what it names if that is new. The old snapshot serves until the new one is open.

        Returns whether another snapshot is served now.
        """
        try:
            named: str | None = current_id(self._data_dir)
        except NoSnapshot as error:
            named = None
            self._note(error)
        except SnapshotDamaged as error:
            named = f"damaged {error.snapshot}"
        if named is None or named == self._seen:
            return False
        try:
            opened, problem = self._open()
        except (NoSnapshot, SnapshotDamaged, EmbedderMismatch) as error:
            self._seen = named
            _log.error("snapshot cannot be served", action="snapshot_refused", snapshot=named, error=str(error))
            self._note(error)
            return False
        self._seen = named
        return self._swap(opened, problem)

    def _open(self) -> tuple[OpenSnapshot, SnapshotDamaged | None]:
        opened, problem = open_current(self._data_dir, self._search)
        try:
            opened.require(self._fingerprint, self._model)
        except EmbedderMismatch:
            opened.close()
            raise
        return opened, problem

    def _swap(self, opened: OpenSnapshot, problem: SnapshotDamaged | None) -> bool:
        with self._lock:
            old = self._served
            if old is not None and old.snapshot.id == opened.id:
                self._problem, close = problem, opened
            else:
                self._served, self._problem = _Served(opened), problem
                close = None
                if old is not None:
                    old.retired = True
                    close = old.snapshot if old.readers == 0 else None
        if close is not None:
            close.close()
        if problem is not None:
            _log.error("an older snapshot is served", action="snapshot_fallback", snapshot=opened.id, error=str(problem))
        _log.info("snapshot served", action="snapshot_served", snapshot=opened.id, chunks=opened.manifest.chunks)
        return close is not opened

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
            served.snapshot.close()


def _again(problem: ArchivistError) -> ArchivistError:
    """A new instance of an error that is kept: each time that one instance is raised, its traceback grows."""
    fresh = type(problem).__new__(type(problem), *problem.args)
    fresh.__dict__.update(problem.__dict__)
    return fresh
