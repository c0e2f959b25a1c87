"""Which reader reads a file: by its extension, checked against what the bytes really are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from corpus.errors import DocumentError
from corpus.formats import FORMATS, format_of
from ingest.readers.csv import read_csv
from ingest.readers.docx import read_docx
from ingest.readers.eml import read_eml
from ingest.readers.extract import Extract, no_text
from ingest.readers.html import read_html
from ingest.readers.jsonl import read_jsonl
from ingest.readers.kinds import kind_of
from ingest.readers.markdown import read_markdown
from ingest.readers.pdf import read_pdf
from ingest.readers.pptx import read_pptx
from ingest.readers.text import read_text
from ingest.readers.xlsx import read_xlsx

# Raise it when any reader's output changes: a document is unchanged only if its bytes and this are.
READER_VERSION = 3

_BINARY = ("pdf", "docx", "pptx", "xlsx")


def read(name: str, data: bytes) -> Iterator[Extract | DocumentError]:
    """What is in a file: one extract, or one for each row of an export, with an error in place of each bad row.

    `name` is the file's path as it is shown to people.

    Raises: DocumentError, once the first item is asked for, where the whole file cannot be read.
    """
    format_name = format_of(name)
    _check(name, data, format_name)
    if format_name == "jsonl":
        yield from read_jsonl(name, data)
        return
    extract = _read_one(name, data, format_name)
    if not extract.text.strip():
        raise no_text(name)
    yield extract


def _read_one(name: str, data: bytes, format_name: str | None) -> Extract:
    match format_name:
        case "markdown":
            return read_markdown(name, data)
        case "text":
            return read_text(name, data)
        case "html":
            return read_html(name, data)
        case "pdf":
            return read_pdf(name, data)
        case "docx":
            return read_docx(name, data)
        case "pptx":
            return read_pptx(name, data)
        case "xlsx":
            return read_xlsx(name, data)
        case "csv":
            return read_csv(name, data)
        case "eml":
            return read_eml(name, data)
        case _:
            raise _unknown(name)


def _check(name: str, data: bytes, format_name: str | None) -> None:
    if format_name is None:
        raise _unknown(name)
    if not data.strip(b"\x00 \t\r\n\x0b\x0c"):
        raise DocumentError(name, "the file is empty", "remove it or put the missing content in")
    kind = kind_of(data)
    if kind is None and format_name in _BINARY:
        raise DocumentError(
            name, f"it is not a {format_name.upper()} file, or its beginning is damaged", "get a new copy of the file"
        )
    if kind is None or kind.format == format_name:
        return
    if kind.encrypted:
        raise DocumentError(name, "it is encrypted with a password", "save a copy without the password")
    advice = "exclude it, or save it in a format that is read"
    if kind.format is not None:
        advice = f"rename it to end in .{kind.format}"
    elif kind.advice:
        advice = kind.advice
    raise DocumentError(name, f"wrong extension: it is really {kind.description}", advice)


def _unknown(name: str) -> DocumentError:
    extension = PurePosixPath(name).suffix
    return DocumentError(
        name,
        f"unknown format {extension!r}" if extension else "it has no extension, so its format is unknown",
        f"convert it to one of {', '.join(FORMATS)}, or exclude it",
    )
