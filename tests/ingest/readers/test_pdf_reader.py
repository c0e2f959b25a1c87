"""PDF files."""

from __future__ import annotations

import inspect

import pypdfium2

from ingest.readers.pdf import read_pdf
from tests.ingest.sample_files import pdf

BODY = [("This is a line of text that reaches nearly to the right margin of", 10), ("the page and ends here.", 10)]


def test_pages_are_sections_with_their_numbers() -> None:
    """Each page's text is found under its number, from 1."""
    extract = read_pdf("x.pdf", pdf([[("First page text.", 10)], [("Second page text.", 10)]]))
    assert [(extract.text[s.start : s.end].strip(), s.page) for s in extract.sections] == [
        ("First page text.", 1),
        ("Second page text.", 2),
    ]


def test_a_damaged_page_fails_alone() -> None:
    """The other pages are read, and the metadata names the damaged one."""
    extract = read_pdf("x.pdf", pdf([[("First page.", 10)], None, [("Third page.", 10)]]))
    assert extract.text == "First page.\n\nThird page."
    assert [section.page for section in extract.sections] == [1, 3]
    assert extract.metadata["damaged_pages"] == "2"


def test_the_outline_gives_the_headings() -> None:
    """An outline's entry is found on its page, with the number the entry lacks."""
    pages = [[("Intro words here.", 10), ("2. Leave", 10), *BODY], [("Sick days", 10), ("Call in.", 10)]]
    extract = read_pdf("x.pdf", pdf(pages, outline=[("Leave", 0), ("Sick days", 1), ("Not there", 1)]))
    assert [(section.heading, section.page) for section in extract.sections] == [
        ((), 1),
        (("2. Leave",), 1),
        (("Sick days",), 2),
    ]


def test_larger_lines_are_headings_where_there_is_no_outline() -> None:
    """The sizes above the body's are levels; the first heading, being the title, is on no path."""
    page = [("Travel policy", 20), *BODY * 3, ("Hotels", 14), *BODY * 3]
    extract = read_pdf("x.pdf", pdf([page]))
    assert extract.title == "Travel policy"
    assert [section.heading for section in extract.sections] == [(), ("Hotels",)]


def test_a_paragraphs_lines_are_joined_and_a_forms_are_not() -> None:
    """Lines that reach the margin go on; short ones stand alone."""
    assert read_pdf("x.pdf", pdf([BODY])).text == f"{BODY[0][0]} {BODY[1][0]}"
    assert read_pdf("x.pdf", pdf([[("Name: Ada", 10), ("City: London", 10)]])).text == "Name: Ada\nCity: London"


def test_metadata_is_read() -> None:
    """Title, author and date come from the file where it has them."""
    extract = read_pdf("x.pdf", pdf([BODY], title="Annual report"))
    assert extract.title == "Annual report"
    assert extract.metadata == {"author": "Ada Lovelace", "date": "2026-01-15"}


def test_without_a_title_the_file_names_it() -> None:
    """A first line that is half a sentence is no title."""
    assert read_pdf("cost-report.pdf", pdf([[("and so on, etc.", 10)]])).title == "Cost report"


def test_every_error_of_pypdfium2_is_known() -> None:
    """The library has no public exception that the reader does not translate."""
    found = {
        value
        for _, value in inspect.getmembers(pypdfium2, inspect.isclass)
        if issubclass(value, Exception) and not issubclass(value, Warning)
    }
    assert found == {pypdfium2.PdfiumError}
