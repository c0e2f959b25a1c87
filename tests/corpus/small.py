"""Small snapshots with made-up vectors, for what is tested without a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from corpus.manifest import EmbedderStamp, Manifest
from corpus.snapshot import SnapshotWriter
from corpus.types import Chunk, Document, Section, chunk_id_of, document_id_of, version_of

DIMENSION = 8
STAMP = EmbedderStamp("model", "fingerprint", DIMENSION)


def publish(data_dir: Path, texts: Sequence[str], parent: str | None = None, stamp: EmbedderStamp = STAMP) -> Manifest:
    """A snapshot of a few documents of one chunk each. The model of `stamp` need not be anywhere."""
    writer = SnapshotWriter(data_dir, parent, stamp, {"max_tokens": 256})
    try:
        for number, text in enumerate(texts):
            document_id, version = document_id_of("c", str(number)), version_of("title", text)
            document = Document(
                document_id, version, "c", f"{number}.md", "title", text, (Section(0, len(text)),), "md", "en", ("everyone",),
                "internal",
            )  # fmt: skip
            chunk = Chunk(chunk_id_of(document_id, version, 0, len(text)), document_id, version, 0, len(text), text, (), None)
            vector = np.random.default_rng(len(text) * 31 + number).standard_normal((1, DIMENSION)).astype(np.float32)
            writer.add_document(f"{number}.md", document, [chunk], [bytes([number])], vector / np.linalg.norm(vector))
        return writer.publish()
    except BaseException:
        writer.abandon()
        raise
