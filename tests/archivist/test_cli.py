"""The command line: exit codes, output to parse, and what it does not load."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import filelock
import pytest

from tests.making import link_models, write_files

ROOT = Path(__file__).parents[2]


def archivist(*arguments: str | Path, cwd: Path, code: str | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """A run of the command in a process of its own, far from the checkout."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ARCHIVIST_")}
    run = ["-c", code] if code else ["-m", "archivist"]
    return subprocess.run(
        [sys.executable, *run, *map(str, arguments)],
        cwd=cwd, env={**inherited, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **variables}, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    """Two documents."""
    return write_files(
        tmp_path / "documents", {"a.md": "# Parking\n\nVisitors park in the yard.\n", "b.md": "# Lunch\n\nAt noon.\n"}
    )


def test_help_loads_no_model_library(tmp_path: Path) -> None:
    """Asking for help imports neither torch nor the service."""
    code = (
        "import sys\nfrom archivist.cli import main\ntry:\n    main()\nexcept SystemExit as end:\n    print(end.code)\n"
        "print(sorted({'torch', 'sentence_transformers', 'faiss', 'fastapi'} & set(sys.modules)))"
    )
    done = archivist("--help", cwd=tmp_path, code=code)
    assert "Answers questions from your documents" in done.stdout
    assert done.stdout.endswith("0\n[]\n")
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("ingest", "--nonsense"), 2, "No such option"),
        (("nonsense",), 2, "No such command"),
        (("ingest",), 2, "no source to read; name one under `sources` in the configuration, or with --source PATH"),
        (("ingest", "--source", "nowhere"), 2, "archivist: source 'nowhere': no folder or file 'nowhere'; is it mounted?"),
        (("ingest", "--config", "nowhere.yaml"), 2, "archivist: no configuration file 'nowhere.yaml'"),
        (("search", "x"), 1, "archivist: no snapshot in 'data'; run `archivist ingest` first"),
        (("search", " "), 2, "archivist: the question is empty"),
        (("snapshots", "list"), 1, "archivist: no snapshot in 'data'"),
        (("search", "x", "--top-k", "0"), 2, "Invalid value"),
    ],
)
def test_a_mistake_is_one_line_and_an_exit_code(tmp_path: Path, arguments: tuple[str, ...], code: int, says: str) -> None:
    """2 is for usage, 1 for what failed; there is never a traceback."""
    done = archivist(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (code, "")
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_is_reported_as_json_with_its_steps(tmp_path: Path, documents: Path, models: Path) -> None:
    """Exit code 0, the report on standard output, one JSON line a step on standard error; then list and verify know it."""
    link_models(models, tmp_path / "data")
    done = archivist("ingest", "--source", documents, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["published"], report["added"], report["documents"], report["failures"]) == (True, 2, 2, [])
    steps = [json.loads(line)["action"] for line in done.stderr.splitlines()]
    assert list(dict.fromkeys(steps)) == ["ingest_scan", "ingest_load_model", "ingest_ingest", "ingest_publish", "ingest_done"]
    (listed,) = json.loads(archivist("snapshots", "list", "--json", cwd=tmp_path).stdout)
    assert (listed["id"], listed["current"]) == (report["snapshot"], True)
    verified = archivist("snapshots", "verify", cwd=tmp_path)
    assert (verified.returncode, verified.stdout) == (0, f"{report['snapshot']} is whole: 2 documents, 2 chunks.\n")
    (tmp_path / "data" / "snapshots" / report["snapshot"] / "chunks.db").write_bytes(b"x")
    damaged = archivist("snapshots", "verify", cwd=tmp_path)
    assert (damaged.returncode, damaged.stdout) == (1, f"{report['snapshot']}: chunks.db is not the file that was published\n")
    assert "chunks.db is not the file that was published" in damaged.stderr


def test_documents_that_failed_make_exit_code_3_each_time(tmp_path: Path, documents: Path, models: Path) -> None:
    """Done, with documents that failed: listed with reason and advice, also by the run that changes nothing."""
    link_models(models, tmp_path / "data")
    (documents / "empty.md").write_bytes(b"")
    for first_line in ("Published 000001-", "Nothing changed: 3 files"):
        done = archivist("ingest", "--source", documents, cwd=tmp_path)
        assert done.returncode == 3
        assert done.stdout.startswith(first_line)
        assert "1 could not be read:\n  empty.md: the file is empty; remove it" in done.stdout


def test_a_held_lock_is_exit_code_5(tmp_path: Path, documents: Path) -> None:
    """Another run at work is told by its own code."""
    (tmp_path / "data").mkdir()
    with filelock.FileLock(tmp_path / "data" / "ingest.lock"):
        done = archivist("ingest", "--source", documents, cwd=tmp_path)
    assert done.returncode == 5
    assert "another run holds the lock" in done.stderr


def test_the_configuration_is_shown_without_its_secrets(tmp_path: Path) -> None:
    """`config show` prints every key, and asterisks for a secret; `config check` says that it can be used."""
    secret = "canary-4711-key"
    shown = archivist("config", "show", cwd=tmp_path, ARCHIVIST_SERVER__API_KEY=secret)
    assert shown.returncode == 0
    assert "identifier_weight: 0.5" in shown.stdout
    assert "**********" in shown.stdout
    assert secret not in shown.stdout + shown.stderr
    checked = archivist("config", "check", cwd=tmp_path)
    assert checked.returncode == 0
    assert "is valid; llm.default is 'extractive', 0 source(s)." in checked.stdout


def test_the_version_is_that_of_the_package(tmp_path: Path) -> None:
    """--version prints it and ends."""
    assert archivist("--version", cwd=tmp_path).stdout == "archivist 0.1.0\n"
