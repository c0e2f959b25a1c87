"""Plain text and encodings."""

from __future__ import annotations

import pytest

from ingest.readers.extract import as_title, clean, title_from_name
from ingest.readers.text import decode, read_text

GERMAN = "Die Angestellten haben fünfundzwanzig Tage Urlaub für größere Reisen."
POLISH = "Zażółć gęślą jaźń. Pracownicy mają dwadzieścia pięć dni urlopu, który można przenieść na następny rok."

ENCODED = {
    "utf-8": (GERMAN, "utf-8"),
    "utf-8-with-mark": (GERMAN, "utf-8-sig"),
    "utf-16-with-mark": (GERMAN, "utf-16"),
    "utf-16-little": (GERMAN, "utf-16-le"),
    "utf-16-big": (GERMAN, "utf-16-be"),
    "utf-32-with-mark": (GERMAN, "utf-32"),
    "cp1252": (GERMAN, "cp1252"),
    "cp1252-short": ("Café", "cp1252"),
    "cp1252-quotes": ("A “quoted” word – and a € sign", "cp1252"),
    "french": ("Où est l'élève ? À côté, près du château.", "iso-8859-1"),
    "cp932": ("名前,年齢,住所\n佐藤太郎,30,東京\n髙橋淳,35,名古屋", "cp932"),
    "gb18030": ("公司规定员工每年有二十五天假期", "gb18030"),
    "cyrillic": ("Привет, это короткий текст про отпуск и работу.", "cp1251"),
    "polish": (POLISH, "cp1250"),
    "greek": ("Οι εργαζόμενοι έχουν είκοσι πέντε ημέρες άδεια", "cp1253"),
}


@pytest.mark.parametrize(("text", "encoding"), ENCODED.values(), ids=ENCODED)
def test_common_encodings_are_recognised(text: str, encoding: str) -> None:
    """A text comes back as it was written, whatever the office program saved it in."""
    assert clean(decode("a.txt", text.encode(encoding))) == text


def test_a_declared_encoding_is_believed() -> None:
    """Bytes that could be anything are read as the file says."""
    assert decode("a.html", "żółw".encode("iso-8859-2"), "ISO-8859-2") == "żółw"


@pytest.mark.parametrize("declared", ["base64", "no-such-charset", "rot13", "utf-8\x00"])
def test_a_nonsense_declaration_is_ignored(declared: str) -> None:
    """A declaration that names no charset does not keep a text from being read."""
    assert decode("a.html", "Größe".encode(), declared) == "Größe"


def test_line_ends_and_controls_are_normalised_once() -> None:
    """All line ends become newlines; NUL and controls go; a lone surrogate is replaced."""
    assert clean("a\r\nb\rc\u2028d\x0ce\x00f\x07g\ud800h\ufeff") == "a\nb\nc\nd\nefg\ufffdh"


def test_a_text_is_one_section_titled_by_its_file() -> None:
    """The title is the file's name made readable."""
    extract = read_text("notes/travel_expenses-2024.txt", b"Hello\r\nworld")
    assert extract.title == "Travel expenses 2024"
    assert extract.text == "Hello\nworld"
    assert [(section.start, section.end, section.heading) for section in extract.sections] == [(0, 11, ())]


@pytest.mark.parametrize(
    ("name", "title"),
    [("a/board-minutes_2024-10-12.pdf", "Board minutes 2024-10-12"), ("___.txt", "___"), ("über.md", "Über")],
)
def test_file_names_become_readable(name: str, title: str) -> None:
    """Separators become spaces, dates stay."""
    assert title_from_name(name) == title


@pytest.mark.parametrize("title", ["", "  ", "untitled", "(anonymous)", "Microsoft Word - draft7.doc", "report.docx"])
def test_what_programs_write_is_no_title(title: str) -> None:
    """A title that a program made up is not shown."""
    assert as_title(title) is None


def test_long_titles_are_cut() -> None:
    """A title has at most 200 characters."""
    assert as_title("x" * 500) == "x" * 199 + "…"
