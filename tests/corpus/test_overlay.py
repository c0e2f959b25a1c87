"""The overlay: entries are permanent, durable, seen by every process at once, and follow a document that was moved."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from corpus.effects import NOTHING, Effect, Former, Seen
from corpus.errors import NotFound, OverlayError
from corpus.overlay import Overlay
from corpus.settings import LabelSettings

ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the database will be."""
    return tmp_path / "data" / "overlay.db"


def test_entries_are_numbered_and_come_to_an_effect(path: Path) -> None:
    """Deletes, revocations and the highest of several labels add up for each document; the rest is untouched."""
    overlay = Overlay(path)
    overlay.relabel("a", "confidential", "anna")
    overlay.relabel("a", "public", "anna")
    overlay.revoke("a", "board", "anna")
    overlay.revoke("a", "staff", "anna")
    overlay.delete("b", "bert")
    assert [(e.number, e.kind, e.document_id, e.value, e.by) for e in overlay.entries()] == [
        (1, "relabel", "a", "confidential", "anna"), (2, "relabel", "a", "public", "anna"), (3, "revoke", "a", "board", "anna"),
        (4, "revoke", "a", "staff", "anna"), (5, "delete", "b", "", "bert"),
    ]  # fmt: skip
    assert overlay.effects().of == {
        "a": Effect(revoked=frozenset({"board", "staff"}), label="confidential"), "b": Effect(deleted=True),
    }  # fmt: skip
    assert overlay.effects().effect("c") == NOTHING
    assert [e.number for e in overlay.entries(after=3, limit=1)] == [4]
    overlay.close()


def test_an_undo_marks_and_never_removes(path: Path) -> None:
    """The entry stays with the time of its undoing, its effect ends, its number is not given again, and it is undone once."""
    overlay = Overlay(path)
    number = overlay.delete("a", "anna").number
    assert overlay.undo(number).undone_at is not None
    assert overlay.effects().of == {}
    assert [e.undone_at is not None for e in overlay.entries()] == [True]
    assert overlay.delete("a", "anna").number == number + 1
    for other in (number, 99):
        with pytest.raises(NotFound, match=str(other)):
            overlay.undo(other)
    overlay.close()


def test_effects_are_one_object_until_something_changes(path: Path) -> None:
    """The version changes with an entry of this process and of another, and with nothing else."""
    overlay, other = Overlay(path), Overlay(path)
    before = overlay.effects()
    assert overlay.effects() is before
    other.delete("a", "anna")
    after = overlay.effects()
    assert (after.version > before.version, after.of["a"].deleted, overlay.effects() is after) == (True, True, True)
    overlay.revoke("a", "board", "anna")
    assert overlay.effects().of["a"] == Effect(deleted=True, revoked=frozenset({"board"}))
    overlay.use(LabelSettings())
    last = overlay.effects()
    assert overlay.effects() is last
    overlay.close()
    other.close()


def test_a_label_that_nobody_knows_is_the_highest(path: Path) -> None:
    """Where the order of the labels changes, so does what an entry comes to, at once."""
    overlay = Overlay(path, LabelSettings(order=("public", "internal", "secret")))
    overlay.relabel("a", "restricted", "anna")
    effects = overlay.effects()
    assert effects.label("internal", effects.of["a"]) == "secret"
    overlay.use(LabelSettings(order=("public", "restricted", "internal")))
    effects = overlay.effects()
    assert effects.label("public", effects.of["a"]) == "restricted"
    assert effects.label("internal", effects.of["a"]) == "internal"
    overlay.close()


def test_what_was_decided_follows_a_move_and_not_who_came_after(path: Path) -> None:
    """An entry holds for the document under its later ids, and not for another one that took its first."""
    overlay = Overlay(path)
    overlay.delete("old", "anna", Seen(3))
    moved = (Former("middle", 7), Former("old", 5))
    assert overlay.effects().effect("new", moved).deleted
    overlay.undo(1)
    # Seen in 6, "old" was somebody else already.
    overlay.delete("old", "anna", Seen(6))
    assert not overlay.effects().effect("new", moved).deleted
    assert overlay.effects().effect("old").deleted
    overlay.close()


