"""The wheel holds the whole product and works far from the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.making import write_files

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built with what is installed."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)],
        check=True, capture_output=True, timeout=180,
    )  # fmt: skip
    (found,) = folder.glob("archivist-*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, installed into a folder of its own."""
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", str(folder), str(wheel)],
        check=True, capture_output=True, timeout=180,
    )  # fmt: skip
    return folder


def run(installed: Path, cwd: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """A command that sees the installed wheel and the libraries, and nothing of the checkout."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "TMPDIR")}
    # -P: the folder it runs in is not searched for modules.
    done = subprocess.run(
        [sys.executable, "-P", *command], cwd=cwd, env={**kept, "PYTHONPATH": str(installed), "COLUMNS": "300"},
        capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert str(ROOT) not in done.stdout.replace(sys.prefix, "") + done.stderr.replace(sys.prefix, "")
    return done


def test_the_wheel_holds_every_module_and_all_data(wheel: Path) -> None:
    """All rooms, the default configuration, the prompts and the page are in it; tests and samples are not."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    rooms = ("archivist", "corpus", "ingest", "app", "evaluation")
    wanted = {path.relative_to(ROOT).as_posix() for room in rooms for path in (ROOT / room).rglob("*.py")}
    wanted |= {path.relative_to(ROOT).as_posix() for path in (ROOT / "app" / "web").rglob("*") if path.is_file()}
    wanted |= {f"archivist/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "config").rglob("*") if path.is_file()}
    assert wanted <= names
    assert {"archivist/config/archivist.yaml", "archivist/config/prompts/system.txt", "app/web/index.html"} <= names
    outside = {name for name in names - wanted if ".dist-info/" not in name}
    assert outside == set()


def test_the_installed_wheel_works_outside_the_checkout(installed: Path, tmp_path: Path) -> None:
    """Its own configuration is found and checked, a folder is ingested, and a question finds its passage."""
    checked = run(installed, tmp_path, "-m", "archivist", "config", "check")
    assert checked.returncode == 0, checked.stderr
    assert str(installed / "archivist" / "config" / "archivist.yaml") in checked.stdout
    write_files(tmp_path / "documents", {"a.md": "# Parking\n\nVisitors park in the yard.\n"})
    ingested = run(installed, tmp_path, "-m", "archivist", "ingest", "--source", "documents", "--json")
    assert ingested.returncode == 0, ingested.stderr
    assert json.loads(ingested.stdout)["documents"] == 1
    entry = "import sys; sys.argv[0] = 'archivist'; from archivist.cli import main; main()"
    found = run(installed, tmp_path, "-c", entry, "search", "Where do visitors park?", "--json")
    assert [hit["source"] for hit in json.loads(found.stdout)] == ["a.md"]
    console = installed / "bin" / "archivist"
    assert "archivist.cli" in console.read_text()
    version = run(installed, tmp_path, str(console), "--version")
    assert (version.returncode, version.stdout) == (0, "archivist 0.1.0\n")
