"""A corpus made by a seed: English words in their frequencies, random vectors, written as a snapshot that the service opens."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from corpus.embedders.embedder import Embedder
from corpus.embedders.weights import PACKAGED, find_model
from corpus.manifest import EmbedderStamp
from corpus.records import FileRecord
from corpus.snapshot import SnapshotWriter
from corpus.types import Chunk, Document, Section, Vectors, chunk_id_of, document_id_of, version_of

SEED = 2026
WORDS_A_CHUNK = 120
CHUNKS_A_DOCUMENT = 5
COLLECTION = "generated"
FIRST_WORD = "the"
ZIPF_SHIFT = 2.7
"""Source: Zipf-Mandelbrot, frequency ~ 1 / (rank + 2.7), Mandelbrot 1953; the exponent is taken as 1."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Words, the most frequent first, and their probabilities."""

    words: tuple[str, ...]
    cumulative: np.ndarray[tuple[int], np.dtype[np.float64]]

    def draw(self, random: np.random.Generator, count: int) -> list[str]:
        """So many words, each by its frequency."""
        return [self.words[rank] for rank in np.searchsorted(self.cumulative, random.random(count), side="right").tolist()]


def english() -> Vocabulary:
    """The words that the packaged model's tokenizer knows whole; it lists them by frequency, beginning with `the`."""
    path = find_model(PACKAGED, allow_hub=False) / "tokenizer.json"
    ids: dict[str, int] = json.loads(path.read_text(encoding="utf-8"))["model"]["vocab"]
    whole = [word for word in sorted(ids, key=ids.__getitem__) if word.isascii() and word.isalpha() and len(word) > 1]
    words = tuple(whole[whole.index(FIRST_WORD) :])
    frequencies = 1 / (np.arange(len(words)) + 1 + ZIPF_SHIFT)
    return Vocabulary(words, np.cumsum(frequencies / frequencies.sum()))


def documents(chunks: int, seed: int = SEED) -> Iterator[tuple[Document, list[Chunk]]]:
    """Documents of so many chunks together. The same seed gives the same documents."""
    random, vocabulary = np.random.default_rng(seed), english()
    for number, first in enumerate(range(0, chunks, CHUNKS_A_DOCUMENT)):
        paragraphs = [_paragraph(random, vocabulary) for _ in range(min(CHUNKS_A_DOCUMENT, chunks - first))]
        yield _document(number, " ".join(vocabulary.draw(random, 4)).capitalize(), paragraphs)


def questions(count: int, seed: int = SEED + 1) -> list[str]:
    """Questions of 8 to 13 words in the same frequencies. The same seed gives the same questions."""
    random, vocabulary = np.random.default_rng(seed), english()
    return [" ".join(vocabulary.draw(random, int(random.integers(8, 14)))).capitalize() + "?" for _ in range(count)]


def publish(data_dir: Path, embedder: Embedder, chunks: int, *, real: bool = False, seed: int = SEED) -> None:
    """Write and publish the documents as a snapshot of this embedder, with its own vectors or with random ones."""
    stamp = EmbedderStamp(embedder.model, embedder.fingerprint, embedder.dimension, embedder.engine, embedder.graph)
    writer = SnapshotWriter(data_dir, None, stamp, {"words": WORDS_A_CHUNK})
    random = np.random.default_rng(seed)
    for document, parts in documents(chunks, seed):
        texts = [f"{document.title}\n{chunk.text}" for chunk in parts]
        vectors = embedder.embed_documents(texts) if real else _random_vectors(random, len(parts), embedder.dimension)
        hashes = [hashlib.sha256(text.encode()).digest() for text in texts]
        writer.add_file(FileRecord(COLLECTION, document.source, len(document.text), hashes[0].hex(), ""))
        writer.add_document(document.source, document, parts, hashes, vectors)
    writer.publish()


def _paragraph(random: np.random.Generator, vocabulary: Vocabulary) -> str:
    words = vocabulary.draw(random, WORDS_A_CHUNK)
    sentences = []
    while words:
        length = int(random.integers(8, 23))
        sentences.append(" ".join(words[:length]).capitalize() + ".")
        words = words[length:]
    return " ".join(sentences)


def _document(number: int, title: str, paragraphs: list[str]) -> tuple[Document, list[Chunk]]:
    text = "\n\n".join(paragraphs)
    source = f"generated/{number:06d}.txt"
    document_id, version = document_id_of(COLLECTION, source), version_of(title, text)
    chunks, start = [], 0
    for paragraph in paragraphs:
        end = start + len(paragraph)
        chunk_id = chunk_id_of(document_id, version, start, end)
        chunks.append(Chunk(chunk_id, document_id, version, start, end, paragraph, (), None))
        start = end + len("\n\n")
    document = Document(
        document_id=document_id, version=version, collection=COLLECTION, source=source, title=title, text=text,
        sections=(Section(0, len(text)),), format="txt", language="en", groups=("everyone",), label="internal",
    )  # fmt: skip
    return document, chunks


def _random_vectors(random: np.random.Generator, count: int, dimension: int) -> Vectors:
    vectors = random.standard_normal((count, dimension)).astype(np.float32)
    unit: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit
