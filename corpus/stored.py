"""chunks.db as it was written, whoever may see it: for the job, for checks, and for what asks who may see it first."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from corpus.effects import NOTHING, Effect, EffectRecord, Effects, Former, Seen
from corpus.errors import SnapshotDamaged
from corpus.records import DocumentParts, DocumentSummary, Failure, FileRecord, Place
from corpus.store_rows import (
    DOCUMENT_COLUMNS,
    PASSAGE_COLUMNS,
    PASSAGE_TABLES,
    SUMMARY_COLUMNS,
    Row,
    document_of,
    passage_of,
    summary_of,
)
from corpus.types import Chunk, Document, Passage


class Stored:
    """An open chunks.db, read-only and immutable. Safe for use by several threads.

    Nothing here asks who may see what it gives, nor the overlay. `counts` has the number of chunks of each document.
    """

    def __init__(self, path: Path) -> None:
        """Raises: SnapshotDamaged."""
        self._lock = threading.Lock()
        try:
            self._connection = sqlite3.connect(
                f"file:{path.resolve().as_posix().replace('?', '%3f').replace('#', '%23')}?mode=ro&immutable=1",
                uri=True,
                check_same_thread=False,
            )
            found = self.rows("SELECT first_ordinal, chunk_count FROM documents ORDER BY number")
        except sqlite3.Error as error:
            raise SnapshotDamaged(path.parent.name, f"{path.name} cannot be read ({error})") from error
        self.counts: NDArray[np.int64] = np.array([count for _, count in found], dtype=np.int64)
        self.documents = len(found)
        self.chunks = int(self.counts.sum())

    def rows(self, sql: str, values: Sequence[object] = ()) -> list[Row]:
        """What a statement finds."""
        with self._lock:
            return self._connection.execute(sql, values).fetchall()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def passages_of(self, document_id: str) -> list[Passage]:
        """All passages of a document, in reading order."""
        sql = f"SELECT {PASSAGE_COLUMNS} {PASSAGE_TABLES} WHERE d.document_id = ? ORDER BY c.ordinal"
        return [passage_of(row) for row in self.rows(sql, [document_id])]

    def languages(self) -> list[str | None]:
        """The languages of the documents."""
        return [language for (language,) in self.rows("SELECT DISTINCT language FROM documents")]

    def documents_with_passages(self) -> Iterator[tuple[Document, list[Passage]]]:
        """Every document with its passages, in the order of their ordinals."""
        for number in range(self.documents):
            rows = self.rows(f"SELECT {DOCUMENT_COLUMNS} FROM documents WHERE number = ?", [number])  # noqa: S608 - constants
            document = document_of(rows[0])
            yield document, self.passages_of(document.document_id)

    def documents_of_file(self, collection: str, path: str) -> list[DocumentParts]:
        """What came of a file: documents with chunks, hashes of the embedder's inputs, and ordinals."""
        rows = self.rows(
            f"SELECT {DOCUMENT_COLUMNS}, number FROM documents WHERE collection = ? AND path = ? ORDER BY number",  # noqa: S608 - constants
            [collection, path],
        )
        return [self._parts(row) for row in rows]

    def document_with_parts(self, document_id: str) -> DocumentParts | None:
        """One document with chunks, hashes of the embedder's inputs, and ordinals."""
        rows = self.rows(f"SELECT {DOCUMENT_COLUMNS}, number FROM documents WHERE document_id = ?", [document_id])  # noqa: S608 - constants
        return self._parts(rows[0]) if rows else None

    def former_ids(self, document_id: str) -> tuple[Former, ...]:
        """The ids that a document had before it was moved, the last one first."""
        rows = self.rows("SELECT number FROM documents WHERE document_id = ?", [document_id])
        return self.former_ids_of(rows[0][0]) if rows else ()

    def effect_records(self) -> list[EffectRecord]:
        """What was decided of documents when this was made, those that were withheld too."""
        rows = self.rows("SELECT document_id, collection, path, effect, withheld FROM effects ORDER BY document_id")
        return [EffectRecord(id_, collection, path, effect, bool(withheld)) for id_, collection, path, effect, withheld in rows]

    def summaries(self) -> Iterator[DocumentSummary]:
        """All documents, ordered by id."""
        after = ""
        while rows := self.rows(
            f"SELECT {SUMMARY_COLUMNS} FROM documents WHERE document_id > ? ORDER BY document_id LIMIT 1000",  # noqa: S608 - constants
            [after],
        ):
            yield from map(summary_of, rows)
            after = rows[-1][0]

    def groups(self) -> list[str]:
        """The groups that may see any document."""
        return [name for (name,) in self.rows("SELECT DISTINCT name FROM document_groups ORDER BY name")]

    def files(self) -> Iterator[FileRecord]:
        """The files that the snapshot was made from."""
        for row in self.rows("SELECT collection, path, size_bytes, content_hash, rules_hash FROM files"):
            yield FileRecord(*row)

    def failures(self) -> list[Failure]:
        """What could not be read, ordered by path."""
        rows = self.rows("SELECT collection, path, item, reason, advice FROM failures ORDER BY collection, path, item")
        return [Failure(*row) for row in rows]

    def failures_of_file(self, collection: str, path: str) -> list[Failure]:
        """What of one file could not be read."""
        rows = self.rows(
            "SELECT collection, path, item, reason, advice FROM failures WHERE collection = ? AND path = ? ORDER BY item",
            [collection, path],
        )
        return [Failure(*row) for row in rows]

    def values(self, field: str) -> list[tuple[str, slice]]:
        """The values that documents have in a field, each with the ordinals of the document's chunks."""
        sql = (
            "SELECT f.value, d.first_ordinal, d.chunk_count FROM facets f JOIN documents d USING (number) "
            "WHERE f.field = ? ORDER BY d.number"
        )
        return [(value, slice(first, first + count)) for value, first, count in self.rows(sql, [field])]

    def ordinal_by_input(self, input_hashes: Sequence[bytes]) -> dict[bytes, int]:
        """For those hashes of embedder inputs that stand here: an ordinal whose vector it is."""
        found: dict[bytes, int] = {}
        for begin in range(0, len(input_hashes), 500):
            part = list(input_hashes[begin : begin + 500])
            marks = ", ".join("?" * len(part))
            sql = f"SELECT input_hash, MIN(ordinal) FROM chunks WHERE input_hash IN ({marks}) GROUP BY input_hash"  # noqa: S608 - only question marks
            found.update(self.rows(sql, part))
        return found

    def documents_in(self, collection: str, path: str) -> list[str]:
        """The ids of the documents of a file."""
        rows = self.rows("SELECT document_id FROM documents WHERE collection = ? AND path = ?", [collection, path])
        return [document_id for (document_id,) in rows]

    def document_ids(self) -> list[str]:
        """The ids of all documents."""
        return [document_id for (document_id,) in self.rows("SELECT document_id FROM documents")]

    def ids_of(self, numbers: Collection[int]) -> list[str]:
        """The ids of some documents by their numbers, ordered."""
        rows = self.rows(
            "SELECT document_id FROM documents WHERE number IN (SELECT value FROM json_each(?)) ORDER BY document_id",
            [json.dumps(list(numbers))],
        )
        return [document_id for (document_id,) in rows]

    def known_as(self, document_ids: Collection[str]) -> list[Row]:
        """Id, number, version, label and groups of the documents that have some ids, or had them before they were moved."""
        return self.rows(
            "SELECT document_id, number, version, label, groups FROM documents "
            "WHERE document_id IN (SELECT value FROM json_each(?1)) "
            "UNION SELECT f.former_id, d.number, d.version, d.label, d.groups "
            "FROM former_ids f JOIN documents d USING (number) WHERE f.former_id IN (SELECT value FROM json_each(?1))",
            [json.dumps(sorted(document_ids))],
        )

    def places(self, effects: Effects) -> list[tuple[Place, Effect]]:
        """Where the documents stand of which something is decided, and what, were they ingested now."""
        found = []
        for number, document_id, _, groups, text_hash in self.touched(effects):
            effect = effects.effect(document_id, self.former_ids_of(number), text_hash=text_hash)
            if effect != NOTHING:
                ((collection, path, chunks),) = self.rows(
                    "SELECT collection, path, chunk_count FROM documents WHERE number = ?", [number]
                )
                found.append((Place(document_id, collection, path, chunks, tuple(json.loads(groups))), effect))
        return found

    def touched(self, effects: Effects) -> list[Row]:
        """Number, id, label, groups and text's hash of the documents that something may be decided of, by an id or the text."""
        if not effects.named:
            return []
        return self.rows(
            "SELECT number, document_id, label, groups, text_hash FROM documents WHERE number IN ("
            "SELECT number FROM documents WHERE document_id IN (SELECT value FROM json_each(?1)) "
            "UNION SELECT number FROM former_ids WHERE former_id IN (SELECT value FROM json_each(?1)) "
            "UNION SELECT number FROM documents WHERE text_hash IN (SELECT value FROM json_each(?2)))",
            [json.dumps(sorted(effects.named)), json.dumps(sorted(effects.texts))],
        )

    def seen(self, document_id: str, snapshot: int) -> Seen:
        """What an entry of the overlay should know of a document that is seen here, in the snapshot with a number."""
        rows = self.rows("SELECT number, text_hash, version FROM documents WHERE document_id = ?", [document_id])
        if not rows:
            return Seen(snapshot)
        ((number, text_hash, version),) = rows
        copies = self.rows(
            "SELECT document_id FROM documents WHERE text_hash = ? AND text_hash <> '' AND number <> ? ORDER BY document_id",
            [text_hash, number],
        )
        return Seen(snapshot, self.former_ids_of(number), text_hash, version, tuple(copy for (copy,) in copies))

    def former_ids_of(self, number: int) -> tuple[Former, ...]:
        """The ids that the document with a number had before it was moved, the last one first."""
        rows = self.rows("SELECT former_id, until FROM former_ids WHERE number = ? ORDER BY until DESC, former_id", [number])
        return tuple(Former(former_id, until) for former_id, until in rows)

    def _parts(self, row: Row) -> DocumentParts:
        document = document_of(row[:-1])
        chunk_rows = self.rows(
            'SELECT ordinal, chunk_id, start, "end", text, heading, page, input_hash FROM chunks '
            "WHERE number = ? ORDER BY ordinal",
            [row[-1]],
        )
        chunks = [
            Chunk(r[1], document.document_id, document.version, r[2], r[3], r[4], tuple(json.loads(r[5])), r[6])
            for r in chunk_rows
        ]
        return document, chunks, [r[7] for r in chunk_rows], np.array([r[0] for r in chunk_rows], dtype=np.int64)
