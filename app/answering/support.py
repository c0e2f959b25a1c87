"""Whether a passage supports a sentence: by words and figures first, by meaning only where words leave it open."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from app.answering.numbers import Reading, claims, values
from app.answering.sentences import Sentence, content_stems, split, stem_set
from corpus.language import known_languages, language_of_question
from corpus.types import Passage, Vector, Vectors

Embed = Callable[[Sequence[str]], Awaitable[Vectors]]
Verdict = Literal["yes", "no", "open"]

CLEAR, ENOUGH, LITTLE = 0.75, 0.5, 0.25
"""Shares of a sentence's content words near one place of a passage. From CLEAR on a marker is added where there is none, from
ENOUGH on the sentence is supported, below LITTLE it is not; between the two its meaning decides.
"""
NEAR = 0.6
"""The cosine of a sentence and the passage's own from which words that leave it open suffice. Source: 019-citations.md."""
FEWEST_WORDS = 3
"""Content words that a sentence needs to be given a marker: a shorter one fits anywhere."""
SAME_STATEMENT = 0.6
"""The share of a sentence's words in one of the passage's from which a `not` that only one of them has contradicts."""
MOST_EMBEDDED = 8
"""Sentences of an answer whose meaning is looked at, at most, when all of it is checked: what that may cost."""
REMEMBERED = 50_000
"""Pairs of a sentence and a passage that are weighed once for an answer, at most."""
MOST_PLACES = 6
"""Sentences of a passage whose meaning is compared with that of a sentence in another language."""
FEWEST_WORDS_OF_A_LANGUAGE = 4
_NEGATING = frozenset({"en", "de", "es"})
_NEGATED = re.compile(
    r"\b(?:not|never|no|none|neither|nor|cannot|without|nicht|nie|niemals|kein\w*|ohne|nunca|jamás|sin|ningún|ninguna?)\b|n['’]t\b",
    re.IGNORECASE,
)
_TURNS = re.compile(
    r"\b(?:more|less|fewer|unless|until|only|except|at most|at least|but|mehr|weniger|nur|außer|höchstens|mindestens|bis|"
    r"aber|sondern|más|menos|solo|sólo|salvo|hasta|pero|sino)\b",
    re.IGNORECASE,
)
_MARKER = re.compile(r"\s*\[\d{1,3}\]")
_NUMBER_OF_ENTRY = re.compile(r"\s*(\d{1,3})[.)]\s")


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a passage has for a sentence: the place that shares most with it, and the share of its content words there, 0..1.

    `places` are those whose meaning decides where words leave it open: the span, or, of another language, all that may say it.
    """

    span: Sentence
    share: float
    verdict: Verdict
    places: tuple[Sentence, ...] = ()

    @property
    def is_clear(self) -> bool:
        """Whether nothing but this passage's words is needed to cite it."""
        return self.verdict == "yes" and self.share >= CLEAR


@dataclass(frozen=True, slots=True)
class _Asked:
    """A sentence of an answer."""

    text: str
    words: frozenset[str]
    figures: tuple[tuple[Reading, ...], ...]


class _Prepared:
    """A passage, cut into sentences, and in which of them its words and figures stand."""

    def __init__(self, passage: Passage) -> None:
        language = passage.language
        self.language = language
        self.whole = Sentence(0, len(passage.text), passage.text)
        self.pieces = split(passage.text)
        texts = [f"{piece.table_head or ''} {piece.text}" for piece in self.pieces]
        self.stems = [stem_set(text, language) for text in texts]
        self.figures = [values(text) for text in texts]
        above = "\n".join([passage.title, *passage.heading])
        self.stems_above, self.figures_above = stem_set(above, language), values(above)
        self.words = self.stems_above.union(*self.stems)
        self.quotable = [i for i, piece in enumerate(self.pieces) if not piece.is_heading] or list(range(len(self.pieces)))
        self.with_word: dict[str, list[int]] = {}
        for i, stems in enumerate(self.stems):
            for stem in stems:
                self.with_word.setdefault(stem, []).append(i)
        # A long sentence holds more words by its length alone.
        self.lengths = [(8 + len(stems)) ** 0.5 for stems in self.stems]

    def shared(self, words: Iterable[str]) -> list[int]:
        """How many of the words each sentence has."""
        counts = [0] * len(self.pieces)
        for word in words:
            for i in self.with_word.get(word, ()):
                counts[i] += 1
        return counts


def evidence(sentence: str, passage: Passage) -> Evidence:
    """Weigh a sentence against a passage by its words, figures and negations; the title and the headings count as its text."""
    return _weigh(_asked(sentence, passage.language), _prepared(passage))


