"""Small files of every format, made by the formats' own libraries or written by hand."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from email.message import EmailMessage
from typing import Any

import docx
import openpyxl
import pptx
from pptx.chart.data import CategoryChartData
from pptx.enum.chart import XL_CHART_TYPE
from pptx.util import Inches

PageLines = Sequence[tuple[str, int]]

ENCRYPTED_OFFICE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\x00" * 504 + "EncryptedPackage".encode("utf-16-le") + b"\x00" * 480


def pdf(
    pages: Sequence[PageLines | None],
    *,
    title: str = "",
    outline: Sequence[tuple[str, int]] = (),
    encrypted: bool = False,
) -> bytes:
    """A PDF of (line, font size) pages. A page of None is damaged; an outline entry is (title, page index)."""
    objects: dict[int, bytes] = {3: b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"}
    kids = []
    for index, lines in enumerate(pages):
        page, content = 10 + 2 * index, 11 + 2 * index
        kids.append(f"{page} 0 R")
        if lines is None:
            objects[page] = b"(not a page)"
            continue
        drawn, height = [], 800
        for line, size in lines:
            height -= 2 * size
            escaped = line.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)")
            drawn.append(f"BT /F1 {size} Tf 40 {height} Td ({escaped}) Tj ET")
        stream = "\n".join(drawn).encode("latin-1")
        objects[content] = b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream)
        objects[page] = (
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents {content} 0 R "
            "/Resources << /Font << /F1 3 0 R >> >> >>"
        ).encode()
    objects[2] = f"<< /Type /Pages /Count {len(pages)} /Kids [{' '.join(kids)}] >>".encode()
    objects[4] = f"<< /Title ({title}) /Author (Ada Lovelace) /CreationDate (D:20260115093000Z) >>".encode("latin-1")
    objects[1] = b"<< /Type /Catalog /Pages 2 0 R /Outlines 5 0 R >>"
    first = 1000
    objects[5] = f"<< /Type /Outlines /First {first} 0 R /Last {first + len(outline) - 1} 0 R >>".encode()
    for number, (entry, page_index) in enumerate(outline):
        following = f"/Next {first + number + 1} 0 R" if number + 1 < len(outline) else ""
        objects[first + number] = (
            f"<< /Title ({entry}) /Parent 5 0 R /Dest [{10 + 2 * page_index} 0 R /Fit] {following} >>"
        ).encode("latin-1")
    if not outline:
        objects[1], _ = b"<< /Type /Catalog /Pages 2 0 R >>", objects.pop(5)
    trailer = "/Root 1 0 R /Info 4 0 R"
    if encrypted:
        zeros = "00" * 32
        objects[6] = f"<< /Filter /Standard /V 1 /R 2 /O <{zeros}> /U <{zeros}> /P -4 >>".encode()
        trailer += f" /Encrypt 6 0 R /ID [<{zeros}> <{zeros}>]"
    return _pdf_file(objects, trailer)


def _pdf_file(objects: dict[int, bytes], trailer: str) -> bytes:
    written = bytearray(b"%PDF-1.4\n")
    table = ["xref\n0 1\n0000000000 65535 f \n"]
    for number, body in sorted(objects.items()):
        table.append(f"{number} 1\n{len(written):010d} 00000 n \n")
        written += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(written)
    written += "".join(table).encode()
    written += f"trailer\n<< /Size {max(objects) + 1} {trailer} >>\nstartxref\n{start}\n%%EOF\n".encode()
    return bytes(written)


def word() -> bytes:
    """A Word document with a title, headings, a list, a table, a header and a footer."""
    document = docx.Document()
    document.core_properties.title = "Travel Policy"
    document.core_properties.language = "en-GB"
    document.core_properties.author = "Ada Lovelace"
    document.sections[0].header.paragraphs[0].text = "HEADER TEXT"
    document.sections[0].footer.paragraphs[0].text = "FOOTER TEXT"
    document.add_paragraph("Travel Policy", style="Title")
    document.add_heading("Flights", level=1)
    document.add_paragraph("Book economy class.")
    document.add_heading("Long distance", level=2)
    document.add_paragraph("Business class above eight hours.", style="List Bullet")
    document.add_paragraph("Ask your manager first.", style="List Bullet")
    document.add_heading("Hotels", level=1)
    table = document.add_table(rows=2, cols=2)
    for row, cells in enumerate((("City", "Limit"), ("Berlin", "140 EUR"))):
        for column, cell in enumerate(cells):
            table.cell(row, column).text = cell
    document.add_paragraph("Breakfast is included.")
    return _saved(document)


def slides() -> bytes:
    """A presentation with bullets, notes, a table, a chart and a hidden slide."""
    presentation = pptx.Presentation()
    first = presentation.slides.add_slide(presentation.slide_layouts[1])
    first.shapes.title.text = "Road map"
    body = first.placeholders[1].text_frame
    body.text = "Ship the first version"
    below = body.add_paragraph()
    below.text, below.level = "in March", 1
    first.notes_slide.notes_text_frame.text = "Mention the budget."
    second = presentation.slides.add_slide(presentation.slide_layouts[5])
    second.shapes.title.text = "Numbers"
    table = second.shapes.add_table(2, 2, Inches(1), Inches(2), Inches(4), Inches(1)).table
    for row, cells in enumerate((("Region", "Sales"), ("North", "12"))):
        for column, cell in enumerate(cells):
            table.cell(row, column).text = cell
    data: Any = CategoryChartData()  # type: ignore[no-untyped-call]
    data.categories = ["2024", "2025"]
    data.add_series("Revenue", (3.5, 4))
    second.shapes.add_chart(XL_CHART_TYPE.COLUMN_CLUSTERED, Inches(1), Inches(4), Inches(4), Inches(2), data)
    hidden = presentation.slides.add_slide(presentation.slide_layouts[5])
    hidden.shapes.title.text = "Secret plan"
    hidden.element.set("show", "0")
    untitled = presentation.slides.add_slide(presentation.slide_layouts[6])
    untitled.shapes.add_textbox(Inches(1), Inches(1), Inches(4), Inches(1)).text_frame.text = "Thank you"
    return _saved(presentation)


def workbook(sheets: dict[str, Sequence[Sequence[Any]]], *, hidden: Sequence[str] = ()) -> bytes:
    """A workbook with these rows; the sheets in `hidden` are not shown."""
    book = openpyxl.Workbook()
    book.remove(book.worksheets[0])
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(list(row))
        sheet.sheet_state = "hidden" if name in hidden else "visible"
    return _saved(book)


def message(*, plain: str | None = "See you on Monday.", html: str | None = None) -> bytes:
    """An e-mail with an attachment."""
    mail = EmailMessage()
    mail["Subject"] = "Réunion d'équipe"
    mail["From"] = "Ada <ada@example.org>"
    mail["To"] = "Bob <bob@example.org>"
    mail["Date"] = "Mon, 05 Jan 2026 10:00:00 +0100"
    if plain is not None:
        mail.set_content(plain)
    if html is not None and plain is not None:
        mail.add_alternative(html, subtype="html")
    elif html is not None:
        mail.set_content(html, subtype="html")
    mail.add_attachment(b"CANARY in the attachment", maintype="application", subtype="pdf", filename="plan.pdf")
    return bytes(mail)


def packed(parts: dict[str, bytes]) -> bytes:
    """A zip archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as package:
        for name, data in parts.items():
            package.writestr(name, data)
    return buffer.getvalue()


