"""chunks.db: the text of one snapshot with offsets, titles, pages, groups and labels. SQLite, written once, then read-only."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from corpus.effects import NOTHING, UNTOUCHED, Effect, EffectRecord, Effects, Former, Overlaid
from corpus.errors import NotWritten, SnapshotDamaged
from corpus.overlay import Overlay
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
    c."end", c.label, c.groups, d.language, d.number
"""
PASSAGE_TABLES = "FROM chunks c JOIN documents d USING (number)"
DOCUMENT_COLUMNS = "document_id, version, collection, source, title, text, sections, format, language, groups, label, metadata"
LONGEST_FACET = 200
SHOWN_TO = (
    "number IN (SELECT number FROM document_groups WHERE name IN ({})) AND number NOT IN (SELECT value FROM json_each(?))"
)
"""Documents that any of some groups may see, those aside that the overlay hides from them."""

DocumentParts = tuple[Document, list[Chunk], list[bytes], Ordinals]
"""A document, its chunks, the hashes of what was embedded of each, and their ordinals."""

ORPHANS = {
    "chunk": "SELECT chunk_id FROM chunks WHERE number NOT IN (SELECT number FROM documents)",
    "group": "SELECT name FROM document_groups WHERE number NOT IN (SELECT number FROM documents)",
    "facet": "SELECT field FROM facets WHERE number NOT IN (SELECT number FROM documents)",
    "former id": "SELECT former_id FROM former_ids WHERE number NOT IN (SELECT number FROM documents)",
}
"""Rows that say of no document what they say."""

Described = TypeVar("Described", "Document", "DocumentSummary")
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


