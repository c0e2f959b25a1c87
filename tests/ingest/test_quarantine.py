"""Threat A10 and C8: a poison file costs the night one file, and is tried again only once it changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingest.isolation import worker
from tests.conftest import Run
from tests.ingest.isolation.poison import poisoned_program
from tests.making import job_settings, write_files


def test_a_poison_file_is_quarantined_until_it_changes(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two poison files among others: listed with their reasons, not read the next night, read again once mended."""
    monkeypatch.setattr(worker, "__file__", poisoned_program(tmp_path))
    files = {f"{number}.md": f"# File {number}\n\nText of {number}.\n" for number in range(6)}
    source = write_files(tmp_path / "documents", {**files, "2.md": "exit 7", "4.md": "raise the secret words"})
    settings = job_settings(tmp_path / "data", source)
    report = run(settings)
    found = {failure.path: failure.reason for failure in report.failures}
    assert (report.published, report.documents) == (True, 4)
    assert found == {"2.md": "its reader ended by itself (exit status 7)", "4.md": "the reader failed (ZeroDivisionError at ?)"}
    assert "secret words" not in str(report.as_json())
    assert report.isolation["memory"] == str(settings.isolation.memory_bytes)
    again = run(settings)
    assert (again.published, again.isolation, {failure.path for failure in again.failures}) == (False, {}, {"2.md", "4.md"})
    write_files(source, {"2.md": "# Mended\n\nText.\n", "9.md": "# New\n\nText.\n"})
    mended = run(settings)
    assert (mended.documents, [failure.path for failure in mended.failures]) == (6, ["4.md"])
    assert (mended.added, mended.changed) == (1, 1)


def test_what_stopped_from_outside_is_read_the_next_night(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that an operator killed says nothing of the file."""
    program = poisoned_program(tmp_path)
    source = write_files(tmp_path / "documents", {"a.md": "# A\n\nText.\n", "b.md": "signal 15"})
    settings = job_settings(tmp_path / "data", source)
    with monkeypatch.context() as patch:
        patch.setattr(worker, "__file__", program)
        assert [failure.path for failure in run(settings).failures] == ["b.md"]
    assert run(settings).documents == 2
