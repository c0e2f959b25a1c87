"""How much of a finished answer the passages support."""

from __future__ import annotations

import re
from collections.abc import Sequence

from app.answering.citations import supports
from app.answering.sentences import split
from app.answering.types import Grounding
from corpus.types import Passage

_MARKERS_AFTER_AN_END = re.compile(r"(?<=[.!?…])(?:\s*\[\d{1,3}\])+")
_MARKERS = re.compile(r"(?:(?<!\s)\s+)?\[\d{1,3}\]")


def ground(answer: str, passages: Sequence[Passage]) -> Grounding:
    """Check every sentence of an answer against all of its passages. An answer without a sentence is fully supported."""
    # Behind a full stop and its marker the next sentence begins, however it begins.
    bare = _MARKERS.sub("", _MARKERS_AFTER_AN_END.sub("\n\n", answer))
    sentences = [sentence.plain for sentence in split(bare) if re.search(r"\w", sentence.text)]
    unsupported = tuple(s for s in sentences if not any(supports(s, passage) for passage in passages))
    share = 1.0 if not sentences else 1 - len(unsupported) / len(sentences)
    return Grounding(round(share, 4), unsupported)
