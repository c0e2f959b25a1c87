"""chunks.db: the text of one snapshot with offsets, titles, pages, groups and labels. SQLite, written once, then read-only."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corpus.errors import NotWritten, SnapshotDamaged
from corpus.types import Chunk, Document, Mask, Ordinals, Passage, Section, chunk_id_of, version_of

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
    first_ordinal INTEGER NOT NULL, chunk_count INTEGER NOT NULL
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
"""

INDEXES = """
CREATE UNIQUE INDEX documents_by_id ON documents (document_id);
CREATE INDEX documents_by_file ON documents (collection, path);
CREATE UNIQUE INDEX chunks_by_id ON chunks (chunk_id);
CREATE INDEX chunks_by_document ON chunks (number);
CREATE INDEX chunks_by_input ON chunks (input_hash);
"""
"""Made last, from what is sorted: kept up row by row, they would be written in every place again and again."""

PRAGMAS = "PRAGMA journal_mode = DELETE; PRAGMA synchronous = FULL; PRAGMA secure_delete = ON; PRAGMA cache_size = -65536;"
"""64 MB of pages. What is deleted, a failure that is noted again, is overwritten."""

PASSAGE_COLUMNS = """
    c.ordinal, c.chunk_id, d.document_id, d.version, d.title, d.source, d.collection, c.text, c.heading, c.page, c.start,
    c."end", c.label, c.groups, d.language
"""
PASSAGE_TABLES = "FROM chunks c JOIN documents d USING (number)"
DOCUMENT_COLUMNS = "document_id, version, collection, source, title, text, sections, format, language, groups, label, metadata"
LONGEST_FACET = 200

DocumentParts = tuple[Document, list[Chunk], list[bytes], Ordinals]
"""A document, its chunks, the hashes of what was embedded of each, and their ordinals."""

ORPHANS = {
    "chunk": "SELECT chunk_id FROM chunks WHERE number NOT IN (SELECT number FROM documents)",
    "group": "SELECT name FROM document_groups WHERE number NOT IN (SELECT number FROM documents)",
    "facet": "SELECT field FROM facets WHERE number NOT IN (SELECT number FROM documents)",
}
"""Rows that say of no document what they say."""

