"""Threat C8: files made to exhaust a reader, or to make it read or fetch what it should not, in every format we read."""

from __future__ import annotations

import io
import socket
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from corpus.errors import DocumentError
from ingest.isolation.process import ReaderProcess
from ingest.isolation.settings import IsolationSettings
from ingest.readers.extract import Extract

CANARY = "canary-7f3a-of-another-file"
WORD = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"
LAUGHS = "<!DOCTYPE d [<!ENTITY a 'ha'>" + "".join(
    f"<!ENTITY {name} '{f'&{before};' * 10}'>" for before, name in zip("abcdefghi", "bcdefghij", strict=True)
) + "]>"  # fmt: skip


@pytest.fixture(scope="module")
def process() -> Iterator[ReaderProcess]:
    """A reader's process with the limits that are the default, but less time."""
    made = ReaderProcess(IsolationSettings(cpu_s=20, wall_s=60))
    yield made
    made.close()


def package(parts: dict[str, str | bytes]) -> bytes:
    """An Office file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in parts.items():
            made.writestr(name, content)
    return buffer.getvalue()


def word(document: str | bytes, extra: dict[str, str | bytes] | None = None, relations: str = "") -> bytes:
    """A Word document with one main part."""
    return package({
        "[Content_Types].xml": '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"><Default '
        'Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        f'<Override PartName="/word/document.xml" ContentType="{WORD}"/></Types>',
        "_rels/.rels": '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship '
        'Id="r1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" '
        'Target="word/document.xml"/></Relationships>',
        "word/_rels/document.xml.rels": '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
        f"{relations}</Relationships>",
        "word/document.xml": document,
        **(extra or {}),
    })  # fmt: skip


def body(text: str, before: str = "") -> str:
    """A Word document's main part with one paragraph."""
    return (
        f'<?xml version="1.0"?>{before}<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main">'
        f"<w:body><w:p><w:r><w:t>{text}</w:t></w:r></w:p></w:body></w:document>"
    )


def pdf(*objects: str) -> bytes:
    """A PDF of some objects, the first its catalogue."""
    out, offsets = bytearray(b"%PDF-1.7\n"), []
    for number, content in enumerate(objects, start=1):
        offsets.append(len(out))
        out += f"{number} 0 obj\n{content}\nendobj\n".encode("latin-1")
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    size = len(objects) + 1
    end = f"trailer <</Size {size}/Root 1 0 R>>\nstartxref\n{len(out)}\n%%EOF"
    out += f"xref\n0 {size}\n0000000000 65535 f \n{table}{end}".encode()
    return bytes(out)


def page_with(stream: str) -> tuple[str, ...]:
    """The objects of a PDF of one page."""
    return (
        "<</Type/Catalog/Pages 2 0 R>>", "<</Type/Pages/Kids[3 0 R]/Count 1>>",
        "<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 200]/Contents 4 0 R/Resources<</Font<</F 5 0 R>>/XObject<</X 6 0 R>>>>>>",
        f"<</Length {len(stream)}>>\nstream\n{stream}\nendstream", "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
        "<</Type/XObject/Subtype/Form/BBox[0 0 9 9]/Resources<</XObject<</X 6 0 R>>>>/Length 4>>\nstream\n/X Do\nendstream",
    )  # fmt: skip


