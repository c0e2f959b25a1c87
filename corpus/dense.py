"""The dense index: exact inner product over fp16 vectors, under a mask. The only importer of faiss."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from corpus.errors import EmbedderMismatch, NotWritten, SnapshotDamaged
from corpus.types import Mask, Ordinals, Vector, Vectors

TYPICAL_SPREAD = 0.117
"""The spread of all-MiniLM-L6-v2. Source: measured on five corpora, .102 to .126; docs/retrieval.md."""

SPREAD_SAMPLE, SPREAD_LEAST = 128, 16
SPREAD_NOTHING = 0.001
"""Below this all chunks say the same."""


class DenseWriter:
    """Collects vectors in the order of their ordinals and writes them to one file."""

    def __init__(self, dimension: int) -> None:
        self._index = faiss.IndexScalarQuantizer(dimension, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)

    def add(self, vectors: Vectors) -> None:
        """Append vectors. Shapes: (n, dimension) float32, rows unit length.

        Raises: EmbedderMismatch where the dimension differs, ValueError where a value is not finite.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self._index.d:
            raise EmbedderMismatch(f"vectors of shape {vectors.shape} do not fit an index of dimension {self._index.d}")
        if not np.isfinite(vectors).all():
            raise ValueError("a vector holds a value that is not finite; the embedding model is broken")
        self._index.add(np.ascontiguousarray(vectors, dtype=np.float32))

    def write(self, path: Path) -> None:
        """Write the file. Raises: NotWritten."""
        try:
            faiss.write_index(self._index, str(path))
            # It reports a full disk only to stderr where the last part does not fit.
            DenseIndex(path)
        except (RuntimeError, SnapshotDamaged) as error:
            raise NotWritten(str(path), "faiss could not write all of it") from error


class DenseIndex:
    """An index file, opened memory-mapped and read-only. The caller has checked the file's hash: FAISS has no checksum."""

    def __init__(self, path: Path) -> None:
        try:
            self._index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError as error:
            raise SnapshotDamaged(path.parent.name, f"{path.name} cannot be opened") from error
        self.size = int(self._index.ntotal)
        self.dimension = int(self._index.d)

    def search(self, query: Vector, limit: int, mask: Mask | None) -> tuple[Ordinals, NDArray[np.float32]]:
        """The visible chunks nearest to a query, exactly.

        Shapes: query (dimension,) float32 unit length; mask (size,) or None for all; returns (k,) and (k,), k <= limit.
        Order: best first; equal scores by ordinal.
        Raises: EmbedderMismatch.
        """
        if query.shape != (self.dimension,):
            raise EmbedderMismatch(f"a query of shape {query.shape} does not fit an index of dimension {self.dimension}")
        limit = min(limit, self.size)
        if limit <= 0 or (mask is not None and not mask.any()):
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
        # The setting belongs to the calling thread. One thread is fastest for one query.
        faiss.omp_set_num_threads(1)
        parameters = None
        if mask is not None:
            bits = np.packbits(mask, bitorder="little")
            # faiss's stubs describe the C++ constructors; its Python ones take an array and keywords.
            parameters = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(bits))  # type: ignore[call-arg,arg-type]
        scores, ordinals = self._index.search(query[np.newaxis].astype(np.float32), limit, params=parameters)
        found = ordinals[0] >= 0
        ordinals_found: Ordinals = ordinals[0][found].astype(np.int64)
        scores_found = scores[0][found]
        order = np.lexsort((ordinals_found, -scores_found))
        return ordinals_found[order], scores_found[order]

    def vectors(self, ordinals: Ordinals) -> Vectors:
        """The stored vectors of some chunks. Shapes: (len(ordinals), dimension) float32."""
        if len(ordinals) == 0:
            return np.empty((0, self.dimension), dtype=np.float32)
        vectors: Vectors = self._index.reconstruct_batch(np.ascontiguousarray(ordinals, dtype=np.int64))
        return vectors

    def spread(self, ordinals: Ordinals) -> float:
        """How far apart the cosines of any two of some chunks lie: their standard deviation, from an even sample of them.

        It says how much a difference of cosines means with this model. Too few chunks to tell count as typical.
        """
        if len(ordinals) < SPREAD_LEAST:
            return TYPICAL_SPREAD
        step = -(-len(ordinals) // SPREAD_SAMPLE)
        vectors = self.vectors(ordinals[::step])
        cosines = (vectors @ vectors.T)[np.triu_indices(len(vectors), k=1)]
        spread = float(cosines.std())
        return spread if spread >= SPREAD_NOTHING else TYPICAL_SPREAD