Row = tuple[Any, ...]
"""What a statement asked for, as SQLite gives it."""


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file that a snapshot was made from. `content_hash` is None where it could not be read at all.

    `rules_hash` stands for everything besides the content that decides what comes of the file: groups, label, reader version.
    """

    collection: str
    path: str
    size_bytes: int
    content_hash: str | None
    rules_hash: str


@dataclass(frozen=True, slots=True)
class Failure:
    """A file, or one item of a file (`item` is empty for the whole), that could not be read."""

    collection: str
    path: str
    item: str
    reason: str
    advice: str


@dataclass(frozen=True, slots=True)
class DocumentSummary:
    """A document as it stands in a list: everything but the text."""

    document_id: str
    version: str
    collection: str
    source: str
    title: str
    format: str
    language: str | None
    groups: tuple[str, ...]
    label: str
    metadata: Mapping[str, str]
    chunks: int


def facets_of(document: Document) -> dict[str, tuple[str, ...]]:
    """What a document can be filtered by: five fields of its own and its metadata (long values left out)."""
    own = {
        "collection": document.collection,
        "source": document.source,
        "format": document.format,
        "language": document.language or "",
        "label": document.label,
    }
    metadata = {field: value for field, value in document.metadata.items() if field not in own}
    return {field: (value,) for field, value in {**metadata, **own}.items() if value and len(value) <= LONGEST_FACET}


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

    def add_document(self, path: str, document: Document, chunks: Sequence[Chunk], input_hashes: Sequence[bytes]) -> int:
        """Add a document of the file `path` with its chunks, in order. Returns the ordinal of its first chunk."""
        with self._writing():
            return self._add_document(path, document, chunks, input_hashes)

    def _add_document(self, path: str, document: Document, chunks: Sequence[Chunk], input_hashes: Sequence[bytes]) -> int:
        number, first = self.documents, self.chunks
        groups = json.dumps(document.groups, ensure_ascii=False)
        self._connection.execute(
            "INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                number, document.document_id, document.collection, path, document.source, document.version, document.title,
                document.text, json.dumps([[s.start, s.end, s.heading, s.page] for s in document.sections], ensure_ascii=False),
                document.format, document.language, document.label, groups,
                json.dumps(dict(document.metadata), ensure_ascii=False), first, len(chunks),
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


class Store:
    """An open chunks.db, read-only and immutable. Safe for use by several threads."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        try:
            self._connection = sqlite3.connect(
                f"file:{path.resolve().as_posix().replace('?', '%3f').replace('#', '%23')}?mode=ro&immutable=1",
                uri=True,
                check_same_thread=False,
            )
            rows = self._rows("SELECT first_ordinal, chunk_count FROM documents ORDER BY number")
        except sqlite3.Error as error:
            raise SnapshotDamaged(path.parent.name, f"{path.name} cannot be read ({error})") from error
        self._counts: NDArray[np.int64] = np.array([count for _, count in rows], dtype=np.int64)
        self.documents = len(rows)
        self.chunks = int(self._counts.sum())

    def _rows(self, sql: str, values: Sequence[object] = ()) -> list[Row]:
        with self._lock:
            return self._connection.execute(sql, values).fetchall()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def counts(self) -> tuple[int, int]:
        """Documents and chunks."""
        return self.documents, self.chunks

    def mask(self, groups: Sequence[str], facets: Mapping[str, Sequence[str]]) -> Mask:
        """The chunks that a caller in any of `groups` may see, and that for every field have any of its values.

        Shapes: (chunks,) bool.
        """
        seen = self._numbers("SELECT number FROM document_groups WHERE name IN ({})", groups)
        for field, values in facets.items():
            seen &= self._numbers("SELECT number FROM facets WHERE field = ? AND value IN ({})", values, field)
        return np.repeat(seen, self._counts)

    def _numbers(self, sql: str, values: Sequence[str], *before: str) -> Mask:
        marks = ", ".join("?" * len(values))
        mask = np.zeros(self.documents, dtype=np.bool_)
        numbers = [number for (number,) in self._rows(sql.format(marks), [*before, *values])]
        mask[numbers] = True
        return mask

    def passages(self, ordinals: Ordinals | Sequence[int]) -> list[Passage]:
        """The passages of some chunks, in the order asked for."""
        wanted = [int(ordinal) for ordinal in ordinals]
        marks = ", ".join("?" * len(wanted))
        sql = f"SELECT {PASSAGE_COLUMNS} {PASSAGE_TABLES} WHERE c.ordinal IN ({marks})"
        found = {row[0]: _passage(row) for row in self._rows(sql, wanted)}
        return [found[ordinal] for ordinal in wanted]

    def passages_of(self, document_id: str) -> list[Passage]:
        """All passages of a document, in reading order. The caller has checked that it may be seen."""
        sql = f"SELECT {PASSAGE_COLUMNS} {PASSAGE_TABLES} WHERE d.document_id = ? ORDER BY c.ordinal"
        return [_passage(row) for row in self._rows(sql, [document_id])]

    def wordings(self, ordinals: Ordinals | Sequence[int]) -> dict[int, str]:
        """All that is said on some chunks, by ordinal: title, headings and text, a line each."""
        wanted = [int(ordinal) for ordinal in ordinals]
        sql = (
            f"SELECT c.ordinal, d.title, c.heading, c.text {PASSAGE_TABLES} WHERE c.ordinal IN ({', '.join('?' * len(wanted))})"
        )
        return {row[0]: "\n".join([row[1], *json.loads(row[2]), row[3]]) for row in self._rows(sql, wanted)}

    def values(self, field: str) -> list[tuple[str, slice]]:
        """The values that documents have in a field, whoever may see them, each with the ordinals of the document's chunks."""
        sql = (
            "SELECT f.value, d.first_ordinal, d.chunk_count FROM facets f JOIN documents d USING (number) "
            "WHERE f.field = ? ORDER BY d.number"
        )
        return [(value, slice(first, first + count)) for value, first, count in self._rows(sql, [field])]

    def document(self, document_id: str, groups: Sequence[str]) -> Document | None:
        """One document; None if there is none, or none that any of `groups` may see."""
        marks = ", ".join("?" * len(groups))
        rows = self._rows(
            f"SELECT {DOCUMENT_COLUMNS} FROM documents WHERE document_id = ? "  # noqa: S608 - only question marks
            f"AND number IN (SELECT number FROM document_groups WHERE name IN ({marks}))",
            [document_id, *groups],
        )
        return _document(rows[0]) if rows else None

    def languages(self) -> list[str | None]:
        """The languages of the documents."""
        return [language for (language,) in self._rows("SELECT DISTINCT language FROM documents")]

    def documents_with_passages(self) -> Iterator[tuple[Document, list[Passage]]]:
        """Every document with its passages, in the order of their ordinals. For the job only."""
        for number in range(self.documents):
            rows = self._rows(f"SELECT {DOCUMENT_COLUMNS} FROM documents WHERE number = ?", [number])  # noqa: S608 - constants
            document = _document(rows[0])
            yield document, self.passages_of(document.document_id)

    def documents_of_file(self, collection: str, path: str) -> list[DocumentParts]:
        """What came of a file: documents with chunks, hashes of the embedder's inputs, and ordinals. For the job only."""
        rows = self._rows(
            f"SELECT {DOCUMENT_COLUMNS}, number FROM documents WHERE collection = ? AND path = ? ORDER BY number",  # noqa: S608 - constants
            [collection, path],
        )
        return [self._parts(row) for row in rows]

    def document_with_parts(self, document_id: str) -> DocumentParts | None:
        """One document with chunks, hashes of the embedder's inputs, and ordinals. For the job only."""
        rows = self._rows(f"SELECT {DOCUMENT_COLUMNS}, number FROM documents WHERE document_id = ?", [document_id])  # noqa: S608 - constants
        return self._parts(rows[0]) if rows else None

    def metadata(self, document_id: str) -> Mapping[str, str]:
        """A document's metadata; empty where there is no such document. For the job only."""
        rows = self._rows("SELECT metadata FROM documents WHERE document_id = ?", [document_id])
        return dict(json.loads(rows[0][0])) if rows else {}

    def document_ids(self) -> list[str]:
        """The ids of all documents. For the job only."""
        return [document_id for (document_id,) in self._rows("SELECT document_id FROM documents")]

    def _parts(self, row: Row) -> DocumentParts:
        document = _document(row[:-1])
        chunk_rows = self._rows(
            'SELECT ordinal, chunk_id, start, "end", text, heading, page, input_hash FROM chunks '
            "WHERE number = ? ORDER BY ordinal",
            [row[-1]],
        )
        chunks = [
            Chunk(r[1], document.document_id, document.version, r[2], r[3], r[4], tuple(json.loads(r[5])), r[6])
            for r in chunk_rows
        ]
        return document, chunks, [r[7] for r in chunk_rows], np.array([r[0] for r in chunk_rows], dtype=np.int64)

    def document_summaries(self, groups: Sequence[str], *, after: str | None, limit: int) -> list[DocumentSummary]:
        """The documents that any of `groups` may see, ordered by id, from the one behind `after` on."""
        marks = ", ".join("?" * len(groups))
        rows = self._rows(
            "SELECT document_id, version, collection, source, title, format, language, groups, label, metadata, chunk_count "  # noqa: S608 - only question marks
            f"FROM documents WHERE document_id > ? AND number IN (SELECT number FROM document_groups WHERE name IN ({marks})) "
            "ORDER BY document_id LIMIT ?",
            [after or "", *groups, limit],
        )
        return [_summary(row) for row in rows]

    def labels(self, document_ids: Sequence[str], groups: Sequence[str]) -> dict[str, str]:
        """Today's labels of those of some documents that any of `groups` may see; the others are left out."""
        wanted = list(dict.fromkeys(document_ids))
        rows = self._rows(
            f"SELECT document_id, label FROM documents WHERE document_id IN ({', '.join('?' * len(wanted))}) "  # noqa: S608 - only question marks
            f"AND number IN (SELECT number FROM document_groups WHERE name IN ({', '.join('?' * len(groups))}))",
            [*wanted, *groups],
        )
        return dict(rows)

    def present(self, document_ids: Sequence[str]) -> set[str]:
        """Those of some documents that stand here, whoever may see them."""
        found: set[str] = set()
        for begin in range(0, len(document_ids), 500):
            part = list(document_ids[begin : begin + 500])
            sql = f"SELECT document_id FROM documents WHERE document_id IN ({', '.join('?' * len(part))})"  # noqa: S608 - only question marks
            found |= {document_id for (document_id,) in self._rows(sql, part)}
        return found

    def labels_in_use(self) -> list[str]:
        """The labels that stand on any document, whoever may see it."""
        return [label for (label,) in self._rows("SELECT DISTINCT label FROM documents", [])]

    def groups(self) -> list[str]:
        """The groups that may see any document."""
        return [name for (name,) in self._rows("SELECT DISTINCT name FROM document_groups ORDER BY name")]

    def files(self) -> Iterator[FileRecord]:
        """The files that the snapshot was made from."""
        for row in self._rows("SELECT collection, path, size_bytes, content_hash, rules_hash FROM files"):
            yield FileRecord(*row)

    def failures(self) -> list[Failure]:
        """What could not be read, ordered by path."""
        rows = self._rows("SELECT collection, path, item, reason, advice FROM failures ORDER BY collection, path, item")
        return [Failure(*row) for row in rows]

    def failures_of_file(self, collection: str, path: str) -> list[Failure]:
        """What of one file could not be read."""
        rows = self._rows(
            "SELECT collection, path, item, reason, advice FROM failures WHERE collection = ? AND path = ? ORDER BY item",
            [collection, path],
        )
        return [Failure(*row) for row in rows]

    def ordinal_by_input(self, input_hashes: Sequence[bytes]) -> dict[bytes, int]:
        """For those hashes of embedder inputs that stand here: an ordinal whose vector it is."""
        found: dict[bytes, int] = {}
        for begin in range(0, len(input_hashes), 500):
            part = list(input_hashes[begin : begin + 500])
            marks = ", ".join("?" * len(part))
            sql = f"SELECT input_hash, MIN(ordinal) FROM chunks WHERE input_hash IN ({marks}) GROUP BY input_hash"  # noqa: S608 - only question marks
            found.update(self._rows(sql, part))
        return found

    def check(self) -> list[str]:
        """What is inconsistent, by name: SQLite's own check, rows that belong to nothing, ordinals, ids, offsets, groups."""
        try:
            problems = [str(row[0]) for row in self._rows("PRAGMA integrity_check") if row[0] != "ok"]
            for what, sql in ORPHANS.items():
                problems += [f"{what} {str(name)!r} belongs to no document" for (name,) in self._rows(sql)]
            ordinals = [row[0] for row in self._rows("SELECT ordinal FROM chunks ORDER BY ordinal")]
            if ordinals != list(range(len(ordinals))):
                problems.append("chunk ordinals are not 0..N-1")
            numbers = [row[0] for row in self._rows("SELECT number FROM documents ORDER BY number")]
            if numbers != list(range(len(numbers))):
                return [*problems, "document numbers are not 0..N-1"]
            first = 0
            for number in numbers:
                problems += self._check_document(number, first)
                first += int(self._counts[number])
        except (sqlite3.Error, ValueError, TypeError) as error:
            problems = [f"chunks.db cannot be read ({error})"]
        return problems

    def _check_document(self, number: int, first: int) -> Iterator[str]:
        row = self._rows(f"SELECT {DOCUMENT_COLUMNS}, first_ordinal FROM documents WHERE number = ?", [number])[0]  # noqa: S608 - constants
        document, passages = _document(row[:-1]), self.passages_of(row[0])
        name = f"document {document.document_id} ({document.source!r})"
        if document.version != version_of(document.title, document.text):
            yield f"{name} is not its version {document.version}"
        ordinals = [passage.ordinal for passage in passages]
        if row[-1] != first or ordinals != list(range(first, first + int(self._counts[number]))):
            yield f"{name} has other chunks than it says"
        groups = [name for (name,) in self._rows("SELECT name FROM document_groups WHERE number = ?", [number])]
        if set(groups) != set(document.groups):
            yield f"{name} is visible to {sorted(groups)} and says {sorted(document.groups)}"
        for passage in passages:
            if document.text[passage.start : passage.end] != passage.text:
                yield f"chunk {passage.chunk_id} is not its span of the document"
            if passage.chunk_id != chunk_id_of(document.document_id, document.version, passage.start, passage.end):
                yield f"chunk {passage.chunk_id} has not the id of its document, version and span"
            if (passage.groups, passage.label) != (document.groups, document.label):
                yield f"chunk {passage.chunk_id} has other groups or another label than its document"


