"""Hybrid search over one open snapshot: dense and lexical candidates, fused by their scores, under a filter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from corpus.dense import TYPICAL_SPREAD, DenseIndex
from corpus.effects import Overlaid
from corpus.folding import Folder
from corpus.lexical import LexicalFilter, LexicalIndex
from corpus.quotations import holds, quotations
from corpus.settings import SearchSettings
from corpus.store import Store
from corpus.types import Hit, Mask, Ordinals, Passage, Vector
from corpus.validity import ALWAYS, NEVER, Period, Validity, period_of, periods_named

MASKS_KEPT = 64

HALF_BM25 = 30.0
"""The BM25 score that counts for half of the most that words in common can count.

Source: 15, 30 and 60 with weights from .6 to 2 were measured; what lies around 30 and 1 differs by noise, docs/retrieval.md.
"""

QUOTATION_CANDIDATES = 500
"""Chunks that hold all words of a quotation and are read for it, at most."""

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


@dataclass(frozen=True, slots=True)
class _Time:
    """When a question is asked and which times it names."""

    today: date
    named: tuple[Period, ...]


def today_utc() -> date:
    """The day in UTC."""
    return datetime.now(UTC).date()


class Searcher:
    """Searches one snapshot. Safe for use by several threads."""

    def __init__(
        self,
        store: Store,
        dense: DenseIndex,
        lexical: LexicalIndex,
        settings: SearchSettings,
        today: Callable[[], date] = today_utc,
    ) -> None:
        self._store, self._dense, self._lexical, self._settings, self._today = store, dense, lexical, settings, today
        self._validity = _validity(store, settings)
        # One snapshot is immutable, so what a scope lets see holds for as long as the overlay says the same.
        self._visible = lru_cache(maxsize=MASKS_KEPT)(self._look)

    def search(self, queries: Sequence[Query], scope: Scope, top_k: int) -> list[Hit]:
        """The best visible passages for one or several ways of asking, near-duplicates folded.

        A passage that any query finds by meaning or by words is scored for every query: the cosine, in units of how far
        apart cosines lie, plus a saturating share of BM25, plus a gain where it holds an identifier or a quotation of the
        query. So words count for much where rare ones are in common, and for little where only common ones are. What is not
        valid at the time asked for loses, and of versions that score nearly the same the latest valid one comes first.

        Order: best first; equal scores by ordinal. One query alone ranks the same however many could have been given.
        Source: convex combination of scores, Bruch, Gai and Ingber 2023; measured in docs/retrieval.md.
        """
        visible = self._seen(scope)
        if not visible.mask.any():
            return []
        found = [self._find(query, visible) for query in queries if query.weight > 0]
        if not found:
            return []
        ordinals = np.unique(np.concatenate([part for each in found for part in (each.dense, each.lexical, each.exact)]))
        # The first way of asking is the question as it was put: what an earlier turn quotes is words like others.
        quoting = self._quoting(found[0].query.text, ordinals, visible)
        ordinals = np.unique(np.concatenate([ordinals, *quoting]))
        time = self._time([each.query.text for each in found])
        lapsed = self._validity.lapsed(ordinals, time.today, time.named)
        scores = np.zeros(len(ordinals))
        for each in found:
            scores += each.query.weight * self._score(each, ordinals, visible.spread)
        weight = sum(each.query.weight for each in found)
        scores[lapsed] -= weight * self._settings.expired_penalty
        for holding in quoting:
            scores[np.searchsorted(ordinals, holding)] += weight * self._settings.quotation_weight
        order = np.lexsort((ordinals, -scores))
        return self._hits(ordinals[order], scores[order], found, time, top_k)

    def rarity(self, term: str, language: str | None, scope: Scope) -> float:
        """How rare a stemmed term is among what the caller may see; see LexicalIndex.rarity."""
        visible = self._seen(scope)
        return self._lexical.rarity(term, language, visible.only)

    def holds_identifier(self, identifier: str, scope: Scope) -> bool:
        """Whether anything that the caller may see holds an identifier; see LexicalIndex.holds_identifier."""
        visible = self._seen(scope)
        return self._lexical.holds_identifier(identifier, visible.only)

    def _seen(self, scope: Scope) -> _Visible:
        return self._visible(self._store.overlaid(), scope.groups, tuple(sorted(scope.filters.items())))

    def _look(self, overlaid: Overlaid, groups: tuple[str, ...], filters: tuple[tuple[str, tuple[str, ...]], ...]) -> _Visible:
        mask = self._store.mask(groups, dict(filters), overlaid)
        mask.setflags(write=False)
        only = LexicalFilter(groups, dict(filters), sees_everything=bool(mask.all()), overlaid=overlaid)
        return _Visible(mask, only, self._dense.spread(np.flatnonzero(mask)))

    def _time(self, texts: Sequence[str]) -> _Time:
        """The times that the first of some ways of asking names that names any: the last question comes before earlier ones."""
        today = self._today()
        return _Time(today, next((named for text in texts if (named := periods_named(text, today))), ()))

    def _find(self, query: Query, visible: _Visible) -> _Found:
        mask, limit = visible.mask, self._settings.candidates
        nothing, unscored = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
        dense, cosines, lexical, bm25, exact = nothing, unscored, nothing, unscored, nothing
        others = 0.0
        if self._settings.dense_weight > 0:
            dense, cosines = self._dense.search(query.vector, limit, None if mask.all() else mask)
        if self._settings.lexical_weight > 0:
            lexical, bm25 = self._lexical.search(query.text, limit, visible.only, mask)
            # A full list was cut off: what comes after may score as much as its last, and nothing is known but that.
            others = float(bm25[-1]) if len(bm25) == limit else 0.0
            lexical, bm25 = lexical[mask[lexical]], bm25[mask[lexical]]
            if self._settings.identifier_weight > 0:
                exact, _ = self._lexical.search(query.text, limit, visible.only, must_identify=True)
                exact = exact[mask[exact]]
        return _Found(query, dense, cosines, lexical, bm25, others, exact)

    def _quoting(self, question: str, found: Ordinals, visible: _Visible) -> list[Ordinals]:
        """For each quotation in a question, which chunks, of those found and those with all its words, hold it as it stands."""
        quoting = []
        for quotation in quotations(question) if self._settings.quotation_weight > 0 else ():
            holding = self._lexical.holding(quotation, QUOTATION_CANDIDATES, visible.only)
            wordings = self._store.wordings(np.union1d(found, holding[visible.mask[holding]]))
            quoting.append(np.array([at for at, wording in wordings.items() if holds(wording, quotation)], dtype=np.int64))
        return quoting

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

    def _hits(self, ranked: Ordinals, scores: Scores, found: Sequence[_Found], time: _Time, top_k: int) -> list[Hit]:
        hits: list[Hit] = []
        folder = Folder()
        most, of_document = self._settings.per_document, Counter[str]()
        step = max(top_k * 2, 16)
        # Texts are fetched as they are needed: rarely more than one round.
        for begin in range(0, len(ranked), step):
            places = scores[begin : begin + step].tolist()
            passages = self._store.passages(ranked[begin : begin + step])
            texts = [passage.text for passage in passages]
            order = self._validity.later_first(ranked[begin : begin + step], places, texts, time.today, time.named)
            # A passage that moves up takes the score of its new place: higher is better, always.
            own = (self._dense.vectors(ranked[begin : begin + step]) @ found[0].query.vector).tolist()
            for score, at in zip(places, order, strict=True):
                if most is not None and of_document[passages[at].document_id] == most:
                    continue
                if self._settings.fold_near_duplicates and folder.repeats(texts[at]):
                    continue
                of_document[passages[at].document_id] += 1
                hits.append(_hit(passages[at], score, found, own[at]))
                if len(hits) == top_k:
                    return hits
        return hits


def _validity(store: Store, settings: SearchSettings) -> Validity:
    """When each chunk is valid, by the metadata of its document; a date that cannot be read counts as none."""
    begins = np.full(store.chunks, ALWAYS, dtype=np.int32)
    ends = np.full(store.chunks, NEVER, dtype=np.int32)
    # The field named first is written last.
    for field_name in reversed(settings.valid_from_fields):
        for value, chunks in store.stored.values(field_name):
            if (period := period_of(value)) is not None:
                begins[chunks] = period.first
    for field_name in reversed(settings.valid_until_fields):
        for value, chunks in store.stored.values(field_name):
            if (period := period_of(value)) is not None:
                ends[chunks] = period.last
    return Validity(begins, ends)


def _placed(ordinals: Ordinals, found: Ordinals, values: NDArray[np.float32], otherwise: float) -> Scores:
    """The values of what was found at the places of its ordinals, another where nothing was found."""
    placed = np.full(len(ordinals), otherwise)
    placed[np.searchsorted(ordinals, found)] = values
    return placed


def _hit(passage: Passage, score: float, found: Sequence[_Found], own: float) -> Hit:
    """A passage with its best cosine and ranks over all queries, and its cosine to the first."""
    dense = [np.flatnonzero(each.dense == passage.ordinal) for each in found]
    lexical = [np.flatnonzero(each.lexical == passage.ordinal) for each in found]
    return Hit(
        passage,
        score,
        cosine=max((float(each.cosines[at[0]]) for each, at in zip(found, dense, strict=True) if len(at)), default=None),
        dense_rank=min((int(at[0]) + 1 for at in dense if len(at)), default=None),
        lexical_rank=min((int(at[0]) + 1 for at in lexical if len(at)), default=None),
        own_cosine=own,
    )
