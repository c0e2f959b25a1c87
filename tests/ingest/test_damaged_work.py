"""Threat A6: the work file of a run that was killed, damaged in any way: it only ever saves time, and costs no run."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.ingest.killing import Field, run
from tests.making import contents, litter


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Field:
    """What the runs here begin with and should come to."""
    return Field(tmp_path_factory.mktemp("field"))


@pytest.fixture(scope="module")
def work(field: Field, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work file with every vector of the run, as one leaves it that is killed before it publishes."""
    from ingest import vectors

    folder = tmp_path_factory.mktemp("kept")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vectors, "forget", lambda path: shutil.copy(path, folder / "embeddings.db"))
        run(Path(shutil.copytree(field.folder / "base", folder / "data")), field.documents)
    return folder / "embeddings.db"


def header(data: bytearray) -> None:
    data[:16] = b"not SQLite at all"[:16]


def pages(data: bytearray) -> None:
    for at in range(4096, len(data), 4096):
        data[at : at + 4096] = b"\xff" * 4096


def half(data: bytearray) -> None:
    del data[len(data) // 2 :]


def nothing(data: bytearray) -> None:
    data.clear()


@pytest.mark.parametrize("damage", [header, pages, half, nothing], ids=lambda each: each.__name__)
def test_a6_a_damaged_work_file_costs_vectors_and_no_run(field: Field, work: Path, damage: Callable[[bytearray], None]) -> None:
    """The run comes to the same as a clean one, with not a vector that is wrong."""
    data = field.trial()
    content = bytearray(work.read_bytes())
    damage(content)
    (data / "work").mkdir(exist_ok=True)
    (data / "work" / "embeddings.db").write_bytes(content)
    report = run(data, field.documents)
    assert report.published
    assert contents(data) == field.after
    assert litter(data) == []
