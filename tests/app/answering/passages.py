"""Passages for tests that need no corpus, and a way to tell whether something takes linear time."""

from __future__ import annotations

import time
from collections.abc import Callable

from corpus.types import Passage, chunk_id_of


def passage(
    text: str,
    *,
    number: int = 1,
    title: str = "Handbook",
    heading: tuple[str, ...] = (),
    page: int | None = None,
    start: int = 0,
    label: str = "internal",
    language: str | None = "en",
) -> Passage:
    """A passage of its own document."""
    document_id = f"document{number}"
    return Passage(
        ordinal=number,
        chunk_id=chunk_id_of(document_id, "v1", start, start + len(text)),
        document_id=document_id,
        version="v1",
        title=title,
        source=f"handbook/{number}.md",
        collection="handbook",
        text=text,
        heading=heading,
        page=page,
        start=start,
        end=start + len(text),
        label=label,
        groups=("everyone",),
        language=language,
    )


def growth(work: Callable[[int], object], size: int) -> float:
    """How much longer four times the size takes, each the best of two runs. Linear is 4, quadratic 16."""

    def best(n: int) -> float:
        seconds = []
        for _ in range(2):
            began = time.process_time()
            work(n)
            seconds.append(time.process_time() - began)
        return min(seconds)

    return best(4 * size) / max(best(size), 1e-3)
