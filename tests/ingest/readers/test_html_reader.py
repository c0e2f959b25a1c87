"""Web pages."""

from __future__ import annotations

import inspect

import pytest
import selectolax.lexbor

from corpus.errors import DocumentError
from ingest.readers.html import read_html
from tests.ingest.sample_files import HTML


def test_a_page_is_read_as_it_is_seen() -> None:
    """Blocks are lines, tables are rows, and what is hidden is not there."""
    assert read_html("x.html", HTML).text == (
        "Reisen\n\nBitte früh buchen.\nDanke.\n\nHotels\n\nGrenzen\nStadt | Grenze\nBerlin | 140\n- eins\n- zwei\n\na\n  b"
    )


def test_title_language_and_headings() -> None:
    """The page's title is the document's; a heading that repeats it is on no path."""
    extract = read_html("x.html", HTML)
    assert (extract.title, extract.language, extract.metadata) == ("Reisen - Intranet", "de", {"author": "Ada"})
    assert [section.heading for section in extract.sections] == [(), ("Hotels",)]


def test_without_a_title_the_first_heading_is_it() -> None:
    """A page without <title> is named by its <h1>."""
    assert read_html("x.html", b"<h1>Rules</h1><p>text").title == "Rules"


def test_a_layout_table_is_read_as_blocks() -> None:
    """A table with headings in it is not data."""
    extract = read_html("x.html", b"<table><tr><td><h2>Left</h2><p>a</p></td><td><p>b</p></td></tr></table>")
    assert extract.text == "Left\n\na\n\nb"
    assert extract.sections[0].heading == ("Left",)


def test_the_declared_charset_is_used() -> None:
    """A page in another encoding says so in a meta tag."""
    markup = '<html><meta charset="iso-8859-2"><p>żółw</p>'
    assert read_html("x.html", markup.encode("iso-8859-2")).text == "żółw"


def test_bottomless_nesting_is_refused() -> None:
    """The parser would take minutes over it."""
    with pytest.raises(DocumentError, match="nested more than 10000 deep"):
        read_html("x.html", b"<div>" * 20_000 + b"text")


def test_deep_nesting_is_read() -> None:
    """A depth that no page has costs no stack."""
    assert read_html("x.html", b"<div>" * 3000 + b"text").text == "text"


def test_every_error_of_selectolax_is_known() -> None:
    """The parser has no exception that the reader does not translate."""
    found = {
        value
        for _, value in inspect.getmembers(selectolax.lexbor, inspect.isclass)
        if issubclass(value, Exception) and value.__module__.startswith("selectolax")
    }
    assert found == {selectolax.lexbor.SelectolaxError}
