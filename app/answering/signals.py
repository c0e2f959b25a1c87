"""What a search says of whether the passages answer: how much of the question stands there, how far the best stands out.

Pure functions of what the caller may see.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from app.answering.sentences import term_set
from app.answering.types import Signals
from corpus.lexical import identifiers, stems, variants
from corpus.types import Hit, Passage
from corpus.words import asks_nothing, content_words

IDENTIFIER_WEIGHT = 2.0
EARLIER_WORD_WEIGHT = 0.5

DEPTH = 20
"""Passages that are looked at: the best, and what it stands out from. Source: 8, 12, 20, 30 and 45; docs/decisions/005."""

WORDS_WEIGHT = 0.8
"""What all words of a question count in a passage, beside a cosine. Source: .3, .5 and .8 were measured; docs/decisions/005."""

BACKGROUND = 0.45
"""What stands for each passage that is missing where fewer than DEPTH can be seen. Source: .33 to .47 on four corpora."""

CODE = re.compile(r"[a-z]{1,4}[-_./]\d{2,}[a-z\d]*|[a-z]{1,6}[-_./]?\d{3,}[a-z\d]*")
"""What a form number, an error code or a part number looks like: E-42 or E4201; neither FY26 nor COVID-19 nor Win11."""


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
            self._stems[language] = [
                (word, variants(word) if identifiers(word) else stems(word, language)) for word in self._weights
            ]
        return self._stems[language]


def coverage(question: str, passages: Sequence[Passage], rarity: Mapping[str, float]) -> float:
    """The share of a question's content words that any passage holds, weighed by rarity, 0..1; 0 where there is no word.

    A passage holds what stands in its text, its headings and its title. For a follow-up give the standalone question.
    """
    sources = [(_terms(passage), passage.language) for passage in passages]
    return min(1.0, max(0.0, Wanted(question, question, rarity).share_in(sources)))


def codes(question: str) -> list[str]:
    """The form numbers, error codes and part numbers that a question names."""
    return [identifier for identifier in identifiers(question) if CODE.fullmatch(identifier)]


def nearest(hits: Sequence[Hit]) -> float:
    """The cosine of the nearest of the hits by any way of asking; 0 where none has one."""
    return max((hit.cosine for hit in hits if hit.cosine is not None), default=0.0)


def signals(
    question: str,
    standalone: str,
    hits: Sequence[Hit],
    passages: Sequence[Passage],
    rarity: Mapping[str, float],
    held: Collection[str] = (),
) -> Signals:
    """What is known before anybody is asked: `hits` are up to DEPTH found, `passages` those of the prompt, `held` the codes
    that anything holds that the caller may see.

    Scores of the search are left out on purpose: BM25 takes the mean length of a text over all documents, hidden ones too.
    The nearness is of the question by itself: what an earlier turn asked for is near whatever is asked next.
    """
    if asks_nothing(question):
        return Signals()
    cosines = [hit.cosine for hit in hits if hit.cosine is not None]
    return Signals(
        nearness=max((hit.own_cosine for hit in hits if hit.own_cosine is not None), default=nearest(hits)),
        coverage=coverage(standalone, passages, rarity),
        lead=_lead(Wanted(question, standalone, rarity), hits[:DEPTH], min(cosines, default=0.0)),
        identified=_identified(question, passages, held),
    )


def _lead(wanted: Wanted, hits: Sequence[Hit], lowest: float) -> float:
    """How far the best of the hits stands out from the others, in meaning and in words."""
    worth = sorted(
        (
            (lowest if hit.cosine is None else hit.cosine)
            + WORDS_WEIGHT * wanted.share_in([(_terms(hit.passage), hit.passage.language)])
            for hit in hits
        ),
        reverse=True,
    )
    if not worth:
        return 0.0
    others = [*worth[1:], *[BACKGROUND] * (DEPTH - len(worth))]
    return max(0.0, worth[0] - sum(others) / len(others))


def _identified(question: str, passages: Sequence[Passage], held: Collection[str]) -> float:
    """The share of the codes a question names that are held, or stand in a passage; 1 where it names none."""
    named = codes(question)
    there = frozenset[str]().union(*(_terms(passage) for passage in passages))
    known = [code for code in named if code in held or not there.isdisjoint(variants(code))]
    return len(known) / len(named) if named else 1.0


def _terms(passage: Passage) -> frozenset[str]:
    return term_set("\n".join([passage.title, *passage.heading, passage.text]), passage.language)
