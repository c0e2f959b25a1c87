"""Whether an answer says what was to be said: as a whole, by its words, or by holding a key fact. Pure functions."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

from app.answering.markers import MARKER

_WORD = re.compile(r"\w+(?:[.,]\d+)*|%")


def holds_any(text: str, strings: Sequence[str]) -> bool:
    """Whether any of the strings stands in a text; case, white space and %/percent, €/EUR/euros aside.

    It must begin where a word or a number begins, and a number must end where it ends: "2 days" does not stand in "12 days".
    """
    where = normalised(text)
    return any(_stands_in(normalised(string), where) for string in strings)


def is_exactly(text: str, strings: Sequence[str]) -> bool:
    """Whether an answer is one of the strings and nothing else; markers, case and a full stop at the end aside."""
    return _bare(text) in {_bare(string) for string in strings}


def token_f1(text: str, strings: Sequence[str]) -> float:
    """How alike the words of an answer and of the string most like it are: the harmonic mean of precision and recall, 0..1.

    Source: the F1 of SQuAD (Rajpurkar et al. 2016), but articles count, since they are English only there.
    """
    return max((_overlap(_words(text), _words(string)) for string in strings), default=0.0)


def normalised(text: str) -> str:
    """Text as it is compared."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    folded = re.sub(r"\bper ?cent\b", "%", folded)
    folded = re.sub(r"\beuros?\b|\beur\b|€", "eur", folded)
    return " ".join(re.sub(r"[*_`|]", " ", folded).replace(" %", "%").split())


def _stands_in(string: str, text: str) -> bool:
    begin = r"(?<!\w)(?<!\d[.,])" if string[:1].isalnum() else ""
    end = r"(?![.,]?\d)" if string[-1:].isdigit() else ""
    return bool(string) and re.search(begin + re.escape(string) + end, text) is not None


def _bare(text: str) -> str:
    return normalised(MARKER.sub(" ", text)).rstrip(" .!?")


def _words(text: str) -> Counter[str]:
    return Counter(_WORD.findall(_bare(text)))


def _overlap(said: Counter[str], wanted: Counter[str]) -> float:
    total = said.total() + wanted.total()
    return 2 * (said & wanted).total() / total if total else 0.0
