"""Files are read ahead in several processes, and come in order."""

from __future__ import annotations

import hashlib
import threading
import time
from pathlib import Path

import pytest

from corpus.errors import DocumentError
from ingest.isolation import pool, worker
from ingest.isolation.pool import Readers
from ingest.isolation.settings import IsolationSettings
from ingest.sources.folder import SourceFile
from tests.ingest.isolation.poison import poisoned_program


def source(folder: Path, name: str, text: str) -> SourceFile:
    """A file as the walk finds it."""
    path = folder / name
    path.write_text(text)
    return SourceFile("c", name, path, len(text), hashlib.sha256(text.encode()).hexdigest())


def taken(readers: Readers, files: list[SourceFile]) -> list[list[str]]:
    """Titles, or reasons, by file."""
    return [
        [found.reason if isinstance(found, DocumentError) else found.title for found in readers.extracts(file)]
        for file in files
    ]


def test_files_come_in_order_however_long_each_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threat A14: one process or four, an export of many rows or a poison among them: the same documents in the same order."""
    monkeypatch.setattr(worker, "__file__", poisoned_program(tmp_path))
    files = [source(tmp_path, f"{number:02}.md", f"# File {number}\n\nText.\n") for number in range(12)]
    files[3] = source(tmp_path, "03.md", "rows 300")
    files[5] = source(tmp_path, "05.md", "exit 1")
    expected: list[list[str]] = [[f"File {number}"] for number in range(12)]
    expected[3] = [f"Row {number}" for number in range(300)]
    expected[5] = ["its reader ended by itself (exit status 1)"]
    for workers in (1, 4):
        readers = Readers(IsolationSettings(workers=workers), files)
        try:
            assert taken(readers, files) == expected
            assert readers.isolation.keys() >= {"memory", "network", "files"}
        finally:
            readers.close()


def test_what_is_read_ahead_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound nothing is begun before what was read is taken; a file larger than the bound is read all the same."""
    monkeypatch.setattr(pool, "AHEAD_BYTES", 500)
    files = [
        source(tmp_path, f"{number}.md", f"# File {number}\n\n{'x' * (900 if number == 2 else 180)}\n") for number in range(8)
    ]
    readers = Readers(IsolationSettings(workers=2), files)
    first = readers.extracts(files[0])
    assert next(first).title == "File 0"  # type: ignore[union-attr]
    time.sleep(1)
    assert readers._begun == 2
    assert list(first) == []
    assert taken(readers, files[1:]) == [[f"File {number}"] for number in range(1, 8)]
    readers.close()


def test_closing_ends_what_is_still_being_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that stops in the middle waits for no file and leaves neither thread nor process."""
    monkeypatch.setattr(worker, "__file__", poisoned_program(tmp_path))
    files = [
        source(tmp_path, "a.md", "# A\n\nText.\n"),
        source(tmp_path, "b.md", "rows 1000"),
        source(tmp_path, "c.md", "sleep"),
    ]
    readers = Readers(IsolationSettings(workers=2), files)
    assert taken(readers, files[:1]) == [["A"]]
    time.sleep(0.5)
    started = time.monotonic()
    readers.close()
    assert time.monotonic() - started < 5
    assert [thread.name for thread in threading.enumerate() if thread.name == "reader"] == []


def test_files_are_asked_for_in_their_order(tmp_path: Path) -> None:
    """Any other order is a bug of the caller."""
    files = [source(tmp_path, name, "# X\n\nText.\n") for name in ("a.md", "b.md")]
    readers = Readers(IsolationSettings(), files)
    with pytest.raises(ValueError, match=r"'b\.md' is asked for, 'a\.md' is next"):
        next(readers.extracts(files[1]))
    readers.close()
