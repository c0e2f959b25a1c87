"""Comma-separated values."""

from __future__ import annotations

import pytest

from ingest.readers.csv import read_csv
from tests.ingest.sample_files import CSV


def test_delimiter_encoding_and_header_are_found() -> None:
    """A semicolon file in Windows-1252 gives rows that are understood alone."""
    assert read_csv("people.csv", CSV).text == "Name: Åsa; City: Malmö; Days: 3\nName: Bob; City: New York; Days: 4"


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_each_delimiter(delimiter: str) -> None:
    """The delimiter is the one that makes regular columns."""
    rows = [["Name", "Note"], ["Ada", "x"], ["Bob", "y"]]
    text = "\n".join(delimiter.join(row) for row in rows)
    assert read_csv("x.csv", text.encode()).text == "Name: Ada; Note: x\nName: Bob; Note: y"


def test_numbers_are_no_header() -> None:
    """A first row of numbers is data."""
    assert read_csv("x.csv", b"1,2\n3,4\n").text == "1; 2\n3; 4"


def test_a_list_of_one_column_is_lines() -> None:
    """Without a delimiter every line stays as it is."""
    assert read_csv("x.csv", b"apples\npears\n").text == "apples\npears"


def test_ragged_rows_lose_nothing() -> None:
    """A cell without a header is written without one."""
    assert read_csv("x.csv", b"Name,City\nAda,London,extra\nBob\n").text == "Name: Ada; City: London; extra\nName: Bob"


def test_a_header_alone_is_kept() -> None:
    """A file with nothing but a header is not empty."""
    assert read_csv("x.csv", b"Name,City\n").text == "Name; City"
