"""Which reader reads a file, and what is said of files that cannot be read."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.errors import DocumentError
from corpus.formats import FORMATS, format_of
from ingest.readers.extract import Extract
from ingest.readers.read import read
from tests.ingest.sample_files import ENCRYPTED_OFFICE, SAMPLES, packed, pdf, slides, word

PNG = b"\x89PNG\r\n\x1a\n" + bytes(64)


def extract_of(name: str, data: bytes) -> Extract:
    [extract] = read(name, data)
    assert isinstance(extract, Extract)
    return extract


@pytest.mark.parametrize("name", SAMPLES)
def test_sections_cover_the_text_in_order(name: str) -> None:
    """Every reader's sections begin at 0, end at the text's end and leave no gap."""
    extract = extract_of(name, SAMPLES[name])
    assert extract.text.strip()
    edges = [(section.start, section.end) for section in extract.sections]
    assert edges[0][0] == 0
    assert edges[-1][1] == len(extract.text)
    assert all(first[1] == second[0] for first, second in itertools.pairwise(edges))


@pytest.mark.parametrize("name", SAMPLES)
def test_reading_twice_gives_the_same(name: str) -> None:
    """A reader depends on nothing but the bytes."""
    assert list(read(name, SAMPLES[name])) == list(read(name, SAMPLES[name]))


def test_every_format_has_a_sample() -> None:
    """No format is left out of the tests above."""
    assert {format_of(name) for name in SAMPLES} == set(FORMATS.values())


def test_extensions_are_read_in_any_case() -> None:
    """`REPORT.PDF` is a PDF."""
    assert format_of("folder/REPORT.PDF") == "pdf"
    assert format_of("folder.pdf/README") is None


UNREADABLE = {
    "no-bytes": ("a.txt", b"", "the file is empty"),
    "white-space": ("a.md", b" \n\t\r\n", "the file is empty"),
    "zeros": ("a.txt", bytes(100), "the file is empty"),
    "unknown": ("a.xyz", b"text", "unknown format '.xyz'; convert it to one of .md"),
    "no-extension": ("Makefile", b"text", "it has no extension"),
    "pdf-as-docx": ("a.docx", SAMPLES["report.pdf"], "wrong extension: it is really a PDF; rename it to end in .pdf"),
    "pdf-as-text": ("a.txt", SAMPLES["report.pdf"], "wrong extension: it is really a PDF"),
    "docx-as-pdf": ("a.pdf", word(), "wrong extension: it is really a Word document; rename it to end in .docx"),
    "pptx-as-xlsx": ("a.xlsx", slides(), "wrong extension: it is really a presentation"),
    "zip-as-pdf": ("a.pdf", packed({"a.txt": b"a"}), "wrong extension: it is really a zip archive; unpack it"),
    "image-as-text": ("a.txt", PNG, "wrong extension: it is really a PNG image"),
    "html-as-docx": ("a.docx", b"<!DOCTYPE html><html></html>", "it is really a web page; rename it to end in .html"),
    "rtf-as-docx": ("a.docx", b"{\\rtf1 text}", "rich text (RTF) document; save it as .docx"),
    "text-as-pdf": ("a.pdf", b"just words", "it is not a PDF file"),
    "binary-as-text": ("a.txt", bytes(range(256)) * 20, "it holds binary data, not text"),
    "binary-as-markdown": ("a.md", b"\x01\x02\x03\x04" * 50, "there is no text in it"),
    "encrypted-office": ("a.docx", ENCRYPTED_OFFICE, "it is encrypted with a password; save a copy without"),
    "old-office": ("a.docx", ENCRYPTED_OFFICE[:512] + bytes(512), "an Office file of the old format"),
    "encrypted-pdf": ("a.pdf", pdf([[("Hello there", 10)]], encrypted=True), "it is encrypted with a password"),
    "truncated-docx": ("a.docx", word()[:5000], "the file is damaged or cut off"),
    "truncated-pdf": ("a.pdf", SAMPLES["report.pdf"][:200], "the PDF is damaged or cut off"),
    "image-only-pdf": ("a.pdf", pdf([[], []]), "no text layer on its 2 pages; it is probably scanned; run OCR"),
    "all-pages-damaged": ("a.pdf", pdf([None, None]), "none of its 2 pages can be read"),
    "html-without-text": ("a.html", b"<html><script>x()</script></html>", "there is no text in it"),
}


@pytest.mark.parametrize(("name", "data", "message"), UNREADABLE.values(), ids=UNREADABLE)
def test_an_unreadable_file_says_why_and_what_to_do(name: str, data: bytes, message: str) -> None:
    """The error names the file, the reason and the next step."""
    with pytest.raises(DocumentError) as caught:
        list(read(name, data))
    assert caught.value.path == name
    assert message in f"{caught.value.reason}; {caught.value.advice}"
    assert caught.value.advice


def test_a_text_that_speaks_of_pdf_files_is_text() -> None:
    """Only bytes that are a PDF are taken for one."""
    assert extract_of("a.txt", b"A file begins with %PDF-1.4 and has endobj in it.").text.startswith("A file begins")


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(sorted(SAMPLES)),
    cut=st.floats(0, 1),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8),
)
def test_damaged_files_fail_only_as_document_errors(name: str, cut: float, flips: list[tuple[float, int]]) -> None:
    """Whatever is done to a file's bytes, it is read or it is a DocumentError."""
    data = bytearray(SAMPLES[name])
    for place, value in flips:
        data[int(place * len(data))] = value
    damaged = bytes(data[: len(data) if cut > 0.5 else int(2 * cut * len(data))])
    try:
        for item in read(name, damaged):
            assert isinstance(item, Extract | DocumentError)
    except DocumentError as error:
        advice = error.advice
    else:
        advice = "none needed"
    assert advice
