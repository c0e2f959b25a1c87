"""A file that takes its reader too far costs that file and a process, whatever it does; it reaches nothing else."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from corpus.errors import ArchivistError, DocumentError
from ingest.isolation import worker
from ingest.isolation.process import Disturbed, ReaderProcess
from ingest.isolation.settings import IsolationSettings
from ingest.readers.extract import Extract
from ingest.readers.read import read
from tests.ingest.isolation.poison import poisoned_program

LIMITS = IsolationSettings(memory_bytes=600_000_000, cpu_s=1, wall_s=60, open_files=24)
linux = pytest.mark.skipif(sys.platform != "linux", reason="NOT CHECKED: limits of Linux's kernel")


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReaderProcess]:
    """A reader's process that obeys what stands in the files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "__file__", poisoned_program(tmp_path_factory.mktemp("poison")))
        made = ReaderProcess(LIMITS)
        yield made
        made.close()


def answer(process: ReaderProcess, order: str) -> str:
    """What came of one file: its text, or why it failed."""
    found = list(process.read("a.md", order.encode()))
    assert len(found) == 1
    return found[0].reason if isinstance(found[0], DocumentError) else found[0].text.removeprefix("# Answer\n\n").strip()


@linux
@pytest.mark.parametrize(
    ("order", "reason"),
    [
        ("loop", "reading it takes more than 1 s of processor time"),
        ("bomb", "reading it takes more than isolation.memory_bytes 600,000,000"),
        ("exit 0", "its reader ended by itself (exit status 0)"),
        ("exit 3", "its reader ended by itself (exit status 3)"),
        ("segfault", "its reader crashed (SIGSEGV), or takes more than isolation.memory_bytes 600,000,000"),
        (f"signal {signal.SIGABRT.value}", "its reader crashed (SIGABRT), or takes more than"),
        ("raise the secret text", "the reader failed (ZeroDivisionError at ?)"),
        ("garbage {}", "its reader gave an answer that makes no sense"),
        ("garbage \x7f", "its reader gave an answer that makes no sense"),
    ],
    ids=lambda value: value.split("(")[0][:24].strip(),
)
def test_a_poison_file_costs_one_file(process: ReaderProcess, order: str, reason: str) -> None:
    """Threat C8: killed, with its reason, and the next file is read by a fresh process; no word of the file is repeated."""
    assert answer(process, order).startswith(reason)
    assert answer(process, "honest words") == "honest words"


def test_a_file_that_takes_too_long_by_the_clock_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting costs no processor time, so the clock has a limit of its own."""
    monkeypatch.setattr(worker, "__file__", poisoned_program(tmp_path))
    process = ReaderProcess(IsolationSettings(wall_s=1))
    assert answer(process, "honest words") == "honest words"
    started = time.monotonic()
    assert answer(process, "sleep") == "reading it was not done within 1 s"
    assert time.monotonic() - started < 10
    process.close()


def test_a_process_stopped_from_outside_is_not_the_files_fault(process: ReaderProcess) -> None:
    """What an operator kills is read again the next night."""
    found = list(process.read("a.md", f"signal {signal.SIGTERM.value}".encode()))
    assert isinstance(found[0], Disturbed)
    assert found[0].reason == "its reader was stopped from outside (SIGTERM)"


@linux
def test_what_the_kernel_withholds_is_withheld(process: ReaderProcess, tmp_path: Path) -> None:
    """Each measure that is reported holds against code that runs in the process; none is reported that does not."""
    canary = tmp_path / "canary.txt"
    canary.write_text("the canary")
    canary.chmod(0o644)
    assert answer(process, "honest words") == "honest words"
    assert (process.holds["memory"], process.holds["open_files"], process.holds["written_bytes"]) == ("600000000", "24", "0")
    opened = f"open({str(canary)!r}).read()"
    assert (answer(process, f"try {opened}") == "PermissionError") is (process.holds["files"] == "landlock")
    assert (answer(process, "try os.listdir('/proc')") == "PermissionError") is (process.holds["files"] == "landlock")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        failed = answer(process, f"try socket.create_connection(('127.0.0.1', {port}), 2) and 'connected'")
        assert (failed == "connected") is (process.holds["network"] == "none")
        server.settimeout(0.2)
        if process.holds["network"] != "none":
            with pytest.raises(TimeoutError):
                server.accept()
    if "seccomp" in process.holds["network"]:
        assert answer(process, "try subprocess.run(['/bin/true'])") == "PermissionError"
    assert answer(process, f"try open({str(tmp_path / 'new.txt')!r}, 'w').write('x')") in ("PermissionError", "OSError")
    assert not (tmp_path / "new.txt").exists() or (tmp_path / "new.txt").read_text() == ""
    assert answer(process, "try len([os.dup(1) for _ in range(100)])") == "OSError"
    assert answer(process, "try sorted(name for name in os.environ if name not in ('LC_CTYPE',))") == str(
        ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"]
    )


def test_a_library_is_imported_from_wherever_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that is needed late, in a folder that a .pth file or PYTHONPATH names; not from where the job was started."""
    monkeypatch.setattr(worker, "__file__", poisoned_program(tmp_path))
    started_in = tmp_path / "documents"
    for folder, module in ((tmp_path / "libraries", "needed_late"), (started_in, "beside_documents")):
        folder.mkdir()
        (folder / f"{module}.py").write_text("WORD = 'imported'\n")
        monkeypatch.syspath_prepend(folder)
    monkeypatch.chdir(started_in)
    process = ReaderProcess(LIMITS)
    assert answer(process, "try __import__('needed_late').WORD") == "imported"
    kept_away = answer(process, "try __import__('beside_documents').WORD") != "imported"
    process.close()
    assert kept_away is (process.holds["files"] == "landlock")


