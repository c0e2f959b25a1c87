"""`archivist snapshots` list, show, diff, activate and release."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from archivist.cli import app as cli
from corpus.errors import NotFound, RunRefused, SnapshotDamaged
from corpus.published import current_id, held, hold_of, snapshot_ids
from ingest.settings import CanarySettings, GateSettings
from tests.conftest import Run
from tests.making import job_settings, write_files


@pytest.fixture
def data(tmp_path: Path, run: Run) -> Path:
    """Two snapshots: one document changed and one came in the second."""
    documents = write_files(tmp_path / "documents", {"a.md": "# A\n\nText.\n", "b.md": "# B\n\nMore.\n"})
    run(job_settings(tmp_path / "data", documents))
    write_files(documents, {"b.md": "# B\n\nMore by now.\n", "c.md": "# C\n\nNew.\n"})
    run(job_settings(tmp_path / "data", documents))
    return tmp_path / "data"


def snapshots(data: Path, *arguments: str) -> Result:
    """What a command says."""
    return CliRunner().invoke(cli, ["snapshots", *arguments, "--data", str(data)])


def test_one_is_put_back_held_and_released(data: Path, run: Run) -> None:
    """Each step says what it did, the list marks what is current and held, and a run is refused while it is."""
    first, second = snapshot_ids(data)
    done = snapshots(data, "activate", first, "--hold")
    assert done.stdout == f"{first} is current, and held: runs publish nothing until `archivist snapshots release`.\n"
    one, other = snapshots(data, "list").stdout.splitlines()
    assert (one[:2], one[-6:], other[:2]) == ("* ", "  held", "  ")
    told = json.loads(snapshots(data, "list", "--json").stdout)
    assert [(each["id"], each["current"], each["held"]) for each in told] == [(first, True, True), (second, False, False)]
    with pytest.raises(RunRefused, match="is held since"):
        run(job_settings(data, data.parent / "documents"))
    assert snapshots(data, "release").stdout == f"{first} is not held any more; the next run publishes again.\n"
    assert snapshots(data, "release").stdout == "No snapshot was held.\n"
    assert snapshots(data, "activate", second).stdout == f"{second} is current.\n"
    assert (current_id(data), held(data)) == (second, None)


def test_what_is_not_there_is_named(data: Path) -> None:
    """An id that was never published is an error for every command that takes one."""
    current = current_id(data)
    for arguments in (
        ("show", "000009-00000000"), ("activate", "../data"), ("diff", current, "000009-00000000"),
        ("verify", "nothere"), ("verify", "../.."), ("verify", f"../snapshots/{current}"),
    ):  # fmt: skip
        result = snapshots(data, *arguments)
        assert isinstance(result.exception, NotFound)
        assert arguments[-1] in str(result.exception)
    assert current_id(data) == current


def test_a_damaged_one_is_listed_with_what_is_wrong_and_the_others_too(data: Path) -> None:
    """One line each, and in JSON; showing or comparing the damaged one says what is wrong with it."""
    first, second = snapshot_ids(data)
    os.truncate(data / "snapshots" / first / "manifest.json", 20)
    listed = snapshots(data, "list")
    assert listed.exit_code == 0
    one, other = listed.stdout.splitlines()
    assert one == f"  {first}  damaged: manifest.json cannot be read (JSONDecodeError)"
    assert other.startswith(f"* {second}  20")
    told = json.loads(snapshots(data, "list", "--json").stdout)
    assert told[0] == {
        "id": first, "problem": "manifest.json cannot be read (JSONDecodeError)", "current": False, "held": False,
    }  # fmt: skip
    assert (told[1]["id"], told[1]["documents"], told[1]["current"]) == (second, 3, True)
    (data / "snapshots" / second / "chunks.db").unlink()
    for arguments in (("show", first), ("show", second), ("diff", first, second), ("diff", second, first)):
        assert isinstance(snapshots(data, *arguments).exception, SnapshotDamaged), arguments


def test_a_snapshot_is_shown(data: Path) -> None:
    """Counts, model, parent and size, as text and as JSON; the current one if none is named."""
    first, second = snapshot_ids(data)
    snapshots(data, "activate", second, "--hold")
    hold = hold_of(data)
    assert hold is not None
    lines = snapshots(data, "show").stdout.splitlines()
    assert lines[0] == f"{second}  current, held since {hold.since}"
    assert f"from {first}" in lines[1]
    assert lines[2].split() == ["documents", "3", "in", "3", "chunks"]
    assert "all-MiniLM-L6-v2 (384 dimensions, " in lines[3]
    told = json.loads(snapshots(data, "show", first, "--json").stdout)
    assert (told["id"], told["documents"], told["current"], told["held_since"]) == (first, 2, False, None)
    assert told["sizes_bytes"]["chunks.db"] == (data / "snapshots" / first / "chunks.db").stat().st_size
    assert set(told["sizes_bytes"]) == set(told["files"])


def test_what_was_checked_is_a_line_for_each_check(tmp_path: Path, run: Run) -> None:
    """Its name, how it came out, what was looked at, and the two numbers."""
    documents = write_files(tmp_path / "documents", {"a.md": "# A\n\nVisitors park in the yard.\n", "b.md": "Lunch.\n"})
    canary = CanarySettings(question="Where do visitors park?", document="a.md", within=2)
    run(job_settings(tmp_path / "data", documents, gate=GateSettings(max_failure_share=0.25, canaries=(canary,))))
    checked = [line for line in snapshots(tmp_path / "data", "show").stdout.splitlines() if "checked" in line]
    assert checked == [
        "  checked    failure_share held: 0 of 2 documents could not be read (measured 0, limit 0.25)",
        "  checked    canary_1 held: canary question 1: 'a.md' stands at place 1 among the first 2 (measured 1, limit 2)",
    ]


def test_two_are_compared(data: Path) -> None:
    """In a line a document, and in JSON."""
    first, second = snapshot_ids(data)
    assert snapshots(data, "diff", first, second).stdout.splitlines() == [
        "1 added, 1 changed, 0 moved, 0 gone, 0 access, 1 the same", "+ c.md", "~ b.md",
    ]  # fmt: skip
    told = json.loads(snapshots(data, "diff", second, first, "--json").stdout)
    assert (told["before"], told["now"], told["kept"]) == (second, first, 1)
    assert [each["source"] for each in told["gone"]] == ["c.md"]
