"""What a question means in the light of the conversation. Pure functions; the rewrite by an LLM is called in answer.py."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from corpus.types import Message
from corpus.words import content_words

EARLIER_WEIGHT = 1.0
"""How much the ranking for the question together with earlier turns counts beside that for the question alone.

Source: measured on two sets of conversations; docs/decisions/004-history.md has the table.
"""

FEW_WORDS = 3

_POINTS_BACK = re.compile(
    r"\b(?:it|its|itself|they|them|their|theirs|he|him|his|she|her|hers|this|that|these|those|there|then|one|ones|same|such|"
    r"former|latter|above|instead|else|other|others|another|meanwhile|in the meantime|"
    r"davon|dafür|dazu|damit|darüber|dabei|dort|dann|diese[rsmn]?|jene[rsmn]?|derselbe[n]?|dieselbe[n]?|sonst|stattdessen|"
    r"währenddessen|inzwischen|"
    r"eso|esa|ese|esos|esas|esto|esta|este|ello|ellos|ellas|allí|entonces|mismo|misma|aquello|mientras tanto|lo)\b",
    re.IGNORECASE,
)
_GOES_ON = re.compile(
    r"^\W*(?:and|or|but|so|also|what about|how about|what if|why|how so|really|which|ok(?:ay)?|"
    r"und|oder|aber|auch|was ist mit|wie ist es|warum|y|o|pero|también|qué pasa con|por qué)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Standalone:
    """What to search for: `question` is the text shown to people, `searches` are weighted ways of asking."""

    question: str
    searches: tuple[tuple[str, float], ...]


def understand(question: str, history: Sequence[Message], turns: int) -> Standalone:
    """The question alone, or, where it depends on earlier user turns, fused with the question together with them.

    It reaches back from turn to turn as far as each depends on the one before it, over at most `turns` of them.
    An empty history, and a question that stands alone, give the question unchanged: the ranking is that of a first question.
    """
    earlier = [message.content for message in history if message.role == "user"]
    used: list[str] = []
    dependent = question
    while earlier and len(used) < turns and depends_on_history(dependent):
        dependent = earlier.pop()
        used.insert(0, dependent)
    if not used:
        return Standalone(question, ((question, 1.0),))
    together = " ".join([*used, question])
    return Standalone(together, ((question, 1.0), (together, EARLIER_WEIGHT)))


def depends_on_history(question: str) -> bool:
    """Whether a question cannot be understood alone: it points back, goes on from something, or says next to nothing."""
    return points_back(question) or _GOES_ON.match(question) is not None or len(content_words(question, None)) <= FEW_WORDS


def points_back(question: str) -> bool:
    """Whether a question has a word that stands for something said before."""
    return _POINTS_BACK.search(question) is not None
