"""What every reader produces, and how text, titles and sections are put together. Imports only `corpus`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from corpus.errors import DocumentError
from corpus.types import Section

TITLE_CHARACTERS = 200

_NEWLINES = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
_UNWANTED = re.compile("[\x00-\x08\x0e-\x1f\x7f\xad\u2060-\u2064\ufeff]")
_LONE_SURROGATES = re.compile("[\ud800-\udfff]")
_MEANINGLESS_TITLES = frozenset(
    ("untitled", "(anonymous)", "anonymous", "(unspecified)", "powerpoint presentation", "word document", "document")
)
_PROGRAM_TITLE = re.compile(r"^(microsoft \w+ - |.*\.(docx?|pptx?|xlsx?|pdf|indd|tex|dvi|odt|txt)$)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Extract:
    """What a reader found in a file, or in one row of an export.

    `sections` cover the text in order. `row_id` is an export row's own id. `language` is set only where the document
    declares it; `groups` and `label` only where its front matter or a row of an export names them, `source` only where a
    row does.
    """

    title: str
    text: str
    sections: tuple[Section, ...]
    row_id: str | None = None
    language: str | None = None
    groups: tuple[str, ...] | None = None
    label: str | None = None
    source: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Block:
    """A paragraph, or a heading where `level` is given (1 is the outermost).

    A heading without text ends the headings above it and writes nothing. A `tight` block follows the one before it on
    the next line, such as a table's row.
    """

    text: str
    level: int | None = None
    page: int | None = None
    tight: bool = False


def clean(text: str) -> str:
    r"""Text as it is stored: `\n` line ends, no control characters or invisible joints, no lone surrogates."""
    return _LONE_SURROGATES.sub("\ufffd", _UNWANTED.sub("", _NEWLINES.sub("\n", text)))


def one_line(text: str) -> str:
    """Text with every run of white space made one space."""
    return " ".join(clean(text).replace("\u200b", "").split())


def title_from_name(name: str) -> str:
    """A file's name made readable: `travel_expenses-2024.pdf` becomes `Travel expenses 2024`."""
    stem = PurePosixPath(name).stem
    # A hyphen between digits belongs to a date or a number.
    readable = one_line(re.sub(r"_+|(?<!\d)-+|-+(?!\d)", " ", stem)) or stem
    return readable[:1].upper() + readable[1:TITLE_CHARACTERS]


def as_title(text: str | None) -> str | None:
    """A title cut to a sensible length, or None for an empty one and for what programs write of their own accord."""
    title = one_line(text or "")
    if not title or title.casefold() in _MEANINGLESS_TITLES or _PROGRAM_TITLE.match(title):
        return None
    return title if len(title) <= TITLE_CHARACTERS else title[: TITLE_CHARACTERS - 1].rstrip() + "…"


def is_title(heading: str, title: str) -> bool:
    """Whether a document's first heading only repeats its title (a web page's title often adds the site's name)."""
    return one_line(heading).casefold() in title.casefold()


def assemble(blocks: Iterable[Block], *, leave_out: str | None = None) -> tuple[str, tuple[Section, ...]]:
    """Join blocks into the document's text, and note where each heading and page begins.

    `leave_out` is the document's title: a first, outermost heading that repeats it is not part of the heading path.
    """
    parts: list[str] = []
    length = 0
    path: list[tuple[int, str]] = []
    first_heading = True
    marks: list[tuple[int, tuple[str, ...], int | None]] = []
    for block in blocks:
        if block.level is not None:
            while path and path[-1][0] >= block.level:
                path.pop()
            heading = one_line(block.text)
            repeats_title = first_heading and leave_out is not None and is_title(heading, leave_out)
            if heading and not (repeats_title and block.level == 1):
                path.append((block.level, heading))
            first_heading = first_heading and not heading
        text = block.text.strip("\n")
        if not text.strip():
            continue
        if parts:
            separator = "\n" if block.tight else "\n\n"
            parts.append(separator)
            length += len(separator)
        headings = tuple(heading for _, heading in path)
        if not marks or block.level is not None or marks[-1][1:] != (headings, block.page):
            marks.append((length, headings, block.page))
        parts.append(text)
        length += len(text)
    return "".join(parts), sections_of(marks, length)


def sections_of(marks: Sequence[tuple[int, tuple[str, ...], int | None]], length: int) -> tuple[Section, ...]:
    """Sections that cover `length` characters, each from its mark (start, heading path, page) to the next."""
    if not marks:
        return (Section(0, length),)
    starts = [0, *(start for start, _, _ in marks[1:])]
    ends = [*starts[1:], length]
    return tuple(
        Section(start, end, heading, page)
        for start, end, (_, heading, page) in zip(starts, ends, marks, strict=True)
        if end > start
    )


def row_line(header: Sequence[str] | None, cells: Sequence[str]) -> str:
    """A table's row that is understood alone: `Header: value; Header: value`; without a header just the values."""
    named = []
    for number, cell in enumerate(cells):
        value = one_line(cell)
        if value:
            name = header[number] if header is not None and number < len(header) else ""
            named.append(f"{name}: {value}" if name else value)
    return "; ".join(named)


def no_text(name: str) -> DocumentError:
    """The error for a file that can be read but holds nothing to find."""
    return DocumentError(name, "there is no text in it", "remove the file or put the missing text in")
