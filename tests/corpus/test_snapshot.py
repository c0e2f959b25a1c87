"""Publishing, opening and purging snapshots: nothing half-written or damaged is ever served."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from corpus.errors import NoSnapshot, SnapshotDamaged
from corpus.manifest import EmbedderStamp
from corpus.published import current_id, point_to, purge, remove_litter, snapshot_ids
from corpus.settings import SearchSettings
from corpus.snapshot import SnapshotWriter, open_current, open_snapshot
from corpus.store_check import contradictions
from corpus.types import Chunk, Document
from tests.corpus.small import DIMENSION, publish

SETTINGS = SearchSettings()


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two snapshots, the second one current. Not to be changed."""
    folder = tmp_path_factory.mktemp("two") / "data"
    first = publish(folder, ["the first text", "another one"])
    publish(folder, ["the second text", "another one", "a third"], first.id)
    return folder


@pytest.fixture
def data(two: Path, tmp_path: Path) -> Path:
    """Two snapshots, the second one current; this test's own copy."""
    return Path(shutil.copytree(two, tmp_path / "data"))


def served(data_dir: Path) -> tuple[str, bool]:
    """Which snapshot opens, and whether damage was reported."""
    snapshot, damage = open_current(data_dir, SETTINGS)
    snapshot.close()
    return snapshot.id, damage is not None


def test_the_last_one_published_is_served(data: Path) -> None:
    """CURRENT names the newest, which knows its parent and its counts."""
    first, second = snapshot_ids(data)
    assert (first[:7], second[:7]) == ("000001-", "000002-")
    assert current_id(data) == second
    snapshot, damage = open_current(data, SETTINGS)
    assert damage is None
    assert (snapshot.manifest.parent, snapshot.manifest.documents, snapshot.manifest.chunks) == (first, 3, 3)
    assert contradictions(snapshot.store.stored) == []
    snapshot.close()


def test_an_older_one_can_be_made_current(data: Path) -> None:
    """Rolling back is pointing elsewhere."""
    first = snapshot_ids(data)[0]
    point_to(data, first)
    assert served(data) == (first, False)


def test_a_snapshot_stays_open_when_another_is_published(data: Path) -> None:
    """Whoever opened the old one goes on reading it while CURRENT moves on."""
    snapshot, _ = open_current(data, SETTINGS)
    publish(data, ["new"])
    assert [passage.text for passage in snapshot.store.passages([0])] == ["the second text"]
    assert served(data)[0] != snapshot.id
    snapshot.close()


def test_without_a_pointer_nothing_was_published(tmp_path: Path) -> None:
    """An empty data folder says what to run."""
    with pytest.raises(NoSnapshot, match="archivist ingest"):
        open_current(tmp_path, SETTINGS)


