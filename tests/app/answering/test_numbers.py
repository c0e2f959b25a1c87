"""Figures as they can be read: separators of thousands, trailing zeros, dates and versions."""

from __future__ import annotations

import pytest

from app.answering.numbers import claims, values
from app.answering.support import evidence
from tests.app.answering.passages import passage


@pytest.mark.parametrize(
    ("said", "written", "expected"),
    [
        ("1200 EUR", "1,200 EUR", True),
        ("1.200 EUR", "1,200 EUR", True),
        ("1 200 EUR", "1,200 EUR", True),
        ("1\u202f200 EUR", "1,200 EUR", True),
        ("1\u2019200 EUR", "1,200 EUR", True),
        ("1,200.00 EUR", "1,200 EUR", True),
        ("1.200,00 EUR", "1,200 EUR", True),
        ("€1,200", "1.200 EUR", True),
        ("1,200,000 EUR", "1 200 000 EUR", True),
        ("1.200,50 EUR", "1,200.50 EUR", True),
        ("3,5 %", "3.5 %", True),
        ("12.0 days", "12 days", True),
        ("12 days", "12.00 days", True),
        ("1,200 EUR", "1,300 EUR", False),
        ("1,200.50 EUR", "1,200 EUR", False),
        ("1.5 days", "15 days", False),
        ("314", "3.14", False),
        ("3.1", "3.10", False),
        ("1 EUR", "1.000 EUR", False),
        ("12", "1,200", False),
        ("2.4.1", "2.4.1", True),
        ("2.4.1", "241", False),
        ("31.12.2025", "31.12.2025", True),
        ("31.12.2025", "31122025", False),
        ("8:30", "8.30", False),
        ("TR-204", "TR-205", False),
        ("rooms 12 300", "rooms 300 and 12", True),
    ],
)
def test_a_figure_is_known_however_it_is_written(said: str, written: str, expected: bool) -> None:
    """Either reading of separators will do; another number never does."""
    assert all(any(reading <= values(written) for reading in readings) for readings in claims(said).values()) is expected
    source = passage(f"The value of the quarterly limit is {written}.")
    assert evidence(f"The value of the quarterly limit is {said}.", source).verdict == ("yes" if expected else "no")
