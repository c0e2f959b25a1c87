"""The backend that needs no LLM: answers with the best-supporting sentences, quoted and cited. It never invents."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from app.answering.sentences import Sentence, content_stems, split, stem_set
from app.llm.backend import Delta, Finished, Prompt, Usage
from corpus.types import Passage, Vectors
from corpus.words import content_words

Embed = Callable[[Sequence[str]], Awaitable[Vectors]]

CANDIDATES = 24
MOST_SENTENCES = 3
MOST_WORDS = 80
OVERLAP_WEIGHT = 0.5
RANK_WEIGHT = 0.2
MARGIN = 0.35
INTERCEPT, COSINE_WEIGHT, COVERAGE_WEIGHT, THRESHOLD = -5.0, 6.0, 3.0, 0.4
NO_ANSWER = "The documents I can see do not answer this."


@dataclass(frozen=True, slots=True)
class Candidate:
    """A sentence that may answer. `number` is its passage's; `overlap` 0..1 the share of the question's words it has."""

    number: int
    sentence: Sentence
    overlap: float
    cosine: float = 0.0
    score: float = 0.0


@dataclass(frozen=True, slots=True)
class Signals:
    """What tells an answerable question: the best sentence's cosine, the question's words that the passages cover."""

    cosine: float
    coverage: float


class ExtractiveBackend:
    """Chooses the sentences of the passages that are nearest to the question, in meaning and in words."""

    provider = "extractive"
    model = "extractive"

    def __init__(self, embed: Embed, clearance: str) -> None:
        self._embed = embed
        self.clearance = clearance

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Delta | Finished, None]:
        """One `Delta` for each quoted sentence with its marker, then `Finished`; see Backend."""
        candidates = preselect(prompt)
        if candidates:
            texts = [prompt.question, *(in_context(c, prompt.passages[c.number - 1]) for c in candidates)]
            vectors = await self._embed(texts)
            candidates = rank(candidates, (vectors[1:] @ vectors[0]).tolist())
        if not candidates or answerability(signals_of(prompt, candidates)) < THRESHOLD:
            yield Delta(NO_ANSWER)
            yield Finished(Usage(), abstained=True)
            return
        for position, candidate in enumerate(choose(candidates)):
            yield Delta(f"{' ' if position else ''}{_ended(candidate.sentence.plain)} [{candidate.number}]")
        yield Finished(Usage())

    async def close(self) -> None:
        """Nothing is held."""


def preselect(prompt: Prompt) -> list[Candidate]:
    """The sentences worth embedding: those with most of the question's words, those of the first passages before others."""
    found = []
    for number, passage in enumerate(prompt.passages, start=1):
        for sentence in split(passage.text):
            if not sentence.is_heading:
                found.append(Candidate(number, sentence, _overlap(prompt, sentence, passage)))
    return sorted(found, key=lambda c: (-(c.overlap + 0.5 / c.number), c.number, c.sentence.start))[:CANDIDATES]


def in_context(candidate: Candidate, passage: Passage) -> str:
    """A sentence as it is embedded: under its heading, without which many are understood by nobody."""
    heading = passage.heading[-1] if passage.heading else passage.title
    return f"{heading}: {candidate.sentence.plain}"


def rank(candidates: Sequence[Candidate], cosines: Sequence[float]) -> list[Candidate]:
    """Score by meaning, words and the passage's rank; best first."""
    scored = [
        replace(c, cosine=cosine, score=cosine + OVERLAP_WEIGHT * c.overlap + RANK_WEIGHT / c.number)
        for c, cosine in zip(candidates, cosines, strict=True)
    ]
    return sorted(scored, key=lambda c: (-c.score, c.number, c.sentence.start))


def choose(ranked: Sequence[Candidate]) -> list[Candidate]:
    """The best sentences within the length of an answer, none twice, in reading order."""
    chosen: list[Candidate] = []
    words = 0
    for candidate in ranked:
        plain = candidate.sentence.plain
        words += len(plain.split())
        if chosen and (words > MOST_WORDS or len(chosen) == MOST_SENTENCES or candidate.score < ranked[0].score - MARGIN):
            break
        if all(plain != other.sentence.plain for other in chosen):
            chosen.append(candidate)
    return sorted(chosen, key=lambda c: (c.number, c.sentence.start))


def signals_of(prompt: Prompt, ranked: Sequence[Candidate]) -> Signals:
    """The signals of an answer: see Signals."""
    return Signals(max(c.cosine for c in ranked), _covered(prompt, prompt.passages))


def answerability(signals: Signals) -> float:
    """How likely the passages hold an answer, 0..1.

    Source: a logistic model of two signals; docs/decisions/005-abstention.md has the data and the operating point.
    """
    return 1 / (1 + math.exp(-(INTERCEPT + COSINE_WEIGHT * signals.cosine + COVERAGE_WEIGHT * signals.coverage)))


def _overlap(prompt: Prompt, sentence: Sentence, passage: Passage) -> float:
    return _weighed(prompt.rarity, prompt.question, [(stem_set(sentence.plain, passage.language), passage.language)])


def _covered(prompt: Prompt, passages: Sequence[Passage]) -> float:
    texts = [("\n".join([p.title, *p.heading, p.text]), p.language) for p in passages]
    return _weighed(prompt.rarity, prompt.question, [(stem_set(text, language), language) for text, language in texts])


def _weighed(
    rarity: Mapping[str, float], question: str, sources: Sequence[tuple[frozenset[str], str | None]]
) -> float:
    """The share of the question's content words that stand in any source, each weighed by its rarity."""
    wanted = found = 0.0
    for word in content_words(question, None):
        weight = rarity.get(word, 1.0)
        wanted += weight
        if any(stem in stems for stems, language in sources for stem in content_stems(word, language)):
            found += weight
    return found / wanted if wanted else 1.0


def _ended(text: str) -> str:
    return text if text[-1:] in ".!?…" else f"{text}."
