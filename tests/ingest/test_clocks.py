"""Threat A9: no clock decides what is read or what is served: not that of the files, not the machine's, whatever it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from corpus.published import current_id, snapshot_ids
from corpus.verify import problems_of
from tests.ingest.killing import ROOT, run
from tests.making import contents, write_files

FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
needs_faketime = pytest.mark.skipif(
    FAKETIME is None, reason="NOT CHECKED: another clock takes libfaketime (apt-get install faketime)"
)
DAY_S, YEAR_S = 86_400, 365 * 86_400

JOB = """
import dataclasses, json, sys
from pathlib import Path
import pytest
from ingest import job
from corpus.settings import EmbedderSettings
from tests.ingest import killing
from tests.making import job_settings
data, documents, clock, then = sys.argv[1:]
def heard(event):
    if event.step == "ingest":
        Path(clock).write_text(then)
with pytest.MonkeyPatch.context() as patch:
    killing.prepare(patch)
    report = job.run(job_settings(Path(data), Path(documents), embedder=EmbedderSettings(model=".")), heard)
print(json.dumps({"published": report.published, "embedded": report.embedded, "took_s": report.took_s}))
"""


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    """Two documents."""
    return write_files(tmp_path / "documents", {"a.md": "# A\n\nDays of leave: 25.\n", "b.md": "# B\n\nLunch is at noon.\n"})


def test_a9_the_time_of_a_file_decides_nothing(tmp_path: Path, documents: Path) -> None:
    """A change that keeps size and time is read; a time in the future, or long past, is no change."""
    data, file = tmp_path / "data", documents / "a.md"
    run(data, documents)
    before = file.stat()
    file.write_text("# A\n\nDays of leave: 26.\n")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    report = run(data, documents)
    assert (report.published, report.changed, report.embedded) == (True, 1, 1)
    for seconds in (time.time() + 10 * YEAR_S, 0.0):
        os.utime(file, (seconds, seconds))
        report = run(data, documents)
        assert (report.published, report.changed, report.embedded) == (False, 0, 0)


def run_at(data: Path, documents: Path, clock: Path, begins: str, then: str) -> dict[str, object]:
    """What a run reports whose clock says another time, and from its first document on yet another."""
    clock.write_text(begins)
    environment = {
        **os.environ, "LD_PRELOAD": str(FAKETIME), "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", JOB, str(data), str(documents), str(clock), then],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said: dict[str, object] = json.loads(done.stdout)
    return said


@needs_faketime
def test_a9_a_run_under_a_wrong_clock_is_a_run_like_any_other(tmp_path: Path, documents: Path) -> None:
    """A day behind, a year ahead, a jump in the middle: every change is found, the newest run serves, durations hold."""
    data = tmp_path / "data"
    clocks = [("-1d", "-1d"), ("+1y", "+1y"), ("+0", "-1d"), ("-1d", "+1y"), ("+0", "+0")]
    for number, (begins, then) in enumerate(clocks, 1):
        (documents / "b.md").write_text(f"# B\n\nLunch is at {number}.\n")
        said = run_at(data, documents, tmp_path / "clock", begins, then)
        assert (said["published"], said["embedded"]) == (True, 2 if number == 1 else 1)
        assert isinstance(said["took_s"], float)
        assert 0 < said["took_s"] < 60
        newest = snapshot_ids(data)[-1]
        assert (current_id(data), newest.split("-")[0]) == (newest, f"{number:06}")
        assert problems_of(data / "snapshots" / newest) == []
        again = run_at(data, documents, tmp_path / "clock", then, begins)
        assert (again["published"], again["embedded"]) == (False, 0)
    reports = [json.loads(path.read_text()) for path in sorted((data / "runs").glob("*.json"))]
    assert [report["status"] for report in reports] == ["published", "unchanged"] * len(clocks)
    begun = [report["started_at"] for report in reports]
    assert begun != sorted(begun)  # the clock did go back, and the order is that of the runs
    run(tmp_path / "clean", documents)
    assert contents(data) == contents(tmp_path / "clean")