def says_something(sentence: str) -> bool:
    """Whether a sentence has a content word or a figure. "Yes." and "No, you may not." rest on what stands before them."""
    return any(c.isdigit() for c in _MARKER.sub("", sentence)) or bool(content_stems(sentence, None))


def _weigh(asked: _Asked, passage: _Prepared) -> Evidence:
    wanted, figures = asked.words, asked.figures
    if not passage.quotable or not (wanted or figures):
        return Evidence(passage.pieces[0] if passage.pieces else passage.whole, 0.0, "no")
    if len(wanted & passage.words) < LITTLE * len(wanted):
        return _of_another_language(asked, passage)
    counts = passage.shared(wanted)
    hits = [sum(_holds(figure, there) for figure in figures) if figures else 0 for there in passage.figures]
    # One that holds all of it comes before a short one that holds much.
    best = max(
        passage.quotable,
        key=lambda i: (
            counts[i] == len(wanted) and hits[i] == len(figures), (counts[i] + 2 * hits[i]) / passage.lengths[i]
        ),
    )  # fmt: skip
    span, stems = passage.pieces[best], passage.stems[best]
    # What a sentence says may be spread over neighbours, and over two places of a section.
    others = passage.shared(wanted - stems)
    around = {best - 1, best, best + 1, max(passage.quotable, key=others.__getitem__)}
    around = {i for i in around if 0 <= i < len(counts)}
    context = stem_set(span.context, passage.language) if span.context else frozenset[str]()
    near = passage.stems_above | context | frozenset().union(*(passage.stems[i] for i in around))
    share = len(wanted & near) / len(wanted) if wanted else 1.0
    if figures:
        telling = around | {i for i, count in enumerate(counts) if count >= min(2, len(wanted))}
        known = values(span.context).union(passage.figures_above, *(passage.figures[i] for i in telling))
        if not all(_holds(figure, known) for figure in figures):
            return Evidence(span, share, "no")
    if _is_negated_otherwise(asked.text, span, wanted, stems):
        return Evidence(span, share, "no")
    if share < LITTLE:
        return _of_another_language(asked, passage)
    return Evidence(span, share, "yes" if share >= ENOUGH else "open", (span,))


def _of_another_language(asked: _Asked, passage: _Prepared) -> Evidence:
    """The verdict on a sentence that hardly shares words: its meaning decides, if its language explains that.

    All of its figures must stand in one place, and where both languages are known for their `not`, it must be the same.
    """
    nothing = Evidence(passage.pieces[passage.quotable[0]], 0.0, "no")
    if passage.language is None:
        return nothing
    language = _language(asked.text)
    if language is None or language == passage.language.split("-")[0].lower():
        return nothing
    compares_negations = {language, passage.language} <= _NEGATING
    is_negated = bool(_NEGATED.search(asked.text))
    counts = passage.shared(asked.words)
    places = []
    for i in sorted(passage.quotable, key=lambda i: (-counts[i], i)):
        known = passage.figures_above.union(*passage.figures[max(0, i - 1) : i + 2])
        if asked.figures and not all(_holds(figure, known) for figure in asked.figures):
            continue
        if compares_negations and is_negated != bool(_NEGATED.search(passage.pieces[i].text)):
            continue
        places.append(passage.pieces[i])
    if not places:
        return nothing
    return Evidence(places[0], len(asked.words & passage.words) / max(1, len(asked.words)), "open", tuple(places[:MOST_PLACES]))


@lru_cache(maxsize=4096)
def _language(sentence: str) -> str | None:
    """The language of a sentence with enough words to tell."""
    return language_of_question(sentence) if len(sentence.split()) >= FEWEST_WORDS_OF_A_LANGUAGE else None


@lru_cache(maxsize=1024)
def _asked(sentence: str, language: str | None) -> _Asked:
    text = _MARKER.sub("", sentence)
    # The number that an entry of a numbered list begins with states nothing.
    entry = _NUMBER_OF_ENTRY.match(text)
    figures = claims(text[entry.end() :] if entry else text)
    return _Asked(text, frozenset(content_stems(text, language)), tuple(figures.values()))


@lru_cache(maxsize=256)
def _prepared(passage: Passage) -> _Prepared:
    return _Prepared(passage)


def _holds(figure: tuple[Reading, ...], known: frozenset[str]) -> bool:
    """Whether one reading of a figure is known."""
    return any(reading <= known for reading in figure)


