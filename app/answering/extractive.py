"""The backend that needs no LLM: answers with the best-supporting sentences, quoted and cited. It never invents."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from app.answering.markers import MARKER
from app.answering.sentences import Sentence, split, term_set
from app.answering.signals import Wanted
from app.llm.backend import Delta, Finished, Prompt, Usage
from corpus.embedders.embedder import Embedder
from corpus.types import Passage, Vector, Vectors

EmbedBy = Callable[[Embedder, Sequence[str]], Awaitable[Vectors]]

CANDIDATES = 20
"""Sentences embedded for an answer: embedding them is the cost of one. Source: 019-citations.md, as the weights are."""
MOST_SENTENCES = 4
MOST_WORDS = 60
"""Words of an answer, at most. One sentence that is longer is quoted alone, whole: what is cut off may be the exception."""
OVERLAP_WEIGHT = 0.8
RANK_WEIGHT = 0.15
KEPT = 0.5
"""The share of the best score that another sentence must have."""
CONTEXT_SHARE = 0.5
CARRIED_ON_WHEN_CHOSEN, CARRIED_ON = 0.5, 0.25
REMEMBERED = 4096
"""Vectors of sentences kept, at most: some 6 MB. They say what the sentences say, so they never leave this memory."""
NO_ANSWER = "The documents I can see do not answer this."


@dataclass(frozen=True, slots=True)
class Candidate:
    """A sentence that may answer. `number` is its passage's, `position` its own in it; `overlap` 0..1 is the share of the
    question's words it has.
    """

    number: int
    position: int
    sentence: Sentence
    overlap: float
    cosine: float = 0.0
    score: float = 0.0


class ExtractiveBackend:
    """Chooses the sentences of the passages that are nearest to the question, in meaning and in words."""

    provider = "extractive"
    model = "extractive"

    def __init__(self, embed: EmbedBy, clearance: str) -> None:
        self._embed = embed
        self._vectors: OrderedDict[tuple[str, str], Vector] = OrderedDict()
        self.clearance = clearance

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Delta | Finished, None]:
        """One `Delta` for each quoted sentence with its marker, then `Finished`; see Backend."""
        candidates = preselect(prompt)
        if candidates:
            asked = list(dict.fromkeys([prompt.question, prompt.standalone]))
            assert prompt.embedder is not None, "a prompt with passages names the model of their vectors"
            vectors = await self._embedded(
                prompt.embedder, [*asked, *(in_context(c, prompt.passages[c.number - 1]) for c in candidates)]
            )
            # A follow-up is as near to an answer as its own words and its whole sense are, on average.
            cosines = (vectors[len(asked) :] @ vectors[: len(asked)].T).mean(axis=1)
            candidates = rank(candidates, cosines.tolist())
        if not candidates:
            yield Delta(NO_ANSWER)
            yield Finished(Usage(), abstained=True)
            return
        for position, candidate in enumerate(choose(candidates)):
            yield Delta(f"{' ' if position else ''}{_ended(candidate.sentence.plain)} [{candidate.number}]")
        yield Finished(Usage())

    async def _embedded(self, embedder: Embedder, texts: Sequence[str]) -> Vectors:
        """Vectors of texts by a model, those of lately used ones from memory."""
        model = embedder.fingerprint
        known = {text: self._vectors[model, text] for text in texts if (model, text) in self._vectors}
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new:
            known |= dict(zip(new, await self._embed(embedder, new), strict=True))
        for text, vector in known.items():
            # A row of a batch would keep all of the batch.
            self._vectors[model, text] = vector if vector.base is None else vector.copy()
            self._vectors.move_to_end((model, text))
        while len(self._vectors) > REMEMBERED:
            self._vectors.popitem(last=False)
        return np.stack([known[text] for text in texts])

    async def close(self) -> None:
        """Forget the vectors."""
        self._vectors.clear()


def preselect(prompt: Prompt) -> list[Candidate]:
    """The sentences worth embedding: those with most of the question's words, those of the first passages before others."""
    wanted = Wanted(prompt.question, prompt.standalone, prompt.rarity)
    found = [
        Candidate(number, position, sentence, _overlap(wanted, sentence, passage))
        for number, passage in enumerate(prompt.passages, start=1)
        for position, sentence in enumerate(split(passage.text))
        if not sentence.is_heading and not _is_fragment(sentence, passage)
    ]
    worth = _carried_on(found, [c.overlap + 0.5 / c.number for c in found], CARRIED_ON_WHEN_CHOSEN)
    order = sorted(range(len(found)), key=lambda i: (-worth[i], found[i].number, found[i].position))
    return [found[i] for i in order[:CANDIDATES]]


