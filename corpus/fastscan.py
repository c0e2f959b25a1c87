"""Candidates among many vectors: 4-bit product quantisation, all of which is scanned. Only this and dense.py import faiss."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from corpus.errors import NotWritten, SnapshotDamaged
from corpus.types import Mask, Ordinals, Vector, Vectors

VALUES_EACH = 4
"""Values of a vector that one half byte stands for.

Source: André, Kermarrec and Le Scouarnec 2017; 8 values find .90 of the best ten of a million, docs/decisions/027.
"""

BITS, CENTROIDS = 4, 16
TRAINED_ON = 65_536
BLOCK = 16_384
SEED = 27

CANDIDATES = (4000, 8000, 16_000)
"""As many as are tried, until recall suffices: of a million chunks 1,000 hold .93 of the best hundred, 4,000 .99, at 1.2 ms
more. Source: docs/decisions/027."""

LEAST_RECALL = 0.98
MOST_SCORED_ALL = 0.1
RECALL_AT = 10
SHARES = (1.0, 0.5, 0.2, 0.1)
"""Shares of the chunks that may be seen, at which recall is measured: below the last of them all that may be seen is scored."""

QUESTIONS = 200
NOISE = 0.75
"""How far a measured question lies from a stored vector: its cosine to it is .8, as that of a good question to its passage."""

Read = Callable[[Ordinals], Vectors]
"""From ordinals to stored vectors."""

Scored = tuple[NDArray[np.float32], Ordinals]
Search = Callable[[Vector, int, Mask | None], tuple[Ordinals, NDArray[np.float32]]]


SHORTFALL_AT = 0.98
"""The share of the truly best whose codes fall no shorter of their scores than the shortfall says."""


@dataclass(frozen=True, slots=True)
class Measured:
    """How many candidates are re-ranked for a search, and what share of the true best ten it then finds, by visible share.

    `shortfall` is by what share of its true score a chunk among the best ten may seem farther by its codes, `scored_all` for
    what share of questions all chunks are scored after all, since the best may not be among the candidates.
    """

    candidates: int
    shortfall: float
    scored_all: float = 1.0
    recall_at_10: Mapping[str, float] = field(default_factory=dict)

    @property
    def suffices(self) -> bool:
        """Whether recall is what it has to be at every share, and the codes are why."""
        return min(self.recall_at_10.values()) >= LEAST_RECALL and self.scored_all <= MOST_SCORED_ALL


class FastScan:
    """An open file of codes, all in memory: half a byte for every four values. The caller has checked its hash."""

    def __init__(self, path: Path) -> None:
        try:
            index = faiss.read_index(str(path))
        except RuntimeError as error:
            raise SnapshotDamaged(path.parent.name, f"{path.name} cannot be opened") from error
        if not isinstance(index, faiss.IndexPQFastScan):
            raise SnapshotDamaged(path.parent.name, f"{path.name} is an index of another kind")
        self._index = index
        self.size = int(self._index.ntotal)
        self.dimension = int(self._index.d)

    def nearest(self, query: Vector, count: int) -> Scored:
        """The chunks that look nearest by their codes, and how near, best first.

        The caller has set the number of faiss's threads.
        """
        scores, ordinals = self._index.search(query[np.newaxis].astype(np.float32), min(count, self.size))
        there = ordinals[0] >= 0
        return scores[0][there], ordinals[0][there]

    def strange(self, ordinals: Ordinals, vectors: Vectors) -> Ordinals:
        """Those of some chunks whose codes are not the codes of their vectors."""
        quantizer: Any = self._index.pq  # faiss's stubs describe the C++ methods; its Python ones take and give arrays
        own = quantizer.decode(quantizer.compute_codes(vectors))
        wrong: Ordinals = ordinals[(self._index.reconstruct_batch(ordinals) != own).any(axis=1)]
        return wrong


def can_scan(size: int, dimension: int) -> bool:
    """Whether there are vectors enough to learn codes from, and they can be cut into equal parts."""
    return size >= CENTROIDS and dimension % VALUES_EACH == 0


def write_codes(path: Path, size: int, dimension: int, read: Read) -> None:
    """Train on a seeded sample and write the codes of all vectors. Raises: NotWritten."""
    index = faiss.IndexPQFastScan(dimension, dimension // VALUES_EACH, BITS, faiss.METRIC_INNER_PRODUCT)
    index.pq.cp.seed = SEED
    index.pq.cp.min_points_per_centroid = 1  # or it complains on stderr; recall is measured anyway
    sample = np.random.default_rng(SEED).choice(size, min(size, TRAINED_ON), replace=False)
    index.train(read(np.sort(sample)))
    for begin in range(0, size, BLOCK):
        index.add(read(np.arange(begin, min(begin + BLOCK, size))))
    try:
        faiss.write_index(index, str(path))
        # It reports a full disk only to stderr where the last part does not fit.
        if FastScan(path).size != size:
            raise NotWritten(str(path), "faiss could not write all of it")
    except (RuntimeError, SnapshotDamaged) as error:
        raise NotWritten(str(path), "faiss could not write all of it") from error


class Questions:
    """Stored vectors, each turned a little, and which chunks are truly nearest to them at each of the visible shares."""

    def __init__(self, size: int, read: Read) -> None:
        random = np.random.default_rng(SEED)
        chosen = read(np.sort(random.choice(size, min(size, QUESTIONS), replace=False)))
        turned = chosen + NOISE * _unit(random.standard_normal(chosen.shape).astype(np.float32))
        self._asked = _unit(turned)
        self._masks = {share: None if share == 1 else random.random(size) < share for share in SHARES}
        best = self._truth(size, read)
        self._scores = best[1.0][0]
        self._best = {share: list(ordinals) for share, (_, ordinals) in best.items()}

    def unanswered(self, search: Callable[[Vector, int], object | None]) -> float:
        """The share of them to which a search gives nothing."""
        return sum(search(query, RECALL_AT) is None for query in self._asked) / len(self._asked)

    def recall(self, search: Search) -> dict[str, float]:
        """The share of the truly nearest that a search finds, by visible share."""
        found = {}
        for share, mask in self._masks.items():
            hits = sum(
                len(np.intersect1d(search(query, RECALL_AT, mask)[0], best))
                for query, best in zip(self._asked, self._best[share], strict=True)
            )
            wanted = sum(len(best) for best in self._best[share])
            found[f"{share:g}"] = math.floor(10_000 * hits / max(1, wanted)) / 10_000
        return found

    def shortfall(self, codes: FastScan) -> float:
        """How much farther the truly nearest may seem by their codes."""
        short = [np.zeros(1)]
        for query, best, scores in zip(self._asked, self._best[1.0], self._scores, strict=True):
            seeming, ordinals = codes.nearest(query, CANDIDATES[-1])
            _, true, at = np.intersect1d(best, ordinals, return_indices=True)
            near = scores[true] > 0
            short.append((scores[true] - seeming[at])[near] / scores[true][near])
        return round(float(np.quantile(np.concatenate(short), SHORTFALL_AT)), 4)

    def _truth(self, size: int, read: Read) -> dict[float, Scored]:
        """By scoring all, a block at a time."""
        nothing = (np.full((len(self._asked), 0), 0.0, np.float32), np.empty((len(self._asked), 0), np.int64))
        best = dict.fromkeys(SHARES, nothing)
        for begin in range(0, size, BLOCK):
            here = np.arange(begin, min(begin + BLOCK, size))
            scores = self._asked @ read(here).T
            for share, mask in self._masks.items():
                seen = slice(None) if mask is None else mask[here]
                ordinals = np.broadcast_to(here[seen], (len(scores), len(here[seen])))
                best[share] = _better(best[share], (scores[:, seen], ordinals))
        return best


def write_measured(path: Path, measured: Measured) -> None:
    """Write beside the codes how they are searched. Raises: OSError."""
    path.write_text(json.dumps(asdict(measured)) + "\n", encoding="utf-8")


def read_measured(path: Path) -> Measured:
    """What was measured. Raises: SnapshotDamaged."""
    try:
        return Measured(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise SnapshotDamaged(path.parent.name, f"{path.name} cannot be read ({type(error).__name__})") from error


def _better(some: Scored, others: Scored) -> Scored:
    scores, ordinals = np.hstack([some[0], others[0]]), np.hstack([some[1], others[1]])
    if scores.shape[1] <= RECALL_AT:
        return scores, ordinals
    kept = np.argpartition(-scores, RECALL_AT - 1, axis=1)[:, :RECALL_AT]
    return np.take_along_axis(scores, kept, axis=1), np.take_along_axis(ordinals, kept, axis=1)


def _unit(vectors: Vectors) -> Vectors:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)
