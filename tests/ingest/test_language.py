"""The language of a text, where it can be told."""

from __future__ import annotations

import pytest

from corpus.lexical import STEMMED
from ingest.language import detect_language


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Expense reports are due within thirty days of the last day of travel.", "en"),
        ("Reisekostenabrechnungen sind innerhalb von dreißig Tagen nach der Reise einzureichen.", "de"),
        ("Las tarjetas de acceso se recogen en la recepción del edificio por la mañana.", "es"),
        ("Les notes de frais doivent être remises dans les trente jours suivant le voyage.", "fr"),
        ("short", None),
        ("", None),
        (" \n" * 100, None),
    ],
)
def test_a_text_long_enough_is_recognised(text: str, language: str | None) -> None:
    """Four languages are told apart; too little text is no language."""
    assert detect_language(text) == language


@pytest.mark.parametrize("text", ["\x00" * 100, "😀" * 100, "\ud800" * 100, "1234 5678 " * 20, "שלום " * 40])
def test_odd_text_does_not_raise(text: str) -> None:
    """Threat C2: any Unicode gets an answer, be it none."""
    assert detect_language(text) in {None, *STEMMED}
