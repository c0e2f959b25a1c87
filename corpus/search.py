"""Hybrid search over one open snapshot: dense and lexical candidates, fused by reciprocal rank, under a filter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from corpus.dense import DenseIndex
from corpus.folding import Folder
from corpus.lexical import LexicalFilter, LexicalIndex
from corpus.settings import SearchSettings
from corpus.store import Store
from corpus.types import Hit, Mask, Vector

MASKS_KEPT = 64


@dataclass(frozen=True, slots=True)
class Query:
    """One way of asking: words for the lexical side, a vector for the dense side. `weight` counts in the fusion."""

    text: str
    vector: Vector
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Scope:
    """What a caller may find: documents of any of their groups that have, for every field named, any of its values."""

    groups: tuple[str, ...]
    filters: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(slots=True)
class _Candidate:
    score: float = 0.0
    cosine: float | None = None
    dense_rank: int | None = None
    lexical_rank: int | None = None


class Searcher:
    """Searches one snapshot. Safe for use by several threads."""

    def __init__(self, store: Store, dense: DenseIndex, lexical: LexicalIndex, settings: SearchSettings) -> None:
        self._store, self._dense, self._lexical, self._settings = store, dense, lexical, settings
        # One snapshot is immutable, so a mask holds for as long as it does.
        self._mask = lru_cache(maxsize=MASKS_KEPT)(self._make_mask)

    def search(self, queries: Sequence[Query], scope: Scope, top_k: int) -> list[Hit]:
        """The best visible passages for one or several ways of asking, near-duplicates folded.

        Order: best first; equal scores by ordinal. One query alone ranks the same however many could have been given.
        Source: reciprocal rank fusion, Cormack, Clarke and Büttcher 2009; its constant is search.rrf_k.
        """
        mask, only = self._mask(scope.groups, tuple(sorted(scope.filters.items())))
        if not mask.any():
            return []
        candidates: dict[int, _Candidate] = {}
        for query in queries:
            self._add_dense(candidates, query, mask)
            self._add_lexical(candidates, query, mask, only)
        ranked = sorted(candidates, key=lambda ordinal: (-candidates[ordinal].score, ordinal))
        return self._hits(ranked, candidates, top_k)

    def rarity(self, term: str, language: str | None, scope: Scope) -> float:
        """How rare a stemmed term is among what the caller may see; see LexicalIndex.rarity."""
        _, only = self._mask(scope.groups, tuple(sorted(scope.filters.items())))
        return self._lexical.rarity(term, language, only)

    def _make_mask(
        self, groups: tuple[str, ...], filters: tuple[tuple[str, tuple[str, ...]], ...]
    ) -> tuple[Mask, LexicalFilter]:
        mask = self._store.mask(groups, dict(filters))
        mask.setflags(write=False)
        return mask, LexicalFilter(groups, dict(filters), sees_everything=bool(mask.all()))

    def _add_dense(self, candidates: dict[int, _Candidate], query: Query, mask: Mask) -> None:
        weight = self._settings.dense_weight * query.weight
        if weight == 0:
            return
        ordinals, cosines = self._dense.search(query.vector, self._settings.candidates, None if mask.all() else mask)
        for rank, (ordinal, cosine) in enumerate(zip(ordinals.tolist(), cosines.tolist(), strict=True), start=1):
            candidate = candidates.setdefault(ordinal, _Candidate())
            candidate.score += weight / (self._settings.rrf_k + rank)
            candidate.cosine = max(cosine, candidate.cosine if candidate.cosine is not None else -1.0)
            candidate.dense_rank = min(rank, candidate.dense_rank or rank)

    def _add_lexical(self, candidates: dict[int, _Candidate], query: Query, mask: Mask, only: LexicalFilter) -> None:
        weight = self._settings.lexical_weight * query.weight
        if weight == 0:
            return
        ordinals, _ = self._lexical.search(query.text, self._settings.candidates, only)
        for rank, ordinal in enumerate(ordinals[mask[ordinals]].tolist(), start=1):
            candidate = candidates.setdefault(ordinal, _Candidate())
            candidate.score += weight / (self._settings.rrf_k + rank)
            candidate.lexical_rank = min(rank, candidate.lexical_rank or rank)
        weight = self._settings.identifier_weight * query.weight
        if weight == 0:
            return
        exact, _ = self._lexical.search(query.text, self._settings.candidates, only, must_identify=True)
        for rank, ordinal in enumerate(exact[mask[exact]].tolist(), start=1):
            candidates.setdefault(ordinal, _Candidate()).score += weight / (self._settings.rrf_k + rank)

    def _hits(self, ranked: list[int], candidates: dict[int, _Candidate], top_k: int) -> list[Hit]:
        hits: list[Hit] = []
        folder = Folder()
        # Texts are fetched as they are needed: rarely more than one round.
        for begin in range(0, len(ranked), max(top_k * 2, 16)):
            for passage in self._store.passages(np.array(ranked[begin : begin + max(top_k * 2, 16)])):
                if self._settings.fold_near_duplicates and folder.repeats(passage.text):
                    continue
                found = candidates[passage.ordinal]
                hits.append(Hit(passage, found.score, found.cosine, found.dense_rank, found.lexical_rank))
                if len(hits) == top_k:
                    return hits
        return hits
