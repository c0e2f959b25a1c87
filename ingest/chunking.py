"""Documents into chunks: spans that end where paragraphs and sentences end and fit the embedding model.

The only importer of semchunk. Imports `corpus` otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

from semchunk.semchunk import chunk as cut_semantically

from corpus.types import Chunk, Document, Section, chunk_id_of

# A section smaller than this is joined with equally small neighbours: a heading with one line finds little alone.
SMALL_TOKENS = 40

# Longer stretches count as more tokens than they have. A tokenizer makes one "unknown" token of a word of a million
# letters; no chunk may be that long. English prose has about 5 characters a token.
MAX_CHARACTERS_PER_TOKEN = 8

# A heading path (with the title) may take this share of the budget; the text needs the rest.
_HEADER_SHARE = 1 / 3

# Longer texts are hardly ever counted twice.
_REMEMBERED_CHARACTERS = 32

# Stands for the outer headings, the title among them, where a path is too long for the model.
_LEFT_OUT = "…"

# semchunk recurses once for every length of white space there is; a stretch of this size has too few of them to matter.
_STRETCH_CHARACTERS = 20_000

_WORD = re.compile(r"\S+")
_SENTENCE_END = re.compile("[.!?\u2026\u3002\uff01\uff1f][\"'\u201d\u2019)\\]]*$")
_ROW = re.compile(r"\s*\||.* \| |[^;]{1,80}: [^;]*; ")


@dataclass(slots=True)
class _Part:
    """A stretch of the text under one heading path, without surrounding white space."""

    start: int
    end: int
    heading: tuple[str, ...]
    page: int | None
    is_bare: bool = False


def chunk_document(
    document: Document,
    count_tokens: Callable[[str], int],
    *,
    max_tokens: int,
    overlap_tokens: int,
    special_tokens: int = 2,
) -> list[Chunk]:
    """Cut a document into chunks that, with title and heading path, fit the model.

    `count_tokens` counts without special tokens; `special_tokens` are added to every input. Every character that is
    not white space is inside a chunk. A chunk's heading path is shortened from the outside where it is too long.

    Units: `max_tokens` and `overlap_tokens` are tokens of the embedder input; the former includes special tokens.
    Order: by `start`.
    Raises: ValueError where `max_tokens` leaves no room for text.
    """
    budget = max_tokens - special_tokens
    if budget < 8:
        raise ValueError(f"max_tokens {max_tokens!r} leaves {budget} tokens for text; give at least {special_tokens + 8}")
    cutter = _Cutter(document, count_tokens, budget, overlap_tokens)
    chunks: list[Chunk] = []
    for part in _joined(_parts(document), cutter):
        for start, end, heading in cutter.cut(part):
            chunk_id = chunk_id_of(document.document_id, document.version, start, end)
            text = document.text[start:end]
            chunks.append(Chunk(chunk_id, document.document_id, document.version, start, end, text, heading, part.page))
    return chunks


def remembering(count_tokens: Callable[[str], int]) -> Callable[[str], int]:
    """The same counter, which remembers single words; made once for a run it more than doubles the speed."""
    remembered = lru_cache(maxsize=200_000)(count_tokens)

    def count(text: str) -> int:
        return remembered(text) if len(text) <= _REMEMBERED_CHARACTERS else count_tokens(text)

    return count


def embedder_input(title: str, heading: tuple[str, ...], text: str) -> str:
    """What is embedded for a chunk: title and heading path on one line, then the text.

    A heading path that begins with `…` was too long and stands for itself, without the title.
    """
    shortened = heading[:1] == (_LEFT_OUT,)
    header = " > ".join(part for part in (heading[1:] if shortened else (title, *heading)) if part)
    return f"{header}\n{text}" if header else text


def _parts(document: Document) -> Iterator[_Part]:
    """The document's sections, and what no section covers, each without surrounding white space."""
    position = 0
    for section in (*document.sections, Section(len(document.text), len(document.text))):
        yield from _trimmed(document.text, position, section.start, (), None)
        yield from _trimmed(document.text, max(position, section.start), section.end, section.heading, section.page)
        position = max(position, section.end)


def _trimmed(text: str, start: int, end: int, heading: tuple[str, ...], page: int | None) -> Iterator[_Part]:
    stretch = text[start:end]
    start += len(stretch) - len(stretch.lstrip())
    end = start + len(stretch.strip())
    if start < end:
        yield _Part(start, end, heading, page)


def _joined(parts: Iterator[_Part], cutter: _Cutter) -> Iterator[_Part]:
    """Parts, with a bare heading put before the text below it, and small neighbours joined."""
    current: _Part | None = None
    for part in parts:
        part.is_bare = cutter.is_bare_heading(part)
        if current is None:
            current = part
        elif (heading := _common_heading(current, part, cutter)) is not None:
            is_bare = current.is_bare and part.is_bare
            current = _Part(current.start, part.end, heading, part.page, is_bare)
        else:
            yield current
            current = part
    if current is not None:
        yield current


