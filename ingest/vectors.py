"""Never embeds the same text twice: vectors come from the parent snapshot, from what a killed run left, or from the model."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from corpus.embedders.embedder import Embedder
from corpus.errors import ModelDamaged, NotWritten
from corpus.snapshot import OpenSnapshot
from corpus.types import Vectors

COMMITTED = 128
"""Chunks embedded between two commits: what a killed run loses at most."""

COLUMNS = ["input_hash", "vector", "checksum"]
CHECKSUM_BYTES = 8


def input_hash(fingerprint: str, text: str) -> bytes:
    """The key of a vector: the model's fingerprint and the exact text that is embedded."""
    return hashlib.sha256(f"{fingerprint}\x00{text}".encode("utf-8", "surrogatepass")).digest()


class VectorSource:
    """Gives the vectors of embedder inputs and counts where they came from."""

    def __init__(self, work: Path, parent: OpenSnapshot | None, load_embedder: Callable[[], Embedder], dimension: int) -> None:
        self._path, self._parent, self._load, self._dimension = work, parent, load_embedder, dimension
        work.parent.mkdir(parents=True, exist_ok=True)
        self._connection = _open_work(work)
        self.embedded = 0
        self.reused = 0

    def vectors(self, texts: Sequence[str], hashes: Sequence[bytes]) -> Vectors:
        """Shapes: (len(texts), dimension) float32, in order. New ones are on disk before this returns."""
        found = self._known(hashes)
        missing = {key: text for key, text in zip(hashes, texts, strict=True) if key not in found}
        keys = list(missing)
        for begin in range(0, len(keys), COMMITTED):
            part = keys[begin : begin + COMMITTED]
            found |= self._embed(part, [missing[key] for key in part])
        self.embedded += len(missing)
        self.reused += len(texts) - len(missing)
        if not hashes:
            return np.empty((0, self._dimension), dtype=np.float32)
        return np.stack([found[key] for key in hashes]).astype(np.float32)

    def _embed(self, keys: Sequence[bytes], texts: Sequence[str]) -> dict[bytes, NDArray[np.float16]]:
        """Vectors from the model, kept. Raises: ModelDamaged before one is kept that every later run would stumble over."""
        embedder = self._load()
        fresh = dict(zip(keys, embedder.embed_documents(texts).astype(np.float16), strict=True))
        if not all(np.isfinite(vector).all() for vector in fresh.values()):
            raise ModelDamaged(
                f"embedder.model {embedder.model!r} gave a vector with a value that is not finite; "
                "reinstall the model, or set another engine or device under `embedder`"
            )
        self._keep([(key, vector.tobytes()) for key, vector in fresh.items()])
        return fresh

    def _known(self, hashes: Sequence[bytes]) -> dict[bytes, NDArray[np.float16]]:
        found: dict[bytes, NDArray[np.float16]] = {}
        if self._parent is not None:
            ordinals = self._parent.store.stored.ordinal_by_input(hashes)
            vectors = self._parent.dense.vectors(np.array(list(ordinals.values()), dtype=np.int64))
            found.update(zip(ordinals, vectors.astype(np.float16), strict=True))
        for key in hashes:
            if key not in found:
                row = self._connection.execute("SELECT vector, checksum FROM vectors WHERE input_hash = ?", [key]).fetchone()
                # A row that was damaged on the disk is embedded again, and replaced.
                if row is not None and len(row[0]) == self._dimension * 2 and row[1] == _checksum(key, row[0]):
                    found[key] = np.frombuffer(row[0], dtype=np.float16)
        return found

    def _keep(self, rows: Sequence[tuple[bytes, bytes]]) -> None:
        try:
            with self._connection:
                self._connection.executemany(
                    "INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)",
                    [(key, vector, _checksum(key, vector)) for key, vector in rows],
                )
        except sqlite3.OperationalError as error:
            raise NotWritten(str(self._path), str(error)) from error

    def close(self, *, finished: bool) -> None:
        """Close the work file, and remove it where the run came to its end."""
        self._connection.close()
        if finished:
            forget(self._path)


def forget(work: Path) -> None:
    """Remove a work file that no run needs any more: vectors are as confidential as their texts."""
    for suffix in ("", "-journal", "-wal", "-shm"):
        Path(f"{work}{suffix}").unlink(missing_ok=True)


def _checksum(key: bytes, vector: bytes) -> bytes:
    return hashlib.sha256(key + vector).digest()[:CHECKSUM_BYTES]


def _open_work(path: Path) -> sqlite3.Connection:
    """The work file; one that a crash damaged or another version wrote is begun anew, since it only ever saves time."""
    for attempt in (1, 2):
        # Used by the thread that embeds, opened and closed by the one that reads: never by both at once.
        connection = sqlite3.connect(path, check_same_thread=False)
        try:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS vectors "
                "(input_hash BLOB PRIMARY KEY, vector BLOB NOT NULL, checksum BLOB NOT NULL) STRICT"
            )
            if [row[1] for row in connection.execute("PRAGMA table_info(vectors)")] != COLUMNS:
                raise sqlite3.DatabaseError("another version wrote it")
            if connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
                raise sqlite3.DatabaseError("a page of it is damaged")
            return connection
        except sqlite3.OperationalError as error:  # the disk, not the file: what it holds is worth keeping
            connection.close()
            raise NotWritten(str(path), str(error)) from error
        except sqlite3.DatabaseError:
            connection.close()
            if attempt == 2:
                raise
            forget(path)
    raise AssertionError("unreachable")
