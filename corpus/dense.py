"""The dense index: fp16 vectors, searched exactly under a mask; of many, only the candidates that their codes give."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from corpus.disk import writing
from corpus.errors import EmbedderMismatch, ModelDamaged, NotWritten, SnapshotDamaged
from corpus.fastscan import (
    CANDIDATES,
    RECALL_AT,
    FastScan,
    Measured,
    Questions,
    can_scan,
    read_measured,
    write_codes,
    write_measured,
)
from corpus.types import Mask, Ordinals, Vector, Vectors

EXACT_UP_TO = 50_000
"""Of so many vectors all are scored, in 2 ms, under a mask that admits half of them in 4. Source: docs/decisions/027."""

EXACT_SHARE = 0.09
"""Where a smaller share of the chunks may be seen, all of those are scored: a tenth, less what chance makes of one."""

GATHERED_SHARE = 1 / 12
"""Up to this share of all, vectors are scored faster when they are gathered than when the others are stepped over."""

GATHERED = 1024
"""Vectors gathered at a time: what is larger comes from the system, page by page, which takes longer than to score it."""

RERANKED_EACH = 10
"""Candidates for each chunk that is asked for, at least."""

AS_MANY_AGAIN = 4
"""Times as many candidates are asked for where the best may not be among the first."""

CODES, MEASURED = "dense.pq.faiss", "dense.json"
"""Beside the vectors, where there are many: their codes, and how those are searched."""

TYPICAL_SPREAD = 0.117
"""The spread of all-MiniLM-L6-v2. Source: measured on five corpora, .102 to .126; docs/retrieval.md."""

SPREAD_SAMPLE, SPREAD_LEAST = 128, 16
SPREAD_NOTHING = 0.001
"""Below this all chunks say the same."""

Found = tuple[Ordinals, NDArray[np.float32]]
"""Ordinals and scores, best first; equal scores by ordinal."""


def _flat(dimension: int) -> faiss.IndexScalarQuantizer:
    return faiss.IndexScalarQuantizer(dimension, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)


class DenseWriter:
    """Writes vectors to one file in the order of their ordinals, as they come: memory does not grow with them.

    Of more than `exact_up_to` the codes are written too, to be searched with the first number of `candidates` with which enough
    is found. Every call may raise NotWritten.
    """

    def __init__(
        self, path: Path, dimension: int, *, exact_up_to: int = EXACT_UP_TO, candidates: Sequence[int] = CANDIDATES
    ) -> None:
        self._path, self._dimension, self._exact_up_to, self._candidates = path, dimension, exact_up_to, candidates
        # An index of faiss without a vector, whose two counts are written when they are known.
        self._head = faiss.serialize_index(_flat(dimension)).tobytes()
        self._size = 0
        self._last = np.empty((0, dimension), dtype=np.float32)
        with writing(path):
            self._file = path.open("xb", buffering=1 << 20)
            self._file.write(self._head)

    def add(self, vectors: Vectors) -> None:
        """Append vectors. Shapes: (n, dimension) float32, rows unit length.

        Raises: EmbedderMismatch where the dimension differs, ModelDamaged where a value is not finite.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self._dimension:
            raise EmbedderMismatch(f"vectors of shape {vectors.shape} do not fit an index of dimension {self._dimension}")
        if not np.isfinite(vectors).all():
            raise ModelDamaged(
                "a vector holds a value that is not finite; reinstall the embedding model and run `archivist ingest`"
            )
        if len(vectors) == 0:
            return
        rounded = vectors.astype("<f2")
        with writing(self._path):
            self._file.write(rounded.tobytes())
        self._size += len(vectors)
        self._last = rounded[-1:].astype(np.float32)

    def close(self) -> Mapping[str, Any]:
        """Complete the file and, where it is large, the codes beside it. Returns what the manifest says of them."""
        with writing(self._path):
            # Source: faiss/impl/index_write.cpp: four letters, the dimension, the number of vectors; last, the bytes.
            for place, count in ((8, self._size), (len(self._head) - 8, self._size * self._dimension * 2)):
                self._file.seek(place)
                self._file.write(count.to_bytes(8, "little"))
            self._file.close()
        index = self._opened()
        if self._size <= self._exact_up_to or not can_scan(self._size, self._dimension):
            return {"kind": "exact"}
        return self._with_codes(index)

    def abandon(self) -> None:
        """Close what will not be completed."""
        with suppress(OSError):
            self._file.close()

    def _opened(self) -> DenseIndex:
        """What was written, read as faiss reads it."""
        try:
            index = DenseIndex(self._path)
        except SnapshotDamaged as error:
            raise NotWritten(str(self._path), "faiss cannot read it") from error
        last = np.arange(max(0, self._size - 1), self._size)
        if (index.size, index.dimension) != (self._size, self._dimension) or (index.vectors(last) != self._last).any():
            raise NotWritten(str(self._path), "faiss reads other vectors than were written")
        return index

    def _with_codes(self, index: DenseIndex) -> Mapping[str, Any]:
        codes, beside = self._path.with_name(CODES), self._path.with_name(MEASURED)
        write_codes(codes, self._size, self._dimension, index.vectors)
        scan, questions = FastScan(codes), Questions(self._size, index.vectors)
        shortfall = questions.shortfall(scan)
        for candidates in self._candidates:
            fast = DenseIndex(self._path, (scan, Measured(candidates, shortfall)))
            scored_all = questions.unanswered(fast.search_codes)
            measured = Measured(candidates, shortfall, scored_all, questions.recall(fast.search))
            if measured.suffices:
                break
        with writing(beside):
            if not measured.suffices:
                codes.unlink()
                return {"kind": "exact", "given_up": asdict(measured)}
            write_measured(beside, measured)
        return {"kind": "fast-scan", **asdict(measured)}