@dataclass(frozen=True, slots=True)
class Place:
    """Where a document stands: its file, how many chunks it has, and which groups it is stored for."""

    document_id: str
    collection: str
    path: str
    chunks: int
    groups: tuple[str, ...]


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
    """An open chunks.db, read-only and immutable. Safe for use by several threads.

    With an overlay every read asks it, and `number` is that of the snapshot: what was deleted or revoked since is not there
    for who may not see it, and labels are those of now. What is for the job only gives what is stored.
    """

    def __init__(self, path: Path, overlay: Overlay | None = None, number: int | None = None) -> None:
        self._lock = threading.Lock()
        self._overlay, self._number = overlay, number
        self._overlaid: tuple[Effects, Overlaid] = (Effects(), UNTOUCHED)
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

    def overlaid(self) -> Overlaid:
        """What the overlay says of the documents here; the same object until it says something else. Raises: OverlayError."""
        if self._overlay is None:
            return UNTOUCHED
        effects = self._overlay.effects()
        known, found = self._overlaid
        if known is not effects:
            found = self.overlaid_by(effects)
            self._overlaid = (effects, found)
        return found

    def overlaid_by(self, effects: Effects) -> Overlaid:
        """What some effects come to for the documents here."""
        groups: dict[int, frozenset[str]] = {}
        labels: dict[int, str] = {}
        deleted: set[int] = set()
        for number, document_id, label, stored in self._touched(effects.named):
            effect = effects.effect(document_id, self._former_ids(number), self._number)
            if effect.deleted:
                deleted.add(number)
            if effect.deleted or effect.revoked:
                groups[number] = frozenset() if effect.deleted else frozenset(json.loads(stored)) - effect.revoked
            if effect.label is not None:
                labels[number] = effects.label(label, effect)
        return Overlaid(groups, labels, frozenset(deleted)) if groups or labels else UNTOUCHED

    def _touched(self, document_ids: Collection[str]) -> list[Row]:
        """Number, id, label and groups of the documents that have, or had, one of some ids."""
        if not document_ids:
            return []
        return self._rows(
            "SELECT number, document_id, label, groups FROM documents WHERE number IN ("
            "SELECT number FROM documents WHERE document_id IN (SELECT value FROM json_each(?1)) "
            "UNION SELECT number FROM former_ids WHERE former_id IN (SELECT value FROM json_each(?1)))",
            [json.dumps(sorted(document_ids))],
        )

    def _former_ids(self, number: int) -> tuple[Former, ...]:
        rows = self._rows("SELECT former_id, until FROM former_ids WHERE number = ? ORDER BY until DESC, former_id", [number])
        return tuple(Former(former_id, until) for former_id, until in rows)

    def counts(self) -> tuple[int, int]:
        """Documents and chunks that somebody may see."""
        withheld = list(self.overlaid().withheld)
        return self.documents - len(withheld), self.chunks - int(self._counts[withheld].sum())

    def mask(self, groups: Sequence[str], facets: Mapping[str, Sequence[str]], overlaid: Overlaid | None = None) -> Mask:
        """The chunks that a caller in any of `groups` may see, and that for every field have any of its values.

        Shapes: (chunks,) bool.
        """
        over = self.overlaid() if overlaid is None else overlaid
        seen = self._numbers("SELECT number FROM document_groups WHERE name IN ({})", groups)
        seen[list(over.hidden_from(groups))] = False
        for field, values in facets.items():
            has = self._numbers("SELECT number FROM facets WHERE field = ? AND value IN ({})", values, field)
            for number, label in over.labels.items() if field == "label" else ():
                has[number] = label in values
            seen &= has
        return np.repeat(seen, self._counts)

    def _numbers(self, sql: str, values: Sequence[str], *before: str) -> Mask:
        marks = ", ".join("?" * len(values))
        mask = np.zeros(self.documents, dtype=np.bool_)
        numbers = [number for (number,) in self._rows(sql.format(marks), [*before, *values])]
        mask[numbers] = True
        return mask

    def passages(self, ordinals: Ordinals | Sequence[int]) -> list[Passage]:
        """The passages of some chunks, in the order asked for. The caller has checked that they may be seen."""
        over = self.overlaid()
        wanted = [int(ordinal) for ordinal in ordinals]
        marks = ", ".join("?" * len(wanted))
        sql = f"SELECT {PASSAGE_COLUMNS} {PASSAGE_TABLES} WHERE c.ordinal IN ({marks})"
        found = {row[0]: _passage(row, over) for row in self._rows(sql, wanted)}
        return [found[ordinal] for ordinal in wanted]

    def passages_of(self, document_id: str) -> list[Passage]:
        """All passages of a document, in reading order. The caller has checked that it may be seen."""
        over = self.overlaid()
        sql = f"SELECT {PASSAGE_COLUMNS} {PASSAGE_TABLES} WHERE d.document_id = ? ORDER BY c.ordinal"
        withheld = frozenset(over.withheld)
        return [_passage(row, over) for row in self._rows(sql, [document_id]) if row[-1] not in withheld]

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
        over = self.overlaid()
        rows = self._rows(
            f"SELECT {DOCUMENT_COLUMNS}, number FROM documents WHERE document_id = ? AND {_shown_to(groups)}",  # noqa: S608 - only question marks
            [document_id, *groups, _hidden(over, groups)],
        )
        return _overlaid(_document(rows[0][:-1]), rows[0][-1], over) if rows else None

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

    def former_ids(self, document_id: str) -> tuple[Former, ...]:
        """The ids that a document had before it was moved, the last one first."""
        rows = self._rows("SELECT number FROM documents WHERE document_id = ?", [document_id])
        return self._former_ids(rows[0][0]) if rows else ()

    def effect_records(self) -> list[EffectRecord]:
        """What was decided of documents when this was made, those that were withheld too."""
        rows = self._rows("SELECT document_id, collection, path, effect, withheld FROM effects ORDER BY document_id")
        return [EffectRecord(id_, collection, path, effect, bool(withheld)) for id_, collection, path, effect, withheld in rows]

    def places(self, effects: Effects) -> list[tuple[Place, Effect]]:
        """Where the documents stand of which something is decided, and what, were they ingested now. For the job only."""
        found = []
        for number, document_id, _, groups in self._touched(effects.named):
            effect = effects.effect(document_id, self._former_ids(number))
            if effect != NOTHING:
                ((collection, path, chunks),) = self._rows(
                    "SELECT collection, path, chunk_count FROM documents WHERE number = ?", [number]
                )
                found.append((Place(document_id, collection, path, chunks, tuple(json.loads(groups))), effect))
        return found

    def ids_of(self, numbers: Collection[int]) -> list[str]:
        """The ids of some documents by their numbers, ordered. For the job only."""
        rows = self._rows(
            "SELECT document_id FROM documents WHERE number IN (SELECT value FROM json_each(?)) ORDER BY document_id",
            [json.dumps(list(numbers))],
        )
        return [document_id for (document_id,) in rows]

    def documents_in(self, collection: str, path: str) -> list[str]:
        """The ids of the documents of a file. For the job only."""
        rows = self._rows("SELECT document_id FROM documents WHERE collection = ? AND path = ?", [collection, path])
        return [document_id for (document_id,) in rows]

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
        over = self.overlaid()
        rows = self._rows(
            "SELECT document_id, version, collection, source, title, format, language, groups, label, metadata, chunk_count, "  # noqa: S608 - only question marks
            f"number FROM documents WHERE document_id > ? AND {_shown_to(groups)} ORDER BY document_id LIMIT ?",
            [after or "", *groups, _hidden(over, groups), limit],
        )
        return [_overlaid(_summary(row[:-1]), row[-1], over) for row in rows]

    def summaries(self) -> Iterator[DocumentSummary]:
        """All documents, ordered by id, whoever may see them. Not for answering a caller."""
        after = ""
        while rows := self._rows(
            "SELECT document_id, version, collection, source, title, format, language, groups, label, metadata, chunk_count "
            "FROM documents WHERE document_id > ? ORDER BY document_id LIMIT 1000",
            [after],
        ):
            yield from map(_summary, rows)
            after = rows[-1][0]

    def labels(self, document_ids: Sequence[str], groups: Sequence[str]) -> dict[str, str]:
        """Today's labels of those of some documents that any of `groups` may see; the others are left out."""
        over = self.overlaid()
        wanted = list(dict.fromkeys(document_ids))
        rows = self._rows(
            f"SELECT document_id, label, number FROM documents WHERE document_id IN ({', '.join('?' * len(wanted))}) "  # noqa: S608 - only question marks
            f"AND {_shown_to(groups)}",
            [*wanted, *groups, _hidden(over, groups)],
        )
        return {document_id: over.label_of(number, label) for document_id, label, number in rows}

    def present(self, document_ids: Sequence[str]) -> set[str]:
        """Those of some documents that stand here, whoever may see them."""
        found: set[str] = set()
        for begin in range(0, len(document_ids), 500):
            part = list(document_ids[begin : begin + 500])
            sql = f"SELECT document_id FROM documents WHERE document_id IN ({', '.join('?' * len(part))})"  # noqa: S608 - only question marks
            found |= {document_id for (document_id,) in self._rows(sql, part)}
        return found

    def labels_in_use(self) -> list[str]:
        """The labels that stand on any document, whoever may see it, also on one that was deleted since."""
        stored = [label for (label,) in self._rows("SELECT DISTINCT label FROM documents", [])]
        return sorted({*stored, *self.overlaid().labels.values()})

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


def _shown_to(groups: Sequence[str]) -> str:
    return SHOWN_TO.format(", ".join("?" * len(groups)))


def _hidden(over: Overlaid, groups: Sequence[str]) -> str:
    return json.dumps(over.hidden_from(groups))


def _overlaid(found: Described, number: int, over: Overlaid) -> Described:
    if number not in over.groups and number not in over.labels:
        return found
    return replace(found, groups=over.groups_of(number, found.groups), label=over.label_of(number, found.label))


def _passage(row: Row, over: Overlaid) -> Passage:
    (
        ordinal, chunk_id, document_id, version, title, source, collection, text, heading, page, start, end, label, groups,
        language, number,
    ) = row  # fmt: skip
    return Passage(
        ordinal=ordinal, chunk_id=chunk_id, document_id=document_id, version=version, title=title, source=source,
        collection=collection, text=text, heading=tuple(json.loads(heading)), page=page, start=start, end=end,
        label=over.label_of(number, label), groups=over.groups_of(number, json.loads(groups)), language=language,
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
