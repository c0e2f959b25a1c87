"""Threat A8: two runs of the real job at once, over and over, and the one that holds the lock killed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from corpus.errors import LockHeld
from corpus.lock import locked
from tests.ingest.killing import Field, Runs

ONCE_S = 5
"""Seconds in which the other is refused, on a busy machine too; the lock itself is waited for at most .2 s."""


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Field:
    """What the runs here begin with and should come to."""
    return Field(tmp_path_factory.mktemp("field"))


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Runs, Runs]]:
    """Two that start runs, so that two can be at work."""
    folder = tmp_path_factory.mktemp("two")
    both = Runs(folder / "first.txt"), Runs(folder / "second.txt")
    yield both
    for each in both:
        each.close()


def stopped_in_the_middle(runs: Runs, data: Path, documents: Path) -> int | None:
    """The process id of a run that holds the lock and has stopped; None where it came to its end first."""
    pid = runs.start(data, documents)
    deadline = time.monotonic() + 60
    # The work file is there from behind the lock to the end.
    while not (data / "work" / "embeddings.db").exists():
        assert time.monotonic() < deadline, runs.errors()[-500:]
        time.sleep(0.0005)
    os.kill(pid, signal.SIGSTOP)
    try:
        with locked(data):
            return None
    except LockHeld:
        return pid


def contest(servers: tuple[Runs, Runs], field: Field, rounds: int) -> int:
    """Of two runs one works and one is refused; the worker killed, the next one finishes its work. Returns how often."""
    first, second = servers
    contests = 0
    for _ in range(2 * rounds):
        data = field.trial()
        pid = stopped_in_the_middle(first, data, field.documents)
        if pid is None:
            assert first.end() == 0
            continue
        began = time.monotonic()
        second.start(data, field.documents)
        assert second.end() == 1
        took_s = time.monotonic() - began
        assert second.errors().splitlines()[-1].startswith("LockHeld: ")
        assert took_s < ONCE_S, took_s
        os.kill(pid, signal.SIGKILL)
        assert first.end() == -signal.SIGKILL
        field.check_behind(data)
        contests += 1
        if contests == rounds:
            break
    return contests


def test_a8_of_two_runs_one_works_and_its_death_frees_the_lock(servers: tuple[Runs, Runs], field: Field) -> None:
    """The other is refused at once; behind the kill the old snapshot serves, and the next run comes to the same."""
    assert contest(servers, field, 3) == 3


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_a8_fifty_times(servers: tuple[Runs, Runs], field: Field) -> None:
    """50 contests of 50."""
    assert contest(servers, field, 50) == 50