def _passage(row: Row) -> Passage:
    (
        ordinal, chunk_id, document_id, version, title, source, collection, text, heading, page, start, end, label, groups,
        language,
    ) = row  # fmt: skip
    return Passage(
        ordinal=ordinal, chunk_id=chunk_id, document_id=document_id, version=version, title=title, source=source,
        collection=collection, text=text, heading=tuple(json.loads(heading)), page=page, start=start, end=end, label=label,
        groups=tuple(json.loads(groups)), language=language,
    )  # fmt: skip


def _document(row: Row) -> Document:
    document_id, version, collection, source, title, text, sections, format_, language, groups, label, metadata = row
    return Document(
        document_id=document_id, version=version, collection=collection, source=source, title=title, text=text,
        sections=tuple(Section(start, end, tuple(heading), page) for start, end, heading, page in json.loads(sections)),
        format=format_, language=language, groups=tuple(json.loads(groups)), label=label, metadata=json.loads(metadata),
    )  # fmt: skip


def _summary(row: Row) -> DocumentSummary:
    document_id, version, collection, source, title, format_, language, groups, label, metadata, chunks = row
    return DocumentSummary(
        document_id=document_id, version=version, collection=collection, source=source, title=title, format=format_,
        language=language, groups=tuple(json.loads(groups)), label=label, metadata=json.loads(metadata), chunks=chunks,
    )  # fmt: skip
