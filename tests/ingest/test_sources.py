"""Walking a source: globs, names, and files that cannot be had."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from corpus.errors import ConfigError
from ingest.settings import SourceSettings
from ingest.sources.folder import walk
from ingest.sources.globs import matches
from tests.making import write_files


@pytest.mark.parametrize(
    ("path", "pattern", "expected"),
    [
        ("a/b.md", "**", True),
        ("a/b.md", "*.md", True),
        ("a/b.md", "a/*.md", True),
        ("a/c/b.md", "a/*.md", False),
        ("a/c/b.md", "a/**/*.md", True),
        ("a/b.md", "a/**/*.md", True),
        ("b.md", "**/b.md", True),
        ("ab.md", "?b.md", True),
        ("a/b.md", "a?b.md", False),
        ("a.md", "a.m[de]", False),
        ("a(1)+.md", "a(1)+.md", True),
        ("a\nb.md", "*.md", True),
        ("https://wiki.example/hr/plan?year=1", "**/hr/**", True),
        ("https://wiki.example/hr/plan", "https://wiki.example/hr/*", True),
        ("https://wiki.example/hr/plan", "wiki.example/hr/*", True),
        ("https://wiki.example/hr/plan", "other.example/**", False),
    ],
)
def test_a_glob_matches(path: str, pattern: str, expected: bool) -> None:
    """`*` and `?` stay within a name, `**` crosses folders, everything else is literal."""
    assert matches(path, pattern) is expected


def test_files_come_ordered_with_their_hashes(tmp_path: Path) -> None:
    """Hidden files, office locks and excluded folders are left out; the rest is hashed."""
    names = ("b.md", "a/z.md", ".hidden/x.md", ".x", "a/~$z.docx", "Thumbs.db", "out/o.md", "c.txt")
    write_files(tmp_path, {name: Path(name).stem for name in names})
    source = SourceSettings(path=tmp_path, name="s", include=("*.md",), exclude=(".*", "**/~$*", "out/**"))
    files = list(walk(source))
    assert [(file.collection, file.path, file.content_hash) for file in files] == [
        ("s", "a/z.md", hashlib.sha256(b"z").hexdigest()),
        ("s", "b.md", hashlib.sha256(b"b").hexdigest()),
    ]
    assert [file.path for file in walk(SourceSettings(path=tmp_path))] == ["a/z.md", "b.md", "c.txt", "out/o.md"]


def test_a_source_may_be_one_file(tmp_path: Path) -> None:
    """A path to a file is a source of that file."""
    write_files(tmp_path, {"one.md": "1", "two.md": "2"})
    assert [file.path for file in walk(SourceSettings(path=tmp_path / "one.md"))] == ["one.md"]


def test_names_are_normalised_and_odd_bytes_replaced(tmp_path: Path) -> None:
    """A path is NFC, and a name that is no UTF-8 is shown with a replacement character, twice over with a number."""
    write_files(tmp_path, {"e\u0301.md": "x"})
    for name in (b"bad-\xff.md", b"bad-\xfe.md"):
        (Path(tmp_path) / name.decode("utf-8", "surrogateescape")).write_text("x")
    files = {file.path: file.problem for file in walk(SourceSettings(path=tmp_path))}
    assert set(files) == {"\u00e9.md", "bad-\ufffd.md", "bad-\ufffd.md (2)"}
    problem = files["bad-\ufffd.md (2)"]
    assert problem is not None
    assert problem.advice == "rename one of the two"


def test_a_file_that_is_too_large_is_listed_unread(tmp_path: Path) -> None:
    """The limit is named with the size, and the file is not hashed."""
    write_files(tmp_path, {"big.md": "x" * 1001})
    (file,) = walk(SourceSettings(path=tmp_path, max_file_bytes=1000))
    assert file.content_hash is None
    assert file.problem is not None
    assert file.problem.reason == "has 1,001 bytes, more than max_file_bytes 1,000"


def test_a_source_that_is_not_there_is_a_configuration_error(tmp_path: Path) -> None:
    """The error names the source and the path."""
    with pytest.raises(ConfigError, match=r"source 's': no folder or file .*nowhere"):
        list(walk(SourceSettings(path=tmp_path / "nowhere", name="s")))
