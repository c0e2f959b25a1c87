"""The history of runs: one report each, however it ended, and who is told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from corpus.errors import ConfigError, DocumentError
from corpus.runs import next_run_id, read_run, read_runs, run_ids
from ingest import job
from ingest.isolation.process import ReaderProcess
from ingest.notify import message
from ingest.readers.extract import Extract
from ingest.runs import RunLog
from ingest.settings import GateSettings, IngestSettings
from tests.conftest import Run
from tests.making import job_settings, write_files
from tests.servers import free_port, wait_until

ROOT = Path(__file__).parents[2]


class Hook:
    """A loopback webhook that keeps what it is sent."""

    def __init__(self, status: int = 204) -> None:
        self.bodies: list[dict[str, Any]] = []
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                hook.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()
        self.url = SecretStr(f"http://127.0.0.1:{self.server.server_address[1]}/hook")

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def hook() -> Iterator[Hook]:
    found = Hook()
    yield found
    found.close()


def test_every_run_leaves_a_report(tmp_path: Path, run: Run) -> None:
    """Published, unchanged, and failed with its reason; numbered in their order."""
    source = write_files(tmp_path / "documents", {"a.md": "Alpha.\n"})
    settings = job_settings(tmp_path / "data", source)
    first, second = run(settings), run(settings)
    with pytest.raises(ConfigError):
        run(job_settings(tmp_path / "data", tmp_path / "nowhere"))
    runs = read_runs(tmp_path / "data")
    assert [(report["run"][:6], report["status"]) for report in runs] == [
        ("000001", "published"),
        ("000002", "unchanged"),
        ("000003", "failed"),
    ]
    assert [runs[0]["run"], runs[1]["run"]] == [first.run, second.run] == run_ids(tmp_path / "data")[:2]
    assert (runs[0]["snapshot"], runs[0]["added"], runs[0]["documents"]) == (first.snapshot, 1, 1)
    assert (runs[2]["error_kind"], runs[2]["pid"]) == ("ConfigError", os.getpid())
    assert "is it mounted?" in runs[2]["error"]
    assert all(report["started_at"] <= report["ended_at"] and report["took_s"] >= 0 for report in runs)


def test_so_many_reports_are_kept(tmp_path: Path, run: Run) -> None:
    """The oldest go; numbers go on."""
    source = write_files(tmp_path / "documents", {"a.md": "Alpha.\n"})
    for _ in range(4):
        run(job_settings(tmp_path / "data", source, ingest=IngestSettings(runs_kept=2)))
    assert [name[:6] for name in run_ids(tmp_path / "data")] == ["000003", "000004"]


def test_a_run_can_be_given_its_id(tmp_path: Path, run: Run) -> None:
    """For whoever started it and wants to follow it; one that is taken or no id is refused."""
    settings = job_settings(tmp_path / "data", write_files(tmp_path / "documents", {"a.md": "Alpha.\n"}))
    run_id = next_run_id(tmp_path / "data")
    assert job.run(settings, run_id=run_id).run == run_id
    for wrong in (run_id, "../../etc/passwd", "1"):
        with pytest.raises(ConfigError, match="is taken, or not like"):
            job.run(settings, run_id=wrong)
    with pytest.raises(ConfigError, match="no report of a run"):
        read_run(tmp_path / "data", "../CURRENT")


def test_a_run_can_be_followed_and_a_killed_one_is_told(tmp_path: Path, run: Run) -> None:
    """While it is at work its report says so and how far it is; the next run writes down that it was killed."""
    files = {f"{number:04}.md": f"# File {number}\n\nMatter {number} is a matter of its own.\n" for number in range(400)}
    source = write_files(tmp_path / "documents", files)
    code = (
        "import sys\nfrom pathlib import Path\nfrom ingest import job\nfrom tests.making import job_settings\n"
        "job.run(job_settings(Path(sys.argv[1]), Path(sys.argv[2])))"
    )
    arguments = [sys.executable, "-c", code, str(tmp_path / "data"), str(source)]
    with subprocess.Popen(arguments, cwd=ROOT) as child:

        def working() -> bool:
            return any(report.get("progress", {}).get("total_bytes") for report in read_runs(tmp_path / "data"))

        assert wait_until(working, 150)
        (report,) = read_runs(tmp_path / "data")
        child.send_signal(signal.SIGKILL)
    assert (report["status"], report["pid"]) == ("running", child.pid)
    assert report["progress"]["total_bytes"] == sum(len(text) for text in files.values())
    run(job_settings(tmp_path / "data", source))
    assert [report["status"] for report in read_runs(tmp_path / "data")] == ["killed", "published"]


def test_a_history_that_cannot_be_written_fails_no_run(tmp_path: Path, run: Run) -> None:
    """A file where the folder should be: the run publishes all the same."""
    source = write_files(tmp_path / "documents", {"a.md": "Alpha.\n"})
    write_files(tmp_path / "data", {"runs": "in the way"})
    assert run(job_settings(tmp_path / "data", source)).published


def test_a_failed_file_is_not_read_again_before_it_changes(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threat A10: it stays listed with its reason while others are published, and is retried once its content is another."""
    source = write_files(tmp_path / "documents", {"good.md": "Good.\n", "bad.pdf": b"%PDF-1.7 and then nothing"})
    settings = job_settings(tmp_path / "data", source)
    (failure,) = run(settings).failures
    read_files: list[str] = []
    whole = ReaderProcess.read

    def noting(process: ReaderProcess, name: str, data: bytes) -> Iterator[Extract | DocumentError]:
        read_files.append(name)
        return whole(process, name, data)

    monkeypatch.setattr(ReaderProcess, "read", noting)
    write_files(source, {"new.md": "New.\n"})
    assert run(settings).failures == (failure,)
    os.utime(source / "bad.pdf")
    assert run(settings).published is False
    assert read_files == ["new.md"]
    write_files(source, {"bad.pdf": b"%PDF-1.7 and then a little"})
    run(settings)
    assert read_files == ["new.md", "bad.pdf"]


