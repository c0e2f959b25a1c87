"""Runs that the service starts: real processes that end well, badly, or are killed."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from app.runs import Overview, Runs
from corpus.errors import ArchivistError, Conflict, NotFound
from corpus.lock import locked
from corpus.runs import now, read_run, run_ids, write_run
from tests.servers import wait_until

ROOT = Path(__file__).parents[2]

WORKING = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from corpus.lock import locked
from ingest.runs import RunLog
with locked(Path(sys.argv[1])):
    log = RunLog(Path(sys.argv[1]), sys.argv[sys.argv.index("--run-id") + 1], 100)
    while not Path(sys.argv[1], "go").exists():
        time.sleep(0.01)
    log.end("published", {"documents": 3, "failures": [{}]})
time.sleep(0.5)
"""


def runs_of(data_dir: Path, code: str) -> Runs:
    """Runs whose job is a piece of Python; it is given the data folder, the repository and the job's own flags."""
    return Runs(data_dir, (sys.executable, "-c", code, str(data_dir), str(ROOT)))


def ended(runs: Runs, run_id: str) -> dict[str, Any]:
    """The report of a run once it has ended."""
    assert wait_until(lambda: runs.report(run_id)["status"] not in ("starting", "running"), 60)
    return runs.report(run_id)


def test_a_run_can_be_followed_from_the_first_moment_to_its_end(tmp_path: Path) -> None:
    """It is there as `starting` at once, then runs in a session of its own, then has ended; meanwhile no second one starts."""
    runs = runs_of(tmp_path, WORKING)
    run_id = runs.start()
    assert runs.report(run_id)["status"] in ("starting", "running")
    with pytest.raises(Conflict, match=run_id):
        runs.start()
    assert wait_until(lambda: runs.report(run_id)["status"] == "running", 60)
    pid = read_run(tmp_path, run_id)["pid"]
    assert os.getsid(pid) == pid != os.getsid(0)
    (tmp_path / "go").touch()
    report = ended(runs, run_id)
    assert (report["run"], report["status"], report["documents"]) == (run_id, "published", 3)
    # It takes its process a moment to end; whoever saw that the run has may start the next one all the same.
    assert ended(runs, runs.start())["status"] == "published"


def test_a_run_that_is_killed_is_told_so(tmp_path: Path) -> None:
    """SIGKILL while it is at work: `killed`, and the report on disk says it too."""
    runs = runs_of(tmp_path, WORKING)
    run_id = runs.start()
    assert wait_until(lambda: runs.report(run_id)["status"] == "running", 60)
    os.kill(read_run(tmp_path, run_id)["pid"], signal.SIGKILL)
    assert ended(runs, run_id)["status"] == "killed"
    assert wait_until(lambda: read_run(tmp_path, run_id)["status"] == "killed", 10)


def test_of_a_run_that_is_killed_somebody_is_told(tmp_path: Path) -> None:
    """With its report, once; what came of it stands there. A run that ends by itself tells of itself."""
    told: list[Mapping[str, Any]] = []

    def tell(report: Mapping[str, Any]) -> str:
        told.append(report)
        return "sent"

    runs = Runs(tmp_path, (sys.executable, "-c", WORKING, str(tmp_path), str(ROOT)), tell)
    run_id = runs.start()
    assert wait_until(lambda: runs.report(run_id)["status"] == "running", 60)
    os.kill(read_run(tmp_path, run_id)["pid"], signal.SIGKILL)
    assert wait_until(lambda: read_run(tmp_path, run_id).get("webhook") == "sent", 10)
    (tmp_path / "go").touch()
    assert ended(runs, runs.start())["status"] == "published"
    assert [(report["run"], report["status"]) for report in told] == [(run_id, "killed")]


def test_a_run_that_never_got_to_work_has_failed_with_its_last_words(tmp_path: Path) -> None:
    """A configuration that cannot be used ends the command before it has a report: what it said becomes the reason."""
    runs = runs_of(tmp_path, "import sys; print('{}'); print('archivist: no source to read', file=sys.stderr); sys.exit(2)")
    report = ended(runs, runs.start())
    assert (report["status"], report["error"], report["exit_code"]) == ("failed", "no source to read", 2)