def _common_heading(first: _Part, second: _Part, cutter: _Cutter) -> tuple[str, ...] | None:
    """The heading path of two neighbours as one chunk, or None where they stay apart."""
    if first.page != second.page:
        return None
    if first.is_bare and len(second.heading) > len(first.heading) == len(_common_prefix(first.heading, second.heading)):
        return second.heading
    siblings = first.heading[:-1] == second.heading[:-1] or second.heading[:-1] == first.heading
    if not (siblings and cutter.is_small(first) and cutter.is_small(second)):
        return None
    common = _common_prefix(first.heading, second.heading)
    return common if cutter.fits(first.start, second.end, common) else None


def _common_prefix(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
    length = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        length += 1
    return first[:length]


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text.casefold()))


class _Cutter:
    """Counts and cuts within one document; remembers what each word and heading path costs."""

    def __init__(self, document: Document, count_tokens: Callable[[str], int], budget: int, overlap: int) -> None:
        self.text = document.text
        self._title = document.title
        self._count = count_tokens
        self._budget = budget
        self._overlap = overlap
        self._words: dict[str, int] = {}
        self._headers: dict[tuple[str, ...], tuple[tuple[str, ...], int]] = {}
        self._checked: dict[tuple[int, int, tuple[str, ...]], bool] = {}

    def tokens(self, text: str) -> int:
        """About how many tokens a text has, word by word; tokenizers see little beyond the word.

        Counting a stretch anew for every place it could be cut at would take ten times as long.
        """
        by_length = -(-len(text) // MAX_CHARACTERS_PER_TOKEN)
        if by_length > self._budget:
            return by_length
        words = self._words
        total = 0
        for word in text.split():
            known = words.get(word)
            if known is None:
                known = words[word] = self._count(word)
            total += known
        return max(total, by_length)

    def is_small(self, part: _Part) -> bool:
        """Whether a part would be too small a chunk."""
        return self.tokens(self.text[part.start : part.end]) < SMALL_TOKENS

    def is_bare_heading(self, part: _Part) -> bool:
        """Whether a part is nothing but its own heading, or the title: its words are on the path of what follows."""
        written = _letters(self.text[part.start : part.end][:1000])
        return bool(written) and written in _letters(part.heading[-1] if part.heading else self._title)

    def fits(self, start: int, end: int, heading: tuple[str, ...]) -> bool:
        """Whether a span fits into one chunk."""
        fitting, room = self._header(heading)
        return self.tokens(self.text[start:end]) <= room and self._is_within(start, end, fitting)

    def cut(self, part: _Part) -> Iterator[tuple[int, int, tuple[str, ...]]]:
        """(start, end, heading) of the part's chunks, each within the budget."""
        heading, room = self._header(part.heading)
        if self.fits(part.start, part.end, part.heading):
            yield part.start, part.end, heading
            return
        overlap = min(self._overlap, room // 2)
        previous = part.start - 1
        for start, end in self._merged(part, room, overlap):
            begin = self._overlapping(part.start, start, overlap) if previous >= part.start else start
            if begin > previous and self._is_within(begin, end, heading):
                yield begin, end, heading
                previous = begin
                continue
            for core_start, core_end in self._within(start, end, heading):
                yield core_start, core_end, heading
                previous = core_start

    def _is_within(self, start: int, end: int, heading: tuple[str, ...]) -> bool:
        """Whether a span with its heading is within the budget, counted exactly."""
        if end - start > self._budget * MAX_CHARACTERS_PER_TOKEN:
            return False
        span = start, end, heading
        if span not in self._checked:
            written = embedder_input(self._title, heading, self.text[start:end])
            self._checked[span] = self._count(written) <= self._budget
        return self._checked[span]

    def _header(self, path: tuple[str, ...]) -> tuple[tuple[str, ...], int]:
        """The heading path as far as it fits, and the tokens it leaves for the text."""
        if path not in self._headers:
            heading = self._shortened(path)
            self._headers[path] = heading, self._budget - self._count(embedder_input(self._title, heading, ""))
        return self._headers[path]

    def _shortened(self, path: tuple[str, ...]) -> tuple[str, ...]:
        limit = int(self._budget * _HEADER_SHARE)

        def is_short(heading: tuple[str, ...]) -> bool:
            return self._count(embedder_input(self._title, heading, "")) <= limit

        if is_short(path):
            return path
        kept: tuple[str, ...] = ()
        while len(kept) < len(path) and is_short((_LEFT_OUT, *path[-len(kept) - 1 :])):
            kept = path[-len(kept) - 1 :]
        if kept or not path:
            return (_LEFT_OUT, *kept)
        # Even the innermost heading is too long: a paragraph that was made a heading. Its beginning is kept.
        innermost = path[-1][: limit * MAX_CHARACTERS_PER_TOKEN]
        while innermost and not is_short((_LEFT_OUT, innermost + _LEFT_OUT)):
            innermost = innermost[: len(innermost) * 3 // 4].rstrip()
        return (_LEFT_OUT, innermost + _LEFT_OUT) if innermost else (_LEFT_OUT,)

    def _merged(self, part: _Part, room: int, overlap: int) -> Iterator[tuple[int, int]]:
        """Spans as semchunk finds them, small remainders joined with what follows.

        The first may fill the room, so that a heading stays with its text; the others leave place for the overlap.
        """
        current: tuple[int, int] | None = None
        size = room
        for start, end in self._pieces(part, room - overlap):
            if current is not None and self.tokens(self.text[current[0] : end]) <= size:
                current = current[0], end
                continue
            if current is not None:
                yield current
                size = room - overlap
            current = start, end
        if current is not None:
            yield current

    def _pieces(self, part: _Part, size: int) -> Iterator[tuple[int, int]]:
        for stretch_start, stretch_end in self._stretches(part):
            stretch = self.text[stretch_start:stretch_end]
            offsets = cut_semantically(stretch, size, self.tokens, memoize=False, offsets=True)[1]
            for start, end in cast(list[tuple[int, int]], offsets):
                for piece in _trimmed(self.text, stretch_start + start, stretch_start + end, (), None):
                    yield piece.start, piece.end

    def _stretches(self, part: _Part) -> Iterator[tuple[int, int]]:
        """The part in stretches of a bounded length, cut at a paragraph's, a line's or a word's end where there is one."""
        start = part.start
        while part.end - start > _STRETCH_CHARACTERS:
            limit = start + _STRETCH_CHARACTERS
            half = start + _STRETCH_CHARACTERS // 2
            places = (self.text.rfind(separator, half, limit) for separator in ("\n\n", "\n", " "))
            end = next((place for place in places if place > 0), limit)
            yield start, end
            start = end
        yield start, part.end

    def _within(self, start: int, end: int, heading: tuple[str, ...]) -> Iterator[tuple[int, int]]:
        """The span, halved until it is within the budget: for tokenizers that join words, and for huge characters."""
        if end - start <= 1 or self._is_within(start, end, heading):
            yield start, end
            return
        middle = (start + end) // 2
        space = max(self.text.rfind(" ", start, middle), self.text.rfind("\n", start, middle))
        middle = space if space > start else middle
        for half_start, half_end in ((start, middle), (middle, end)):
            for half in _trimmed(self.text, half_start, half_end, (), None):
                yield from self._within(half.start, half.end, heading)

    def _overlapping(self, earliest: int, start: int, overlap: int) -> int:
        """Where a chunk begins that shares about `overlap` tokens with the one before it.

        At the start of a line or of a sentence if there is one; in the middle of one otherwise, but never inside a
        table's row, whose second half says nothing.
        """
        window_start = max(earliest, start - overlap * MAX_CHARACTERS_PER_TOKEN)
        window = self.text[window_start:start]
        words = [(word.start(), word.end()) for word in _WORD.finditer(window)]
        if words and words[0][0] == 0 and window_start > earliest:
            del words[0]
        spent = 0
        first = len(words)
        while first > 0:
            spent += self.tokens(window[words[first - 1][0] : words[first - 1][1]])
            if spent > overlap:
                break
            first -= 1
        if first == len(words):
            return self._overlapping_characters(window_start, start, overlap)
        for number in range(first, len(words)):
            gap_start = words[number - 1][1] if number else 0
            gap = window[gap_start : words[number][0]]
            ended = _SENTENCE_END.search(window[max(0, gap_start - 4) : gap_start]) is not None
            begins_sentence = ended and not window[words[number][0]].islower()
            if "\n" in gap or begins_sentence:
                return window_start + words[number][0]
        line_start = self.text.rfind("\n", earliest, start) + 1
        beginning = max(line_start, earliest)
        if _ROW.match(self.text[beginning : min(start, beginning + 400)]):
            return start
        return window_start + words[first][0]

    def _overlapping_characters(self, earliest: int, start: int, overlap: int) -> int:
        """The same where words are not separated by spaces, or where one word is longer than the overlap."""
        shared = min(overlap, start - earliest)
        while shared > 0 and self.tokens(self.text[start - shared : start]) > overlap:
            shared //= 2
        begin = start - shared
        while begin < start and self.text[begin].isspace():
            begin += 1
        return begin
