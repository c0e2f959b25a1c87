"""Workbooks: every sheet is a section, every row a line that is understood alone. The only importer of openpyxl."""

from __future__ import annotations

import datetime
import warnings
from collections.abc import Iterator
from io import BytesIO
from typing import Any

from openpyxl import load_workbook
from openpyxl.formula.tokenizer import TokenizerError
from openpyxl.formula.translate import TranslatorError
from openpyxl.utils import exceptions

from ingest.readers.extract import Block, Extract, as_title, assemble, one_line, row_line, title_from_name
from ingest.readers.ooxml import DAMAGED, check_package, damaged

LIBRARY_ERRORS: tuple[type[Exception], ...] = (
    exceptions.CellCoordinatesException,
    exceptions.IllegalCharacterError,
    exceptions.NamedRangeException,
    exceptions.SheetTitleException,
    exceptions.InvalidFileException,
    exceptions.ReadOnlyWorkbookException,
    exceptions.WorkbookAlreadySaved,
    TokenizerError,
    TranslatorError,
)

# A header stands near the top; further down, a row of words is data.
_HEADER_WITHIN_ROWS = 10


def read_xlsx(name: str, data: bytes) -> Extract:
    """Rows as `Header: value; Header: value` with the values the file was saved with; hidden sheets are left out."""
    check_package(name, data)
    try:
        return _extract(name, data)
    except (*LIBRARY_ERRORS, *DAMAGED) as error:
        raise damaged(name, error) from error


def _extract(name: str, data: bytes) -> Extract:
    # openpyxl warns of drawings and validations that it drops, which hold no cells.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        workbook = load_workbook(BytesIO(data), read_only=True, data_only=True)
        try:
            blocks: list[Block] = []
            hidden: list[str] = []
            for number, sheet in enumerate(workbook.worksheets, start=1):
                if sheet.sheet_state != "visible":
                    hidden.append(one_line(sheet.title))
                    continue
                lines = list(_lines(sheet))
                if lines:
                    blocks.append(Block(sheet.title, level=1, page=number))
                    blocks.extend(Block(line, page=number, tight=position > 0) for position, line in enumerate(lines))
            properties = workbook.properties
        finally:
            workbook.close()
    text, sections = assemble(blocks)
    moment = properties.modified or properties.created
    metadata = {
        "author": one_line(properties.creator or ""),
        "date": moment.date().isoformat() if moment is not None else "",
        "hidden_sheets": ", ".join(hidden),
    }
    return Extract(
        title=as_title(properties.title) or title_from_name(name),
        text=text,
        sections=sections,
        language=one_line(properties.language or "") or None,
        metadata={key: value for key, value in metadata.items() if value and value != "openpyxl"},
    )


def _lines(sheet: Any) -> Iterator[str]:
    # Some programs write a wrong extent, which would cut the sheet off.
    sheet.reset_dimensions()
    header: list[str] | None = None
    may_be_header = True
    seen = 0
    for row in sheet.iter_rows():
        cells = [_written(cell) for cell in row]
        if not any(cells):
            continue
        seen += 1
        if may_be_header and _is_header(row, cells):
            header, may_be_header = cells, False
            header_line = " | ".join(cell for cell in cells if cell)
            continue
        # Once data has begun, no header follows: lines of one cell above a table are its caption.
        may_be_header = may_be_header and seen < _HEADER_WITHIN_ROWS and sum(map(bool, cells)) == 1
        yield row_line(header, cells)
        header_line = ""
    if header is not None and header_line:
        yield header_line


def _is_header(row: tuple[Any, ...], cells: list[str]) -> bool:
    """Mostly text, in at least two columns, and no text twice."""
    texts = [cell for cell, source in zip(cells, row, strict=True) if cell and isinstance(source.value, str)]
    return len(texts) >= 2 and 2 * len(texts) > sum(map(bool, cells)) and len(set(texts)) == len(texts)


def _written(cell: Any) -> str:
    """A value as a person writes it: ISO dates, whole numbers without a point, percentages as shown."""
    value = cell.value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime.datetime):
        return value.date().isoformat() if value.time() == datetime.time() else value.isoformat(sep=" ")
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, int | float):
        if "%" in str(cell.number_format):
            return f"{value * 100:.10g}%"
        return f"{value:.15g}"
    return one_line(str(value))
