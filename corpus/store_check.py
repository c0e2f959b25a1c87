"""The consistency check of a chunks.db: where it contradicts itself."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from corpus.effects import text_hash_of
from corpus.store_rows import DOCUMENT_COLUMNS, document_of
from corpus.stored import Stored
from corpus.types import chunk_id_of, version_of

ORPHANS = {
    "chunk": "SELECT chunk_id FROM chunks WHERE number NOT IN (SELECT number FROM documents)",
    "group": "SELECT name FROM document_groups WHERE number NOT IN (SELECT number FROM documents)",
    "facet": "SELECT field FROM facets WHERE number NOT IN (SELECT number FROM documents)",
    "former id": "SELECT former_id FROM former_ids WHERE number NOT IN (SELECT number FROM documents)",
}
"""Rows that say of no document what they say."""


def contradictions(stored: Stored) -> list[str]:
    """What is inconsistent, by name: SQLite's own check, rows that belong to nothing, ordinals, ids, offsets, groups."""
    try:
        problems = [str(row[0]) for row in stored.rows("PRAGMA integrity_check") if row[0] != "ok"]
        for what, sql in ORPHANS.items():
            problems += [f"{what} {str(name)!r} belongs to no document" for (name,) in stored.rows(sql)]
        ordinals = [row[0] for row in stored.rows("SELECT ordinal FROM chunks ORDER BY ordinal")]
        if ordinals != list(range(len(ordinals))):
            problems.append("chunk ordinals are not 0..N-1")
        numbers = [row[0] for row in stored.rows("SELECT number FROM documents ORDER BY number")]
        if numbers != list(range(len(numbers))):
            return [*problems, "document numbers are not 0..N-1"]
        first = 0
        for number in numbers:
            problems += _in_document(stored, number, first)
            first += int(stored.counts[number])
    except (sqlite3.Error, ValueError, TypeError) as error:
        problems = [f"chunks.db cannot be read ({error})"]
    return problems


def _in_document(stored: Stored, number: int, first: int) -> Iterator[str]:
    row = stored.rows(f"SELECT {DOCUMENT_COLUMNS}, text_hash, first_ordinal FROM documents WHERE number = ?", [number])[0]  # noqa: S608 - constants
    document, passages = document_of(row[:-2]), stored.passages_of(row[0])
    name = f"document {document.document_id} ({document.source!r})"
    if document.version != version_of(document.title, document.text):
        yield f"{name} is not its version {document.version}"
    if row[-2] != text_hash_of(document.text):
        yield f"{name} has another text than its hash says"
    ordinals = [passage.ordinal for passage in passages]
    if row[-1] != first or ordinals != list(range(first, first + int(stored.counts[number]))):
        yield f"{name} has other chunks than it says"
    groups = [name for (name,) in stored.rows("SELECT name FROM document_groups WHERE number = ?", [number])]
    if set(groups) != set(document.groups):
        yield f"{name} is visible to {sorted(groups)} and says {sorted(document.groups)}"
    for passage in passages:
        if document.text[passage.start : passage.end] != passage.text:
            yield f"chunk {passage.chunk_id} is not its span of the document"
        if passage.chunk_id != chunk_id_of(document.document_id, document.version, passage.start, passage.end):
            yield f"chunk {passage.chunk_id} has not the id of its document, version and span"
        if (passage.groups, passage.label) != (document.groups, document.label):
            yield f"chunk {passage.chunk_id} has other groups or another label than its document"
