"""Cuts text into sentences with exact offsets, and tells how well words of one text stand in another. Pure functions."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache

from corpus.lexical import identifiers, stems
from corpus.words import content_words

LONGEST = 600
HEADING_WORDS = 10
WIDEST = 90
_BLOCK = re.compile(r"\s*(?:[-*+•‣]\s|\d{1,3}[.)]\s|\||#{1,6}\s|>\s|```)")
_ROW = re.compile(r"[^.:;!?\n]{1,40}: \S")
_RULE = re.compile(r"[\s|:\-=*_+]*")
# Possessive: a rule of dashes that ends in something else must not be tried again from each of them.
_MARKDOWN_RULE = re.compile(r"(?=\|?[^\S\n]*+:?-)(?:[|:\-]|[^\S\n])*+(?:\n|$)")
_NUMBERED = re.compile(r"\d{1,3}(?:\.\d{1,3})*[.)]?\s")
_HEADING = re.compile(r"\s*#{1,6}\s")
_END = re.compile(r"(?<![.!?…])[.!?…]++[\"'”’»)\]]*+(?=\s+[^\s a-zà-öø-ÿ]|\s*$)")
_LAST = re.compile(r"[.!?…][\"'”’»)\]*_`]*$")
_ONLY_NUMBER = re.compile(r"\s*\d{1,3}\.")
_SPACE = re.compile(r"\s*")
_ABBREVIATION = re.compile(
    r"(?:\b(?:e\.g|i\.e|etc|vs|approx|incl|excl|no|nos|fig|sec|dr|mr|mrs|ms|prof|st|z\.\s?b|d\.\s?h|bzw|ca|nr|abs|art|inkl|ggf|"
    r"usw|vgl|tel|sr|sra|ud|uds|p\.\s?ej|núm|pág|aprox)|\b[A-Za-z])\.$",
    re.IGNORECASE,
)
_MARKUP = re.compile(r"^\s*(?:[-*+•‣]\s+|#{1,6}\s+|>\s+)|\*\*|__|`|(?<=\s)_(?=\w)|(?<=\w)_(?=\s)")
FIGURE = re.compile(r"\d+(?:[.,:]\d+)*")


@dataclass(frozen=True, slots=True)
class Sentence:
    """A span of a text that can be quoted alone.

    `table_head` is the header row above it where it is a row of a Markdown table. `context` is what stands above it and it is
    read under: the nearest heading, the line that introduces its list. A heading, a title, a line that only introduces a list
    say nothing alone: `is_heading`.
    """

    start: int
    end: int
    text: str
    table_head: str | None = None
    is_heading: bool = False
    context: str = ""

    @property
    def plain(self) -> str:
        """The sentence without markup; a Markdown table's row as `Header: value; Header: value`."""
        if not self.text.lstrip().startswith("|"):
            return " ".join(_MARKUP.sub("", self.text).split())
        cells = _cells(self.text)
        if self.table_head is None:
            return "; ".join(cell for cell in cells if cell)
        heads = _cells(self.table_head)
        named = zip(heads + [""] * (len(cells) - len(heads)), cells, strict=False)
        return "; ".join(f"{head}: {cell}" if head else cell for head, cell in named if cell)


def _cells(row: str) -> list[str]:
    return [" ".join(_MARKUP.sub("", cell).split()) for cell in row.strip().strip("|").split("|")]


@lru_cache(maxsize=2048)
def split(text: str) -> tuple[Sentence, ...]:
    """The sentences, list entries and table rows of a text, in order. `text[s.start:s.end] == s.text` for each.

    A line that is only wrapped is not an end; a list entry, a table row, a heading and a blank line are.
    """
    found: list[Sentence] = []
    table_head: str | None = None
    in_table = False
    row_head: str | None = None
    heading = lead = ""
    blocks = _blocks(text)
    for (start, end), following in zip(blocks, [*blocks[1:], (len(text), len(text))], strict=False):
        block = text[start:end]
        if _RULE.fullmatch(block):
            continue
        if block.startswith("|"):
            if not in_table:
                in_table = True
                table_head = block if _MARKDOWN_RULE.match(text, _after_space(text, end, len(text))) else None
                if table_head is not None:
                    found.append(Sentence(start, end, block, is_heading=True))
                    continue
            found.append(Sentence(start, end, block, table_head, context=heading))
            continue
        in_table = False
        if " | " in block:
            next_is_row = " | " in text[slice(*following)]
            # A run of rows that begins within the text begins with its header.
            is_head = row_head is None and next_is_row and start > 0
            row_head = block if is_head else row_head or ""
            context = f"{heading} {row_head}".strip()
            found.append(Sentence(start, end, block, is_heading=is_head, context="" if is_head else context))
            continue
        row_head = None
        if _is_heading(block, text[slice(*following)]):
            heading, lead = " ".join(_MARKUP.sub("", block).split()), ""
            found.append(Sentence(start, end, block, is_heading=True))
            continue
        is_entry = _BLOCK.match(block) is not None
        context = f"{heading} {lead}".strip() if is_entry else heading
        sentences = [Sentence(a, b, text[a:b], context=context) for a, b in _cut(text, start, end)]
        if not is_entry:
            lead = ""
        if sentences[-1].text.endswith(":"):
            lead = sentences[-1].plain
            sentences[-1] = replace(sentences[-1], is_heading=True)
        found.extend(sentences)
    return tuple(found)


