"""Word, PowerPoint and Excel files."""

from __future__ import annotations

import datetime
import importlib
import inspect
from types import ModuleType

import docx.exceptions
import docx.image.exceptions
import docx.opc.exceptions
import docx.oxml.exceptions
import openpyxl.formula.tokenizer
import openpyxl.formula.translate
import openpyxl.utils.exceptions
import pptx.exc
import pytest

from corpus.errors import DocumentError
from ingest.readers import docx as docx_reader
from ingest.readers import ooxml
from ingest.readers import pptx as pptx_reader
from ingest.readers import xlsx as xlsx_reader
from ingest.readers.docx import read_docx
from ingest.readers.pptx import read_pptx
from ingest.readers.xlsx import read_xlsx
from tests.ingest.sample_files import packed, replaced, slides, word, workbook

NAMESPACE = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'


def with_body(xml: str) -> bytes:
    """A Word document with this body."""
    return replaced(word(), "word/document.xml", f"<w:document {NAMESPACE}><w:body>{xml}</w:body></w:document>".encode())


def test_word_text_in_order() -> None:
    """Headings, lists and tables stand where they were written; header and footer are left out."""
    assert read_docx("x.docx", word()).text == (
        "Travel Policy\n\nFlights\n\nBook economy class.\n\nLong distance\n\n- Business class above eight hours.\n"
        "- Ask your manager first.\n\nHotels\n\nCity | Limit\nBerlin | 140 EUR\n\nBreakfast is included."
    )


def test_word_headings_and_properties() -> None:
    """Heading styles make the path; title, language and author come from the properties."""
    extract = read_docx("x.docx", word())
    assert [section.heading for section in extract.sections] == [(), ("Flights",), ("Flights", "Long distance"), ("Hotels",)]
    assert (extract.title, extract.language, extract.metadata["author"]) == ("Travel Policy", "en-GB", "Ada Lovelace")


def test_word_outline_levels_are_headings() -> None:
    """A paragraph with an outline level of its own is a heading in any language and style."""
    heading = '<w:p><w:pPr><w:outlineLvl w:val="1"/></w:pPr><w:r><w:t>Urlaub</w:t></w:r></w:p>'
    extract = read_docx("x.docx", with_body(heading + "<w:p><w:r><w:t>25 Tage</w:t></w:r></w:p>"))
    assert [section.heading for section in extract.sections] == [("Urlaub",)]


def test_word_insertions_stay_and_deletions_go() -> None:
    """Tracked changes are read as if accepted; content controls are read."""
    body = (
        "<w:sdt><w:sdtContent><w:p><w:ins><w:r><w:t>new </w:t></w:r></w:ins><w:del><w:r><w:delText>old</w:delText></w:r>"
        "</w:del><w:r><w:t>text</w:t></w:r></w:p></w:sdtContent></w:sdt>"
    )
    assert read_docx("x.docx", with_body(body)).text == "new text"


def test_slides_are_sections() -> None:
    """Each shown slide is a section with its number and title; the hidden one is left out and named."""
    extract = read_pptx("x.pptx", slides())
    assert [(section.page, section.heading) for section in extract.sections] == [
        (1, ("Road map",)),
        (2, ("Numbers",)),
        (4, ()),
    ]
    assert extract.title == "Road map"
    assert extract.metadata["hidden_slides"] == "3"


def test_bullets_notes_tables_and_charts() -> None:
    """What is on a slide is in the text, with the speaker's notes marked."""
    assert read_pptx("x.pptx", slides()).text == (
        "Road map\n\nShip the first version\n- in March\n\nNotes: Mention the budget.\n\nNumbers\n\n"
        "Region | Sales\nNorth | 12\n\nRevenue: 2024 = 3.5, 2025 = 4\n\nThank you"
    )


def test_rows_of_a_sheet_are_understood_alone() -> None:
    """Every row repeats the header; empty cells and rows are skipped; dates are ISO dates."""
    rows: list[list[object]] = [
        ["Staff list"],
        ["Name", "Start", "Days", "Active"],
        ["Ada", datetime.date(2024, 3, 1), 25.0, True],
        [],
        ["Bob", datetime.datetime(2024, 3, 1, 9, 30), None, False],
    ]
    assert read_xlsx("x.xlsx", workbook({"People": rows})).text == (
        "People\n\nStaff list\nName: Ada; Start: 2024-03-01; Days: 25; Active: yes\n"
        "Name: Bob; Start: 2024-03-01 09:30:00; Active: no"
    )


