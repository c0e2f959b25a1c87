"""Hybrid search over one open snapshot: dense and lexical candidates, fused by their scores, under a filter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from corpus.dense import TYPICAL_SPREAD, DenseIndex
from corpus.folding import Folder
from corpus.lexical import LexicalFilter, LexicalIndex
from corpus.settings import SearchSettings
from corpus.store import Store
from corpus.types import Hit, Mask, Ordinals, Passage, Vector

MASKS_KEPT = 64

HALF_BM25 = 30.0
"""The BM25 score that counts for half of the most that words in common can count.

Source: 15, 30 and 60 with weights from .6 to 2 were measured; what lies around 30 and 1 differs by noise, docs/retrieval.md.
"""

Scores = NDArray[np.float64]


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


@dataclass(frozen=True, slots=True)
class _Visible:
    """What a scope lets see, for both indexes, and how far apart the cosines of its chunks lie."""

    mask: Mask
    only: LexicalFilter
    spread: float


@dataclass(frozen=True, slots=True)
class _Found:
    """What both indexes found for one query: ordinals, best first, and what is known of those that were not found."""

    query: Query
    dense: Ordinals
    cosines: NDArray[np.float32]
    lexical: Ordinals
    bm25: NDArray[np.float32]
    bm25_of_others: float
    exact: Ordinals


class Searcher:
    """Searches one snapshot. Safe for use by several threads."""

    def __init__(self, store: Store, dense: DenseIndex, lexical: LexicalIndex, settings: SearchSettings) -> None:
        self._store, self._dense, self._lexical, self._settings = store, dense, lexical, settings
        # One snapshot is immutable, so what a scope lets see holds for as long as it does.
        self._visible = lru_cache(maxsize=MASKS_KEPT)(self._look)

    def search(self, queries: Sequence[Query], scope: Scope, top_k: int) -> list[Hit]:
        """The best visible passages for one or several ways of asking, near-duplicates folded.

        A passage that any query finds by meaning or by words is scored for every query: the cosine, in units of how far
        apart cosines lie, plus a saturating share of BM25, plus a gain where it holds an identifier of the query. So words
        count for much where rare ones are in common, and for little where only common ones are.

        Order: best first; equal scores by ordinal. One query alone ranks the same however many could have been given.
        Source: convex combination of scores, Bruch, Gai and Ingber 2023; measured in docs/retrieval.md.
        """
        visible = self._visible(scope.groups, tuple(sorted(scope.filters.items())))
        if not visible.mask.any():
            return []
        found = [self._find(query, visible) for query in queries if query.weight > 0]
        if not found:
            return []
        ordinals = np.unique(np.concatenate([part for each in found for part in (each.dense, each.lexical, each.exact)]))
        scores = np.zeros(len(ordinals))
        for each in found:
            scores += each.query.weight * self._score(each, ordinals, visible.spread)
        order = np.lexsort((ordinals, -scores))
        return self._hits(ordinals[order], scores[order], found, top_k)

    def rarity(self, term: str, language: str | None, scope: Scope) -> float:
        """How rare a stemmed term is among what the caller may see; see LexicalIndex.rarity."""
        visible = self._visible(scope.groups, tuple(sorted(scope.filters.items())))
        return self._lexical.rarity(term, language, visible.only)

    def _look(self, groups: tuple[str, ...], filters: tuple[tuple[str, tuple[str, ...]], ...]) -> _Visible:
        mask = self._store.mask(groups, dict(filters))
        mask.setflags(write=False)
        only = LexicalFilter(groups, dict(filters), sees_everything=bool(mask.all()))
        return _Visible(mask, only, self._dense.spread(np.flatnonzero(mask)))

    def _find(self, query: Query, visible: _Visible) -> _Found:
        mask, limit = visible.mask, self._settings.candidates
        nothing, unscored = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
        dense, cosines, lexical, bm25, exact = nothing, unscored, nothing, unscored, nothing
        others = 0.0
        if self._settings.dense_weight > 0:
            dense, cosines = self._dense.search(query.vector, limit, None if mask.all() else mask)
        if self._settings.lexical_weight > 0:
            lexical, bm25 = self._lexical.search(query.text, limit, visible.only)
            # A full list was cut off: what comes after may score as much as its last, and nothing is known but that.
            others = float(bm25[-1]) if len(bm25) == limit else 0.0
            lexical, bm25 = lexical[mask[lexical]], bm25[mask[lexical]]
            if self._settings.identifier_weight > 0:
                exact, _ = self._lexical.search(query.text, limit, visible.only, must_identify=True)
                exact = exact[mask[exact]]
        return _Found(query, dense, cosines, lexical, bm25, others, exact)

    def _score(self, found: _Found, ordinals: Ordinals, spread: float) -> Scores:
        """The scores of some passages, ascending ordinals that include all that were found, for one query."""
        scores = np.zeros(len(ordinals))
        if self._settings.dense_weight > 0:
            cosines = _placed(ordinals, found.dense, found.cosines, np.nan)
            missing = np.isnan(cosines)
            cosines[missing] = self._dense.vectors(ordinals[missing]) @ found.query.vector
            scores += self._settings.dense_weight * cosines * (TYPICAL_SPREAD / spread)
        if self._settings.lexical_weight > 0:
            bm25 = _placed(ordinals, found.lexical, found.bm25, found.bm25_of_others)
            scores += self._settings.lexical_weight * bm25 / (bm25 + HALF_BM25)
        if len(found.exact):
            # The fewer hold an identifier, the more it singles them out.
            gain = self._settings.identifier_weight / np.sqrt(len(found.exact))
            scores[np.searchsorted(ordinals, found.exact)] += gain
        return scores

    def _hits(self, ranked: Ordinals, scores: Scores, found: Sequence[_Found], top_k: int) -> list[Hit]:
        hits: list[Hit] = []
        folder = Folder()
        score_of = dict(zip(ranked.tolist(), scores.tolist(), strict=True))
        step = max(top_k * 2, 16)
        # Texts are fetched as they are needed: rarely more than one round.
        for begin in range(0, len(ranked), step):
            for passage in self._store.passages(ranked[begin : begin + step]):
                if self._settings.fold_near_duplicates and folder.repeats(passage.text):
                    continue
                hits.append(_hit(passage, score_of[passage.ordinal], found))
                if len(hits) == top_k:
                    return hits
        return hits


def _placed(ordinals: Ordinals, found: Ordinals, values: NDArray[np.float32], otherwise: float) -> Scores:
    """The values of what was found at the places of its ordinals, another where nothing was found."""
    placed = np.full(len(ordinals), otherwise)
    placed[np.searchsorted(ordinals, found)] = values
    return placed


def _hit(passage: Passage, score: float, found: Sequence[_Found]) -> Hit:
    """A passage with its best cosine and ranks over all queries."""
    dense = [np.flatnonzero(each.dense == passage.ordinal) for each in found]
    lexical = [np.flatnonzero(each.lexical == passage.ordinal) for each in found]
    return Hit(
        passage,
        score,
        cosine=max((float(each.cosines[at[0]]) for each, at in zip(found, dense, strict=True) if len(at)), default=None),
        dense_rank=min((int(at[0]) + 1 for at in dense if len(at)), default=None),
        lexical_rank=min((int(at[0]) + 1 for at in lexical if len(at)), default=None),
    )
