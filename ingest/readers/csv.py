"""Comma-separated values: every row a line that is understood alone. Uses the standard library's parser."""

from __future__ import annotations

import csv
import io
from collections import Counter

from corpus.errors import DocumentError
from ingest.readers.extract import Block, Extract, assemble, clean, one_line, row_line, title_from_name
from ingest.readers.text import decode

# The library's default of 131,072 characters is less than one long note in an export.
csv.field_size_limit(50_000_000)

_DELIMITERS = ",;\t|"


def read_csv(name: str, data: bytes) -> Extract:
    """Rows as `Header: value; Header: value`, the delimiter and the encoding found from the file itself."""
    text = clean(decode(name, data))
    try:
        rows = [row for row in _rows(text, _delimiter(text)) if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise DocumentError(name, f"it is not a table of separated values ({error})", "export it again") from error
    header = _header(rows)
    lines = rows if header is None or len(rows) == 1 else rows[1:]
    joined, sections = assemble(Block(row_line(header if lines is not rows else None, row), tight=True) for row in lines)
    return Extract(title=title_from_name(name), text=joined, sections=sections)


def _rows(text: str, delimiter: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))


def _delimiter(text: str) -> str:
    """The delimiter that gives most of the first rows the same number of columns, and at least two."""
    sample = "\n".join(text[:100_000].split("\n")[:50])

    def regularity(delimiter: str) -> tuple[float, int]:
        widths = Counter(len(row) for row in _rows(sample, delimiter) if row)
        if not widths:
            return 0.0, 0
        width, rows = widths.most_common(1)[0]
        return (rows / widths.total(), width) if width > 1 else (0.0, 0)

    # max keeps the first of equals: a comma where nothing separates anything.
    return max(_DELIMITERS, key=regularity)


def _header(rows: list[list[str]]) -> list[str] | None:
    """The first row, where its cells are different words and not numbers."""
    if not rows:
        return None
    names = [one_line(cell) for cell in rows[0]]
    filled = [name for name in names if name]
    if len(filled) < 2 or len(set(filled)) < len(filled) or any(_is_number(name) for name in filled):
        return None
    return names


def _is_number(value: str) -> bool:
    return value.strip("+-$€£% ").replace(".", "").replace(",", "").replace(" ", "").isdigit()
