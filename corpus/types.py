"""The nouns both sides share: documents, chunks, passages, hits, messages. Frozen; imports only numpy."""

from __future__ import annotations

import base64
import hashlib
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Role = Literal["system", "user", "assistant"]

MOVED_FROM = "moved_from"
"""Metadata of a document: the ids by which it was known before its file was moved, separated by spaces."""

Vectors = NDArray[np.float32]
"""Shapes: (n, dimension) float32, rows of unit length."""

Vector = NDArray[np.float32]
"""Shapes: (dimension,) float32, unit length."""

Ordinals = NDArray[np.int64]
"""Shapes: (n,) int64, chunk numbers 0..N-1, the same in every store of one snapshot."""

Mask = NDArray[np.bool_]
"""Shapes: (N,) bool over all chunk ordinals, True = the caller may see the chunk."""


@dataclass(frozen=True, slots=True)
class Section:
    """A stretch of a document's text under one heading path.

    Sections are in reading order and do not overlap; `start`/`end` count code points of the document's text.
    `heading` is the path from the outermost heading inwards and leaves out the document's title.
    `page` is the page of a PDF, the slide of a presentation or the sheet of a workbook, counted from 1.
    """

    start: int
    end: int
    heading: tuple[str, ...] = ()
    page: int | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """One document as it is stored and served: `text` is exactly what offsets count in."""

    document_id: str
    version: str
    collection: str
    source: str
    title: str
    text: str
    sections: tuple[Section, ...]
    format: str
    language: str | None
    groups: tuple[str, ...]
    label: str
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A span of a document that is embedded and found as one: `document.text[start:end] == text`."""

    chunk_id: str
    document_id: str
    version: str
    start: int
    end: int
    text: str
    heading: tuple[str, ...]
    page: int | None


@dataclass(frozen=True, slots=True)
class Passage:
    """A chunk with what a reader, a prompt and a citation need to know of its document."""

    ordinal: int
    chunk_id: str
    document_id: str
    version: str
    title: str
    source: str
    collection: str
    text: str
    heading: tuple[str, ...]
    page: int | None
    start: int
    end: int
    label: str
    groups: tuple[str, ...]
    language: str | None


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage that a search found.

    `score` is the fused score (higher is better; it has no unit and is never shown to a caller).
    `cosine` is the dense similarity where the dense side ranked the passage, the best of all ways of asking; `own_cosine` that
    to the first of them, the question by itself. The ranks count from 1.
    """

    passage: Passage
    score: float
    cosine: float | None = None
    dense_rank: int | None = None
    lexical_rank: int | None = None
    own_cosine: float | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation, or one part of a prompt."""

    role: Role
    content: str


def _base32(digest: bytes, length: int) -> str:
    return base64.b32encode(digest).decode("ascii").rstrip("=").lower()[:length]


def document_id_of(collection: str, key: str) -> str:
    """The stable, URL-safe id of a document: 26 characters.

    `key` is the POSIX path relative to the source's folder, or that path, `#` and the export's own row id.
    Source: base32 of SHA-256 over source name and NFC key, see docs/decisions.
    """
    text = f"{collection}\x00{unicodedata.normalize('NFC', key)}"
    return _base32(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest(), 26)


def version_of(title: str, text: str) -> str:
    """The content hash that names one version of a document: 16 characters."""
    digest = hashlib.sha256(f"{title}\x00{text}".encode("utf-8", "surrogatepass")).digest()
    return _base32(digest, 16)


def chunk_id_of(document_id: str, version: str, start: int, end: int) -> str:
    """A chunk is a document, a version of it and a span."""
    return f"{document_id}.{version}.{start}-{end}"