def test_ids_are_ordered_by_number_beyond_six_digits(tmp_path: Path) -> None:
    """The millionth snapshot is newer than the one before it."""
    for name in ("1000000-00000000", "999999-ffffffff", ".building-1", "000001-0"):
        (tmp_path / "snapshots" / name).mkdir(parents=True)
    assert snapshot_ids(tmp_path) == ["999999-ffffffff", "1000000-00000000"]


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"../../etc", b"000009-00000000\n"])
def test_a_pointer_that_names_nothing_falls_back_to_the_newest(data: Path, content: bytes) -> None:
    """A damaged CURRENT is reported and the newest whole snapshot served."""
    (data / "CURRENT").write_bytes(content)
    assert served(data) == (snapshot_ids(data)[1], True)


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _zero_page(path: Path) -> None:
    data = path.read_bytes()
    page = min(4096, len(data) // 2)
    path.write_bytes(b"\x00" * page + data[page:])


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\x00")


def _replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _files(data: Path) -> list[Path]:
    folder = data / "snapshots" / current_id(data)
    return [folder / "manifest.json", *(folder / name for name in json.loads((folder / "manifest.json").read_text())["files"])]


@pytest.mark.parametrize(
    "damage",
    [_flip, _zero_page, _truncate, _empty, _append, Path.unlink, _replace_by_folder],
    ids=lambda damage: damage.__name__,
)
def test_any_damaged_file_is_refused_and_the_previous_snapshot_served(data: Path, damage: Callable[[Path], None]) -> None:
    """Threat A5: whichever file is damaged, in whatever way, the one before is opened and the damage reported."""
    first, second = snapshot_ids(data)
    names = _files(data)
    assert len(names) > 5
    whole = data.parent / "whole"
    shutil.copytree(data / "snapshots" / second, whole)
    for path in names:
        damage(path)
        with pytest.raises(SnapshotDamaged, match=second):
            open_snapshot(data, second, SETTINGS)
        assert served(data) == (first, True), path
        shutil.rmtree(data / "snapshots" / second)
        shutil.copytree(whole, data / "snapshots" / second)
    assert served(data) == (second, False)


def test_files_swapped_among_themselves_or_with_an_older_snapshot_are_refused(data: Path) -> None:
    """Threat A5: a file that is whole but stands in another's place is damage."""
    first, second = snapshot_ids(data)
    one, two = data / "snapshots" / second / "chunks.db", data / "snapshots" / second / "dense.faiss"
    kept = one.read_bytes(), two.read_bytes()
    one.write_bytes(kept[1])
    two.write_bytes(kept[0])
    assert served(data) == (first, True)
    one.write_bytes(kept[0])
    two.write_bytes((data / "snapshots" / first / "dense.faiss").read_bytes())
    assert served(data) == (first, True)
    two.write_bytes(kept[1])
    assert served(data) == (second, False)
    shutil.copy(data / "snapshots" / first / "manifest.json", data / "snapshots" / second / "manifest.json")
    assert served(data) == (first, True)


@pytest.mark.parametrize(
    "changes",
    [
        {"documents": 2},
        {"embedder": {"model": "model", "fingerprint": "another", "dimension": DIMENSION}},
        {"chunking": {}},
        {"parent": None},
        {"failures": 7},
        {"created_at": "yesterday"},
        {"files": {}},
        {"files": []},
        {"format": 2},
        {"embedder": None},
        {"unknown": 1},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_an_edited_manifest_is_refused(data: Path, changes: dict[str, object]) -> None:
    """No value of a manifest can be changed by hand."""
    path = data / "snapshots" / current_id(data) / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    assert served(data) == (snapshot_ids(data)[0], True)


def test_where_no_snapshot_is_whole_the_damage_is_raised(data: Path) -> None:
    """With nothing left to serve, the error names the current snapshot and the next step."""
    for name in snapshot_ids(data):
        _flip(data / "snapshots" / name / "chunks.db")
    with pytest.raises(SnapshotDamaged, match=rf"{current_id(data)}.*chunks\.db is not the file.*archivist ingest"):
        open_current(data, SETTINGS)


class Crash(Exception):
    """The power is cut."""


def _crash_at(monkeypatch: pytest.MonkeyPatch, step: int) -> Callable[[], int]:
    """Lets the `step`-th call that makes something durable raise; returns how many there were."""
    count = 0

    def counted(function: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **named: object) -> object:
            nonlocal count
            count += 1
            if count == step:
                raise Crash
            return function(*arguments, **named)

        return call

    monkeypatch.setattr(os, "fsync", counted(os.fsync))
    monkeypatch.setattr(Path, "replace", counted(Path.replace))
    monkeypatch.setattr(Path, "rename", counted(Path.rename))
    return lambda: count


def test_a_crash_at_any_step_leaves_the_old_snapshot_served(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threat A1: at every fsync and rename of a publication the old one is whole, and cleaning up leaves no litter."""
    before = snapshot_ids(data)
    with monkeypatch.context() as patch:
        steps = _crash_at(patch, -1)
        trial = data.parent / "trial"
        publish(trial, ["x"])
    assert steps() > 10
    published = []
    for step in range(1, steps() + 1):
        with monkeypatch.context() as patch:
            _crash_at(patch, step)
            with pytest.raises(Crash):
                publish(data, ["x"], before[-1])
        now, damaged = served(data)
        assert not damaged
        if now != before[-1]:
            published.append(step)
        remove_litter(data)
        assert {entry.name for entry in data.iterdir()} == {"CURRENT", "snapshots"}
        assert {entry.name for entry in (data / "snapshots").iterdir()} == {*before, now}
    # Only behind the pointer's swap is the new one served: it is whole, and the last fsync no longer matters to it.
    assert published == [steps()]


def test_a_killed_process_leaves_what_the_next_run_removes(data: Path) -> None:
    """Folders in the making and pointers in the making go; snapshots and CURRENT stay."""
    (data / "snapshots" / ".building-12345678" / "lexical").mkdir(parents=True)
    (data / ".CURRENT-12345678").write_text("half")
    before = served(data)
    remove_litter(data)
    assert sorted(entry.name for entry in data.iterdir()) == ["CURRENT", "snapshots"]
    assert sorted(entry.name for entry in (data / "snapshots").iterdir()) == snapshot_ids(data)
    assert served(data) == before


def test_purging_keeps_the_newest_and_the_current_one(data: Path) -> None:
    """The current snapshot stays however old it is."""
    first, second = snapshot_ids(data)
    third = publish(data, ["three"]).id
    point_to(data, first)
    assert purge(data, 1) == [second]
    assert snapshot_ids(data) == [first, third]


def test_purging_spares_what_another_process_has_open(data: Path) -> None:
    """A snapshot that is in use, in whatever process, is not removed; once let go, it is."""
    first, second = snapshot_ids(data)
    code = (
        "import sys; from pathlib import Path; from corpus.snapshot import open_snapshot\n"
        "from corpus.settings import SearchSettings\n"
        "opened = open_snapshot(Path(sys.argv[1]), sys.argv[2], SearchSettings()); print('open', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(data), first], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "open\n"
        assert purge(data, 1) == []
        reader.communicate()
    assert purge(data, 1) == [first]
    assert snapshot_ids(data) == [second]


def test_chunks_without_their_vectors_are_refused(tmp_path: Path) -> None:
    """A document whose vectors are missing is a bug of the caller, named as such."""
    writer = SnapshotWriter(tmp_path, None, EmbedderStamp("m", "f", DIMENSION), {})
    made = Document("d", "v", "c", "s", "t", "x", (), "md", None, (), "internal")
    with pytest.raises(ValueError, match="1 chunks of 's' came with 0 vectors"):
        writer.add_document("s", made, [Chunk("i", "d", "v", 0, 1, "x", (), None)], [b""], np.empty((0, DIMENSION), np.float32))
    writer.abandon()
    assert list((tmp_path / "snapshots").iterdir()) == []
