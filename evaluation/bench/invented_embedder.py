"""An embedder without a model: vectors of invented texts that lie to each other as a model's vectors of real texts do."""

from __future__ import annotations

import re
import threading
import time
import zlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from corpus.types import Vector, Vectors
from evaluation.bench.generated import SEED

DIMENSION, LONGEST = 384, 256
ROWS = 8192
SUBJECT, FIELD, COMMON = 0.38, 0.3, 0.62
"""How much a word's subject, its field, and what all texts have in common count, where the word itself counts 1.

These, and how the spectrum falls, were chosen so that the cosines of any two texts have the mean (.13) and the spread (.12)
of all-MiniLM-L6-v2 on the chunks of scifact (.12, .12). The median text and its tenth nearest of 6,000 have .63 (.56 of
10,739), a question and its tenth .60 (.53 on multiturn-hard); the first 10, 50, 100 and 200 directions hold .31, .69, .84 and
.94 of the variance (.29, .59, .77, .94).
"""

SPECTRUM_SHIFT, SPECTRUM_FALL = 10, 0.67
ROOT, FIRST_SYLLABLE, SHORTEST = 4, 2, 4
"""Letters: of the root that names a subject, of the syllable that names a field, and of the shortest word that counts."""

LONG = 8
"""Letters from which a word counts in full: what is longer is rarer."""

WORD = re.compile(f"[a-z]{{{SHORTEST},}}")
PIECE = re.compile(r"\w{1,6}|[^\w\s]")
"""Pieces about as many as a tokenizer makes of them: 180 of a text of 128 words."""


class InventedEmbedder:
    """The sum of its words' vectors, each by the word's hash, its subject's and its field's. Safe for several threads."""

    engine, model, fingerprint = "invented", "invented", f"invented-{SEED}-1"
    dimension, max_tokens, special_tokens = DIMENSION, LONGEST, 2

    def __init__(self) -> None:
        self.graph: str | None = None
        self.took_s = 0.0
        """Time spent on documents, in seconds."""
        random = np.random.default_rng(SEED)
        falling = (np.arange(DIMENSION) + SPECTRUM_SHIFT) ** -SPECTRUM_FALL
        # No coordinate of a model's vectors stands out: the spectrum is turned away from the axes.
        turned, _ = np.linalg.qr(random.standard_normal((DIMENSION, DIMENSION)))
        rows = (random.standard_normal((ROWS + 1, DIMENSION)) * falling) @ turned.T / np.linalg.norm(falling)
        self._rows = rows[:-1].astype(np.float32)
        self._common: Vector = (COMMON * rows[-1] / np.linalg.norm(rows[-1])).astype(np.float32)
        self._of = lru_cache(maxsize=1 << 17)(_rows_of)
        self._own = threading.local()

    def count_tokens(self, text: str) -> int:
        """Pieces of a text."""
        return len(PIECE.findall(text))

    def embed_documents(self, texts: Sequence[str]) -> Vectors:
        """Shapes: (len(texts), dimension) float32, rows unit length."""
        began = time.perf_counter()
        vectors = self.embed_queries(texts)
        self.took_s += time.perf_counter() - began
        return vectors

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """Shapes: (len(texts), dimension) float32, rows unit length."""
        vectors = np.empty((len(texts), DIMENSION), dtype=np.float32)
        for number, text in enumerate(texts):
            vectors[number] = self._vector(text)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors

    def _vector(self, text: str) -> Vector:
        rows: list[int] = []
        weights: list[float] = []
        for word in WORD.findall(text.lower()):
            own_rows, own_weights = self._of(word)
            rows += own_rows
            weights += own_weights
        if not rows:
            return self._common
        taken = self._taken(len(rows))
        # A new array of this size for each text would take longer than all else.
        np.take(self._rows, rows, axis=0, out=taken, mode="clip")
        counted = np.array(weights, dtype=np.float32)
        vector: Vector = counted @ taken + np.linalg.norm(counted) * self._common
        return vector

    def _taken(self, count: int) -> Vectors:
        """Shapes: (count, dimension); this thread's own, until it asks again."""
        held: Vectors | None = getattr(self._own, "taken", None)
        if held is None or len(held) < count:
            held = self._own.taken = np.empty((2 * count, DIMENSION), dtype=np.float32)
        return held[:count]


def _rows_of(word: str) -> tuple[tuple[int, int, int], tuple[float, float, float]]:
    """The rows that a word adds up, and how much each counts."""
    rows = _row(word), _row(word[:ROOT]), _row(word[:FIRST_SYLLABLE])
    weight = (min(len(word), LONG) - SHORTEST + 1) / (LONG - SHORTEST + 1)
    return rows, (weight, SUBJECT * weight, FIELD * weight)


def _row(letters: str) -> int:
    return zlib.crc32(letters.encode()) % ROWS
