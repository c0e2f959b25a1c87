"""The snapshot being served: picked up, swapped under load, fallen back from, refused."""

from __future__ import annotations

import os
import threading
import traceback
from pathlib import Path

import pytest

from app.snapshots import SnapshotHolder
from corpus.embedders.embedder import Embedder
from corpus.errors import EmbedderMismatch, NoSnapshot, SnapshotDamaged
from corpus.published import current_id, point_to
from corpus.search import Query, Scope
from corpus.settings import SearchSettings
from tests.conftest import Run
from tests.making import job_settings

QUESTION = "When are expense reports due?"


def holder(data_dir: Path, embedder: Embedder, fingerprint: str | None = None) -> SnapshotHolder:
    """A holder that has not looked yet."""
    return SnapshotHolder(data_dir, SearchSettings(), fingerprint or embedder.fingerprint, embedder.model)


def served(snapshots: SnapshotHolder) -> str:
    """The id of what is served."""
    with snapshots.lease() as snapshot:
        return snapshot.id


def republish(site: Path, run: Run, text: str) -> str:
    """Publish one more snapshot, with one document more; its id."""
    (site / "documents" / "new.txt").write_text(text)
    run(job_settings(site / "data", site / "documents"))
    return current_id(site / "data")


def flip_a_byte(path: Path) -> None:
    """Damage one byte in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_snapshot_is_served_once_it_is_published(tmp_path: Path, site: Path, embedder: Embedder) -> None:
    """Without one, a lease raises NoSnapshot and the status says so; after the first publication it is served."""
    data = tmp_path / "later"
    data.mkdir()
    snapshots = holder(data, embedder)
    assert snapshots.refresh() is False
    assert snapshots.status() == ["no_snapshot"]
    with pytest.raises(NoSnapshot, match="run `archivist ingest` first"), snapshots.lease():
        pass
    for entry in (site / "data").iterdir():
        entry.rename(data / entry.name)
    assert snapshots.refresh() is True
    assert snapshots.status() == []
    assert served(snapshots) == current_id(data)
    assert snapshots.refresh() is False
    snapshots.close()


def test_an_error_that_is_raised_again_and_again_does_not_grow(tmp_path: Path, embedder: Embedder) -> None:
    """Each lease without a snapshot raises an error of its own: its traceback is as long as the first one's."""
    snapshots = holder(tmp_path, embedder)
    snapshots.refresh()
    errors = []
    for _ in range(5):
        with pytest.raises(NoSnapshot) as caught, snapshots.lease():
            pass
        errors.append(caught.value)
    assert len({id(error) for error in errors}) == 5
    assert len({len(traceback.extract_tb(error.__traceback__)) for error in errors}) == 1
    assert {(str(error), error.data_dir) for error in errors} == {(str(NoSnapshot(str(tmp_path))), str(tmp_path))}


def test_a_snapshot_in_use_stays_open_until_its_reader_ends(site: Path, run: Run, embedder: Embedder) -> None:
    """A lease from before a swap still reads its own snapshot; a new one gets the new; then the old one is closed."""
    snapshots = holder(site / "data", embedder)
    snapshots.refresh()
    with snapshots.lease() as old:
        new_id = republish(site, run, "The new rule is canary.")
        assert snapshots.refresh() is True
        assert served(snapshots) == new_id != old.id
        assert old.store.counts()[0] == old.manifest.documents
        vector = embedder.embed_queries([QUESTION])[0]
        assert old.search.search([Query(QUESTION, vector)], Scope(("everyone",)), 3)
        lock = old._lock
        assert not lock.closed
    assert lock.closed
    snapshots.close()


def test_a_damaged_new_snapshot_leaves_the_one_before_in_service(site: Path, run: Run, embedder: Embedder) -> None:
    """One flipped byte: what was served goes on, /readyz is told, and the next good one ends it."""
    snapshots = holder(site / "data", embedder)
    snapshots.refresh()
    old = served(snapshots)
    damaged = republish(site, run, "The new rule is canary.")
    flip_a_byte(site / "data" / "snapshots" / damaged / "dense.faiss")
    assert snapshots.refresh() is False
    assert served(snapshots) == old
    assert snapshots.status() == ["previous_snapshot"]
    good = republish(site, run, "The newest rule is fine.")
    assert snapshots.refresh() is True
    assert (served(snapshots), snapshots.status()) == (good, [])
    snapshots.close()


