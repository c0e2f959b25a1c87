"""What a file's first bytes say it is."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from io import BytesIO

_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
# The stream that holds an Office file saved with a password.
_ENCRYPTED_PACKAGE = "EncryptedPackage".encode("utf-16-le")
# A PDF may begin with other bytes; readers look this far (PDF 1.7 specification, implementation note 13).
_PDF_WITHIN_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Kind:
    """What a file really is. `format` is one that is read, or None."""

    description: str
    format: str | None = None
    encrypted: bool = False
    advice: str = ""


_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", Kind("a PNG image", advice="run OCR over it and add the text")),
    (b"\xff\xd8\xff", Kind("a JPEG image", advice="run OCR over it and add the text")),
    (b"II*\x00", Kind("a TIFF image", advice="run OCR over it and add the text")),
    (b"MM\x00*", Kind("a TIFF image", advice="run OCR over it and add the text")),
    (b"GIF8", Kind("a GIF image")),
    (b"\x1f\x8b\x08", Kind("a gzip archive", advice="unpack it")),
    (b"7z\xbc\xaf\x27\x1c", Kind("a 7z archive", advice="unpack it")),
    (b"Rar!\x1a\x07", Kind("a RAR archive", advice="unpack it")),
    (b"BZh91AY&SY", Kind("a bzip2 archive", advice="unpack it")),
    (b"{\\rtf", Kind("a rich text (RTF) document", advice="save it as .docx")),
    (b"\x7fELF", Kind("a program")),
    (b"SQLite format 3\x00", Kind("an SQLite database")),
    (b"%!PS", Kind("a PostScript file", advice="save it as .pdf")),
)


def kind_of(data: bytes) -> Kind | None:
    """The kind of a file with a telling beginning; None for text and for what is not known."""
    if data.startswith(_OLE):
        return _ole(data)
    if data.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip(data)
    for signature, kind in _SIGNATURES:
        if data.startswith(signature):
            return kind
    beginning = data[:_PDF_WITHIN_BYTES]
    # Further in, the mark may be a text's that speaks of PDF files; those have no zero or high bytes around it.
    if data.startswith(b"%PDF-") or (b"%PDF-" in beginning and b"endobj" in data and not data[:1].isalnum()):
        return Kind("a PDF", format="pdf")
    if beginning.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype html", b"<html")):
        return Kind("a web page", format="html")
    return None


def _ole(data: bytes) -> Kind:
    if _ENCRYPTED_PACKAGE in data:
        return Kind("an Office file with a password", encrypted=True)
    return Kind("an Office file of the old format (.doc, .xls, .ppt or .msg)", advice="save it in today's format")


def _zip(data: bytes) -> Kind | None:
    try:
        with zipfile.ZipFile(BytesIO(data)) as package:
            names = package.namelist()
    # A zip that is cut off has lost its list of parts: the format's own reader says so.
    except (zipfile.BadZipFile, OSError, ValueError, LookupError, NotImplementedError):
        names = []
        if b"word/" in data[:20_000]:
            return Kind("a damaged Word document", format="docx")
        if b"ppt/" in data[:20_000]:
            return Kind("a damaged presentation", format="pptx")
        if b"xl/" in data[:20_000]:
            return Kind("a damaged workbook", format="xlsx")
        return Kind("a damaged zip archive", advice="get a new copy of the file")
    for folder, kind in (
        ("word/", Kind("a Word document", format="docx")),
        ("ppt/", Kind("a presentation", format="pptx")),
        ("xl/", Kind("a workbook", format="xlsx")),
    ):
        if any(part.startswith(folder) for part in names):
            return kind
    return Kind("a zip archive", advice="unpack it")