class DenseIndex:
    """An index file, opened memory-mapped and read-only. The caller has checked the file's hash: FAISS has no checksum.

    The codes beside it are opened where there are any; `fast` are others, with how they are used.
    """

    def __init__(self, path: Path, fast: tuple[FastScan, Measured] | None = None) -> None:
        try:
            index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError as error:
            raise SnapshotDamaged(path.parent.name, f"{path.name} cannot be opened") from error
        if not isinstance(index, faiss.IndexScalarQuantizer):
            raise SnapshotDamaged(path.parent.name, f"{path.name} is an index of another kind")
        self._index = index
        self.size = int(self._index.ntotal)
        self.dimension = int(self._index.d)
        self._halves = _halves(index)
        if fast is None and path.with_name(CODES).exists():
            fast = FastScan(path.with_name(CODES)), read_measured(path.with_name(MEASURED))
        self._fast = fast
        if fast is not None and (fast[0].size, fast[0].dimension) != (self.size, self.dimension):
            raise SnapshotDamaged(path.parent.name, f"{CODES} is not of the vectors in {path.name}")

    def search(self, query: Vector, limit: int, mask: Mask | None) -> Found:
        """The visible chunks nearest to a query, with their exact scores.

        Of few chunks, and where few of many are visible, all are scored. Else those that their codes give, of which enough
        are asked for that as many are visible as are without a mask; and all, where those may not be the best.

        Shapes: query (dimension,) float32 unit length; mask (size,) or None for all; returns (k,) and (k,), k <= limit.
        Order: best first; equal scores by ordinal.
        Raises: EmbedderMismatch.
        """
        if query.shape != (self.dimension,):
            raise EmbedderMismatch(f"a query of shape {query.shape} does not fit an index of dimension {self.dimension}")
        visible = self.size if mask is None else int(np.count_nonzero(mask))
        limit = min(limit, visible)
        if limit <= 0:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
        # The setting belongs to the calling thread. One thread is fastest for one query.
        faiss.omp_set_num_threads(1)
        if visible >= EXACT_SHARE * self.size and (found := self.search_codes(query, limit, mask)) is not None:
            return found
        if mask is not None and visible <= GATHERED_SHARE * self.size:
            return self._best_of(np.flatnonzero(mask), query, limit)
        return self._best(query, limit, mask)

    def search_codes(self, query: Vector, limit: int, mask: Mask | None = None) -> Found | None:
        """The best of the candidates that the codes give; None where there are no codes, or a better one may be among those
        that they do not give.

        That is so where the mask hides what the codes find near, or nothing is near: the last candidate then does not seem
        much farther than the best are.
        """
        if self._fast is None:
            return None
        codes, how = self._fast
        visible = self.size if mask is None else int(np.count_nonzero(mask))
        count = math.ceil(max(how.candidates, limit * RERANKED_EACH) * self.size / visible)
        for asked in (count, count * AS_MANY_AGAIN):
            seeming, candidates = codes.nearest(query, asked)
            if mask is not None:
                candidates = candidates[mask[candidates]]
            if len(candidates) < limit:
                continue
            found = self._best_of(np.sort(candidates), query, limit)
            worst = found[1][min(limit, RECALL_AT) - 1]
            if asked >= self.size or (worst > 0 and seeming[-1] <= worst * (1 - how.shortfall)):
                return found
        return None

    def _best_of(self, ordinals: Ordinals, query: Vector, limit: int) -> Found:
        """The best of some chunks, ascending ordinals."""
        parts = []
        for begin in range(0, len(ordinals), GATHERED):
            some = ordinals[begin : begin + GATHERED]
            index = _flat(self.dimension)
            index.add_sa_codes(self._halves[some].view(np.uint8))
            scores, places = index.search(query[np.newaxis].astype(np.float32), min(limit, len(some)))
            parts.append((some[places[0]], scores[0]))
        return _in_order(np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts]), limit)

    def _best(self, query: Vector, limit: int, mask: Mask | None) -> Found:
        """The best of all that the mask admits."""
        parameters = None
        if mask is not None:
            bits = np.packbits(mask, bitorder="little")
            # faiss's stubs describe the C++ constructors; its Python ones take an array and keywords.
            parameters = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(bits))  # type: ignore[call-arg,arg-type]
        scores, ordinals = self._index.search(query[np.newaxis].astype(np.float32), limit, params=parameters)
        found = ordinals[0] >= 0
        return _in_order(ordinals[0][found].astype(np.int64), scores[0][found], limit)

    def vectors(self, ordinals: Ordinals) -> Vectors:
        """The stored vectors of some chunks. Shapes: (len(ordinals), dimension) float32."""
        return self._halves[ordinals].astype(np.float32)

    def strange(self, ordinals: Ordinals) -> Ordinals:
        """Those of some chunks whose codes are not the codes of their vectors."""
        if self._fast is None:
            return np.empty(0, dtype=np.int64)
        return self._fast[0].strange(ordinals, self.vectors(ordinals))

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


def _halves(index: faiss.IndexScalarQuantizer) -> NDArray[np.float16]:
    """The stored values where they lie in the file: a row of fp16 a vector. The index must stay."""
    if index.ntotal == 0:
        return np.empty((0, index.d), dtype="<f2")
    # faiss's stubs leave the codes out.
    stored = faiss.rev_swig_ptr(index.codes.data(), index.ntotal * index.d * 2)
    halves: NDArray[np.float16] = stored.view("<f2").reshape(index.ntotal, index.d)
    return halves


def _in_order(ordinals: Ordinals, scores: NDArray[np.float32], limit: int) -> Found:
    order = np.lexsort((ordinals, -scores))[:limit]
    return ordinals[order], scores[order]
