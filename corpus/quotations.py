"""What a question puts in quotation marks, and whether a text holds it."""

from __future__ import annotations

import re
import unicodedata
from itertools import islice

from corpus.words import WORD, function_words

CLOSED_BY = {'"': '"', "„": '“”"', "“": "”", "«": "»", "»": "«", "‹": "›", "›": "‹", "‘": "’", "‚": "‘’"}
LONGEST = 200
"""What is longer is no phrase that somebody looks for."""

MOST, MOST_MARKS = 8, 64

# A mark behind a letter or a figure opens nothing (5'11", 3/4"), nor does one before a letter close (‘the dog’s bone’).
_OPENING = re.compile(r"""(?<!\w)(?:"(?!\s)|[„“«»‹›‘‚])""")
_CLOSING = {opening: re.compile(rf"[{closing}](?!\w)") for opening, closing in CLOSED_BY.items()}
_PUNCTUATION = " .,;:!?…"
_ONE_MARK = str.maketrans({**dict.fromkeys("‘’‚´`", "'"), **dict.fromkeys("“”„«»", '"'), "\u00ad": None})
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
"""Letters of scripts that put no space between words: Thai, Lao, Burmese, Khmer, Japanese, Chinese."""


def quotations(text: str) -> list[str]:
    """The strings in quotation marks, without them, each once, in order: "…", “…”, „…“, «…», »…«, ‹…›, ‘…’, ‚…‘.

    A mark that is not closed within `LONGEST` characters opens nothing. A single function word is no quotation.
    """
    found: dict[str, None] = {}
    end = 0
    for opening in islice(_OPENING.finditer(text), MOST_MARKS):
        if opening.start() < end:
            continue
        closing = _CLOSING[opening.group()].search(text, opening.end(), opening.end() + LONGEST + 1)
        if closing is None:
            continue
        end = closing.end()
        quoted = text[opening.end() : closing.start()].strip().strip(_PUNCTUATION)
        words = WORD.findall(quoted.lower())
        if len(words) > 1 or any(word not in function_words(None) for word in words):
            found[quoted] = None
    return list(found)[:MOST]


def holds(text: str, quotation: str) -> bool:
    """Whether a text holds a quotation as whole words, whatever its case, its white space and the form of its marks."""
    wanted, within = _plain(quotation), _plain(text)
    at = within.find(wanted)
    while at >= 0:
        if _is_edge(within, at) and _is_edge(within, at + len(wanted)):
            return True
        at = within.find(wanted, at + 1)
    return False


def _is_edge(text: str, at: int) -> bool:
    """Whether no word goes on across a place in a text."""
    before, after = text[at - 1 : at], text[at : at + 1]
    return not (_goes_on(before) and _goes_on(after))


def _goes_on(letter: str) -> bool:
    return WORD.match(letter) is not None and not _UNSPACED.match(letter)


def _plain(text: str) -> str:
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return " ".join(text.translate(_ONE_MARK).casefold().split())
