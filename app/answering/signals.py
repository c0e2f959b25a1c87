"""How much of what a question asks for stands in a text: its content words, weighed by how rare they are. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from corpus.lexical import identifiers, stems
from corpus.types import Passage
from corpus.words import content_words

IDENTIFIER_WEIGHT = 2.0
EARLIER_WORD_WEIGHT = 0.5


class Wanted:
    """The content words of a question with their weights, stemmed once for each language they are looked for in.

    Those that only `standalone` has, from earlier turns, weigh half.
    """

    def __init__(self, question: str, standalone: str, rarity: Mapping[str, float]) -> None:
        own = set(content_words(question, None))
        self._weights = {
            word: rarity.get(word, 1.0) * (1.0 if word in own else EARLIER_WORD_WEIGHT)
            for word in content_words(standalone, None)
        }
        # A form number or an error code says exactly what is meant: it weighs more than any word.
        heaviest = IDENTIFIER_WEIGHT * max(self._weights.values(), default=1.0)
        self._weights |= dict.fromkeys(identifiers(question), heaviest)
        self._total = sum(self._weights.values())
        self._stems: dict[str | None, list[tuple[str, list[str]]]] = {}

    def share_in(self, sources: Sequence[tuple[frozenset[str], str | None]]) -> float:
        """The share of the words that stand in any of the sources (stems, language), weighed; 0 where there is no word."""
        if not self._total:
            return 0.0
        missing = set(self._weights)
        for there, language in sources:
            missing -= {word for word, forms in self._in(language) if any(form in there for form in forms)}
        return 1 - sum(self._weights[word] for word in missing) / self._total

    def _in(self, language: str | None) -> list[tuple[str, list[str]]]:
        if language not in self._stems:
            self._stems[language] = [(word, [word] if identifiers(word) else stems(word, language)) for word in self._weights]
        return self._stems[language]


def coverage(question: str, passages: Sequence[Passage], rarity: Mapping[str, float]) -> float:
    """The share of a question's content words that any passage holds, weighed by rarity, 0..1; 0 where there is no word.

    A passage holds what stands in its text, its headings and its title. For a follow-up give the standalone question.
    """
    sources = [(_terms(passage), passage.language) for passage in passages]
    return min(1.0, max(0.0, Wanted(question, question, rarity).share_in(sources)))


def _terms(passage: Passage) -> frozenset[str]:
    text = "\n".join([passage.title, *passage.heading, passage.text])
    return frozenset(stems(text, passage.language)) | frozenset(identifiers(text))
