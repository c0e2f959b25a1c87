"""PDF files, page by page. The only importer of pypdfium2.

PDFium is not thread-safe: one thread of a process may be in here at a time.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

import pypdfium2
from pypdfium2 import PdfiumError
from pypdfium2 import raw as pdfium

from corpus.errors import DocumentError
from ingest.readers.extract import Block, Extract, as_title, assemble, clean, one_line, title_from_name

_MAX_PAGES = 20_000
_DATE = re.compile(r"D:(\d{4})(\d{2})(\d{2})")
# PDFium writes U+FFFE where a word is broken at the end of a line.
_BROKEN_WORD = re.compile("\ufffe[ \t]*\n?[ \t]*")
_LIST_ITEM = re.compile(r"(?:[•▪◦‣●○■□\u2013\u2014*-]|\(?\d{1,3}[.)]|\(?[a-z][.)])\s")

# A line is taken for a heading from this ratio to the body's font size on.
_HEADING_RATIO = 1.15
# Where more of the lines than this would be headings, the sizes mean something else (a poster, a form).
_HEADING_SHARE = 0.2
_HEADING_CHARACTERS = 100


@dataclass(slots=True)
class _Line:
    """A line of a page. `width` counts the characters of the last printed line in it."""

    text: str
    size: float
    width: int
    level: int | None = None


@dataclass(slots=True)
class _Page:
    number: int
    lines: list[_Line] = field(default_factory=list)


def read_pdf(name: str, data: bytes) -> Extract:
    """Every page's text; headings from the outline, else from font sizes. Damaged pages are left out and named."""
    try:
        document = pypdfium2.PdfDocument(data)
    except PdfiumError as error:
        raise _cannot_open(name, error) from error
    with document:
        if len(document) > _MAX_PAGES:
            raise DocumentError(name, f"it has {len(document)} pages, more than {_MAX_PAGES}", "split the file")
        pages, damaged = _pages(document)
        page_count = len(document)
        outline = _outline(document)
        info = {key: clean(value) for key, value in document.get_metadata_dict(skip_empty=True).items()}
    if len(damaged) == page_count:
        raise DocumentError(name, f"none of its {page_count} pages can be read", "the file is damaged; get a new copy")
    if not any(line.text for page in pages for line in page.lines):
        raise DocumentError(
            name,
            f"no text layer on its {page_count} pages; it is probably scanned",
            "run OCR over it and add the result",
        )
    if not _mark_outline(pages, outline):
        _mark_by_size(pages)
    title = as_title(info.get("Title")) or _first_line_title(pages) or title_from_name(name)
    text, sections = assemble((block for page in pages for block in _blocks(page)), leave_out=title)
    return Extract(title=title, text=text, sections=sections, metadata=_metadata(info, damaged))


def _cannot_open(name: str, error: PdfiumError) -> DocumentError:
    if error.err_code in (pdfium.FPDF_ERR_PASSWORD, pdfium.FPDF_ERR_SECURITY):
        return DocumentError(name, "it is encrypted with a password", "save a copy without the password")
    return DocumentError(name, f"the PDF is damaged or cut off ({error})", "get a new copy of the file")


def _pages(document: pypdfium2.PdfDocument) -> tuple[list[_Page], list[int]]:
    pages: list[_Page] = []
    damaged: list[int] = []
    for index in range(len(document)):
        try:
            pages.append(_Page(index + 1, _lines(document, index)))
        except PdfiumError:
            damaged.append(index + 1)
    return pages, damaged


def _lines(document: pypdfium2.PdfDocument, index: int) -> list[_Line]:
    page = document[index]
    try:
        text_page = page.get_textpage()
        try:
            text = text_page.get_text_range()
            lines: list[_Line] = []
            position = 0
            for line in text.split("\r\n"):
                # Positions count UTF-16 units there and code points here; beyond the basic plane this is off by a few
                # characters, which is still the same line or the next.
                size = float(pdfium.FPDFText_GetFontSize(text_page, position)) if line else 0.0
                lines.append(_Line(line, round(size, 1), len(line)))
                position += len(line) + 2
            return _clean_lines(lines)
        finally:
            text_page.close()
    finally:
        page.close()


def _clean_lines(lines: list[_Line]) -> list[_Line]:
    """Words broken at the end of a line are joined into the first line."""
    cleaned: list[_Line] = []
    carry: _Line | None = None
    for line in lines:
        if carry is not None:
            carry.text += line.text.lstrip()
            carry.width = line.width
            line, carry = carry, None
        if line.text.rstrip().endswith("\ufffe"):
            line.text = line.text.rstrip().rstrip("\ufffe")
            carry = line
            continue
        cleaned.append(line)
    if carry is not None:
        carry.text += "-"
        cleaned.append(carry)
    for line in cleaned:
        line.text = one_line(_BROKEN_WORD.sub("", line.text))
    return [line for line in cleaned if line.text]


