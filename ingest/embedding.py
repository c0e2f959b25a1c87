"""Embeds a batch of documents' chunks while the next one is read. Memory does not grow with the corpus."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from corpus.effects import Former
from corpus.snapshot import SnapshotWriter
from corpus.types import Chunk, Document, Vectors
from ingest.vectors import VectorSource


@dataclass(slots=True)
class Item:
    """A document on its way into the snapshot: with its vectors, or with the inputs that still have to be embedded."""

    path: str
    document: Document
    chunks: list[Chunk]
    hashes: list[bytes]
    inputs: list[str]
    vectors: Vectors | None
    former: tuple[Former, ...] = ()


class Embedding:
    """Embeds what waits for its vectors in a thread, while the next files are read, and writes all that waits, in order.

    One batch is embedded and one waits at most, so that memory does not grow with the corpus.
    """

    def __init__(self, vectors: VectorSource, writer: SnapshotWriter) -> None:
        self._vectors, self._writer = vectors, writer
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="vectors")
        self._waiting: tuple[list[Item], Future[Vectors]] | None = None

    def add(self, items: list[Item]) -> None:
        """Take items; those added before are written when this returns."""
        inputs = [text for item in items for text in item.inputs]
        hashes = [key for item in items if item.vectors is None for key in item.hashes]
        before, self._waiting = self._waiting, (items, self._thread.submit(self._vectors.vectors, inputs, hashes))
        if before is not None:
            self._write(*before)

    def finish(self) -> None:
        """Write what was added last."""
        if self._waiting is not None:
            self._write(*self._waiting)
            self._waiting = None

    def close(self) -> None:
        """Let what is being embedded end, and drop what waits."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _write(self, items: list[Item], embedded: Future[Vectors]) -> None:
        fresh, position = embedded.result(), 0
        for item in items:
            vectors = item.vectors
            if vectors is None:
                vectors = fresh[position : position + len(item.chunks)]
                position += len(item.chunks)
            self._writer.add_document(item.path, item.document, item.chunks, item.hashes, vectors, item.former)