def test_a_flag_reaches_the_job_only_where_it_is_asked_for(tmp_path: Path) -> None:
    """`--allow-removals` behind the run's id."""
    runs = runs_of(tmp_path, "import sys; sys.exit('archivist: ' + ' '.join(sys.argv[3:]))")
    for allow_removals, flags in ((False, ""), (True, " --allow-removals")):
        run_id = runs.start(allow_removals=allow_removals)
        assert ended(runs, run_id)["error"] == f"--run-id {run_id}{flags}"


def test_no_run_starts_while_another_process_holds_the_lock(tmp_path: Path) -> None:
    """The nightly run, or a purge: refused, and no report is left."""
    with locked(tmp_path), pytest.raises(Conflict, match="is at work on the data folder"):
        runs_of(tmp_path, "").start()
    assert run_ids(tmp_path) == []


def test_a_command_that_is_not_there_fails_the_run(tmp_path: Path) -> None:
    """The error is ours, and the report says why."""
    runs = Runs(tmp_path, (str(tmp_path / "nowhere"),))
    with pytest.raises(ArchivistError, match="could not be started"):
        runs.start()
    (run_id,) = run_ids(tmp_path)
    assert (read_run(tmp_path, run_id)["status"], runs.report(run_id)["error"][:11]) == ("failed", "not started")


def test_a_service_without_a_command_starts_none(tmp_path: Path) -> None:
    """It says what to run instead."""
    with pytest.raises(Conflict, match="archivist ingest"):
        Runs(tmp_path, ()).start()


def test_reports_come_newest_first_page_by_page(tmp_path: Path) -> None:
    """Each once, whatever the page's size; an unknown run is not there."""
    ids = [f"{number:06d}-00000000" for number in range(1, 6)]
    for run_id in ids:
        write_run(tmp_path, {"run": run_id, "status": "unchanged", "started_at": now()})
    runs = Runs(tmp_path, ())
    first, more = runs.reports(None, 2)
    assert ([each["run"] for each in first], more) == (ids[:2:-1], True)
    rest, more = runs.reports(ids[3], 9)
    assert ([each["run"] for each in rest], more) == (ids[2::-1], False)
    with pytest.raises(NotFound):
        runs.report("../CURRENT")


def test_what_is_no_report_is_passed_over(tmp_path: Path) -> None:
    """Neither the list nor its pages nor the last run are lost to a file that says nothing or something else."""
    ids = [f"{number:06d}-00000000" for number in range(1, 6)]
    for run_id in ids:
        write_run(tmp_path, {"run": run_id, "status": "unchanged", "started_at": now()})
    for run_id, text in ((ids[4], "{}"), (ids[3], '{"status": "published", "failures": 7}'), (ids[1], "[]")):
        (tmp_path / "runs" / f"{run_id}.json").write_text(text)
    runs = Runs(tmp_path, ())
    first, more = runs.reports(None, 1)
    assert ([each["run"] for each in first], more) == ([ids[2]], True)
    rest, more = runs.reports(ids[2], 1)
    assert ([each["run"] for each in rest], more) == ([ids[0]], False)
    overview = runs.overview()
    assert overview.by_status == {"unchanged": 2}
    assert overview.last is not None
    assert overview.last["run"] == ids[2]


def test_the_overview_tells_the_last_run_that_ended_and_the_last_that_went_well(tmp_path: Path) -> None:
    """Counts by status, and times as numbers; a report that changes is read again."""
    runs = Runs(tmp_path, ())
    assert runs.overview() == Overview({}, None, None, None)
    began = {"started_at": "2026-11-24T01:00:00+00:00"}
    write_run(tmp_path, {**began, "run": "000001-00000000", "status": "published", "ended_at": "2026-11-24T02:00:00+00:00"})
    failed = {**began, "run": "000002-00000000", "status": "failed", "ended_at": "2026-11-24T03:00:00+00:00", "took_s": 7.5}
    write_run(tmp_path, {**failed, "failures": [{}, {}]})
    write_run(tmp_path, {"run": "000003-00000000", "status": "running", "started_at": "2026-11-24T04:00:00+00:00"})
    with locked(tmp_path):
        overview = runs.overview()
    assert overview.by_status == {"published": 1, "failed": 1, "running": 1}
    assert overview.last is not None
    assert (overview.last["run"], overview.last["took_s"], overview.last["failures"]) == ("000002-00000000", 7.5, 2)
    assert overview.ended_at is not None
    assert overview.well_at is not None
    assert overview.ended_at - overview.well_at == 3600
    assert runs.overview().by_status == {"published": 1, "failed": 1, "killed": 1}