def _carried_on(candidates: Sequence[Candidate], scores: Sequence[float], share: float) -> list[float]:
    """The scores, with those of sentences that follow a better one raised by a share of what they lack: what is asked about is
    named once, and what is said of it often stands in the sentence after.
    """
    by_place = {(c.number, c.position): score for c, score in zip(candidates, scores, strict=True)}
    before = [by_place.get((c.number, c.position - 1), score) for c, score in zip(candidates, scores, strict=True)]
    return [
        # A table's row stands alone: it is said of its own first cell.
        score if "|" in c.sentence.text else score + share * max(0.0, previous - score)
        for c, score, previous in zip(candidates, scores, before, strict=True)
    ]


def _is_fragment(sentence: Sentence, passage: Passage) -> bool:
    """Whether a sentence is the rest of one that began in the passage before."""
    return sentence.start == 0 and passage.start > 0 and sentence.text[:1].islower()


def _overlap(wanted: Wanted, sentence: Sentence, passage: Passage) -> float:
    """The share of the question's words in a sentence; those that only stand above it count half."""
    own = term_set(sentence.plain, passage.language)
    above = term_set(_above(sentence, passage), passage.language)
    there = wanted.share_in([(own, passage.language)])
    return there + CONTEXT_SHARE * (wanted.share_in([(own | above, passage.language)]) - there)


def _above(sentence: Sentence, passage: Passage) -> str:
    """What a sentence is read under."""
    return sentence.context or (passage.heading[-1] if passage.heading else passage.title)


def in_context(candidate: Candidate, passage: Passage) -> str:
    """A sentence as it is embedded: under its heading, without which many are understood by nobody.

    Not under its title, which all of a document share, and which is the text's own beginning where there is no other.
    """
    above = candidate.sentence.context or (passage.heading[-1] if passage.heading else "")
    return f"{above}: {candidate.sentence.plain}" if above else candidate.sentence.plain


def rank(candidates: Sequence[Candidate], cosines: Sequence[float]) -> list[Candidate]:
    """Score by meaning, words and the passage's rank; best first."""
    own = [cosine + OVERLAP_WEIGHT * c.overlap + RANK_WEIGHT / c.number for c, cosine in zip(candidates, cosines, strict=True)]
    carried = _carried_on(candidates, own, CARRIED_ON)
    scored = [replace(c, cosine=cosine, score=score) for c, cosine, score in zip(candidates, cosines, carried, strict=True)]
    return sorted(scored, key=lambda c: (-c.score, c.number, c.position))


def choose(ranked: Sequence[Candidate]) -> list[Candidate]:
    """The best sentence and those of the next best that find room in an answer, none twice, in reading order."""
    chosen: list[Candidate] = []
    said: set[str] = set()
    room = MOST_WORDS
    for candidate in ranked:
        if chosen and (len(chosen) == MOST_SENTENCES or candidate.score < KEPT * ranked[0].score):
            break
        plain = candidate.sentence.plain
        words = len(plain.split())
        if plain.casefold() in said or (chosen and words > room):
            continue
        chosen.append(candidate)
        said.add(plain.casefold())
        room -= words
    return sorted(chosen, key=lambda c: (c.number, c.position))


def _ended(text: str) -> str:
    # A number in brackets that a document has would be taken for a marker of ours.
    text = MARKER.sub(r"(\1)", text)
    return text if text[-1:] in ".!?…" else f"{text.rstrip(',;:')}."
