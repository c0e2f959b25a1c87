"""The history of runs as somebody reads it who follows a run from outside, and the lock that tells whether it is at work."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from corpus.errors import ConfigError
from corpus.lock import is_locked, locked
from corpus.runs import follow_run, next_run_id, now, output_path, read_run, read_runs, reserve_run, run_ids, write_run
from ingest.runs import RunLog

RUN = "000004-0123abcd"


def test_whoever_looks_sees_the_lock_and_turns_nobody_away(tmp_path: Path) -> None:
    """Held or not, as often as one looks; a look leaves it free, and makes no file."""
    assert not is_locked(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with locked(tmp_path):
        assert [is_locked(tmp_path) for _ in range(3)] == [True] * 3
    assert not is_locked(tmp_path)
    with locked(tmp_path):
        assert is_locked(tmp_path)


def test_a_run_that_died_is_told_as_killed_at_once(tmp_path: Path) -> None:
    """While the lock is held it runs; once nobody holds it, it was killed, and the report on disk is as it was."""
    write_run(tmp_path, {"run": RUN, "status": "running", "started_at": now()})
    with locked(tmp_path):
        assert follow_run(tmp_path, RUN)["status"] == "running"
    followed = follow_run(tmp_path, RUN)
    assert (followed["status"], followed["error"]) == ("killed", "the process ended without a word")
    assert read_run(tmp_path, RUN)["status"] == "running"


@pytest.mark.parametrize(("age_s", "status"), [(0, "starting"), (100, "starting"), (130, "killed")])
def test_a_reserved_run_that_never_begins_was_killed(tmp_path: Path, age_s: int, status: str) -> None:
    """Two minutes after it was started it is told so."""
    started = (datetime.now(UTC) - timedelta(seconds=age_s)).isoformat(timespec="seconds")
    write_run(tmp_path, {"run": RUN, "status": "starting", "started_at": started})
    assert follow_run(tmp_path, RUN)["status"] == status


def test_a_reserved_id_is_there_at_once_and_the_run_may_take_it(tmp_path: Path) -> None:
    """Once: then it is taken. The next id is another."""
    run_id = reserve_run(tmp_path)
    assert (read_run(tmp_path, run_id)["status"], run_ids(tmp_path)) == ("starting", [run_id])
    assert RunLog(tmp_path, run_id, keep=5).run_id == run_id
    assert read_run(tmp_path, run_id)["status"] == "running"
    with pytest.raises(ConfigError, match="is taken"):
        RunLog(tmp_path, run_id, keep=5)
    assert next_run_id(tmp_path).startswith("000002-")


def test_a_run_that_begins_leaves_alone_one_that_was_just_reserved(tmp_path: Path) -> None:
    """One that was running is told killed, one that starts is not."""
    write_run(tmp_path, {"run": RUN, "status": "running", "started_at": now()})
    reserved = reserve_run(tmp_path)
    RunLog(tmp_path, None, keep=5)
    assert [read_run(tmp_path, name)["status"] for name in run_ids(tmp_path)] == ["killed", "starting", "running"]
    assert run_ids(tmp_path)[1] == reserved


def test_with_a_report_goes_what_its_run_printed(tmp_path: Path) -> None:
    """Only the reports that are kept have an output beside them."""
    for _ in range(3):
        run_id = reserve_run(tmp_path)
        output_path(tmp_path, run_id).write_text("line\n")
        RunLog(tmp_path, run_id, keep=2)
    kept = run_ids(tmp_path)
    assert [name[:6] for name in kept] == ["000002", "000003"]
    assert sorted(path.stem for path in (tmp_path / "runs").glob("*.log")) == kept


def odd(**fields: object) -> str:
    """A report as it should be, but for some fields."""
    return json.dumps({"status": "published", "started_at": "2026-11-24T02:00:00+00:00", **fields})


ODD = [
    "", "[]", "nonsense", '"text"', "{}", "[" * 100_000, odd(status="resting"), odd(status=["published"]), odd(status=None),
    odd(started_at=None), odd(started_at=7), odd(started_at="soon"), odd(started_at="2026-11-24T02:00:00"),
    odd(started_at="2026-13-24T02:00:00Z"), odd(ended_at="soon"), odd(failures=7), odd(failures=["a"]), odd(reasons="because"),
    odd(reasons=[1]), odd(took_s="long"), odd(took_s=float("nan")), odd(took_s=10**400), odd(took_s=-1), odd(added="3"),
    odd(documents=10**400), odd(snapshot=7), odd(error=["a"]), odd(progress=[]), odd(progress={"step": "ingest"}),
    odd(gate={"name": "a"}), odd(other=float("inf")), odd(other="\ud800"), '{"status": "published", "n": 1e999}',
]  # fmt: skip


@pytest.mark.parametrize("text", ODD, ids=range(len(ODD)))
def test_a_damaged_report_is_no_report(tmp_path: Path, text: str) -> None:
    """It is an error of ours that names the run."""
    write_run(tmp_path, {"run": RUN, "status": "published", "started_at": now()})
    (tmp_path / "runs" / f"{RUN}.json").write_text(text)
    with pytest.raises(ConfigError, match=RUN):
        read_run(tmp_path, RUN)
    assert read_runs(tmp_path) == []
