"""The rows of chunks.db as the objects they stand for: which columns each is made of, and how."""

from __future__ import annotations

import json
from typing import Any

from corpus.effects import UNTOUCHED, Overlaid
from corpus.records import DocumentSummary
from corpus.types import Document, Passage, Section

Row = tuple[Any, ...]
"""What a statement asked for, as SQLite gives it."""

PASSAGE_COLUMNS = """
    c.ordinal, c.chunk_id, d.document_id, d.version, d.title, d.source, d.collection, c.text, c.heading, c.page, c.start,
    c."end", c.label, c.groups, d.language, d.number
"""
PASSAGE_TABLES = "FROM chunks c JOIN documents d USING (number)"
DOCUMENT_COLUMNS = "document_id, version, collection, source, title, text, sections, format, language, groups, label, metadata"
SUMMARY_COLUMNS = "document_id, version, collection, source, title, format, language, groups, label, metadata, chunk_count"


def passage_of(row: Row, over: Overlaid = UNTOUCHED) -> Passage:
    """The passage of a row of PASSAGE_COLUMNS, with what was decided of its document."""
    (
        ordinal, chunk_id, document_id, version, title, source, collection, text, heading, page, start, end, label, groups,
        language, number,
    ) = row  # fmt: skip
    return Passage(
        ordinal=ordinal, chunk_id=chunk_id, document_id=document_id, version=version, title=title, source=source,
        collection=collection, text=text, heading=tuple(json.loads(heading)), page=page, start=start, end=end,
        label=over.label_of(number, label), groups=over.groups_of(number, json.loads(groups)), language=language,
    )  # fmt: skip


def document_of(row: Row) -> Document:
    """The document of a row of DOCUMENT_COLUMNS."""
    document_id, version, collection, source, title, text, sections, format_, language, groups, label, metadata = row
    return Document(
        document_id=document_id, version=version, collection=collection, source=source, title=title, text=text,
        sections=tuple(Section(start, end, tuple(heading), page) for start, end, heading, page in json.loads(sections)),
        format=format_, language=language, groups=tuple(json.loads(groups)), label=label, metadata=json.loads(metadata),
    )  # fmt: skip


def summary_of(row: Row) -> DocumentSummary:
    """The document of a row of SUMMARY_COLUMNS."""
    document_id, version, collection, source, title, format_, language, groups, label, metadata, chunks = row
    return DocumentSummary(
        document_id=document_id, version=version, collection=collection, source=source, title=title, format=format_,
        language=language, groups=tuple(json.loads(groups)), label=label, metadata=json.loads(metadata), chunks=chunks,
    )  # fmt: skip