def _outline(document: pypdfium2.PdfDocument) -> list[tuple[int, int, str]]:
    """(page number, level, title) of the document's own table of contents."""
    entries: list[tuple[int, int, str]] = []
    for bookmark in document.get_toc():
        destination = bookmark.get_dest()
        index = destination.get_index() if destination is not None else None
        title = one_line(bookmark.get_title())
        if index is not None and title:
            entries.append((index + 1, bookmark.level + 1, title))
        if len(entries) == 10_000:
            break
    return entries


def _mark_outline(pages: list[_Page], outline: list[tuple[int, int, str]]) -> bool:
    """Mark the line that each entry of the outline points at; an entry that is on no line is left out."""
    by_number = {page.number: page for page in pages}
    found = False
    for number, level, title in outline:
        page = by_number.get(number)
        wanted = _squeezed(title)
        for line in page.lines if page is not None else ():
            written = _squeezed(line.text)
            # A heading's number is in the line and often not in the outline.
            if line.level is None and (written == wanted or written.lstrip("0123456789.") == wanted):
                line.level = level
                found = True
                break
    return found


def _squeezed(text: str) -> str:
    return "".join(text.split()).casefold()


def _mark_by_size(pages: list[_Page]) -> None:
    """Lines set clearly larger than the body are headings, the largest of three sizes outermost."""
    characters: Counter[float] = Counter()
    for page in pages:
        for line in page.lines:
            characters[line.size] += len(line.text)
    body = characters.most_common(1)[0][0]
    candidates = [line for page in pages for line in page.lines if _stands_out(line, body)]
    if len(candidates) > _HEADING_SHARE * sum(len(page.lines) for page in pages):
        return
    sizes = sorted({line.size for line in candidates}, reverse=True)[:3]
    for line in candidates:
        if line.size in sizes:
            line.level = sizes.index(line.size) + 1


def _stands_out(line: _Line, body: float) -> bool:
    return (
        line.size >= _HEADING_RATIO * body
        and len(line.text) <= _HEADING_CHARACTERS
        and sum(character.isalpha() for character in line.text) >= max(3, sum(map(str.isdigit, line.text)))
    )


def _first_line_title(pages: list[_Page]) -> str | None:
    """The first line, where it looks like a title and not like the beginning of a sentence or a form."""
    first = next(line for page in pages for line in page.lines)
    words = first.text.split()
    if len(first.text) > _HEADING_CHARACTERS or len(words) < 2 or first.text.endswith((".", ",", ";", ":")):
        return None
    return as_title(first.text) if sum(character.isalpha() for character in first.text) >= 8 else None


def _blocks(page: _Page) -> list[Block]:
    """The page's headings and the text between them, with the lines of a paragraph joined."""
    blocks: list[Block] = []
    body: list[str] = []
    full = _full_width(page)
    before: _Line | None = None
    for line in page.lines:
        if line.level is not None:
            if body:
                blocks.append(Block("\n".join(body), page=page.number))
                body = []
            blocks.append(Block(line.text, level=line.level, page=page.number))
        elif body and before is not None and _continues(before, line, full):
            body[-1] += " " + line.text
        else:
            body.append(line.text)
        before = line
    if body:
        blocks.append(Block("\n".join(body), page=page.number))
    return blocks


def _full_width(page: _Page) -> int:
    """The characters of a line that reaches the right margin: nearly the longest of the page."""
    widths = sorted(line.width for line in page.lines)
    return widths[-1 - len(widths) // 10] if widths else 0


def _continues(before: _Line, line: _Line, full: int) -> bool:
    """Whether a line belongs to the paragraph of the line before it.

    Forms and receipts have short lines and tables have numbers, which are not joined; a paragraph's lines reach nearly
    to the margin.
    """
    if full < 50 or before.width < 0.7 * full or _LIST_ITEM.match(line.text):
        return False
    if before.text.endswith((".", "!", "?", ":")) and line.text[:1].isupper():
        return False
    return line.text[:1].islower() or not (_is_row(before.text) or _is_row(line.text))


def _is_row(text: str) -> bool:
    """Whether at least three in ten words hold a digit, as in a table's row."""
    words = text.split()
    return 10 * sum(any(map(str.isdigit, word)) for word in words) >= 3 * len(words)


def _metadata(info: dict[str, str], damaged: list[int]) -> dict[str, str]:
    metadata: dict[str, str] = {}
    if author := as_title(info.get("Author")):
        metadata["author"] = author
    if match := _DATE.match(info.get("CreationDate", "")):
        metadata["date"] = "-".join(match.groups())
    if damaged:
        metadata["damaged_pages"] = ", ".join(str(number) for number in damaged)
    return metadata