def test_sheets_are_sections_and_hidden_ones_are_left_out() -> None:
    """A hidden sheet's cells are not in the text; its name is in the metadata."""
    data = workbook({"One": [["a", "b"], [1, 2]], "Two": [["SECRET", 5]], "Three": [[7, 8]]}, hidden=["Two"])
    extract = read_xlsx("x.xlsx", data)
    assert extract.text == "One\n\na: 1; b: 2\n\nThree\n\n7; 8"
    assert [(section.page, section.heading) for section in extract.sections] == [(1, ("One",)), (3, ("Three",))]
    assert extract.metadata["hidden_sheets"] == "Two"


def test_a_header_without_rows_is_kept() -> None:
    """A sheet that has only a header is not lost."""
    assert read_xlsx("x.xlsx", workbook({"S": [["Name", "Days"]]})).text == "S\n\nName | Days"


def test_a_zip_bomb_is_refused() -> None:
    """A part that unpacks to a thousand times its size is not unpacked."""
    bomb = packed({"word/document.xml": bytes(30_000_000)})
    with pytest.raises(DocumentError, match="times its size, more than 200 times; it may be a zip bomb"):
        read_docx("x.docx", bomb)


def test_the_size_limit_is_checked_before_unpacking(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sizes that the archive declares count."""
    monkeypatch.setattr(ooxml, "MAX_UNPACKED_BYTES", 1000)
    with pytest.raises(DocumentError, match="more than 1000; it may be a zip bomb"):
        read_xlsx("x.xlsx", workbook({"S": [["a"]]}))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_declared_entities_are_refused(encoding: str) -> None:
    """Neither a billion laughs nor a file of the machine gets in through an entity."""
    xml = f'<?xml version="1.0"?><!DOCTYPE d [<!ENTITY x SYSTEM "file:///etc/hostname">]><w:document {NAMESPACE}/>'
    with pytest.raises(DocumentError, match="document type declaration"):
        read_docx("x.docx", replaced(word(), "word/document.xml", xml.encode(encoding)))


def test_a_package_without_its_main_part_is_damaged() -> None:
    """A missing part is an error of the document, not of the program."""
    with pytest.raises(DocumentError, match="damaged or cut off"):
        read_docx("x.docx", packed({"word/other.xml": b"<a/>"}))


EXCEPTION_MODULES: dict[str, tuple[ModuleType, tuple[type[Exception], ...]]] = {
    "docx": (docx.exceptions, docx_reader.LIBRARY_ERRORS),
    "docx-package": (docx.opc.exceptions, docx_reader.LIBRARY_ERRORS),
    "docx-xml": (docx.oxml.exceptions, docx_reader.LIBRARY_ERRORS),
    "docx-image": (docx.image.exceptions, docx_reader.LIBRARY_ERRORS),
    "pptx": (pptx.exc, pptx_reader.LIBRARY_ERRORS),
    "openpyxl": (openpyxl.utils.exceptions, xlsx_reader.LIBRARY_ERRORS),
    "openpyxl-tokenizer": (openpyxl.formula.tokenizer, xlsx_reader.LIBRARY_ERRORS),
    "openpyxl-translate": (openpyxl.formula.translate, xlsx_reader.LIBRARY_ERRORS),
}


@pytest.mark.parametrize(("module", "translated"), EXCEPTION_MODULES.values(), ids=EXCEPTION_MODULES)
def test_every_error_of_the_office_libraries_is_translated(module: ModuleType, translated: tuple[type[Exception], ...]) -> None:
    """An exception that a library adds must be added to the reader."""
    loaded = importlib.import_module(module.__name__)
    errors = [value for _, value in inspect.getmembers(loaded, inspect.isclass) if issubclass(value, Exception)]
    assert errors
    assert [error for error in errors if not issubclass(error, (*translated, *ooxml.DAMAGED))] == []
