"""Ids are stable, URL-safe and the same however a name is spelled in bytes."""

from __future__ import annotations

import unicodedata

from corpus.types import chunk_id_of, document_id_of, version_of


def test_an_id_is_26_characters_that_need_no_escaping() -> None:
    """The id of a document is base32 of a SHA-256, cut at 26."""
    assert document_id_of("handbook", "a/b.md") == "ad6r4ddehkgf7fvvgdh4n2dcxg"


def test_an_id_does_not_depend_on_how_a_name_is_composed() -> None:
    """NFC and NFD spellings of one name are one document."""
    composed, decomposed = (unicodedata.normalize(form, "Prüfung/é.md") for form in ("NFC", "NFD"))
    assert composed != decomposed
    assert document_id_of("c", composed) == document_id_of("c", decomposed)


def test_source_and_path_do_not_run_into_each_other() -> None:
    """Where the source's name ends and the path begins is part of the id."""
    assert document_id_of("ab", "c") != document_id_of("a", "bc")


def test_a_version_is_the_content() -> None:
    """Another title or text is another version; lone surrogates are hashed like anything else."""
    assert version_of("t", "x") == version_of("t", "x")
    assert len({version_of("t", "x"), version_of("tx", ""), version_of("", "tx"), version_of("\ud800", "x")}) == 4


def test_a_chunk_id_names_document_version_and_span() -> None:
    """A citation's id says what it points at."""
    assert chunk_id_of("doc", "ver", 3, 17) == "doc.ver.3-17"
