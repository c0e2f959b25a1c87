"""Activating, holding and releasing: what CURRENT and HOLD say, and what is never removed."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from corpus.embedders.graph import FORMAT, GRAPH, About, Graph, building, write_graph
from corpus.embedders.stamped import values_of
from corpus.embedders.weights import file_sha256, fingerprint_of
from corpus.errors import Conflict, EmbedderError, NotFound, RunRefused, SnapshotDamaged, SnapshotError
from corpus.manifest import EmbedderStamp, Manifest, as_written, digest_of
from corpus.published import current_id, expired, held, hold_of, pointing, purge, release, remove_litter, snapshot_ids
from corpus.settings import EmbedderSettings, SearchSettings
from corpus.snapshot import activate, open_snapshot
from tests.corpus import small


def publish(data: Path, texts: list[str], graph: str | None = None) -> Manifest:
    """A snapshot of the vectors of the model beside the data folder, which is looked for and never loaded here."""
    model = data.parent / "model"
    stamp = EmbedderStamp(
        str(model),
        fingerprint_of(model, EmbedderSettings()),
        small.DIMENSION,
        graph=graph,
        settings=values_of(EmbedderSettings()),
    )
    return small.publish(data, texts, stamp=stamp)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three snapshots, the newest one current."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"weights")
    for text in ("one", "two", "three"):
        publish(tmp_path / "data", [text])
    return tmp_path / "data"


def test_activating_an_older_one_makes_it_current(data: Path) -> None:
    """It is the one that opens; nothing is held, and nothing else lies in the data folder."""
    first = snapshot_ids(data)[0]
    activate(data, first)
    assert (current_id(data), held(data)) == (first, None)
    assert {entry.name for entry in data.iterdir()} == {"CURRENT", "snapshots"}


@pytest.mark.parametrize("name", ["000009-00000000", "../data", "", ".building-1"])
def test_what_is_not_published_is_not_activated(data: Path, name: str) -> None:
    """It is named, and the current one stays."""
    current = current_id(data)
    with pytest.raises(NotFound, match="no snapshot"):
        activate(data, name, hold=True)
    assert (current_id(data), held(data)) == (current, None)


def test_a_damaged_one_is_not_activated(data: Path) -> None:
    """It is opened first: a changed file is told, and neither CURRENT nor HOLD is touched."""
    first, _, current = snapshot_ids(data)
    dense = data / "snapshots" / first / "dense.faiss"
    dense.write_bytes(dense.read_bytes()[:-1] + b"x")
    with pytest.raises(SnapshotDamaged, match=rf"{first}.*dense\.faiss"):
        activate(data, first, hold=True)
    assert (current_id(data), held(data)) == (current, None)


def test_one_whose_model_is_not_the_one_there_is_not_activated(data: Path) -> None:
    """Nobody could ask it anything: changed weights and a folder that is gone are told, and CURRENT and HOLD stay."""
    first, _, current = snapshot_ids(data)
    weights = data.parent / "model" / "model.safetensors"
    weights.write_bytes(b"other weights")
    with pytest.raises(EmbedderError, match=rf"snapshot '{first}' cannot be served: its vectors are those of .*fingerprint"):
        activate(data, first, hold=True)
    weights.unlink()
    with pytest.raises(EmbedderError, match=rf"snapshot '{first}' cannot be served: .*without a \.safetensors file"):
        activate(data, first)
    weights.parent.rmdir()
    with pytest.raises(EmbedderError, match=rf"snapshot '{first}' cannot be served: .*is neither a folder"):
        activate(data, first, embedder=EmbedderSettings(engine="sentence-transformers"))
    assert (current_id(data), held(data)) == (current, None)


def exported(data: Path, made_with: str) -> Graph:
    """A graph of the model beside the data folder, of a few bytes."""
    model = data.parent / "model"
    files = building(data / "models")
    (files / GRAPH).write_bytes(b"graph")
    about = About(
        FORMAT, str(model), fingerprint_of(model, EmbedderSettings()), "fp32", small.DIMENSION, 16, None, 2, 0, (), "", "",
        {"torch": made_with}, {}, files={GRAPH: file_sha256(files / GRAPH)},
    )  # fmt: skip
    return write_graph(data / "models", files, about)


def test_one_whose_exported_model_is_not_whole_is_activated_only_with_another_of_the_same_vectors(data: Path) -> None:
    """The weights do not stand in for it, for the service does not look for them; another graph does."""
    graph = exported(data, "one")
    named = publish(data, ["four"], graph.graph_id).id
    current = publish(data, ["five"]).id
    (graph.folder / GRAPH).write_bytes(b"damaged")
    with pytest.raises(EmbedderError, match=rf"'{named}' cannot be served: .*{GRAPH} is not the file that was exported"):
        activate(data, named, hold=True)
    graph.folder.rename(data.parent / "away")
    with pytest.raises(EmbedderError, match=rf"'{named}' cannot be served: no exported model .*{graph.graph_id}"):
        activate(data, named, hold=True)
    assert (current_id(data), held(data)) == (current, None)
    exported(data, "two")
    activate(data, named)
    assert current_id(data) == named


def test_while_one_is_held_nothing_is_published(data: Path) -> None:
    """What is written meanwhile is refused at its last step, with the reason, and leaves nothing; released, it is published."""
    before = snapshot_ids(data)
    activate(data, before[0], hold=True)
    hold = hold_of(data)
    assert hold is not None
    assert hold.snapshot == before[0] == held(data)
    with pytest.raises(RunRefused, match=rf"{before[0]}' is held since {hold.since[:16]}.*`archivist snapshots release`"):
        publish(data, ["four"])
    remove_litter(data)
    assert snapshot_ids(data) == before
    assert current_id(data) == before[0]
    assert {entry.name for entry in (data / "snapshots").iterdir()} == set(before)
    assert release(data) == before[0]
    assert release(data) is None
    assert publish(data, ["four"]).id == current_id(data)


def test_another_one_is_activated_only_with_its_own_hold(data: Path) -> None:
    """A hold is not lost by the way: activating another without --hold is refused; with it, the hold moves."""
    first, second, _ = snapshot_ids(data)
    activate(data, first, hold=True)
    with pytest.raises(Conflict, match=rf"{first}' is held.*release"):
        activate(data, second)
    assert (current_id(data), held(data)) == (first, first)
    activate(data, first)
    assert held(data) == first
    activate(data, second, hold=True)
    assert (current_id(data), held(data)) == (second, second)


def test_a_hold_that_names_nothing_fails_closed(data: Path) -> None:
    """An emptied or garbled HOLD is an error that says how to mend it, for a run too; releasing mends it."""
    for text in ("", "what is this", "000001-00000000"):
        (data / "HOLD").write_text(text)
        with pytest.raises(SnapshotError, match=r"names no snapshot.*snapshots release"):
            held(data)
        with pytest.raises(SnapshotError, match="names no snapshot"):
            publish(data, ["four"])
    assert release(data) is None
    assert held(data) is None


def test_what_is_held_or_current_is_not_purged(data: Path) -> None:
    """However old they are; what lies between them goes."""
    first, second, third = snapshot_ids(data)
    fourth = publish(data, ["four"]).id
    activate(data, first, hold=True)
    with pointing(data) as pointer:
        pointer.set_current(second)
    assert purge(data, 1) == [third]
    assert snapshot_ids(data) == [first, second, fourth]


def test_age_counts_from_when_the_next_one_was_made(data: Path) -> None:
    """Of four, those that were replaced ten and three days ago go after five days and after two; the current one stays."""
    publish(data, ["four"])
    first, second, third, fourth = (
        backdated(data, name, days) for name, days in zip(snapshot_ids(data), (99, 10, 3, 1), strict=True)
    )
    activate(data, fourth)
    assert expired(data, 9, None) == []
    assert expired(data, 9, 5) == [first]
    assert expired(data, 9, 2) == [first, second]
    assert expired(data, 9, 0.5) == [first, second, third]
    assert expired(data, 2, 5) == [first, second]
    activate(data, first)
    assert purge(data, 9, 2) == [second]
    assert snapshot_ids(data) == [first, third, fourth]


def backdated(data: Path, name: str, days: int) -> str:
    """A snapshot as if it had been made some days ago; its id, which stands for the day too."""
    folder = data / "snapshots" / name
    values = json.loads((folder / "manifest.json").read_text())
    values["created_at"] = (datetime.now(UTC) - timedelta(days=days)).isoformat(timespec="seconds")
    values["id"] = f"{name[:6]}-{digest_of(values)}"
    (folder / "manifest.json").write_text(as_written(values))
    folder.rename(folder.parent / values["id"])
    return str(values["id"])


def test_a_killed_activation_leaves_what_the_next_run_removes(data: Path) -> None:
    """Half-written files beside HOLD and CURRENT go; those two stay."""
    activate(data, snapshot_ids(data)[0], hold=True)
    for name in (".HOLD-12345678", ".CURRENT-12345678"):
        (data / name).write_text("half")
    remove_litter(data)
    assert {entry.name for entry in data.iterdir()} == {"CURRENT", "HOLD", "snapshots"}


def test_an_opened_one_says_what_its_manifest_says(data: Path) -> None:
    """The one that was activated opens by its id."""
    first = snapshot_ids(data)[0]
    activate(data, first)
    snapshot = open_snapshot(data, current_id(data), SearchSettings())
    assert [passage.text for passage in snapshot.store.passages([0])] == ["one"]
    assert json.loads((data / "snapshots" / first / "manifest.json").read_text())["id"] == first
    snapshot.close()