@linux
def test_this_machine_isolates_fully(process: ReaderProcess) -> None:
    """Where the kernel gives all of it, as it does on a current Linux, the report says so by name."""
    if not Path("/proc/self/ns/net").exists() or os.uname().release.split(".")[0] < "6":
        pytest.skip("NOT CHECKED: an old kernel")
    answer(process, "honest words")
    assert process.holds["privileges"] == "no new ones"
    assert "seccomp" in process.holds["network"]


def test_a_worker_reads_what_the_reader_reads(tmp_path: Path) -> None:
    """Nothing of an extract is lost on its way between the processes: rows, groups, sections, surrogates in a name."""
    rows = b'{"id": "1", "text": "One.", "groups": ["a", "b"], "label": "x"}\n{"id": "2"}\n{"id": "3", "text": "\\u00e9"}\n'
    process = ReaderProcess(IsolationSettings())
    for name, data in (
        ("rows.jsonl", rows),
        ("a\udcff.md", b"# Title\n\n## One\n\nText.\n\n## Two\n\nMore.\n"),
        ("x.xyz", b"?"),
    ):
        try:
            expected = [found if isinstance(found, Extract) else str(found) for found in read(name, data)]
        except DocumentError as error:
            expected = [str(error)]
        assert [found if isinstance(found, Extract) else str(found) for found in process.read(name, data)] == expected
    process.close()


def test_a_process_dies_with_the_job(tmp_path: Path) -> None:
    """A reader that loops does not outlive a job that is killed."""
    if sys.platform != "linux":
        pytest.skip("NOT CHECKED: takes prctl(PR_SET_PDEATHSIG)")
    code = (
        "import sys\nfrom ingest.isolation import worker\nfrom ingest.isolation.process import ReaderProcess\n"
        "from ingest.isolation.settings import IsolationSettings\n"
        f"worker.__file__ = {poisoned_program(tmp_path)!r}\n"
        "process = ReaderProcess(IsolationSettings())\nlist(process.read('a.md', b'honest words'))\n"
        "print(process._process.pid, flush=True)\nlist(process.read('a.md', b'loop'))\n"
    )
    root = Path(__file__).parents[3]
    with subprocess.Popen([sys.executable, "-c", code], cwd=root, stdout=subprocess.PIPE, text=True) as job:
        assert job.stdout is not None
        reader = int(job.stdout.readline())
        job.kill()
    deadline = time.monotonic() + 10
    while _runs(reader):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _runs(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_process_that_cannot_start_is_an_error_of_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no file could be read for a reason that is not theirs, none is listed as failed."""
    program = tmp_path / "broken.py"
    program.write_text("raise SystemExit(9)\n")
    monkeypatch.setattr(worker, "__file__", str(program))
    with pytest.raises(ArchivistError, match=r"did not start \(status 9"):
        list(ReaderProcess(IsolationSettings()).read("a.md", b"x"))


def test_a_process_is_replaced_after_its_share_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What libraries leak, and what a file might have changed in the process, ends with it."""
    monkeypatch.setattr(worker, "__file__", poisoned_program(tmp_path))
    process = ReaderProcess(IsolationSettings(files_per_worker=2))
    pids = [answer(process, "try os.getpid()") for _ in range(4)]
    assert pids[0] == pids[1] != pids[2] == pids[3]
    process.close()
