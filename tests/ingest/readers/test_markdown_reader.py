"""Markdown files."""

from __future__ import annotations

import pytest

from corpus.errors import DocumentError
from ingest.readers.extract import Extract
from ingest.readers.markdown import read_markdown
from tests.ingest.sample_files import MARKDOWN


def paths(extract: Extract) -> list[tuple[tuple[str, ...], str]]:
    """Each section's heading path and first line."""
    return [(section.heading, extract.text[section.start : section.end].strip().split("\n")[0]) for section in extract.sections]


def test_front_matter_is_metadata_and_not_text() -> None:
    """Title and language come from the front matter, the rest is metadata, and none of it is in the text."""
    extract = read_markdown("x.md", MARKDOWN)
    assert (extract.title, extract.language) == ("Handbook", "en")
    assert extract.metadata == {"owner": "People team", "reviewed": "2026-01-31"}
    assert extract.text.startswith("# Handbook\n")


def test_headings_become_sections_without_the_title() -> None:
    """ATX and setext headings count, a `#` in a code fence does not, and the title is on no path."""
    assert paths(read_markdown("x.md", MARKDOWN)) == [
        ((), "# Handbook"),
        (("Leave",), "## Leave"),
        (("Leave", "Carry over"), "### Carry *over*"),
        (("Sick leave",), "Sick leave"),
    ]


def test_the_source_is_kept_as_it_is() -> None:
    """The text is the markdown itself, so that a span of it is what the author wrote."""
    source = "Some **bold** [link](http://example.org).\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"
    assert read_markdown("x.md", source.encode()).text == source


def test_without_front_matter_the_first_heading_is_the_title() -> None:
    """A second level-1 heading is a heading like any other."""
    extract = read_markdown("x.md", b"Intro\n\n# Rules `v2`\n\n# Annex\n\ntext")
    assert extract.title == "Rules v2"
    assert [path for path, _ in paths(extract)] == [(), (), ("Annex",)]


def test_without_headings_the_file_names_the_title() -> None:
    """There is always a title."""
    assert read_markdown("team/on-call.md", b"Just text.").title == "On call"


def test_broken_front_matter_stays_in_the_text() -> None:
    """Nothing is lost where the YAML cannot be read, or is only a rule."""
    for source in ("---\na: [b\n---\ntext", "---\njust words\n---\ntext", "---\ntext without an end"):
        extract = read_markdown("x.md", source.encode())
        assert (extract.text, extract.metadata) == (source, {})


@pytest.mark.parametrize(
    ("front", "key"),
    [
        ("groups: [board]\ngroups: [everyone]", "groups"),
        ("{groups: [board], groups: [everyone]}", "groups"),
        ("Groups: [board]\ngroups: [everyone]", "groups"),
        ("title: A\ntitle: B", "title"),
    ],
)
def test_front_matter_with_a_key_twice_keeps_the_document_out(front: str, key: str) -> None:
    """Which of the two was meant nobody can tell, and one may close the document; case does not tell keys apart."""
    with pytest.raises(DocumentError, match=rf"its front matter: it has the key '{key}' twice"):
        read_markdown("x.md", f"---\n{front}\n---\nText.\n".encode())


def test_headings_in_quotations_are_text() -> None:
    """A quoted heading belongs to the section that quotes it."""
    assert [path for path, _ in paths(read_markdown("x.md", b"## A\n\n> ## quoted\n\n- ## listed\n"))] == [("A",)]
