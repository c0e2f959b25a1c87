"""A batch is embedded while the next is read; what is written keeps its order, and no more than two batches are held."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from corpus.effects import Former
from corpus.embedders.embedder import Embedder
from corpus.snapshot import SnapshotWriter
from corpus.types import Chunk, Document, Vectors
from ingest.embedding import Embedding, Item
from ingest.vectors import VectorSource, input_hash


class Written:
    """Takes what a snapshot's writer would."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, list[float]]] = []

    def add_document(
        self,
        path: str,
        document: Document,
        chunks: Sequence[Chunk],
        hashes: Sequence[bytes],
        vectors: Vectors,
        former: Sequence[Former],
    ) -> None:
        self.rows.append((path, vectors[:, 0].tolist()))


class Slow:
    """Embeds a text of n letters as n, when it is let."""

    def __init__(self) -> None:
        self.free, self.begun = threading.Event(), threading.Event()

    def embed_documents(self, texts: Sequence[str]) -> Vectors:
        self.begun.set()
        assert self.free.wait(10)
        return np.array([[len(text), 0] for text in texts], dtype=np.float32)


def item(path: str, *texts: str, kept: Vectors | None = None) -> Item:
    """A document of some inputs, or one whose vectors are there."""
    count = len(texts) if kept is None else len(kept)
    return Item(path, None, [None] * count, [input_hash("f", text) for text in texts], list(texts), kept)  # type: ignore[arg-type,list-item]


@pytest.fixture
def slow() -> Slow:
    return Slow()


@pytest.fixture
def written() -> Written:
    return Written()


@pytest.fixture
def embedding(tmp_path: Path, slow: Slow, written: Written) -> Embedding:
    """Over an embedder that waits to be let."""
    embedder: Embedder = slow  # type: ignore[assignment]
    writer: SnapshotWriter = written  # type: ignore[assignment]
    return Embedding(VectorSource(tmp_path / "work.db", None, lambda: embedder, 2), writer)


def test_reading_goes_on_while_a_batch_is_embedded(embedding: Embedding, slow: Slow, written: Written) -> None:
    """The first batch does not hold up who adds it; the second is written after it, each document with its own vectors."""
    kept = np.array([[7, 0]], dtype=np.float32)
    embedding.add([item("a", "x", "xx"), item("kept", kept=kept), item("b", "xxx")])
    assert slow.begun.wait(10)
    assert written.rows == []
    slow.free.set()
    embedding.add([item("c", "xxxx"), item("empty")])
    assert written.rows == [("a", [1, 2]), ("kept", [7]), ("b", [3])]
    embedding.finish()
    embedding.close()
    assert written.rows[3:] == [("c", [4]), ("empty", [])]


def test_who_reads_faster_than_is_embedded_waits(embedding: Embedding, slow: Slow, written: Written) -> None:
    """A second batch is not taken before the first is written: two are held at most."""
    embedding.add([item("a", "x")])
    reader = threading.Thread(target=embedding.add, args=([item("b", "xx")],))
    reader.start()
    reader.join(0.2)
    assert reader.is_alive()
    slow.free.set()
    reader.join(10)
    assert written.rows == [("a", [1])]
    embedding.close()


def test_a_failure_reaches_who_reads(embedding: Embedding, slow: Slow, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing of its batch is written."""

    def fail(texts: Sequence[str]) -> Vectors:
        raise MemoryError

    monkeypatch.setattr(slow, "embed_documents", fail)
    embedding.add([item("a", "x")])
    with pytest.raises(MemoryError):
        embedding.finish()
    embedding.close()