def test_the_webhook_hears_of_what_is_not_well(tmp_path: Path, run: Run, hook: Hook) -> None:
    """Failure, refusal and partial success, not a run that went well; never a name, a reason or a text of a document."""
    source = write_files(tmp_path / "documents", {"salaries-canary.md": "Canary text of salaries.\n"})
    told = IngestSettings(webhook_url=hook.url)
    settings = job_settings(tmp_path / "data", source, ingest=told)
    run(settings)
    run(settings)
    assert hook.bodies == []
    write_files(source, {"canary-empty.md": b""})
    partial = run(settings)
    with pytest.raises(ConfigError):
        run(job_settings(tmp_path / "data", tmp_path / "canary-nowhere", ingest=told))
    write_files(source, {"more.md": "More.\n"})
    with pytest.raises(Exception, match="gate failure_share"):
        run(settings.model_copy(update={"gate": GateSettings(max_failure_share=0.1)}))
    assert [(body["run"][:6], body["status"], body["failures"], body["error_kind"]) for body in hook.bodies] == [
        ("000003", "published", 1, None),
        ("000004", "failed", 0, "ConfigError"),
        ("000005", "refused", 1, None),
    ]
    assert hook.bodies[0]["snapshot"] == partial.snapshot
    assert hook.bodies[2]["gate"] == [{"name": "failure_share", "passed": False, "measured": 0.3333, "wanted": 0.1}]
    assert "canary" not in json.dumps(hook.bodies).casefold()
    assert [report.get("webhook") for report in read_runs(tmp_path / "data")] == [None, None, "sent", "sent", "sent"]


def test_the_webhook_hears_of_a_killed_run_from_the_next_one(tmp_path: Path, run: Run, hook: Hook) -> None:
    """Once, and before that one's own end; what came of it stands in the killed run's report."""
    source = write_files(tmp_path / "documents", {"a.md": "Alpha.\n"})
    settings = job_settings(tmp_path / "data", source, ingest=IngestSettings(webhook_url=hook.url))
    died = RunLog(tmp_path / "data", None, keep=9).run_id
    run(settings)
    run(settings)
    assert [(body["run"], body["status"], body["failures"]) for body in hook.bodies] == [(died, "killed", 0)]
    assert [(each["status"], each.get("webhook")) for each in read_runs(tmp_path / "data")] == [
        ("killed", "sent"), ("published", None), ("unchanged", None),
    ]  # fmt: skip


def test_a_webhook_that_fails_fails_no_run(tmp_path: Path, run: Run) -> None:
    """Nobody there, an error, an address that is none: the run ends as it did, and its report says what came of the call."""
    hook = Hook(status=500)
    urls = (hook.url.get_secret_value(), f"http://127.0.0.1:{free_port()}/secret", "nonsense-secret")
    for number, url in enumerate(urls):
        source = write_files(tmp_path / f"documents{number}", {"a.md": "Alpha.\n", "empty.md": b""})
        began = time.monotonic()
        report = run(job_settings(tmp_path / f"data{number}", source, ingest=IngestSettings(webhook_url=SecretStr(url))))
        assert report.published
        assert time.monotonic() - began < 30
    hook.close()
    said = [read_runs(tmp_path / f"data{number}")[0]["webhook"] for number in range(len(urls))]
    assert said == ["failed: status 500", "failed: EgressUnreachable", "failed: EgressRefused"]


def test_what_is_sent_leaves_out_what_names_something() -> None:
    """Of a report only numbers and codes go out."""
    report = {
        "run": "000001-00000000", "status": "refused", "reasons": ["canary"], "error": "canary", "removed": 3,
        "failures": [{"path": "canary"}], "moves": [{"path": "canary"}],
        "gate": [{"name": "canary_1", "passed": False, "measured": None, "wanted": 5, "detail": "'secret.md' was not found"}],
    }  # fmt: skip
    assert message(report) == {
        "run": "000001-00000000", "status": "refused", "removed": 3, "failures": 1, "error_kind": None,
        "gate": [{"name": "canary_1", "passed": False, "measured": None, "wanted": 5}],
    }  # fmt: skip


def test_two_logs_number_their_runs_by_what_is_there(tmp_path: Path) -> None:
    """Ids are counted, so that a clock that is set back does not reorder them."""
    for number in range(3):
        assert RunLog(tmp_path, None, keep=9).run_id.startswith(f"{number + 1:06d}-")
