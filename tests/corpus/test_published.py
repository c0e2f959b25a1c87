"""Activating, holding and releasing: what CURRENT and HOLD say, and what is never removed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from corpus.errors import Conflict, NotFound, RunRefused, SnapshotDamaged, SnapshotError
from corpus.published import current_id, held, hold_of, pointing, purge, release, remove_litter, snapshot_ids
from corpus.settings import SearchSettings
from corpus.snapshot import activate, open_snapshot
from tests.corpus.small import publish


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three snapshots, the newest one current."""
    for text in ("one", "two", "three"):
        publish(tmp_path / "data", [text])
    return tmp_path / "data"


def test_activating_an_older_one_makes_it_current(data: Path) -> None:
    """It is the one that opens; nothing is held, and nothing else lies in the data folder."""
    first = snapshot_ids(data)[0]
    activate(data, first)
    assert (current_id(data), held(data)) == (first, None)
    assert {entry.name for entry in data.iterdir()} == {"CURRENT", "snapshots"}


@pytest.mark.parametrize("name", ["000009-00000000", "../data", "", ".building-1"])
def test_what_is_not_published_is_not_activated(data: Path, name: str) -> None:
    """It is named, and the current one stays."""
    current = current_id(data)
    with pytest.raises(NotFound, match="no snapshot"):
        activate(data, name, hold=True)
    assert (current_id(data), held(data)) == (current, None)


def test_a_damaged_one_is_not_activated(data: Path) -> None:
    """It is opened first: a changed file is told, and neither CURRENT nor HOLD is touched."""
    first, _, current = snapshot_ids(data)
    dense = data / "snapshots" / first / "dense.faiss"
    dense.write_bytes(dense.read_bytes()[:-1] + b"x")
    with pytest.raises(SnapshotDamaged, match=rf"{first}.*dense\.faiss"):
        activate(data, first, hold=True)
    assert (current_id(data), held(data)) == (current, None)


def test_while_one_is_held_nothing_is_published(data: Path) -> None:
    """What is written meanwhile is refused at its last step, with the reason, and leaves nothing; released, it is published."""
    before = snapshot_ids(data)
    activate(data, before[0], hold=True)
    hold = hold_of(data)
    assert hold is not None
    assert hold.snapshot == before[0] == held(data)
    with pytest.raises(RunRefused, match=rf"{before[0]}' is held since {hold.since[:16]}.*`archivist snapshots release`"):
        publish(data, ["four"])
    remove_litter(data)
    assert snapshot_ids(data) == before
    assert current_id(data) == before[0]
    assert {entry.name for entry in (data / "snapshots").iterdir()} == set(before)
    assert release(data) == before[0]
    assert release(data) is None
    assert publish(data, ["four"]).id == current_id(data)


def test_another_one_is_activated_only_with_its_own_hold(data: Path) -> None:
    """A hold is not lost by the way: activating another without --hold is refused; with it, the hold moves."""
    first, second, _ = snapshot_ids(data)
    activate(data, first, hold=True)
    with pytest.raises(Conflict, match=rf"{first}' is held.*release"):
        activate(data, second)
    assert (current_id(data), held(data)) == (first, first)
    activate(data, first)
    assert held(data) == first
    activate(data, second, hold=True)
    assert (current_id(data), held(data)) == (second, second)


def test_a_hold_that_names_nothing_fails_closed(data: Path) -> None:
    """An emptied or garbled HOLD is an error that says how to mend it, for a run too; releasing mends it."""
    for text in ("", "what is this", "000001-00000000"):
        (data / "HOLD").write_text(text)
        with pytest.raises(SnapshotError, match=r"names no snapshot.*snapshots release"):
            held(data)
        with pytest.raises(SnapshotError, match="names no snapshot"):
            publish(data, ["four"])
    assert release(data) is None
    assert held(data) is None


def test_what_is_held_or_current_is_not_purged(data: Path) -> None:
    """However old they are; what lies between them goes."""
    first, second, third = snapshot_ids(data)
    fourth = publish(data, ["four"]).id
    activate(data, first, hold=True)
    with pointing(data) as pointer:
        pointer.set_current(second)
    assert purge(data, 1) == [third]
    assert snapshot_ids(data) == [first, second, fourth]


def test_a_killed_activation_leaves_what_the_next_run_removes(data: Path) -> None:
    """Half-written files beside HOLD and CURRENT go; those two stay."""
    activate(data, snapshot_ids(data)[0], hold=True)
    for name in (".HOLD-12345678", ".CURRENT-12345678"):
        (data / name).write_text("half")
    remove_litter(data)
    assert {entry.name for entry in data.iterdir()} == {"CURRENT", "HOLD", "snapshots"}


def test_an_opened_one_says_what_its_manifest_says(data: Path) -> None:
    """The one that was activated opens by its id."""
    first = snapshot_ids(data)[0]
    activate(data, first)
    snapshot = open_snapshot(data, current_id(data), SearchSettings())
    assert [passage.text for passage in snapshot.store.passages([0])] == ["one"]
    assert json.loads((data / "snapshots" / first / "manifest.json").read_text())["id"] == first
    snapshot.close()