def hostile_files(canary: Path, port: int) -> dict[str, bytes]:
    """The files, by name. Each names the canary's path or the port where its format has a way to."""
    file, url = canary.as_uri(), f"http://127.0.0.1:{port}/"
    xxe = f'<!DOCTYPE d [<!ENTITY x SYSTEM "{file}"><!ENTITY % p SYSTEM "{url}"> %p;]>'
    zeros = word(b"<a>" + b" " * 60_000_000)
    nested = package({"word/document.xml": body("nested"), **{f"word/{n}.zip": zeros for n in range(3)}})
    sheet = (
        '<?xml version="1.0"?>{}<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>'
        '<row r="1"><c r="A1" t="inlineStr"><is><t>{}</t></is></c></row></sheetData></worksheet>'
    )
    relation = (
        '<Relationship Id="{}" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/{}" Target="{}" '
        'TargetMode="External"/>'
    )
    pages = 30_000
    many = ["<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]>>"] * pages
    return {
        "zip-bomb.docx": zeros,
        "nested-zip.docx": nested,
        "laughs.docx": word(body("&j;", LAUGHS)),
        "laughs-late.docx": word(body("&j;", " " * 5000 + LAUGHS)),
        "laughs-utf16.docx": word(body("&j;", LAUGHS).replace('?xml version="1.0"', '?xml version="1.0" encoding="UTF-16"')
                                  .encode("utf-16")),
        "xxe.docx": word(body("&x;", xxe)),
        "xxe-late.docx": word(body("&x;", " " * 5000 + xxe)),
        "template.docx": word(body("Hello."), relations=relation.format("r9", "attachedTemplate", url)
                              + relation.format("r8", "image", file)),
        "laughs.xlsx": package({"xl/worksheets/sheet1.xml": sheet.format(LAUGHS, "&j;"), "xl/workbook.xml": LAUGHS}),
        "xxe.pptx": package({"ppt/presentation.xml": f"{xxe}<a>&x;</a>"}),
        "laughs.html": f"{LAUGHS}<html><body><p>&j; words</p></body></html>".encode(),
        "fetch.html": (f'<!DOCTYPE html><html><head><link rel="stylesheet" href="{url}"><script src="{url}"></script></head>'
                       f'<body><iframe src="{file}"></iframe><img src="{url}"><object data="{file}"></object>'
                       '<p>words</p></body></html>'
                       ).encode(),
        "deep.html": b"<html><body>" + b"<div>" * 200_000 + b"words",
        "deep.md": b"> " * 50_000 + b"words\n",
        "deep.jsonl": b'{"id": "1", "text": ' + b"[" * 200_000 + b"\n",
        "aliases.md": b"---\na: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
            f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n".encode()
            for before, name in zip("abcdefgh", "bcdefghi", strict=True)
        ) + b"---\n# Title\n\nwords\n",
        "python.md": b"---\ntitle: !!python/object/apply:os.system ['echo canary']\n---\n# Title\n\nwords\n",
        "formula.csv": f"name,value\n=cmd|'/c calc'!A1,\"=HYPERLINK(\"\"{url}\"\")\"\n@SUM(1),-1+1\n".encode(),
        "parts.eml": b"Subject: deep\r\nMIME-Version: 1.0\r\n" + b"".join(
            f'Content-Type: multipart/mixed; boundary="b{n}"\r\n\r\n--b{n}\r\n'.encode() for n in range(2000)
        ) + b"Content-Type: text/plain\r\n\r\nwords\r\n",
        "external.eml": b"Subject: out\r\nContent-Type: message/external-body; access-type=URL; "
                        + f'URL="{url}"\r\n\r\nwords\r\n'.encode(),
        "kids-loop.pdf": pdf("<</Type/Catalog/Pages 2 0 R>>", "<</Type/Pages/Kids[2 0 R 2 0 R]/Count 1000000>>"),
        "form-loop.pdf": pdf(*page_with("/X Do BT /F 9 Tf (words) Tj ET")),
        "outline-loop.pdf": pdf("<</Type/Catalog/Pages 2 0 R/Outlines 3 0 R>>", "<</Type/Pages/Kids[]/Count 0>>",
                                "<</First 4 0 R/Last 4 0 R>>", "<</Title(x)/Parent 3 0 R/Next 4 0 R/First 4 0 R>>"),
        "length-loop.pdf": pdf("<</Type/Catalog/Pages 2 0 R>>", "<</Type/Pages/Kids[3 0 R]/Count 1>>",
                               "<</Type/Page/Parent 2 0 R/Contents 4 0 R>>", "<</Length 4 0 R>>\nstream\nx\nendstream"),
        "counted.pdf": pdf("<</Type/Catalog/Pages 2 0 R>>", "<</Type/Pages/Kids[3 0 R]/Count 1000000>>",
                           "<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]>>"),
        "pages.pdf": pdf("<</Type/Catalog/Pages 2 0 R>>",
                         f"<</Type/Pages/Kids[{' '.join(f'{n + 3} 0 R' for n in range(pages))}]/Count {pages}>>", *many),
        "launch.pdf": pdf(f"<</Type/Catalog/Pages 2 0 R/OpenAction<</S/Launch/F({canary})>>/AA<</O<</S/URI/URI({url})>>>>>>",
                          *page_with("BT /F 9 Tf (words) Tj ET")[1:]),
    }  # fmt: skip


READ = {"laughs.html", "fetch.html", "formula.csv", "python.md", "template.docx", "form-loop.pdf", "launch.pdf"}
"""What has words that can be read without harm."""


def test_no_hostile_file_is_more_than_a_listed_failure(process: ReaderProcess, tmp_path: Path) -> None:
    """Each is read or refused within its limits; none connects, none shows another file; the next one is read as ever."""
    canary = tmp_path / "canary.txt"
    canary.write_text(CANARY)
    outcomes: dict[str, list[Extract | DocumentError]] = {}
    with socket.create_server(("127.0.0.1", 0)) as server:
        for name, data in hostile_files(canary, server.getsockname()[1]).items():
            started = time.monotonic()
            outcomes[name] = list(process.read(name, data))
            assert time.monotonic() - started < 60, name
            assert len(outcomes[name]) == 1, name
            (honest,) = process.read("honest.md", b"# Honest\n\nStill read.\n")
            assert isinstance(honest, Extract), name
        server.settimeout(0.2)
        with pytest.raises(TimeoutError):
            server.accept()
    assert CANARY not in repr(outcomes)
    read = {name for name, (found,) in outcomes.items() if isinstance(found, Extract)}
    assert read >= READ, {name: outcomes[name] for name in READ - read}
    for name, (found,) in outcomes.items():
        if isinstance(found, Extract):
            assert len(found.text) < 1_000_000, name
        else:
            assert found.reason, name
            assert found.advice, name
    refused = {name: found.reason for name, (found,) in outcomes.items() if isinstance(found, DocumentError)}
    assert "zip bomb" in refused["zip-bomb.docx"]
    assert "zip bomb" in refused["nested-zip.docx"] or "damaged" in refused["nested-zip.docx"]
    assert "document type declaration" in refused["laughs.docx"]
    assert "more than 20000" in refused["pages.pdf"]
