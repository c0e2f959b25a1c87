"""Citations: markers checked while the answer streams, and the exact span that each rests on."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field

from app.answering.code import Code
from app.answering.markers import MARKER, MIGHT_BECOME_MARKER, NO_ANSWER_MARKER, OPENING, numbers_of
from app.answering.sentences import LONGEST, Sentence, is_ended
from app.answering.support import Checker, says_something
from app.answering.types import Citation
from corpus.types import Passage

LONGEST_HELD = 40
LONGEST_PIECE = 400
"""Characters of an answer that are read before others have their turn: checking those of an LLM takes no time, but a provider
may send a hundred thousand at once, in one piece or in many."""
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
    for every marker in it, in the order of the text, and what looks like one in code is text. With `adds` false, no marker is
    added.
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
    _after_marker: bool = False
    _kept: int = 0
    _since_pause: int = 0
    _code: Code = field(default_factory=Code)

    @property
    def abstained(self) -> bool:
        """Whether the answer said that there is none, and the LLM itself cites nothing all the same."""
        return self._denied and not self._kept

    async def feed(self, text: str) -> str:
        """The part of the answer that can be shown now."""
        out: list[str] = []
        for start in range(0, len(text), LONGEST_PIECE):
            piece = text[start : start + LONGEST_PIECE]
            self._since_pause += len(piece)
            if self._since_pause > LONGEST_PIECE:
                self._since_pause = len(piece)
                await asyncio.sleep(0)
            self._held += piece
            out.append(await self._release(final=False))
        return "".join(out)

    async def finish(self) -> str:
        """The rest."""
        rest = await self._release(final=True)
        return rest + self._close() + self._take_white()

    async def _release(self, *, final: bool) -> str:
        out: list[str] = []
        held, position = self._held, 0
        while position < len(held):
            opening = OPENING.search(held, position)
            bracket = opening.start() if opening else len(held)
            out.append(self._pass(held[position:bracket]))
            position = bracket
            if position == len(held):
                break
            is_code = self._is_in_code()
            match = None if is_code else MARKER.match(held, position, position + LONGEST_HELD)
            if match:
                out.append(await self._check(match.group(1)))
                position = match.end()
            elif not (final or is_code) and len(held) - position < LONGEST_HELD and MIGHT_BECOME_MARKER.match(held, position):
                break
            else:
                out.append(self._pass(held[position]))
                position += 1
        self._held = held[position:]
        if final and not self._gap:
            out.append(self._show(self._take_spaces()))
        return "".join(out)

    def _is_in_code(self) -> bool:
        """Whether what comes next stands in code. What is held is white space; a line's end ends a span."""
        is_next_line = "\n" in self._spaces or any("\n" in white for white in self._white)
        return self._code.is_fenced() or (self._code.is_inside() and not is_next_line)

    def _pass(self, text: str) -> str:
        """The text without the spaces at its end, which are held with a marker that may follow."""
        text = self._spaces + text
        if self._gap:
            words = text.lstrip(" ")
            if not words:
                self._spaces = text[:1]
                return ""
            # What stood on both sides of the marker must not become one together.
            apart = words != text or words[0] in "]`" or words[0].isdigit()
            text = f" {words}" if apart and self._begun and words[0] not in _CLOSING else words
        if self._after_marker and len(text) < LONGEST_HELD and text.strip(" ") in (",", ";"):
            # It goes with the marker that follows, if that is dropped.
            self._spaces = text
            return ""
        kept = text[: max(len(text.rstrip(" ")), len(text) - LONGEST_HELD)]
        self._spaces = text[len(kept) :]
        if not kept:
            return ""
        self._gap, self._begun, self._after_marker = False, not kept.endswith("\n"), False
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
            self._code.feed(out[-1])
            if self._is_over(gap.group(), kept[gap.end()]):
                out.append(self._close())
            self._sentence += gap.group()[:1] if self._sentence else ""
            out.append(gap.group())
            self._code.feed(out[-1])
            position = gap.end()
        out.append(kept[position:])
        self._code.feed(out[-1])
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
            is_fence = self._code.is_fenced() or self._sentence.startswith(_FENCE)
            return is_fence or white.count("\n") > 1 or not following.islower()
        return not following.islower() and is_ended(self._sentence)

    def _close(self) -> str:
        """Ends a sentence; the marker that it lacks."""
        sentence, is_cited = self._sentence, self._is_cited
        self._sentence, self._is_cited = "", False
        if says_something(sentence):
            self._before = sentence
        if self.adds and not (is_cited or self._denied or self._code.is_inside()) and _may_be_cited(sentence):
            number = self.checker.clear_support(sentence)
            if number is not None:
                self.added += 1
                self._cite(number, sentence)
                return f" [{number}]"
        return ""

    async def _check(self, marker: str) -> str:
        """What is shown of a marker: one for each of its numbers whose passage supports the sentence."""
        shown: list[int] = []
        sentence = self._sentence if says_something(self._sentence) else self._before
        if marker.lower() == NO_ANSWER_MARKER:
            self._denied = True
        else:
            for number in numbers_of(marker):
                # "The rule: this" may rest on a passage as a whole, or in what it says last.
                if await self.checker.supports(sentence, number) or await self.checker.supports(_stated(sentence), number):
                    shown.append(number)
                else:
                    self.dropped += 1
        if not shown:
            # No gap is left where it stood: see _pass.
            self._gap = True
            self._spaces = self._spaces.replace(",", "").replace(";", "")
            return ""
        self._kept += len(shown)
        for number in shown:
            self._cite(number, sentence)
        spaces = self._take_white() + self._take_spaces()
        self._gap, self._begun, self._is_cited, self._after_marker = False, True, True, True
        markers = spaces + "".join(f"[{number}]" for number in shown)
        self._code.feed(markers)
        return markers

    def _cite(self, number: int, sentence: str) -> None:
        passage = self.checker.passages[number - 1]
        self.citations.append(cite(number, passage, self.checker.span(sentence, number)))


def _may_be_cited(sentence: str) -> bool:
    """Whether a sentence is one that says something, whole: it ends like one, or is an entry of a list."""
    if sentence.startswith(("#", "|", _FENCE)) or sentence.endswith(":"):
        return False
    return is_ended(sentence) or _ENTRY.match(sentence) is not None


def _stated(sentence: str) -> str:
    """Of "The rule: this" what comes last and has words."""
    return next((part for part in reversed(_LEAD.split(sentence)) if re.search(r"\w", part)), "")