def _is_heading(block: str, following: str) -> bool:
    """A Markdown heading, or a short line alone that does not end like a sentence; numbered, if the next block is not."""
    if len(block) > LONGEST:
        return False
    if _HEADING.match(block):
        return True
    numbered = _NUMBERED.match(block)
    if numbered is not None and _NUMBERED.match(following):
        return False
    if "\n" in block or (_BLOCK.match(block) and numbered is None) or " | " in block or ": " in block:
        return False
    if len(block.split()) > HEADING_WORDS or block[-1] in ".!?:;,…\"'”’»)":
        return False
    return len(_cut(block, numbered.end() if numbered else 0, len(block))) <= 1


def _blocks(text: str) -> list[tuple[int, int]]:
    """Paragraphs, list entries and rows."""
    blocks: list[tuple[int, int]] = []
    begin: int | None = None
    last = position = 0
    previous = ""
    lines = text.split("\n")
    width = max(map(len, lines))
    for line in lines:
        start, end = position, position + len(line)
        position = end + 1
        if not line.strip():
            if begin is not None:
                blocks.append((begin, last))
                begin = None
            continue
        if begin is not None and _starts_new(previous, line, width):
            blocks.append((begin, last))
            begin = None
        if begin is None:
            begin = start
        last, previous = end, line
    if begin is not None:
        blocks.append((begin, last))
    return [(a + len(text[a:b]) - len(text[a:b].lstrip()), a + len(text[a:b].rstrip())) for a, b in blocks]


def _starts_new(previous: str, line: str, width: int) -> bool:
    if _BLOCK.match(line) or _HEADING.match(previous) or " | " in line or " | " in previous:
        return True
    if _ROW.match(line) and ("; " in line or _ROW.match(previous)):
        return True
    if line.lstrip()[:1].islower() or previous.rstrip().endswith((",", "-")):
        return False
    # A line that stops well before the margin was ended on purpose: an address, a heading, an entry.
    return len(previous) < 0.6 * min(width, WIDEST)


def _cut(text: str, start: int, end: int) -> list[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    begin = start
    for match in _END.finditer(text, start, end):
        if _ABBREVIATION.search(text, max(begin, match.start() - 12), match.end()):
            continue
        if match.start() - begin <= 3 and text[begin : match.start()].isdigit():  # the number of an entry
            continue
        spans.append((begin, match.end()))
        begin = _after_space(text, match.end(), end)
    if begin < end:
        spans.append((begin, end))
    return [piece for span in spans for piece in _shorten(text, *span)]


def is_ended(text: str) -> bool:
    """Whether a text ends with the end of a sentence, not of an abbreviation or of an entry's number."""
    end = _LAST.search(text[-12:])
    return end is not None and _ABBREVIATION.search(text, max(0, len(text) - 12)) is None and not _ONLY_NUMBER.fullmatch(text)


def _after_space(text: str, start: int, end: int) -> int:
    found = _SPACE.match(text, start, end)
    return found.end() if found else start


def _shorten(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """Pieces of at most LONGEST characters, cut at a semicolon, comma or space."""
    pieces = []
    while end - start > LONGEST:
        cut = max(text.rfind(mark, start + LONGEST // 2, start + LONGEST) for mark in ("; ", ", ", " "))
        cut = start + LONGEST if cut < 0 else cut + 1
        pieces.append((start, start + len(text[start:cut].rstrip())))
        start = _after_space(text, cut, end)
    return [*pieces, (start, end)] if start < end else pieces


@lru_cache(maxsize=16_384)
def _stems_of_word(word: str, language: str | None) -> tuple[str, ...]:
    return tuple(stems(word, language))


@lru_cache(maxsize=8192)
def stem_set(text: str, language: str | None) -> frozenset[str]:
    """All stems of a text."""
    return frozenset(stems(text, language))


@lru_cache(maxsize=8192)
def term_set(text: str, language: str | None) -> frozenset[str]:
    """All stems and all identifiers of a text."""
    return stem_set(text, language) | frozenset(identifiers(text))


def content_stems(text: str, language: str | None) -> list[str]:
    """The stems of a text's content words, each once, in order."""
    return list(dict.fromkeys(stem for word in content_words(text, language) for stem in _stems_of_word(word, language)))


def figures(text: str) -> set[str]:
    """Numbers and identifiers of a text, as written."""
    return set(FIGURE.findall(text)) | set(identifiers(text))
