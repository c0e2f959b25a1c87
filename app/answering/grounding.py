"""How much of a finished answer the passages support."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from itertools import islice
from typing import Any

from app.answering.code import without_blocks
from app.answering.sentences import split
from app.answering.support import Checker, says_something
from app.answering.types import Grounding

MOST_WEIGHED = 500
"""Sentences that are weighed, at most: the first ones of a text that no model for answers writes."""
_MARKERS_AFTER_AN_END = re.compile(r"(?<=[.!?…])(?:\s*\[\d{1,3}\])+")
_MARKERS = re.compile(r"(?:(?<!\s)\s+)?\[\d{1,3}\]")


async def ground(answer: str, checker: Checker, compute: Callable[..., Awaitable[Any]]) -> Grounding:
    """Check every sentence of an answer against all of its passages. An answer without a sentence is fully supported.

    `compute` runs what takes long off the event loop.
    """

    def weighed() -> Any:
        sentences = sentences_of(answer)
        return sentences, *checker.weigh(sentences)

    sentences, missing, opened = await compute(weighed)
    missing -= await checker.mean_the_same(sentences, opened)
    share = 1.0 if not sentences else 1 - len(missing) / len(sentences)
    return Grounding(round(share, 4), tuple(sentences[i] for i in sorted(missing)))


def sentences_of(answer: str) -> list[str]:
    """The sentences of an answer without their markers. What is code or has no content word is none."""
    # Behind a full stop and its marker the next sentence begins, however it begins.
    bare = _MARKERS.sub("", _MARKERS_AFTER_AN_END.sub("\n\n", without_blocks(answer)))
    plain = (sentence.plain for sentence in split(bare))
    return list(islice((sentence for sentence in plain if says_something(sentence)), MOST_WEIGHED))
