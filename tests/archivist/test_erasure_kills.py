"""Threat G3: a purge that is killed at any write, fsync, rename or unlink leaves a whole snapshot, and the next one ends it."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from archivist.erasing import erase
from corpus.overlay import Overlay
from corpus.published import current_id, snapshot_ids
from corpus.settings import LabelSettings, SearchSettings
from corpus.snapshot import open_current
from corpus.types import document_id_of
from corpus.verify import problems_of
from tests.archivist.canary import CANARY, places, spellings
from tests.ingest.killing import CALLS, run
from tests.making import litter, write_files

ROOT = Path(__file__).parents[2]
SEED = 20261
SECRET = document_id_of("documents", "secret.md")
PURGE = """
import sys
from pathlib import Path
from archivist.erasing import erase
from corpus.settings import LabelSettings
erase(Path(sys.argv[1]), LabelSettings(), keep=1, wait_s=1)
"""
pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("strace") is None,
    reason="NOT CHECKED: kills at system calls take Linux and strace (apt-get install strace)",
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with two snapshots that hold a document which is deleted, and is not erased yet. Not to be changed."""
    folder = tmp_path_factory.mktemp("purge")
    files = {
        "secret.md": f"# Secret\n\n{CANARY}\n",
        "other.md": "# Other\n\nSomething else.\n",
        "rows.jsonl": '{"id": "1", "text": "x y"}\n',
    }
    documents = write_files(folder / "documents", files)
    run(folder / "data", documents)
    (documents / "new.md").write_text("# New\n\nAnd more.\n")
    run(folder / "data", documents)
    with closing(Overlay(folder / "data" / "overlay.db")) as overlay:
        overlay.delete(SECRET, "anna")
    return folder / "data"


def purged(data: Path, *options: str) -> int:
    """The exit status of a purge under strace; of one that was killed, that of strace."""
    command = ["strace", "-f", "-qq", *options, sys.executable, "-c", PURGE, str(data)]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL).returncode


def points(base: Path, folder: Path) -> list[tuple[str, int]]:
    """Every call of a purge that changes the disk."""
    data = Path(shutil.copytree(base, folder / "counted"))
    assert purged(data, "-e", f"trace={','.join(CALLS)}", "-o", str(folder / "calls.txt")) == 0
    assert_erased(data)
    calls = Counter(re.findall(r"^(\d+)\s+(\w+)\(", (folder / "calls.txt").read_text(errors="replace"), re.M))
    # strace counts each thread's calls by themselves.
    most: dict[str, int] = {}
    for (_, call), count in calls.items():
        most[call] = max(most.get(call, 0), count)
    assert {"fsync", "rename", "unlink", "pwrite64"} <= most.keys()
    return [(call, number) for call, count in sorted(most.items()) for number in range(1, count + 1)]


def assert_erased(data: Path) -> None:
    """Nothing is left of the document, and nothing of the purge."""
    assert places(data, spellings(CANARY)) == set()
    assert litter(data) == []
    (name,) = snapshot_ids(data)
    assert name == current_id(data)
    assert problems_of(data / "snapshots" / name) == []
    with closing(Overlay(data / "overlay.db")) as overlay:
        assert overlay.pending() == []


def kill_at(base: Path, folder: Path, chosen: list[tuple[str, int]]) -> int:
    """Kill a purge at each of some calls; what must hold behind it does. Returns how many were killed there."""
    killed = 0
    for call, number in chosen:
        data = folder / "trial"
        shutil.rmtree(data, ignore_errors=True)
        shutil.copytree(base, data)
        options = ["-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={number}", "-o", os.devnull]
        killed += purged(data, *options) in (-signal.SIGKILL, 128 + signal.SIGKILL)
        with closing(Overlay(data / "overlay.db")) as overlay:
            snapshot, damage = open_current(data, SearchSettings(), overlay)
            shown = {each.source for each in snapshot.store.document_summaries(("everyone",), after=None, limit=9)}
            snapshot.close()
        assert (damage, shown) == (None, {"other.md", "rows.jsonl#1", "new.md"})
        erase(data, LabelSettings(), keep=1, wait_s=1)
        assert_erased(data)
    return killed


def test_a_purge_killed_at_some_calls_is_ended_by_the_next(base: Path, tmp_path: Path) -> None:
    """A sample of all its writes, fsyncs, renames and unlinks."""
    found = points(base, tmp_path)
    renames = [point for point in found if point[0].startswith("rename")]
    chosen = [*renames[-2:], *random.Random(SEED).sample([point for point in found if point not in renames], 3)]
    assert kill_at(base, tmp_path, chosen) >= len(chosen) - 1


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_a_purge_killed_at_every_call_is_ended_by_the_next(base: Path, tmp_path: Path) -> None:
    """Every one of them."""
    found = points(base, tmp_path)
    assert kill_at(base, tmp_path, found) >= 0.9 * len(found)