def test_what_was_decided_holds_in_snapshots_of_before_the_move(path: Path) -> None:
    """There it holds for the document as it was called then, and for nobody who had the name later."""
    overlay = Overlay(path)
    overlay.delete("new", "anna", Seen(9, (Former("middle", 7), Former("old", 5))))
    effects = overlay.effects()
    assert {"new", "middle", "old"} <= effects.named
    assert [effects.effect("old", snapshot=number).deleted for number in (4, 5, 6, 9)] == [True, True, False, False]
    assert [effects.effect("middle", snapshot=number).deleted for number in (7, 8)] == [True, False]
    overlay.close()


def test_moves_that_were_noted_hold_without_a_snapshot(path: Path) -> None:
    """A deleted document that moves on is known by its new id even where every snapshot is lost."""
    overlay = Overlay(path)
    overlay.delete("old", "anna", Seen(1))
    overlay.note_moves({"new": (Former("old", 2),)})
    overlay.note_moves({"new": (Former("old", 1),), "other": ()})
    assert overlay.effects().of == {"old": Effect(deleted=True), "new": Effect(deleted=True)}
    overlay.close()


def test_an_entry_is_durable_when_it_is_acknowledged(path: Path) -> None:
    """A process that is killed right behind its entry has made it; the settings that this takes are in force (threat G3)."""
    script = (
        "import os, sys; from pathlib import Path; from corpus.overlay import Overlay\n"
        "overlay = Overlay(Path(sys.argv[1])); overlay.delete('a', 'anna'); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", script, str(path)], cwd=ROOT).returncode == -9
    overlay = Overlay(path)
    assert overlay.effects().of == {"a": Effect(deleted=True)}
    pragmas = ("journal_mode", "synchronous", "secure_delete")
    values = [overlay._connection.execute(f"PRAGMA {name}").fetchone()[0] for name in pragmas]
    assert values == ["wal", 2, 1]
    overlay.close()
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["overlay.db"]


def test_many_threads_and_connections_lose_no_entry(path: Path) -> None:
    """Four threads on two connections, made at the same time: every entry has a number of its own and holds everywhere."""
    made: list[Overlay] = []

    def write(number: int) -> None:
        overlay = Overlay(path)
        made.append(overlay)
        for step in range(10):
            overlay.delete(f"{number}-{step}", "anna")
            assert overlay.effects().of[f"{number}-{step}"].deleted

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [e.number for e in made[0].entries()] == list(range(1, 41))
    assert {len(overlay.effects().of) for overlay in made} == {40}
    for overlay in made:
        overlay.close()


@pytest.mark.parametrize("content", [b"", b"not a database at all" * 300], ids=["empty", "garbage"])
def test_a_file_that_cannot_be_read_is_an_error(path: Path, content: bytes) -> None:
    """A database that lost its content is never taken for one without entries."""
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(OverlayError, match=r"overlay\.db"):
        Overlay(path)


def test_another_programs_database_is_refused(path: Path) -> None:
    """Only a database of ours is read."""
    path.parent.mkdir()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE entries (number INTEGER)")
    connection.close()
    with pytest.raises(OverlayError, match="not one of this version"):
        Overlay(path)


def test_a_file_that_is_removed_or_replaced_is_an_error(path: Path) -> None:
    """What another process writes into a new file would not be seen in the old one, so nothing is read any more."""
    overlay = Overlay(path)
    overlay.delete("a", "anna")
    away = path.with_name("away.db")
    path.rename(away)
    with pytest.raises(OverlayError):
        overlay.effects()
    Overlay(path).close()
    with pytest.raises(OverlayError, match="replaced"):
        overlay.effects()
    away.replace(path)
    assert overlay.effects().of["a"].deleted
    overlay.close()
