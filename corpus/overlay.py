"""What was decided of documents between runs: deleted, a group revoked, a label raised. Its own small SQLite database.

Entries are permanent and numbered, beat whatever the sources say, and go only by an undo. Of a document's text only
its hash is here.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from corpus.disk import sync
from corpus.effects import NOTHING, Effects, Entry, Former, Kind, Seen
from corpus.errors import NotFound, OverlayError
from corpus.settings import LabelSettings

NAME = "overlay.db"
"""Its name in the data folder."""

APPLICATION_ID, SCHEMA_VERSION = 0x41524F56, 2  # "AROV"
SCHEMA = f"""
CREATE TABLE entries (
    number INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, document_id TEXT NOT NULL, value TEXT NOT NULL,
    created_at TEXT NOT NULL, "by" TEXT NOT NULL, undone_at TEXT, seen_in INTEGER NOT NULL, erased_at TEXT,
    text_hash TEXT NOT NULL, version TEXT NOT NULL, copies TEXT NOT NULL
) STRICT;
CREATE TABLE moves (
    document_id TEXT NOT NULL, former_id TEXT NOT NULL, until INTEGER NOT NULL, PRIMARY KEY (document_id, former_id)
) STRICT, WITHOUT ROWID;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
"""
COLUMNS = 'number, kind, document_id, value, created_at, "by", undone_at, seen_in, erased_at, text_hash, version, copies'

ALL = 2**62


class Overlay:
    """The open database. Safe for several threads and processes: another's entry holds from the next read on."""

    def __init__(self, path: Path, labels: LabelSettings | None = None) -> None:
        """Open the database at `path`, or make it. `labels` order the labels that were decided.

        Raises: OverlayError where it cannot be read; nothing may be shown then.
        """
        self.path = path
        self._lock = threading.Lock()
        self._labels = labels or LabelSettings()
        self._version = self._data_version = 0
        self._effects: Effects | None = None
        with self._translated():
            if not path.exists():
                _create(path)
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            try:
                self._file = _identity(path)
                for pragma in ("busy_timeout = 5000", "journal_mode = WAL", "synchronous = FULL", "secure_delete = ON"):
                    self._connection.execute(f"PRAGMA {pragma}")
                self._verify()
            except BaseException:
                self._connection.close()
                raise

    def delete(self, document_id: str, by: str, seen: Seen | None = None) -> Entry:
        """Nobody sees the document from the next read on, and no run brings it back. Durable when this returns."""
        return self._add("delete", document_id, "", by, seen)

    def revoke(self, document_id: str, group: str, by: str, seen: Seen | None = None) -> Entry:
        """The group does not see the document any more."""
        return self._add("revoke", document_id, group, by, seen)

    def relabel(self, document_id: str, label: str, by: str, seen: Seen | None = None) -> Entry:
        """The document has at least this label."""
        return self._add("relabel", document_id, label, by, seen)

    def undo(self, number: int) -> Entry:
        """Mark an entry as undone. What was erased comes back with the next run that reads it. Raises: NotFound."""
        with self._writing() as connection:
            rows = connection.execute(
                f"UPDATE entries SET undone_at = ? WHERE number = ? AND undone_at IS NULL RETURNING {COLUMNS}",  # noqa: S608 - constants
                [_now(), number],
            ).fetchall()
            if not rows:
                raise NotFound("override that stands with the number", str(number))
        return _entry(rows[0])

    def entries(self, after: int = 0, limit: int = ALL) -> list[Entry]:
        """Entries by number, those that were undone too."""
        with self._reading() as connection:
            rows = connection.execute(
                f"SELECT {COLUMNS} FROM entries WHERE number > ? ORDER BY number LIMIT ?",  # noqa: S608 - constants
                [after, limit],
            )
            return [_entry(row) for row in rows]

    def effects(self) -> Effects:
        """What holds now; the same object for as long as nothing changes. Raises: OverlayError."""
        with self._reading() as connection:
            ((version,),) = connection.execute("PRAGMA data_version")
            if self._effects is None or version != self._data_version:
                self._version += 1
                # The version first: what is committed in between is read now and once more.
                self._effects, self._data_version = self._read(connection), version
            return self._effects

    def note_moves(self, moves: Mapping[str, Sequence[Former]]) -> None:
        """Keep the ids that documents of which something was decided had before, whatever becomes of snapshots."""
        if any(moves.values()):
            with self._writing() as connection:
                _add_moves(connection, moves)

    def pending(self) -> list[Entry]:
        """Deletions that stand and whose documents are not known to be gone from every file."""
        return [each for each in self.entries() if each.kind == "delete" and each.undone_at is None and each.erased_at is None]

    def note_erased(self, numbers: Sequence[int]) -> None:
        """The documents of these deletions are gone from every file."""
        with self._writing() as connection:
            connection.executemany(
                "UPDATE entries SET erased_at = ? WHERE number = ? AND undone_at IS NULL", [(_now(), each) for each in numbers]
            )

    def use(self, labels: LabelSettings) -> None:
        """Order labels in another way from now on."""
        with self._lock:
            if labels != self._labels:
                self._labels, self._effects = labels, None

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def _add(self, kind: Kind, document_id: str, value: str, by: str, seen: Seen | None) -> Entry:
        seen = seen or Seen()
        with self._writing() as connection:
            ((number,),) = connection.execute(
                'INSERT INTO entries (kind, document_id, value, created_at, "by", seen_in, text_hash, version, copies) '
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING number",
                [
                    kind, document_id, value, created_at := _now(), by, seen.snapshot,
                    seen.text_hash, seen.version, json.dumps(seen.copies),
                ],
            ).fetchall()  # fmt: skip
            _add_moves(connection, {document_id: seen.former})
        return Entry(
            number,
            kind,
            document_id,
            value,
            created_at,
            by,
            None,
            seen.snapshot,
            None,
            seen.text_hash,
            seen.version,
            seen.copies,
        )

    def _read(self, connection: sqlite3.Connection) -> Effects:
        entries: dict[str, list[Entry]] = defaultdict(list)
        texts: dict[str, list[Entry]] = defaultdict(list)
        versions: dict[str, list[Entry]] = defaultdict(list)
        for row in connection.execute(f"SELECT {COLUMNS} FROM entries WHERE undone_at IS NULL"):  # noqa: S608 - constants
            entry = _entry(row)
            for by, key in ((entries, entry.document_id), (texts, entry.text_hash), (versions, entry.version)):
                if key:
                    by[key].append(entry)
        former: dict[str, list[Former]] = defaultdict(list)
        later: dict[str, list[Former]] = defaultdict(list)
        for document_id, former_id, until in connection.execute("SELECT document_id, former_id, until FROM moves"):
            former[document_id].append(Former(former_id, until))
            later[former_id].append(Former(document_id, until))
        bare = Effects(self._version, {}, self._labels, dict(entries), dict(former), dict(later), dict(texts), dict(versions))
        effects = {document_id: bare.effect(document_id) for document_id in [*entries, *former]}
        return replace(bare, of={document_id: effect for document_id, effect in effects.items() if effect != NOTHING})

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._translated():
            if _identity(self.path) != self._file:
                raise OverlayError(str(self.path), "it was replaced while it was open; start the service anew")
            yield self._connection

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._reading() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise
            self._effects = None
            # Entries are rare: the file by itself is complete, also for who copies it.
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise OverlayError(str(self.path), str(reason or type(error).__name__)) from error

    def _verify(self) -> None:
        ((check,),) = self._connection.execute("PRAGMA quick_check(1)").fetchall()
        ((application,),) = self._connection.execute("PRAGMA application_id").fetchall()
        ((version,),) = self._connection.execute("PRAGMA user_version").fetchall()
        if check != "ok":
            raise OverlayError(str(self.path), f"it is damaged ({str(check)[:120]}); restore it from a backup")
        if (application, version) != (APPLICATION_ID, SCHEMA_VERSION):
            raise OverlayError(str(self.path), "it is not one of this version of Archivist; restore it from a backup")


def _entry(row: tuple[Any, ...]) -> Entry:
    return replace(Entry(*row[:-1]), copies=tuple(json.loads(row[-1])))


def _add_moves(connection: sqlite3.Connection, moves: Mapping[str, Sequence[Former]]) -> None:
    connection.executemany(
        "INSERT INTO moves VALUES (?, ?, ?) "
        "ON CONFLICT (document_id, former_id) DO UPDATE SET until = MAX(until, excluded.until)",
        [(document_id, each.document_id, each.until) for document_id, former in moves.items() for each in former],
    )


def _create(path: Path) -> None:
    """Write a complete database beside `path` and put it in place, unless another process was faster."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.new")
    beside.unlink(missing_ok=True)
    try:
        os.close(os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        connection = sqlite3.connect(beside)
        try:
            connection.executescript(f"PRAGMA synchronous = FULL; BEGIN; {SCHEMA} COMMIT;")
        finally:
            connection.close()
        try:
            os.link(beside, path)
        except FileExistsError:
            pass
        except OSError:  # a file system without hard links
            beside.replace(path)
        sync(path.parent)
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
