"""E-mails."""

from __future__ import annotations

import pytest

from corpus.errors import DocumentError
from ingest.readers.eml import read_eml
from tests.ingest.sample_files import message

TOP = (
    "Subject: Réunion d'équipe\nFrom: Ada <ada@example.org>\nTo: Bob <bob@example.org>\n"
    "Date: 2026-01-05 10:00:00+01:00\nAttachments: plan.pdf\n\n"
)


def test_headers_then_the_message() -> None:
    """The text begins with what a mail program shows; the attachment is named and not read."""
    extract = read_eml("x.eml", message())
    assert extract.text == TOP + "See you on Monday."
    assert extract.title == "Réunion d'équipe"
    assert extract.metadata["sender"] == "Ada <ada@example.org>"
    assert "CANARY" not in extract.text


def test_plain_text_is_preferred() -> None:
    """Of two versions the plain one is read."""
    assert read_eml("x.eml", message(plain="plain", html="<p>rich</p>")).text == TOP + "plain"


def test_html_is_read_where_there_is_nothing_else() -> None:
    """An HTML message is read as a page."""
    assert read_eml("x.eml", message(plain=None, html="<p>rich <b>text</b></p><script>x</script>")).text == TOP + "rich text"


def test_odd_charsets_are_read() -> None:
    """A declared charset is used, an unknown one is guessed."""
    head = b"Subject: x\nContent-Type: text/plain; charset=%s\nContent-Transfer-Encoding: 8bit\n\n"
    assert read_eml("x.eml", head % b"koi8-r" + "отпуск".encode("koi8-r")).text.endswith("отпуск")
    assert read_eml("x.eml", head % b"x-unknown" + "Größe".encode("cp1252")).text.endswith("Größe")


def test_a_file_without_headers_is_no_mail() -> None:
    """Something else called .eml is an error."""
    with pytest.raises(DocumentError, match="none of an e-mail's headers"):
        read_eml("x.eml", b"\njust text")
