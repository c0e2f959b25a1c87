"""Small published corpora of given texts with vectors that mean nothing, for tests of what words and dates decide."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from corpus.dense import EXACT_UP_TO
from corpus.manifest import EmbedderStamp
from corpus.settings import SearchSettings
from corpus.snapshot import OpenSnapshot, SnapshotWriter, open_current
from corpus.types import Chunk, Document, Section, Vector, chunk_id_of, document_id_of, version_of

DIMENSION = 16


@dataclass(frozen=True, slots=True)
class Text:
    """A document, each paragraph of it a chunk. `near` is the cosine of each to the vector that `asked` gives."""

    text: str
    title: str = "title"
    groups: tuple[str, ...] = ("everyone",)
    metadata: Mapping[str, str] = field(default_factory=dict)
    near: float | None = None


def asked() -> Vector:
    """The vector of every question."""
    vector = np.zeros(DIMENSION, dtype=np.float32)
    vector[0] = 1
    return vector


def published(data_dir: Path, texts: Sequence[Text], *, exact_up_to: int = EXACT_UP_TO) -> OpenSnapshot:
    """The texts, each a document of its own, in order; open. Of more chunks than `exact_up_to` the vectors have codes."""
    random = np.random.default_rng(1)
    stamp = EmbedderStamp("model", "fingerprint", DIMENSION)
    writer = SnapshotWriter(data_dir, None, stamp, {"max_tokens": 256}, exact_up_to=exact_up_to)
    for number, each in enumerate(texts):
        document_id, version = document_id_of("c", str(number)), version_of(each.title, each.text)
        document = Document(
            document_id, version, "c", f"{number}.md", each.title, each.text, (Section(0, len(each.text)),), "md", "en",
            each.groups, "internal", each.metadata,
        )  # fmt: skip
        chunks, vectors = [], []
        for part in re.finditer(r"[^\n]+(?:\n[^\n]+)*", each.text):
            start, end = part.span()
            chunk_id = chunk_id_of(document_id, version, start, end)
            chunks.append(Chunk(chunk_id, document_id, version, start, end, part.group(), (), None))
            rest = random.standard_normal(DIMENSION - 1)
            near = float(random.uniform(0, 0.9)) if each.near is None else each.near
            vectors.append([near, *(rest / np.linalg.norm(rest) * np.sqrt(1 - near**2))])
        hashes = [f"{number}-{part}".encode() for part in range(len(chunks))]
        writer.add_document(f"{number}.md", document, chunks, hashes, np.array(vectors, dtype=np.float32))
    writer.publish()
    snapshot, damage = open_current(data_dir, SearchSettings())
    assert damage is None
    return snapshot
