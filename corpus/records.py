"""What chunks.db records: files, failures, documents as they stand in a list, and what a document can be filtered by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from corpus.types import Chunk, Document, Ordinals

LONGEST_FACET = 200

DocumentParts = tuple[Document, list[Chunk], list[bytes], Ordinals]
"""A document, its chunks, the hashes of what was embedded of each, and their ordinals."""


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
