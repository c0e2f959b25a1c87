"""Texts in an invented language, made by a seed: subjects, words as frequent as in real texts, names, numbers and codes.

What is frequent are English function words, so that a search treats them as it treats those of real texts. The other words
begin with the root of their subject, and the roots of related subjects with the same syllable. Document frequencies are those
of real texts (measured on scifact: .97, .48, .22, .085, .036, .013 and .003 at the ranks 1, 10, 30, 100, 300, 1000 and 3000).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.bench.generated import SEED, ZIPF_SHIFT, Vocabulary

WORDS, SUBJECTS, WORDS_A_TEXT = 60_000, 400, 128
KEY_WORDS, KEY_SHARE = 12, 0.22
"""Words that a text keeps coming back to, and their share of it."""

TOLD_SHARE = 0.02
"""The share of numbers and codes."""

FEW, SOME = 2500, 15_000
"""Ranks from which words are a letter longer."""

CONSONANTS, VOWELS = "bdfgklmnprstvz", "aeiou"
FREQUENT = (
    *(
        "the",
        "of",
        "and",
        "to",
        "in",
        "a",
        "is",
        "that",
        "for",
        "it",
        "as",
        "was",
        "with",
        "be",
        "by",
        "on",
        "not",
        "he",
        "this",
    ),
    *(
        "are",
        "or",
        "his",
        "from",
        "at",
        "which",
        "but",
        "have",
        "an",
        "had",
        "they",
        "you",
        "were",
        "their",
        "one",
        "all",
        "we",
    ),
    *("can", "her", "has", "there", "been", "if", "more", "when", "will", "would", "who", "so", "no", "she", "other", "its"),
    *("may", "these", "what", "them", "than", "some", "him", "time", "into", "only", "do", "such", "my", "new", "about", "out"),
    *(
        "also",
        "two",
        "any",
        "up",
        "first",
        "could",
        "our",
        "then",
        "most",
        "see",
        "me",
        "should",
        "after",
        "between",
        "because",
    ),
    *("each", "before", "made", "over", "did", "even", "many", "must", "well", "through", "being", "where", "used", "those"),
    *("work", "how", "now", "same", "under", "since", "both", "three", "every", "during", "while", "however", "without"),
    *("again", "year", "number", "part", "place", "case"),
)

Random = np.random.Generator


@dataclass(frozen=True, slots=True)
class Text:
    """A heading and two paragraphs. `key_words` are those that they keep coming back to."""

    heading: str
    paragraphs: tuple[str, str]
    key_words: tuple[str, ...]


class Language:
    """A vocabulary and its subjects. The same seed gives the same."""

    def __init__(self, seed: int = SEED) -> None:
        random = np.random.default_rng(seed)
        syllables = [consonant + vowel for consonant in CONSONANTS for vowel in VOWELS]
        roots = random.choice(len(syllables) ** 2, SUBJECTS, replace=False).tolist()
        words: dict[str, int] = {}
        while len(words) < WORDS - len(FREQUENT):
            subject = int(random.integers(SUBJECTS))
            first, second = divmod(roots[subject], len(syllables))
            words.setdefault(syllables[first] + syllables[second] + _ending(random, len(words)), subject)
        self.words = Vocabulary((*FREQUENT, *words), _zipf(WORDS))
        self._frequent = Vocabulary(FREQUENT, _zipf(len(FREQUENT)))
        self._own: list[list[str]] = [[] for _ in range(SUBJECTS)]
        for word, subject in words.items():
            self._own[subject].append(word)

    def title(self, random: Random, subject: int) -> str:
        """A document's title."""
        return " ".join(self._of_subject(random, subject, 4)).capitalize()

    def text(self, random: Random, subject: int, words: int = WORDS_A_TEXT) -> Text:
        """A text about something within a subject."""
        key_words = self._of_subject(random, subject, KEY_WORDS)
        written = self.words.draw(random, words)
        draws = random.random(words)
        for place in np.flatnonzero(draws < KEY_SHARE).tolist():
            written[place] = key_words[int(draws[place] / KEY_SHARE * KEY_WORDS)]
        for place in np.flatnonzero(draws > 1 - TOLD_SHARE).tolist():
            written[place] = _told(int((1 - draws[place]) * 1e9))
        half, lengths = words // 2, random.integers(8, 23, words).tolist()
        prose = _prose(written[:half], lengths), _prose(written[half:], lengths)
        return Text(" ".join(key_words[:3]).capitalize(), prose, tuple(key_words))

    def question(self, random: Random, subject: int, about: Text) -> str:
        """8 to 13 words: some that a text keeps coming back to, others of its subject, and function words."""
        length = int(random.integers(8, 14))
        told, other = 3 + length // 5, 1 + length // 10
        words = [about.key_words[each] for each in random.integers(0, KEY_WORDS, told).tolist()]
        words += self._of_subject(random, subject, other) + self._frequent.draw(random, length - told - other)
        return " ".join(words[each] for each in random.permutation(length).tolist()).capitalize() + "?"

    def _of_subject(self, random: Random, subject: int, count: int) -> list[str]:
        own = self._own[subject]
        return [own[each] for each in random.integers(0, len(own), count).tolist()]


def _zipf(words: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    frequencies = 1 / (np.arange(words) + 1 + ZIPF_SHIFT)
    return np.cumsum(frequencies / frequencies.sum())


def _ending(random: Random, rank: int) -> str:
    first, second, third = (int(each) for each in random.integers(0, len(CONSONANTS) * len(VOWELS), 3))
    letters = CONSONANTS[first % len(CONSONANTS)] + VOWELS[second % len(VOWELS)] + CONSONANTS[third % len(CONSONANTS)]
    return letters[: 1 + (rank >= FEW) + (rank >= SOME)]


def _told(draw: int) -> str:
    """A year, an amount, a code or a number."""
    kind, draw = draw % 4, draw // 4
    letters = CONSONANTS[draw % 14] + CONSONANTS[draw // 14 % 14]
    told = str(1990 + draw % 40), f"{draw % 10_000 / 10:.1f}", f"{letters.upper()}-{draw // 196 % 10_000:04d}", str(draw % 1000)
    return told[kind]


def _prose(words: Sequence[str], lengths: Sequence[int]) -> str:
    sentences, begin = [], 0
    for length in lengths:
        if begin >= len(words):
            break
        sentences.append(" ".join(words[begin : begin + length]).capitalize() + ".")
        begin += length
    return " ".join(sentences)