def test_at_the_start_a_damaged_snapshot_falls_back_to_the_one_before(site: Path, run: Run, embedder: Embedder) -> None:
    """A service that starts on a damaged snapshot serves the newest older one that is whole, and says so."""
    old = current_id(site / "data")
    damaged = republish(site, run, "The new rule is canary.")
    flip_a_byte(site / "data" / "snapshots" / damaged / "chunks.db")
    snapshots = holder(site / "data", embedder)
    assert snapshots.refresh() is True
    assert (served(snapshots), snapshots.status()) == (old, ["previous_snapshot"])
    snapshots.close()


def test_with_nothing_whole_the_damage_is_raised(site: Path, embedder: Embedder) -> None:
    """The only snapshot is damaged: none is served, the error names it and the file."""
    only = current_id(site / "data")
    flip_a_byte(site / "data" / "snapshots" / only / "chunks.db")
    snapshots = holder(site / "data", embedder)
    assert snapshots.refresh() is False
    assert snapshots.status() == ["snapshot_damaged"]
    with pytest.raises(SnapshotDamaged, match=rf"{only}.*chunks\.db is not the file") as caught, snapshots.lease():
        pass
    assert caught.value.snapshot == only


def test_a_snapshot_of_another_model_is_refused(site: Path, embedder: Embedder) -> None:
    """Vectors of two models never mix: nothing is served, and the error says what to do."""
    snapshots = holder(site / "data", embedder, fingerprint="another")
    assert snapshots.refresh() is False
    assert snapshots.status() == ["embedder_mismatch"]
    with pytest.raises(EmbedderMismatch, match="run `archivist ingest`, or set embedder back"), snapshots.lease():
        pass


def test_what_is_served_stays_when_the_pointer_is_gone_or_wrong(site: Path, embedder: Embedder) -> None:
    """Without CURRENT nothing changes; one that names nothing degrades; one that is whole again mends it."""
    snapshots = holder(site / "data", embedder)
    snapshots.refresh()
    only = served(snapshots)
    (site / "data" / "CURRENT").unlink()
    assert snapshots.refresh() is False
    assert (served(snapshots), snapshots.status()) == (only, [])
    (site / "data" / "CURRENT").write_text("garbage")
    snapshots.refresh()
    assert (served(snapshots), snapshots.status()) == (only, ["previous_snapshot"])
    point_to(site / "data", only)
    snapshots.refresh()
    assert (served(snapshots), snapshots.status()) == (only, [])
    snapshots.close()


def test_a_look_that_fails_for_another_reason_is_repeated(
    site: Path, run: Run, embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A snapshot that could not be opened for want of file handles is opened at the next look."""
    snapshots = holder(site / "data", embedder)
    snapshots.refresh()
    new_id = republish(site, run, "The new rule is canary.")
    with monkeypatch.context() as patch:
        patch.setattr("app.snapshots.open_current", _no_handles)
        with pytest.raises(OSError, match="Too many open files"):
            snapshots.refresh()
    assert snapshots.refresh() is True
    assert served(snapshots) == new_id
    snapshots.close()


def _no_handles(*_values: object) -> None:
    raise OSError(24, os.strerror(24))


def test_no_request_fails_while_snapshots_are_swapped(site: Path, run: Run, embedder: Embedder) -> None:
    """Eight askers over ten swaps: every search answers from a whole snapshot, and only one is open in the end."""
    first = current_id(site / "data")
    second = republish(site, run, "The new rule is canary.")
    snapshots = holder(site / "data", embedder)
    snapshots.refresh()
    vector = embedder.embed_queries([QUESTION])[0]
    stop, failures, answered = threading.Event(), list[BaseException](), list[str]()

    def ask() -> None:
        while not stop.is_set():
            try:
                with snapshots.lease() as snapshot:
                    hits = snapshot.search.search([Query(QUESTION, vector)], Scope(("everyone",)), 3)
                    assert "30 days" in hits[0].passage.text
                    answered.append(snapshot.id)
            except BaseException as error:  # noqa: BLE001 - every failure counts
                failures.append(error)
                return

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for turn in range(10):
        before = len(answered)
        point_to(site / "data", first if turn % 2 == 0 else second)
        assert snapshots.refresh() is True
        while len(answered) < before + 8 and not failures:
            stop.wait(0.001)
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert set(answered) == {first, second}
    snapshots.close()
