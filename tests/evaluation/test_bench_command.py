"""`archivist bench`: what it says of arguments that it cannot use."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A run of the command in the checkout."""
    command = [sys.executable, "-m", "archivist", "bench", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--only", "everything"), 2, "archivist: --only 'everything' is not a part; known: handbook, latency, first_token"),
        (("--only", "dataset"), 2, "archivist: --data is missing; name a folder with corpus.jsonl and queries.jsonl"),
        (("--only", "dataset", "--data", "docs"), 2, "archivist: --data 'docs' is not a folder with corpus.jsonl"),
        (("--only", "handbook", "--golden", "nowhere.jsonl"), 1, "archivist: golden set 'nowhere.jsonl' cannot be read"),
        (("--config", "nowhere.yaml"), 2, "archivist: no configuration file 'nowhere.yaml'"),
    ],
    ids=["unknown part", "no data set", "not a data set", "no golden set", "no configuration"],
)
def test_a_mistake_is_one_line_and_an_exit_code(arguments: tuple[str, ...], code: int, says: str) -> None:
    """Said before anything is measured, without a traceback."""
    done = bench(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert says in done.stderr
    assert "Traceback" not in done.stderr