def _is_negated_otherwise(sentence: str, span: Sentence, wanted: frozenset[str], stems: frozenset[str]) -> bool:
    """Whether two say the same but for a `not` that one of them has. Only where they can hardly be said to differ otherwise."""
    text = span.plain
    if not wanted or bool(_NEGATED.search(sentence)) == bool(_NEGATED.search(text)):
        return False
    if _TURNS.search(sentence) or _TURNS.search(text):
        return False
    return len(wanted & stems) / len(wanted) >= SAME_STATEMENT


class Checker:
    """Checks the sentences of one answer against its passages."""

    def __init__(self, passages: Sequence[Passage], embed: Embed | None = None) -> None:
        """Without `embed`, what words leave open is not supported."""
        self.passages = passages
        self._embed = embed
        self._vectors: dict[str, Vector] = {}
        self._weighed: dict[tuple[str, int], Evidence] = {}
        self._meant: dict[tuple[str, int], Sentence] = {}

    def prepare(self) -> None:
        """Cut the passages and load what tells languages, so that the first sentence need not wait."""
        known_languages()
        for passage in self.passages:
            _prepared(passage)

    async def supports(self, sentence: str, number: int) -> bool:
        """Whether the passage with a number supports a sentence; one that is not there supports none."""
        if not 1 <= number <= len(self.passages):
            return False
        found = self._evidence(sentence, number)
        if found.verdict == "open":
            return (await self._are_near([(sentence, number)]))[0]
        return found.verdict == "yes"

    def span(self, sentence: str, number: int) -> Sentence:
        """The place of a passage that a sentence rests on: what means the same, or shares most with it; the first of equals."""
        return self._meant.get((_bare(sentence), number)) or self._evidence(sentence, number).span

    def clear_support(self, sentence: str) -> int | None:
        """The number of the passage that supports a sentence most, where one does so clearly; the first of equals."""
        best, share = None, 0.0
        for number, passage in enumerate(self.passages, start=1):
            if len(_asked(sentence, passage.language).words) < FEWEST_WORDS:
                continue
            found = self._evidence(sentence, number)
            if found.is_clear and found.share > share:
                best, share = number, found.share
        return best

    def weigh(self, sentences: Sequence[str]) -> tuple[set[int], dict[int, list[int]]]:
        """The places of the sentences that no passage's words support; for those that words leave open, the passages."""
        missing: set[int] = set()
        opened: dict[int, tuple[float, list[int]]] = {}
        for i, sentence in enumerate(sentences):
            found = [(number, self._evidence(sentence, number)) for number in range(1, len(self.passages) + 1)]
            if any(each.verdict == "yes" or (_bare(sentence), number) in self._meant for number, each in found):
                continue
            missing.add(i)
            of_words = [(each.share, number) for number, each in found if each.verdict == "open" and each.share >= LITTLE]
            others = [number for number, each in found if each.verdict == "open"]
            if of_words:
                share, number = max(of_words, key=lambda pair: pair[0])
                opened[i] = share, [number]
            elif others:
                opened[i] = 0.0, others
        nearest = sorted(opened, key=lambda i: -opened[i][0])[:MOST_EMBEDDED]
        return missing, {i: opened[i][1] for i in nearest}

    async def mean_the_same(self, sentences: Sequence[str], opened: dict[int, list[int]]) -> set[int]:
        """The places of those that mean what a passage's own sentence means."""
        pairs = [(i, number) for i, numbers in opened.items() for number in numbers]
        near = await self._are_near([(sentences[i], number) for i, number in pairs])
        return {i for (i, _), held in zip(pairs, near, strict=True) if held}

    def _evidence(self, sentence: str, number: int) -> Evidence:
        key = (sentence, number)
        if key not in self._weighed:
            if len(self._weighed) >= REMEMBERED:
                self._weighed.clear()
            self._weighed[key] = evidence(sentence, self.passages[number - 1])
        return self._weighed[key]

    async def _are_near(self, pairs: Sequence[tuple[str, int]]) -> list[bool]:
        """Whether sentences of the answer mean what passages' own mean that words leave open. Each text is embedded once."""
        if self._embed is None:
            return [False] * len(pairs)
        wanted = [(_bare(sentence), number, self._evidence(sentence, number).places) for sentence, number in pairs]
        texts = [text for bare, _, places in wanted for text in (bare, *(place.plain for place in places))]
        new = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        if new:
            self._vectors |= zip(new, await self._embed(new), strict=True)
        for bare, number, places in wanted:
            cosines = [float(self._vectors[bare] @ self._vectors[place.plain]) for place in places]
            if cosines and max(cosines) >= NEAR:
                self._meant[bare, number] = places[cosines.index(max(cosines))]
        return [(bare, number) in self._meant for bare, number, _ in wanted]


def _bare(sentence: str) -> str:
    return " ".join(_MARKER.sub("", sentence).split())
