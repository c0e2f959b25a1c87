"""Threat A6: service.db behind a crash or a bad disk: whole turns or a refusal, never an empty store that looks healthy.

A damaged header, page, length or version is refused in tests/app/test_state.py; here it is the write-ahead log.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from app.answering.types import Answer, Grounding
from app.llm.backend import Usage
from app.state.state import State

KEPT, RECENT = 5, 20
"""Turns in the database's file, and those behind them that stand in the log alone."""


def answer(text: str) -> Answer:
    """An answer of which the text matters."""
    return Answer(text, False, (), None, None, "", "local", "m", "", "", Usage(), Grounding(1.0), {})


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files as a process leaves them that is killed: nothing of the log has come into the database."""
    folder = tmp_path_factory.mktemp("running")
    state = State(folder / "service.db")
    conversation_id = state.create_conversation("anna", "x")
    for number in range(KEPT + RECENT):
        if number == KEPT:
            with closing(sqlite3.connect(folder / "service.db")) as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        state.add_turn("anna", conversation_id, f"question {number}", answer(f"answer {number} " + "x" * 400), "complete")
    left = Path(shutil.copytree(folder, tmp_path_factory.mktemp("crashed") / "data", ignore=shutil.ignore_patterns("*-shm")))
    state.close()
    assert (left / "service.db-wal").stat().st_size > 100_000
    return left


def turns(path: Path) -> int:
    """How many turns there are; each of them is whole, in order, and none before them is missing."""
    with closing(State(path)) as state:
        (conversation,), _ = state.conversations("anna", None, 10)
        messages, _ = state.messages("anna", conversation.conversation_id, limit=200)
    said = [(message.role, message.content.split(" x")[0]) for message in messages]
    count = len(said) // 2
    words = (("user", "question"), ("assistant", "answer"))
    assert said == [(role, f"{word} {number}") for number in range(count) for role, word in words]
    return count


def test_a6_what_a_killed_service_had_acknowledged_is_there(crashed: Path, tmp_path: Path) -> None:
    """The log is read again at the start."""
    shutil.copytree(crashed, tmp_path / "data")
    assert turns(tmp_path / "data" / "service.db") == KEPT + RECENT


def test_a6_without_its_log_the_database_is_as_it_was_before(crashed: Path, tmp_path: Path) -> None:
    """Whoever deletes the log loses what stands in it and nothing else."""
    shutil.copytree(crashed, tmp_path / "data")
    (tmp_path / "data" / "service.db-wal").unlink()
    assert turns(tmp_path / "data" / "service.db") == KEPT


@pytest.mark.parametrize("kind", ["flip", "zero", "cut"])
@pytest.mark.parametrize("seed", range(6))
def test_a6_behind_a_damaged_place_in_the_log_nothing_is_taken(crashed: Path, tmp_path: Path, kind: str, seed: int) -> None:
    """SQLite's frames have checksums: the turns before the damage are there and whole."""
    shutil.copytree(crashed, tmp_path / "data")
    log = tmp_path / "data" / "service.db-wal"
    data = bytearray(log.read_bytes())
    at = random.Random(f"{kind} {seed}").randrange(32, len(data) - 4096)
    if kind == "flip":
        data[at] ^= 0x10
    elif kind == "zero":
        data[at : at + 4096] = bytes(4096)
    else:
        del data[at:]
    log.write_bytes(bytes(data))
    assert KEPT <= turns(tmp_path / "data" / "service.db") < KEPT + RECENT