def replaced(package: bytes, part: str, data: bytes) -> bytes:
    """A zip archive with one part replaced."""
    with zipfile.ZipFile(io.BytesIO(package)) as opened:
        parts = {name: opened.read(name) for name in opened.namelist()}
    return packed(parts | {part: data})


def _saved(document: Any) -> bytes:
    buffer = io.BytesIO()
    document.save(buffer)
    return buffer.getvalue()


MARKDOWN = b"""---
title: Handbook
language: en
owner: People team
reviewed: 2026-01-31
---
# Handbook

Welcome.

## Leave

Twenty-five days.

```
# not a heading
```

### Carry *over*

Until March.

Sick leave
----------

Call in.
"""

HTML = b"""<!doctype html><html lang="de"><head><title>Reisen - Intranet</title><style>p{}</style>
<meta name="author" content="Ada"></head><body><nav>Start Suche</nav><h1>Reisen</h1><p>Bitte <b>fr&uuml;h</b>
buchen.<br>Danke.</p><p hidden>UNSICHTBAR</p><div style="display: none">UNSICHTBAR</div><h2>Hotels</h2>
<table><caption>Grenzen</caption><tr><th>Stadt</th><th>Grenze</th></tr><tr><td>Berlin</td><td>140</td></tr></table>
<ul><li>eins</li><li>zwei</li></ul><script>UNSICHTBAR()</script><pre>a
  b</pre></body></html>"""

CSV = 'Name;City;Days\nÅsa;Malmö;3\nBob;"New\nYork";4\n'.encode("cp1252")

JSONL = b'{"id": "a1", "title": "First", "text": "One.", "groups": ["hr"], "label": null, "pages": 3}\n'

SAMPLES: dict[str, bytes] = {
    "handbook.md": MARKDOWN,
    "note.txt": b"First line.\r\nSecond line.\n\nThird.",
    "travel.html": HTML,
    "report.pdf": pdf(
        [
            [("Annual report", 18), ("Revenue grew by ten percent in the year.", 10), ("Costs fell.", 10)] * 1,
            [("The outlook is good.", 10), ("We will open an office in Malmo.", 10)] * 3,
        ]
    ),
    "policy.docx": word(),
    "deck.pptx": slides(),
    "table.xlsx": workbook({"Staff": [("Name", "Days"), ("Ada", 25), ("Bob", 30)]}),
    "people.csv": CSV,
    "mail.eml": message(),
    "export.jsonl": JSONL,
}
