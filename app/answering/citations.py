"""Citations: markers checked while the answer streams, and the exact span that each rests on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from app.answering.sentences import LONGEST, Sentence, content_stems, figures, share_found, split, stem_set
from app.answering.types import Citation
from corpus.types import Passage

ENOUGH = 0.4
"""The share of a sentence's content words that must stand in a passage for it to be supported by it."""

LONGEST_HELD = 40
NO_ANSWER_MARKER = "none"

MARKER = re.compile(r"\[\s*(\d{1,3}(?:\s*[,;]\s*\d{1,3})*|none)\s*\]", re.IGNORECASE)
_MIGHT_BECOME_MARKER = re.compile(r"\[\s*(?:[\d,;\s]*|n|no|non|none\s*)$", re.IGNORECASE)
_BOUNDARY = re.compile(r"(?<![.!?…:])[.!?…:]++[\"'”’»)]*+\s++|\n++")
_CLOSING = frozenset(".,;:!?…)}\"'”’»\n")


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
    _held: str = ""
    _sentence: str = ""
    _spaces: str = ""
    _gap: bool = False
    _begun: bool = False
    _denied: bool = False

    @property
    def abstained(self) -> bool:
        """Whether the answer said that there is none, and cites nothing all the same."""
        return self._denied and not self.citations

    def feed(self, text: str) -> str:
        """The part of the answer that can be shown now."""
        self._held += text
        return self._release(final=False)

    def finish(self) -> str:
        """The rest."""
        return self._release(final=True)

    def _release(self, *, final: bool) -> str:
        out: list[str] = []
        held, position = self._held, 0
        while position < len(held):
            bracket = held.find("[", position)
            if bracket < 0:
                bracket = len(held)
            out.append(self._pass(held[position:bracket]))
            position = bracket
            if position == len(held):
                break
            match = MARKER.match(held, position, position + LONGEST_HELD)
            if match:
                out.append(self._check(match.group(1)))
                position = match.end()
            elif not final and len(held) - position < LONGEST_HELD and _MIGHT_BECOME_MARKER.match(held, position):
                break
            else:
                out.append(self._pass("["))
                position += 1
        self._held = held[position:]
        if final and not self._gap:
            out.append(self._take_spaces())
        return "".join(out)

    def _pass(self, text: str) -> str:
        """The text without the spaces at its end, which are held with a marker that may follow."""
        text = self._spaces + text
        if self._gap:
            words = text.lstrip(" ")
            if not words:
                self._spaces = text[:1]
                return ""
            # What stood on both sides of the marker must not become one together.
            apart = words != text or words[0] == "]" or words[0].isdigit()
            text = f" {words}" if apart and self._begun and words[0] not in _CLOSING else words
        kept = text[: max(len(text.rstrip(" ")), len(text) - LONGEST_HELD)]
        self._spaces = text[len(kept) :]
        if not kept:
            return ""
        self._gap, self._begun = False, not kept.endswith("\n")
        self._note(kept)
        return kept

    def _take_spaces(self) -> str:
        """The spaces held. Those on both sides of a marker that was dropped are one, and none where a line begins."""
        spaces, self._spaces = self._spaces, ""
        if self._gap:
            spaces = " " if spaces and self._begun else ""
        return spaces

    def _note(self, text: str) -> None:
        """Keep the sentence that a following marker belongs to: the last one that has words.

        Of one that never ends only the end is kept, so that no token costs more than the one before.
        """
        pieces = _BOUNDARY.split(self._sentence + text)
        with_words = [piece for piece in pieces if re.search(r"\w", piece)]
        if not with_words:
            self._sentence = ""
        elif with_words[-1] is pieces[-1]:
            self._sentence = pieces[-1][-LONGEST:]
        else:
            self._sentence = f"{with_words[-1][-LONGEST:]}. {pieces[-1][-LONGEST_HELD:]}"

    def _check(self, marker: str) -> str:
        """What is shown of a marker: one for each of its numbers whose passage supports the sentence."""
        shown: list[int] = []
        if marker.lower() == NO_ANSWER_MARKER:
            self._denied = True
        else:
            shown = [number for number in map(int, re.findall(r"\d+", marker)) if self._is_supported(number)]
        if not shown:
            # No gap is left where it stood: see _pass.
            self._gap = True
            return ""
        for number in shown:
            passage = self.passages[number - 1]
            self.citations.append(cite(number, passage, best_span(self._sentence, passage)))
        spaces = self._take_spaces()
        self._gap, self._begun = False, True
        return spaces + "".join(f"[{number}]" for number in shown)

    def _is_supported(self, number: int) -> bool:
        held = 1 <= number <= len(self.passages) and supports(self._sentence, self.passages[number - 1])
        self.dropped += not held
        return held
