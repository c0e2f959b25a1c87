"""Word documents. The only importer of python-docx."""

from __future__ import annotations

import re
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import docx
from docx.exceptions import PythonDocxError
from docx.image.exceptions import InvalidImageStreamError, UnexpectedEndOfFileError, UnrecognizedImageError
from docx.opc.exceptions import OpcError
from docx.oxml.exceptions import XmlchemyError
from docx.oxml.ns import qn

from ingest.readers.extract import Block, Extract, as_title, assemble, clean, one_line, title_from_name
from ingest.readers.ooxml import DAMAGED, check_package, damaged

LIBRARY_ERRORS: tuple[type[Exception], ...] = (
    PythonDocxError,
    OpcError,
    XmlchemyError,
    InvalidImageStreamError,
    UnexpectedEndOfFileError,
    UnrecognizedImageError,
)

# Word stores its built-in style names in English; other programs write the user's language.
_HEADING = re.compile(
    r"(?:heading|überschrift|titre|título|titolo|kop|rubrik|overskrift|otsikko|nagłówek|nadpis|заголовок|標題|标题|見出し)"
    r"\s*([1-9])$",
    re.IGNORECASE,
)
_TITLE = frozenset(("title", "titel"))
_MATH_TEXT = "{http://schemas.openxmlformats.org/officeDocument/2006/math}t"
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_WRAPPERS = tuple(qn(tag) for tag in ("w:sdt", "w:sdtContent", "w:customXml", "w:smartTag", "w:ins", "w:moveTo"))
_MAX_TABLE_DEPTH = 20


def read_docx(name: str, data: bytes) -> Extract:
    """Paragraphs, lists and tables in order; headers, footers, comments and deleted text are left out."""
    check_package(name, data)
    try:
        return _extract(name, data)
    except (*LIBRARY_ERRORS, *DAMAGED) as error:
        raise damaged(name, error) from error


def _extract(name: str, data: bytes) -> Extract:
    document = docx.Document(BytesIO(data))
    styles = _Styles(document)
    blocks: list[Block] = []
    title_paragraph: str | None = None
    for element in _elements(document.element.body):
        if element.tag == qn("w:tbl"):
            rows = [row for row in _rows(element) if row]
            blocks.extend(Block(row, tight=number > 0) for number, row in enumerate(rows))
            continue
        text = _text(element)
        if not text:
            continue
        kind = styles.kind(element)
        if kind == "title" and title_paragraph is None:
            title_paragraph = one_line(text)
            blocks.append(Block(text, level=1))
        elif isinstance(kind, int):
            blocks.append(Block(one_line(text), level=kind))
        elif kind == "list":
            blocks.append(Block(f"- {text}", tight=bool(blocks) and blocks[-1].text.startswith("- ")))
        else:
            blocks.append(Block(text))
    properties = document.core_properties
    first_heading = next((block.text for block in blocks if block.level == 1), None)
    title = as_title(properties.title) or as_title(title_paragraph) or as_title(first_heading) or title_from_name(name)
    # A title paragraph stands above every heading even where the properties name the document differently.
    text, sections = assemble(blocks, leave_out=title_paragraph or title)
    metadata = {"author": one_line(properties.author or ""), "date": _date(properties)}
    return Extract(
        title=title,
        text=text,
        sections=sections,
        language=one_line(properties.language or "") or None,
        metadata={key: value for key, value in metadata.items() if value and value != "python-docx"},
    )


def _date(properties: Any) -> str:
    moment = properties.modified or properties.created
    return moment.date().isoformat() if moment is not None else ""


def _elements(parent: Any, depth: int = 0) -> Iterator[Any]:
    """Paragraphs and tables in order, those inside content controls and tracked insertions too.

    python-docx's own iter_inner_content passes over everything that is wrapped.
    """
    for element in parent.iterchildren():
        if element.tag in (qn("w:p"), qn("w:tbl")):
            yield element
        elif element.tag in _WRAPPERS and depth < 50:
            yield from _elements(element, depth + 1)


def _text(paragraph: Any) -> str:
    """A paragraph's text with links, insertions, formulas and text boxes, without what was deleted."""
    pieces: list[str] = []
    stack = [paragraph]
    while stack:
        element = stack.pop()
        tag = element.tag
        if tag in (qn("w:t"), _MATH_TEXT):
            pieces.append(element.text or "")
        elif tag == qn("w:tab"):
            pieces.append("\t")
        elif tag in (qn("w:br"), qn("w:cr")):
            pieces.append("\n")
        elif tag == qn("w:noBreakHyphen"):
            pieces.append("-")
        elif tag not in (qn("w:pPr"), qn("w:rPr"), qn("w:del"), qn("w:moveFrom"), _FALLBACK):
            if tag == qn("w:p") and element is not paragraph:
                pieces.append("\n")
            stack.extend(reversed(element))
    return clean("".join(pieces)).strip()


def _rows(table: Any, depth: int = 0) -> list[str]:
    """A table's rows as `a | b`."""
    if depth > _MAX_TABLE_DEPTH:
        return []
    rows: list[str] = []
    for row in table.iterchildren(qn("w:tr")):
        cells = [_cell(cell, depth) for cell in _cells(row)]
        rows.append(" | ".join(cells) if any(cells) else "")
    return rows


def _cells(row: Any) -> Iterator[Any]:
    for element in row.iterchildren():
        if element.tag == qn("w:tc"):
            yield element
        elif element.tag in _WRAPPERS:
            yield from _cells(element)


def _cell(cell: Any, depth: int) -> str:
    parts = [
        "; ".join(row for row in _rows(element, depth + 1) if row) if element.tag == qn("w:tbl") else _text(element)
        for element in _elements(cell)
    ]
    return one_line(" ".join(part for part in parts if part))


class _Styles:
    """What each paragraph style means, looked up once by its id."""

    def __init__(self, document: Any) -> None:
        self._by_id = {style.style_id: style for style in document.styles}
        self._kinds: dict[str, int | str | None] = {}

    def kind(self, paragraph: Any) -> int | str | None:
        """A heading's level, "title", "list", or None for plain text."""
        properties = paragraph.find(qn("w:pPr"))
        if properties is None:
            return None
        level = _outline_level(properties)
        if level is not None:
            return level
        style = properties.find(qn("w:pStyle"))
        kind = self._of_style(str(style.get(qn("w:val"))) if style is not None else "")
        if kind is None and properties.find(qn("w:numPr")) is not None:
            return "list"
        return kind

    def _of_style(self, style_id: str) -> int | str | None:
        if style_id not in self._kinds:
            self._kinds[style_id] = self._look_up(style_id)
        return self._kinds[style_id]

    def _look_up(self, style_id: str) -> int | str | None:
        style = self._by_id.get(style_id)
        # A style inherits from the one it is based on; damaged files have circles.
        for _ in range(20):
            if style is None:
                return None
            style_name = style.name or ""
            if match := _HEADING.match(style_name):
                return int(match.group(1))
            if style_name.casefold() in _TITLE:
                return "title"
            if style_name.casefold().startswith("list"):
                return "list"
            properties = style.element.find(qn("w:pPr"))
            if properties is not None and (level := _outline_level(properties)) is not None:
                return level
            style = getattr(style, "base_style", None)
        return None


def _outline_level(properties: Any) -> int | None:
    """1 to 9 from Word's 0 to 8; 9 means body text."""
    element = properties.find(qn("w:outlineLvl"))
    value = element.get(qn("w:val"), "") if element is not None else ""
    return int(value) + 1 if value.isdigit() and int(value) < 9 else None
