"""Orders what a search found by a cross-encoder, where one is configured. Without one, or when it fails, the order stays."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from app.answering.history import Standalone
from app.logs import error_fields
from corpus.errors import ArchivistError
from corpus.lexical import IDENTIFYING, identifiers
from corpus.quotations import holds, quotations
from corpus.rerankers.reranker import Reranker
from corpus.types import Hit, Passage

if TYPE_CHECKING:
    from app.services import Services

BATCH = 8
"""Passages scored in one go: between two of them the questions of others are embedded."""

OPEN_AGAIN_S = 60.0
"""Seconds until a model that could not be opened is tried again."""

KEPT = 2
"""Models kept open: with a change of the configuration the old one is still at work for a while."""

_log = structlog.get_logger(__name__)

Open = Callable[[str, bool], Awaitable[Reranker]]


@dataclass(frozen=True, slots=True)
class Named:
    """What a question names exactly: form numbers and codes, lower-cased, and what it has in quotation marks."""

    identifiers: tuple[str, ...] = ()
    quoted: tuple[str, ...] = ()


class Rerankers:
    """The reranking models of a process, each opened once, when it is first needed. Belongs to one event loop."""

    def __init__(self, open_one: Open) -> None:
        self._open_one = open_one
        self._opening: dict[tuple[str, bool], asyncio.Task[Reranker | None]] = {}
        self._failed_at: dict[tuple[str, bool], float] = {}

    async def get(self, model: str, *, allow_hub: bool) -> Reranker | None:
        """A model; None where it could not be opened, which is logged, and tried again after a while."""
        key = model, allow_hub
        if key in self._failed_at and time.monotonic() - self._failed_at[key] > OPEN_AGAIN_S:
            del self._failed_at[key]
            self._opening.pop(key, None)
        if key not in self._opening:
            self._opening[key] = asyncio.create_task(self._open(key))
            for old in list(self._opening)[:-KEPT]:
                del self._opening[old]
                self._failed_at.pop(old, None)
        # Whoever began may leave; the others go on waiting.
        return await asyncio.shield(self._opening[key])

    async def _open(self, key: tuple[str, bool]) -> Reranker | None:
        try:
            return await self._open_one(*key)
        except Exception as error:  # noqa: BLE001 - the reranker's boundary: whatever a model raises, questions are answered
            self._failed_at[key] = time.monotonic()
            _log.error("the reranker cannot be opened, the fused order is used", action="reranker_refused", **_told(error))
            return None

    async def close(self) -> None:
        """Wait for no model any more."""
        for task in self._opening.values():
            task.cancel()
        await asyncio.gather(*self._opening.values(), return_exceptions=True)


async def rerank(services: Services, standalone: Standalone, hits: Sequence[Hit], top_k: int) -> list[Hit]:
    """The best `top_k` of some hits, the first `search.rerank_candidates` of them in the order of `reordered`.

    The fused score decides which passages are read, the reranker alone in which order they come. Where it cannot be opened
    or fails, that is logged, and the fused order is used.
    """
    settings = services.settings.search
    candidates = hits[: settings.rerank_candidates]
    reranker = await services.process.rerankers.get(settings.reranker, allow_hub=settings.reranker_allow_hub)
    if reranker is None or not candidates:
        return list(hits[:top_k])
    try:
        scores = await _score(services, reranker, standalone.question, [_read(hit.passage) for hit in candidates])
    except Exception as error:  # noqa: BLE001 - the reranker's boundary: whatever a model raises, the question has its passages
        _log.error("reranking failed, the fused order is used", action="rerank_failed", **_told(error))
        return list(hits[:top_k])
    return [*reordered(candidates, scores, named_in(standalone)), *hits[len(candidates) :]][:top_k]


def reordered(hits: Sequence[Hit], scores: Sequence[float], named: Named) -> list[Hit]:
    """Hits in the order of their scores.

    Those that hold what the question names exactly stay ahead, the more of it the further: no model is trusted with a form
    number that it never saw. What many of the hits hold singles nothing out, and does not count.
    Order: what is named, then the score, higher first; equal ones as they came.
    """
    held = [0] * len(hits)
    texts = [_read(hit.passage) for hit in hits] if named != Named() else []
    codes = [frozenset(identifiers(text)) for text in texts]
    holding = [[name in each for each in codes] for name in named.identifiers]
    holding += [[holds(text, quotation) for text in texts] for quotation in named.quoted]
    for there in holding:
        if sum(there) <= IDENTIFYING:
            held = [count + one for count, one in zip(held, there, strict=True)]
    order = sorted(range(len(hits)), key=lambda number: (-held[number], -scores[number], number))
    return [hits[number] for number in order]


def named_in(standalone: Standalone) -> Named:
    """What a question names exactly; what earlier turns named counts where its own words name nothing."""
    own = standalone.searches[0][0] if standalone.searches else standalone.question
    for text in (own, standalone.question):
        named = Named(tuple(identifiers(text)), tuple(quotations(text)))
        if named != Named():
            return named
    return Named()


async def _score(services: Services, reranker: Reranker, question: str, texts: Sequence[str]) -> list[float]:
    # Those of a length together: what is shorter than its batch is filled up, which costs as much as text.
    order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
    scores = [0.0] * len(texts)
    for begin in range(0, len(order), BATCH):
        batch = order[begin : begin + BATCH]
        found = await services.process.run_model(reranker.score, question, [texts[number] for number in batch])
        for number, score in zip(batch, found.tolist(), strict=True):
            scores[number] = score
    return scores


def _read(passage: Passage) -> str:
    """A passage as the model reads it: under its title and headings, without which many are understood by nobody."""
    return f"{' > '.join([passage.title, *passage.heading])}\n{passage.text}"


def _told(error: Exception) -> dict[str, object]:
    """What the log may say: our own messages name the model, never what it read."""
    return {**error_fields(error), **({"reason": str(error)} if isinstance(error, ArchivistError) else {})}
