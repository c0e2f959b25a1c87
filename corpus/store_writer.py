"""Writes chunks.db, the text of one snapshot: its tables and indexes, which are written once and then only read."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from corpus.effects import EffectRecord, Former, text_hash_of
from corpus.errors import NotWritten
from corpus.records import Failure, FileRecord, facets_of
from corpus.types import Chunk, Document

SCHEMA = """
CREATE TABLE files (
    collection TEXT NOT NULL, path TEXT NOT NULL, size_bytes INTEGER NOT NULL, content_hash TEXT, rules_hash TEXT NOT NULL,
    PRIMARY KEY (collection, path)
) STRICT;
CREATE TABLE failures (
    collection TEXT NOT NULL, path TEXT NOT NULL, item TEXT NOT NULL, reason TEXT NOT NULL, advice TEXT NOT NULL,
    PRIMARY KEY (collection, path, item)
) STRICT;
CREATE TABLE documents (
    number INTEGER PRIMARY KEY, document_id TEXT NOT NULL, collection TEXT NOT NULL, path TEXT NOT NULL,
    source TEXT NOT NULL, version TEXT NOT NULL, title TEXT NOT NULL, text TEXT NOT NULL, sections TEXT NOT NULL,
    format TEXT NOT NULL, language TEXT, label TEXT NOT NULL, groups TEXT NOT NULL, metadata TEXT NOT NULL,
    first_ordinal INTEGER NOT NULL, chunk_count INTEGER NOT NULL, text_hash TEXT NOT NULL
) STRICT;
CREATE TABLE document_groups (name TEXT NOT NULL, number INTEGER NOT NULL, PRIMARY KEY (name, number)) STRICT, WITHOUT ROWID;
CREATE TABLE facets (
    field TEXT NOT NULL, value TEXT NOT NULL, number INTEGER NOT NULL, PRIMARY KEY (field, value, number)
) STRICT, WITHOUT ROWID;
CREATE TABLE chunks (
    ordinal INTEGER PRIMARY KEY, chunk_id TEXT NOT NULL, number INTEGER NOT NULL, start INTEGER NOT NULL,
    "end" INTEGER NOT NULL, text TEXT NOT NULL, heading TEXT NOT NULL, page INTEGER, label TEXT NOT NULL,
    groups TEXT NOT NULL, input_hash BLOB NOT NULL
) STRICT;
CREATE TABLE former_ids (
    former_id TEXT NOT NULL, number INTEGER NOT NULL, until INTEGER NOT NULL, PRIMARY KEY (former_id, number)
) STRICT, WITHOUT ROWID;
CREATE TABLE effects (
    document_id TEXT NOT NULL PRIMARY KEY, collection TEXT NOT NULL, path TEXT NOT NULL, effect TEXT NOT NULL,
    withheld INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
"""

INDEXES = """
CREATE INDEX former_ids_by_document ON former_ids (number);
CREATE UNIQUE INDEX documents_by_id ON documents (document_id);
CREATE INDEX documents_by_text ON documents (text_hash);
CREATE INDEX documents_by_file ON documents (collection, path);
CREATE UNIQUE INDEX chunks_by_id ON chunks (chunk_id);
CREATE INDEX chunks_by_document ON chunks (number);
CREATE INDEX chunks_by_input ON chunks (input_hash);
"""
"""Made last, from what is sorted: kept up row by row, they would be written in every place again and again."""

PRAGMAS = "PRAGMA journal_mode = DELETE; PRAGMA synchronous = FULL; PRAGMA secure_delete = ON; PRAGMA cache_size = -65536;"
"""64 MB of pages. What is deleted, a failure that is noted again, is overwritten."""


class StoreWriter:
    """Writes a new chunks.db; nothing is ever added to a closed one. Every call may raise NotWritten."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._writing():
            self._connection = sqlite3.connect(path, isolation_level=None)
            # One transaction from the first table on: each of its own would be made durable.
            self._connection.executescript(f"{PRAGMAS} BEGIN; {SCHEMA}")
        self.documents = 0
        self.chunks = 0

    def add_file(self, file: FileRecord) -> None:
        """Note a file that was read, whole or in part, or that failed."""
        with self._writing():
            self._connection.execute(
                "INSERT INTO files VALUES (:collection, :path, :size_bytes, :content_hash, :rules_hash)", asdict(file)
            )

    def add_failure(self, failure: Failure) -> None:
        """Note what could not be read."""
        with self._writing():
            self._connection.execute(
                "INSERT OR REPLACE INTO failures VALUES (:collection, :path, :item, :reason, :advice)", asdict(failure)
            )

    def add_effect(self, record: EffectRecord) -> None:
        """Note what was decided of a document of one of the files."""
        with self._writing():
            self._connection.execute(
                "INSERT INTO effects VALUES (:document_id, :collection, :path, :effect, :withheld)", asdict(record)
            )

    def add_document(
        self,
        path: str,
        document: Document,
        chunks: Sequence[Chunk],
        input_hashes: Sequence[bytes],
        former: Sequence[Former] = (),
    ) -> int:
        """Add a document of the file `path` with its chunks, in order. Returns the ordinal of its first chunk."""
        with self._writing():
            self._connection.executemany(
                "INSERT OR IGNORE INTO former_ids VALUES (?, ?, ?)",
                [(each.document_id, self.documents, each.until) for each in former],
            )
            return self._add_document(path, document, chunks, input_hashes)

    def _add_document(self, path: str, document: Document, chunks: Sequence[Chunk], input_hashes: Sequence[bytes]) -> int:
        number, first = self.documents, self.chunks
        groups = json.dumps(document.groups, ensure_ascii=False)
        self._connection.execute(
            "INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                number, document.document_id, document.collection, path, document.source, document.version, document.title,
                document.text, json.dumps([[s.start, s.end, s.heading, s.page] for s in document.sections], ensure_ascii=False),
                document.format, document.language, document.label, groups,
                json.dumps(dict(document.metadata), ensure_ascii=False), first, len(chunks), text_hash_of(document.text),
            ),
        )  # fmt: skip
        self._connection.executemany(
            "INSERT OR IGNORE INTO document_groups VALUES (?, ?)", [(group, number) for group in document.groups]
        )
        self._connection.executemany(
            "INSERT OR IGNORE INTO facets VALUES (?, ?, ?)",
            [(field, value, number) for field, values in facets_of(document).items() for value in values],
        )
        self._connection.executemany(
            "INSERT INTO chunks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    first + offset, chunk.chunk_id, number, chunk.start, chunk.end, chunk.text,
                    json.dumps(chunk.heading, ensure_ascii=False), chunk.page, document.label, groups, input_hash,
                )
                for offset, (chunk, input_hash) in enumerate(zip(chunks, input_hashes, strict=True))
            ],
        )  # fmt: skip
        self.documents += 1
        self.chunks += len(chunks)
        return first

    def close(self) -> None:
        """Make the indexes, commit and close.

        Nothing was ever deleted, so there is nothing to vacuum: no free page, and no text in the rest of one.
        """
        with self._writing():
            for statement in INDEXES.strip().split(";\n"):
                self._connection.execute(statement)
            self._connection.execute("COMMIT")
            self._connection.close()

    def abandon(self) -> None:
        """Close what will not be completed."""
        with suppress(sqlite3.Error):
            self._connection.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise NotWritten(str(self._path), str(error)) from error
