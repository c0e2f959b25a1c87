"""Citations: markers checked while the answer streams, and the exact span that each rests on."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from app.answering.sentences import LONGEST, Sentence, is_ended
from app.answering.support import Checker, best_span
from app.answering.types import Citation
from corpus.types import Passage

LONGEST_HELD = 40
NO_ANSWER_MARKER = "none"

MARKER = re.compile(r"\[\s*(\d{1,3}(?:\s*[,;]\s*\d{1,3})*|none)\s*\]", re.IGNORECASE)
_MIGHT_BECOME_MARKER = re.compile(r"\[\s*(?:[\d,;\s]*|n|no|non|none\s*)$", re.IGNORECASE)
_LEAD = re.compile(r":\s++")
_WHITE = re.compile(r"\s++")
_ENTRY = re.compile(r"(?:[-*+•‣]|\d{1,3}[.)])\s")
_FENCE = "```"
_ENDING = frozenset(".!?…\"'”’»)]*_`")
"""What stands last in a sentence, see `is_ended`."""
_CLOSING = frozenset(".,;:!?…)}\"'”’»\n")


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

    A marker whose passage does not support the sentence, or that names no passage, is dropped and counted. A sentence without
    one gets the marker of a passage that clearly supports it, before the white space behind its end, which is held until what
    follows shows that it is the end. What `feed` and `finish` return, put together, is the answer. `citations` has one entry
    for every marker in it, in the order of the text. With `adds` false, no marker is added.
    """

    checker: Checker
    adds: bool = True
    citations: list[Citation] = field(default_factory=list)
    dropped: int = 0
    added: int = 0
    _held: str = ""
    _spaces: str = ""
    _gap: bool = False
    _begun: bool = False
    _denied: bool = False
    _sentence: str = ""
    _before: str = ""
    _white: list[str] = field(default_factory=list)
    _is_cited: bool = False
    _is_code: bool = False

    @property
    def abstained(self) -> bool:
        """Whether the answer said that there is none, and cites nothing all the same."""
        return self._denied and not self.citations

    async def feed(self, text: str) -> str:
        """The part of the answer that can be shown now."""
        self._held += text
        return await self._release(final=False)

    async def finish(self) -> str:
        """The rest."""
        rest = await self._release(final=True)
        return rest + self._close() + self._take_white()

    async def _release(self, *, final: bool) -> str:
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
                out.append(await self._check(match.group(1)))
                position = match.end()
            elif not final and len(held) - position < LONGEST_HELD and _MIGHT_BECOME_MARKER.match(held, position):
                break
            else:
                out.append(self._pass("["))
                position += 1
        self._held = held[position:]
        if final and not self._gap:
            out.append(self._show(self._take_spaces()))
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
        return self._show(kept)

    def _take_spaces(self) -> str:
        """The spaces held. Those on both sides of a marker that was dropped are one, and none where a line begins."""
        spaces, self._spaces = self._spaces, ""
        if self._gap:
            spaces = " " if spaces and self._begun else ""
        return spaces

    def _show(self, text: str) -> str:
        """Text on its way out. The white space at its end waits; before what begins a new sentence, the last one is closed."""
        kept = text.rstrip()
        if not kept:
            self._white.append(text)
            return ""
        white, held = text[len(kept) :], self._take_white()
        if held:
            kept = held + kept
        out: list[str] = []
        position = 0
        for gap in _WHITE.finditer(kept):
            before = kept[gap.start() - 1] if gap.start() else self._sentence[-1:]
            if before not in _ENDING and "\n" not in gap.group():
                continue  # nearly all: the space between two words
            out.append(kept[position : gap.start()])
            self._sentence = (self._sentence + out[-1])[-LONGEST:]
            if self._is_over(gap.group(), kept[gap.end()]):
                out.append(self._close())
            self._sentence += gap.group()[:1] if self._sentence else ""
            out.append(gap.group())
            position = gap.end()
        out.append(kept[position:])
        self._sentence = (self._sentence + out[-1])[-LONGEST:]
        if white:
            self._white.append(white)
        return "".join(out)

    def _take_white(self) -> str:
        white, self._white = "".join(self._white), []
        return white

    def _is_over(self, white: str, following: str) -> bool:
        """Whether a sentence ends before this white space and what follows it."""
        if "\n" in white:
            is_fence = self._is_code or self._sentence.startswith(_FENCE)
            return is_fence or white.count("\n") > 1 or not following.islower()
        return not following.islower() and is_ended(self._sentence)

    def _close(self) -> str:
        """Ends a sentence; the marker that it lacks."""
        sentence, is_cited = self._sentence, self._is_cited
        self._sentence, self._is_cited = "", False
        if re.search(r"\w", sentence):
            self._before = sentence
        if sentence.startswith(_FENCE):
            self._is_code = not self._is_code
        elif self.adds and not (is_cited or self._is_code or self._denied) and _may_be_cited(sentence):
            number = self.checker.clear_support(sentence)
            if number is not None:
                self.added += 1
                self._cite(number, sentence)
                return f" [{number}]"
        return ""

    async def _check(self, marker: str) -> str:
        """What is shown of a marker: one for each of its numbers whose passage supports the sentence."""
        shown: list[int] = []
        sentence = self._sentence if re.search(r"\w", self._sentence) else self._before
        if marker.lower() == NO_ANSWER_MARKER:
            self._denied = True
        else:
            for number in map(int, re.findall(r"\d+", marker)):
                # "The rule: this" may rest on a passage as a whole, or in what it says last.
                if await self.checker.supports(sentence, number) or await self.checker.supports(_stated(sentence), number):
                    shown.append(number)
                else:
                    self.dropped += 1
        if not shown:
            # No gap is left where it stood: see _pass.
            self._gap = True
            return ""
        for number in shown:
            self._cite(number, sentence)
        spaces = self._take_white() + self._take_spaces()
        self._gap, self._begun, self._is_cited = False, True, True
        return spaces + "".join(f"[{number}]" for number in shown)

    def _cite(self, number: int, sentence: str) -> None:
        passage = self.checker.passages[number - 1]
        self.citations.append(cite(number, passage, best_span(sentence, passage)))


def _may_be_cited(sentence: str) -> bool:
    """Whether a sentence is one that says something, whole: it ends like one, or is an entry of a list."""
    if sentence.startswith(("#", "|")) or sentence.endswith(":"):
        return False
    return is_ended(sentence) or _ENTRY.match(sentence) is not None


def _stated(sentence: str) -> str:
    """Of "The rule: this" what comes last and has words."""
    return next((part for part in reversed(_LEAD.split(sentence)) if re.search(r"\w", part)), "")
