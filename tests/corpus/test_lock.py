"""Threat A8: one run at a time, by a lock of the operating system that no kill leaves behind."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from archivist import cli
from corpus.errors import LockHeld
from corpus.lock import locked
from tests.making import write_files

HOLDER = """
import sys
from pathlib import Path
from corpus.errors import LockHeld
from corpus.lock import locked
for line in sys.stdin:
    try:
        with locked(Path(sys.argv[1])):
            print("held", flush=True)
            sys.stdin.readline()
    except LockHeld:
        print("refused", flush=True)
"""


def contest(data_dir: Path, rounds: int) -> int:
    """Let two processes want the lock at once, kill the one that has it, and see that the other gets it then."""
    root = Path(__file__).parents[2]
    refused = 0
    for _ in range(rounds):
        both = [
            subprocess.Popen(
                [sys.executable, "-c", HOLDER, str(data_dir)],
                cwd=root,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(2)
        ]
        for process in both:
            assert process.stdin is not None
            process.stdin.write("try\n")
            process.stdin.flush()
        said = [process.stdout.readline().strip() for process in both if process.stdout is not None]
        assert sorted(said) == ["held", "refused"]
        refused += 1
        holder, other = both if said[0] == "held" else reversed(both)
        with pytest.raises(LockHeld), locked(data_dir):
            raise AssertionError("two held the lock")
        holder.kill()
        holder.communicate()
        assert other.stdin is not None
        assert other.stdout is not None
        other.stdin.write("try\n")
        other.stdin.flush()
        assert other.stdout.readline() == "held\n"
        other.kill()
        other.communicate()
    return refused


def test_of_two_at_once_one_runs_and_a_kill_frees_the_lock(tmp_path: Path) -> None:
    """The lock is free as soon as its holder is dead, whatever file lies there."""
    assert contest(tmp_path, 3) == 3


@pytest.mark.nightly
def test_50_contests_for_the_lock(tmp_path: Path) -> None:
    """A8 fifty times."""
    assert contest(tmp_path, 50) == 50


def test_the_command_ends_at_once_with_its_own_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """While another holds the lock `archivist ingest` says so within a second and exits with 5."""
    write_files(tmp_path / "documents", {"a.md": "A.\n"})
    monkeypatch.setattr(
        sys, "argv", ["archivist", "ingest", "--data", str(tmp_path / "data"), "--source", str(tmp_path / "documents")]
    )
    with locked(tmp_path / "data"):
        started = time.monotonic()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert time.monotonic() - started < 1
    assert ended.value.code == 5
    assert "another run holds the lock" in capsys.readouterr().err
