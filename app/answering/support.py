"""Whether a passage supports a sentence: by words and figures first, by meaning only where words leave it open."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from app.answering.sentences import Sentence, content_stems, figures, split, stem_set
from corpus.types import Passage, Vectors

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
    """What a passage has for a sentence: the place that shares most with it, and the share of its content words there, 0..1."""

    span: Sentence
    share: float
    verdict: Verdict

    @property
    def is_clear(self) -> bool:
        """Whether nothing but this passage's words is needed to cite it."""
        return self.verdict == "yes" and self.share >= CLEAR


def evidence(sentence: str, passage: Passage) -> Evidence:
    """Weigh a sentence against a passage by its words, figures and negations; the title and the headings count as its text."""
    return _weigh(_MARKER.sub("", sentence), passage)


@lru_cache(maxsize=1024)
def _weigh(sentence: str, passage: Passage) -> Evidence:
    wanted = frozenset(content_stems(sentence, passage.language))
    numbers = figures(sentence) - _listed(sentence)
    pieces = _pieces(passage)
    above = "\n".join([passage.title, *passage.heading])
    anywhere = stem_set(above, passage.language).union(*(stems for _, stems, _ in pieces))
    if wanted and len(wanted & anywhere) / len(wanted) < LITTLE:
        return Evidence(pieces[0][0] if pieces else Sentence(0, len(passage.text), passage.text), 0.0, "no")
    # A long sentence holds more words by its length alone.
    scores = [(len(wanted & stems) + 2 * len(numbers & there)) / (8 + len(stems)) ** 0.5 for _, stems, there in pieces]
    quotable = [i for i, (piece, _, _) in enumerate(pieces) if not piece.is_heading] or list(range(len(pieces)))
    if not quotable:
        return Evidence(Sentence(0, len(passage.text), passage.text), 0.0, "no")
    # One that holds all of it comes before a short one that holds much.
    best = max(quotable, key=lambda i: (wanted <= pieces[i][1] and numbers <= pieces[i][2], scores[i]))
    span = pieces[best][0]
    above = f"{above}\n{span.context}"
    # What a sentence says may be spread over neighbours, and over two places of a section.
    around = {best - 1, best, best + 1} | {max(quotable, key=lambda i: len(wanted & pieces[i][1] - pieces[best][1]))}
    near = stem_set(above, passage.language).union(*(pieces[i][1] for i in around if 0 <= i < len(pieces)))
    share = len(wanted & near) / len(wanted) if wanted else 1.0
    telling = [i for i in range(len(pieces)) if i in around or len(wanted & pieces[i][1]) >= min(2, len(wanted))]
    known = figures(above).union(*(pieces[i][2] for i in telling))
    if not numbers <= known or _is_negated_otherwise(sentence, span, wanted, pieces[best][1]):
        return Evidence(span, share, "no")
    return Evidence(span, share, "yes" if share >= ENOUGH else "open" if share >= LITTLE else "no")


def best_span(sentence: str, passage: Passage) -> Sentence:
    """The sentence of a passage that shares most with a sentence of the answer; the first of equals."""
    return evidence(sentence, passage).span


@lru_cache(maxsize=512)
def _pieces(passage: Passage) -> tuple[tuple[Sentence, frozenset[str], frozenset[str]], ...]:
    """The sentences of a passage with their stems and figures; those of a table's row with its header's."""
    texts = [(piece, f"{piece.table_head or ''} {piece.text}") for piece in split(passage.text)]
    return tuple((piece, stem_set(text, passage.language), frozenset(figures(text))) for piece, text in texts)


def _listed(sentence: str) -> set[str]:
    """The number that an entry of a numbered list begins with: it states nothing."""
    match = _NUMBER_OF_ENTRY.match(sentence)
    return {match.group(1)} if match else set()


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
        self._settled: dict[tuple[str, str], bool] = {}

    async def supports(self, sentence: str, number: int) -> bool:
        """Whether the passage with a number supports a sentence; one that is not there supports none."""
        if not 1 <= number <= len(self.passages):
            return False
        found = evidence(sentence, self.passages[number - 1])
        if found.verdict == "open":
            return (await self._are_near([(sentence, found.span)]))[0]
        return found.verdict == "yes"

    def clear_support(self, sentence: str) -> int | None:
        """The number of the passage that supports a sentence most, where one does so clearly; the first of equals."""
        best, share = None, 0.0
        for number, passage in enumerate(self.passages, start=1):
            if len(content_stems(sentence, passage.language)) < FEWEST_WORDS:
                continue
            found = evidence(sentence, passage)
            if found.is_clear and found.share > share:
                best, share = number, found.share
        return best

    def weigh(self, sentences: Sequence[str]) -> tuple[set[int], dict[int, Evidence]]:
        """The places of the sentences that no passage's words support; for those that words leave open, the best evidence."""
        missing: set[int] = set()
        opened: dict[int, Evidence] = {}
        for i, sentence in enumerate(sentences):
            found = [evidence(sentence, passage) for passage in self.passages]
            if any(each.verdict == "yes" for each in found):
                continue
            missing.add(i)
            if any(each.verdict == "open" for each in found):
                opened[i] = max((each for each in found if each.verdict == "open"), key=lambda each: each.share)
        nearest = sorted(opened, key=lambda i: -opened[i].share)[:MOST_EMBEDDED]
        return missing, {i: opened[i] for i in nearest}

    async def mean_the_same(self, sentences: Sequence[str], opened: dict[int, Evidence]) -> set[int]:
        """The places of those that mean what the passage's own sentence means."""
        near = await self._are_near([(sentences[i], found.span) for i, found in opened.items()])
        return {i for i, held in zip(opened, near, strict=True) if held}

    async def _are_near(self, pairs: Sequence[tuple[str, Sentence]]) -> list[bool]:
        """Whether sentences of the answer mean what those of the passages mean. Each pair is embedded once."""
        keys = [(" ".join(_MARKER.sub("", sentence).split()), span.plain) for sentence, span in pairs]
        new = [key for key in dict.fromkeys(keys) if key not in self._settled]
        if new and self._embed is not None:
            vectors = await self._embed([text for key in new for text in key])
            self._settled |= {key: float(vectors[2 * i] @ vectors[2 * i + 1]) >= NEAR for i, key in enumerate(new)}
        return [self._settled.get(key, False) for key in keys]
