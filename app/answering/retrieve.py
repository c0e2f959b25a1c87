"""Finds the passages for a question, among what the caller may see."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from app.access import Caller
from app.answering.history import Standalone, understand
from app.answering.rerank import rerank
from app.answering.sentences import content_stems
from app.answering.signals import codes
from corpus.search import Query, Scope
from corpus.snapshot import OpenSnapshot
from corpus.types import Hit, Message, Passage
from corpus.words import content_words

if TYPE_CHECKING:
    from app.services import Services
    from app.snapshots import Leased


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Passages, best first, the question they were found by, the snapshot they are from, and how long each stage took."""

    hits: tuple[Hit, ...]
    standalone_question: str
    snapshot: str
    timings_ms: Mapping[str, float] = field(default_factory=dict, compare=False)


async def search(
    services: Services,
    caller: Caller,
    query: str,
    messages: tuple[Message, ...],
    top_k: int,
    filters: Mapping[str, tuple[str, ...]],
) -> SearchResult:
    """What POST /v1/search answers with. Raises: NoSnapshot and its kin."""
    settings = services.settings.history
    timings: dict[str, float] = {}
    begun = time.perf_counter()
    standalone = understand(query, messages, settings.turns if settings.strategy != "last_turn" else 0)
    timings["history"] = _ms_since(begun)
    with services.snapshots.lease() as leased:
        scope = Scope(caller.groups, filters)
        hits = await find(services, leased, scope, standalone, top_k, timings)
        return SearchResult(hits, standalone.question, leased.snapshot.id, timings)


async def find(
    services: Services, leased: Leased, scope: Scope, standalone: Standalone, top_k: int, timings: dict[str, float]
) -> tuple[Hit, ...]:
    """Embed the ways of asking, search with each, fuse, and rerank where that is configured.

    Notes `embed`, `search` and, where there is a reranker, `rerank` in `timings`, in milliseconds.
    """
    settings = services.settings.search
    started = time.perf_counter()
    vectors = await services.embed(leased.embedder, [text for text, _ in standalone.searches])
    timings["embed"] = _ms_since(started)
    started = time.perf_counter()
    queries = [Query(text, vector, weight) for (text, weight), vector in zip(standalone.searches, vectors, strict=True)]
    depth = max(top_k, settings.rerank_candidates) if settings.reranker else top_k
    hits = await services.compute(leased.snapshot.searcher(settings).search, queries, scope, depth)
    timings["search"] = _ms_since(started)
    if settings.reranker:
        started = time.perf_counter()
        hits = await rerank(services, standalone, hits, top_k)
        timings["rerank"] = _ms_since(started)
    return tuple(hits)


def _ms_since(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 2)


def rarity(snapshot: OpenSnapshot, scope: Scope, question: str, passages: tuple[Passage, ...]) -> dict[str, float]:
    """How rare each content word of a question is among what the caller may see, in the passages' languages."""
    languages = {passage.language for passage in passages}
    return {
        word: min(
            snapshot.search.rarity(stem, language, scope)
            for language in languages
            for stem in content_stems(word, language) or [word]
        )
        for word in content_words(question, None)
        if languages
    }


def held_codes(snapshot: OpenSnapshot, scope: Scope, question: str) -> frozenset[str]:
    """The codes and forms of a question that anything holds that the caller may see, whether it was found or not."""
    return frozenset(code for code in codes(question) if snapshot.search.holds_identifier(code, scope))
