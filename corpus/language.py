"""Which language a text is in. The only importer of py3langid."""

from __future__ import annotations

import io
import lzma
from array import array
from copy import copy
from functools import cache
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from py3langid.langid import MODEL_DIR, MODEL_FILE, LanguageIdentifier

from corpus.heap import give_back
from corpus.lexical import STEMMED

SAMPLE = 3000
SHORTEST = 40
SURE = 0.9

SURE_OF_QUESTION = 0.6
"""How sure it must be of a question's language among those that the index stems; a question is too short to ask for more.

Source: of 120 questions of 4 to 9 words in en, de, es, fr, it and nl, 116 are decided and all of those rightly; at 0.5 118 are,
at 0.9 it is 107. The 60 of tests/corpus/test_language.py gave the value (59 decided), 60 others checked it (57 decided).
A language that is not stemmed may be taken for its neighbour: Bulgarian for Russian, at times.
"""

SURE_OF_ANOTHER = 0.5
"""How sure it must be that a question is in none of those. Source: of the same 120 questions none is taken for another."""

_NONE = frozenset({"und", "zxx"})
_LOADING = Lock()


@cache
def _load() -> tuple[LanguageIdentifier, LanguageIdentifier]:
    everything = _unpacked()
    stemmed = copy(everything)
    # Only what the lexical index can stem makes a difference, and fewer choices make fewer mistakes.
    stemmed.set_languages(sorted(set(STEMMED) & set(everything.labels)))
    give_back()
    return everything, stemmed


def _unpacked() -> LanguageIdentifier:
    """The package's model, unpacked in memory: its own function writes 36 MB to /tmp, which may be full."""
    with np.load(io.BytesIO(lzma.decompress((MODEL_DIR / MODEL_FILE).read_bytes())), allow_pickle=False) as parts:
        return LanguageIdentifier(
            parts["ptc"], parts["pc"], parts["classes"].tolist(), _array(parts["nextmove"]), parts["out_feat"].tolist(),
            norm_probs=True, tk_row=_array(parts["nextmove_row"]),
        )  # fmt: skip


def _array(values: NDArray[np.unsignedinteger[Any]]) -> array[int]:
    """Its elements are numbers of Python's own, which a loop over bytes takes much faster than numpy's."""
    return array({2: "H", 4: "I"}[values.dtype.itemsize], values.tobytes())


def _identifiers() -> tuple[LanguageIdentifier, LanguageIdentifier]:
    """The one that knows all languages, the one that knows those the index stems; loaded once (about 0.7 s, 75 MB)."""
    with _LOADING:
        return _load()


def detect_language(text: str) -> str | None:
    """The ISO 639-1 code of a text's language, or None where it is too short or unclear to tell."""
    sample = text[:SAMPLE]
    if len(sample.strip()) < SHORTEST:
        return None
    _, stemmed = _identifiers()
    language, probability = stemmed.classify(sample)
    return str(language) if probability >= SURE else None


def language_of_question(text: str) -> str | None:
    """The ISO 639-1 code of a question's language (639-3 where there is none), or None where it cannot be told.

    A word or two, a code or a name are in no language.
    """
    sample = text[:SAMPLE]
    everything, stemmed = _identifiers()
    language, probability = everything.classify(sample)
    if language not in STEMMED and probability >= SURE_OF_ANOTHER:
        return None if language in _NONE else str(language)
    language, probability = stemmed.classify(sample)
    return str(language) if probability >= SURE_OF_QUESTION else None


def known_languages() -> frozenset[str]:
    """The codes that `language_of_question` may answer with. Loads what both need, so that the first question need not wait."""
    everything, _ = _identifiers()
    return frozenset(everything.labels) - _NONE
