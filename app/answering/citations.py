"""Citations: markers checked while the answer streams, and the exact span that each rests on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from app.answering.sentences import Sentence, content_stems, figures, share_found, split, stem_set
from app.answering.types import Citation
from corpus.types import Passage

ENOUGH = 0.4
"""The share of a sentence's content words that must stand in a passage for it to be supported by it."""

LONGEST_HELD = 40
NO_ANSWER_MARKER = "none"

_MARKER = re.compile(r"\[\s*(\d{1,3}(?:\s*[,;]\s*\d{1,3})*|none)\s*\]", re.IGNORECASE)
_MIGHT_BECOME_MARKER = re.compile(r"\[\s*(?:[\d,;\s]*|n|no|non|none\s*)$", re.IGNORECASE)
_BOUNDARY = re.compile(r"[.!?…:]+[\"'”’»)]*\s+|\n+")


def supports(sentence: str, passage: Passage) -> bool:
    """Whether a passage supports a sentence: most of its content words and all of its figures stand there."""
    where = "\n".join([passage.title, *passage.heading, passage.text])
    if not figures(sentence) <= figures(where) | _listed(sentence):
        return False
    return share_found(sentence, [where], passage.language) >= ENOUGH


def _listed(sentence: str) -> set[str]:
    """The number that an entry of a numbered list begins with: it states nothing."""
    match = re.match(r"\s*(\d{1,3})[.)]\s", sentence)
    return {match.group(1)} if match else set()


def best_span(sentence: str, passage: Passage) -> Sentence:
    """The sentence of a passage that shares most with a sentence of the answer; the first of equals."""
    candidates = [found for found in split(passage.text) if not found.is_heading] or list(split(passage.text))
    if not candidates:
        return Sentence(0, len(passage.text), passage.text)
    wanted = set(content_stems(sentence, passage.language))
    numbers = figures(sentence)

    def shared(candidate: Sentence) -> float:
        stems = stem_set(candidate.text, passage.language)
        # A long sentence holds more words by its length alone.
        return float((len(wanted & stems) + 2 * len(numbers & figures(candidate.text))) / (8 + len(stems)) ** 0.5)

    return max(candidates, key=shared)


def cite(number: int, passage: Passage, span: Sentence) -> Citation:
    """A citation of a span (offsets within the passage's text) of the passage with this number."""
    return Citation(
        marker=number,
        document_id=passage.document_id,
        chunk_id=passage.chunk_id,
        version=passage.version,
        title=passage.title,
        source=passage.source,
        page=passage.page,
        heading=passage.heading,
        quote=span.text,
        start=passage.start + span.start,
        end=passage.start + span.end,
    )


def whole(number: int, passage: Passage) -> Citation:
    """A citation of all of a passage: a candidate, before there is an answer."""
    return cite(number, passage, Sentence(0, len(passage.text), passage.text))


@dataclass(slots=True)
class MarkerFilter:
    """Passes an answer's text on at once, but holds back each marker until its sentence has been checked.

    A marker whose passage does not support the sentence, or that names no passage, is dropped and counted. What `feed` and
    `finish` return, put together, is the answer. `citations` has one entry for every marker in it, in the order of the text.
    """

    passages: Sequence[Passage]
    citations: list[Citation] = field(default_factory=list)
    dropped: int = 0
    abstained: bool = False
    _held: str = ""
    _sentence: str = ""
    _spaces: str = ""

    def feed(self, text: str) -> str:
        """The part of the answer that can be shown now."""
        self._held += text
        return self._release(final=False)

    def finish(self) -> str:
        """The rest."""
        return self._release(final=True)

    def _release(self, *, final: bool) -> str:
        out = ""
        while self._held:
            bracket = self._held.find("[")
            if bracket < 0:
                out += self._pass(self._held)
                self._held = ""
                break
            out += self._pass(self._held[:bracket])
            self._held = self._held[bracket:]
            match = _MARKER.match(self._held)
            if match:
                out += self._check(match.group(1))
                self._held = self._held[match.end() :]
            elif not final and len(self._held) < LONGEST_HELD and _MIGHT_BECOME_MARKER.match(self._held):
                break
            else:
                out += self._pass("[")
                self._held = self._held[1:]
        # White space before a marker is held with it: a marker that is dropped leaves no gap.
        return out + (self._take_spaces() if final else "")

    def _pass(self, text: str) -> str:
        if not text:
            return ""
        text = self._take_spaces() + text
        kept = text.rstrip(" ")
        self._spaces = text[len(kept) :]
        self._note(kept)
        return kept

    def _take_spaces(self) -> str:
        spaces, self._spaces = self._spaces, ""
        return spaces

    def _note(self, text: str) -> None:
        """Keep the sentence that a following marker belongs to: the last one that has words."""
        pieces = _BOUNDARY.split(self._sentence + text)
        with_words = [piece for piece in pieces if re.search(r"\w", piece)]
        ended = not re.search(r"\w", pieces[-1])
        self._sentence = (with_words[-1] + ". ") if ended and with_words else (with_words[-1] if with_words else "")

    def _check(self, marker: str) -> str:
        if marker.lower() == NO_ANSWER_MARKER:
            self.abstained = True
            self._spaces = ""
            return ""
        out = ""
        for number in (int(digits) for digits in re.findall(r"\d+", marker)):
            if not 1 <= number <= len(self.passages) or not supports(self._sentence, self.passages[number - 1]):
                self.dropped += 1
                continue
            passage = self.passages[number - 1]
            self.citations.append(cite(number, passage, best_span(self._sentence, passage)))
            out += f"[{number}]"
        return self._take_spaces() + out if out else ""
