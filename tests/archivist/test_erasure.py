"""Threat G1: what is deleted is gone from every file of the data folder, without a run, and the report says what went where."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from app.state.erasure import ERASED
from app.state.state import State
from archivist.cli import app as cli
from corpus.effects import Entry
from corpus.embedders.embedder import Embedder
from corpus.overlay import Overlay
from corpus.published import current_id, held, snapshot_ids
from corpus.settings import SearchSettings
from corpus.snapshot import activate, open_current, open_snapshot
from corpus.types import document_id_of
from corpus.verify import problems_of
from ingest import job
from tests.archivist.canary import CANARY, found_by_word, places, tell
from tests.conftest import Run
from tests.making import job_settings, write_files

SECRET_ID = document_id_of("documents", "secret.md")


@pytest.fixture
def told(tmp_path: Path, run: Run, embedder: Embedder) -> tuple[Path, Path, dict[str, bytes]]:
    """A data folder that holds the canary in every place it can, its configuration, and the canary's spellings."""
    return tell(tmp_path, run, embedder)


@pytest.fixture
def overlay(told: tuple[Path, Path, dict[str, bytes]]) -> Iterator[Overlay]:
    """The overlay of that folder."""
    opened = Overlay(told[0] / "overlay.db")
    yield opened
    opened.close()


def no_embedding(patch: pytest.MonkeyPatch) -> None:
    """From here on a run that loads the model fails."""

    def refuse(settings: object, **values: object) -> Embedder:
        raise AssertionError("the model was loaded")

    patch.setattr("ingest.model.open_embedder", refuse)


def purge(config: Path, *options: str, exit_code: int = 0) -> dict[str, object]:
    """The command's report."""
    result = CliRunner().invoke(cli, ["snapshots", "purge", "--config", str(config), *options])
    assert result.exit_code == exit_code, result.output
    report: dict[str, object] = json.loads(result.stdout)
    return report


def test_g1_a_delete_and_a_purge_leave_nothing(
    told: tuple[Path, Path, dict[str, bytes]], overlay: Overlay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No run, no source read, nothing embedded: text, terms and vector bytes are nowhere, all else is as it was."""
    data, config, needles = told
    write_files(data / "work" / "pages", {"0123.json": "{}", "0123-4567": CANARY})
    assert places(data, needles)
    first = current_id(data)
    old, _ = open_current(data, SearchSettings())
    (other,) = [d for d, _ in old.store.stored.documents_with_passages() if d.source == "other.md"]
    vector = old.dense.vectors(np.array([p.ordinal for p in old.store.passages_of(other.document_id)]))
    overlay.delete(SECRET_ID, "anna", old.seen(SECRET_ID))
    old.close()
    no_embedding(monkeypatch)
    report = purge(config)
    assert places(data, needles) == set()
    assert found_by_word(data) == 0
    current = current_id(data)
    assert (report["documents"], report["snapshot"], report["snapshots"]) == ({SECRET_ID: [first]}, current, [first])
    assert (report["files"], report["pages"], report["in_use"]) == (["work/embeddings.db"], 2, [])
    assert (report["uploads"], report["uploads_kept"], report["service_db_rewritten"]) == ([], [], True)
    assert isinstance(report["answers"], list)
    assert len(report["answers"]) == 1
    assert snapshot_ids(data) == [current]
    assert problems_of(data / "snapshots" / current) == []
    new, damage = open_current(data, SearchSettings())
    assert damage is None
    assert [d for d, _ in new.store.stored.documents_with_passages()] == [other]
    assert (new.dense.vectors(np.array([0])) == vector).all()
    assert new.manifest.embedder == old.manifest.embedder
    assert [(record.document_id, record.withheld) for record in new.store.stored.effect_records()] == [(SECRET_ID, True)]
    new.close()
    assert overlay.pending() == []
    # The file still lies in its source, and the next run neither reads it again nor publishes anything.
    settings = job_settings(data, data.parent / "documents")
    ended = job.run(settings)
    assert (ended.published, ended.withheld) == (False, 1)
    assert places(data, needles) == set()


def test_g1_a_run_erases_what_was_deleted_by_itself(told: tuple[Path, Path, dict[str, bytes]], overlay: Overlay) -> None:
    """The command of the nightly job leaves nothing either, although older snapshots are kept; it says so."""
    data, config, needles = told
    overlay.delete(SECRET_ID, "anna")
    result = CliRunner().invoke(cli, ["ingest", "--config", str(config), "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert (report["withheld"], report["embedded"], list(report["erased"]["documents"])) == (1, 0, [SECRET_ID])
    assert places(data, needles) == set()
    assert found_by_word(data) == 0
    assert overlay.pending() == []
    state = State(data / "service.db")
    (conversation,), _ = state.conversations("anna", None, 9)
    messages, _ = state.messages("anna", conversation.conversation_id)
    state.close()
    assert [message.content for message in messages][1] == ERASED


def test_g1_a_run_that_is_refused_erases_too(told: tuple[Path, Path, dict[str, bytes]], overlay: Overlay) -> None:
    """While a snapshot is held no run publishes, and the held one is made anew without the document and held as before."""
    data, config, needles = told
    activate(data, current_id(data), hold=True)
    overlay.delete(SECRET_ID, "anna")
    result = CliRunner().invoke(cli, ["ingest", "--config", str(config)])
    assert type(result.exception).__name__ == "RunRefused"
    assert places(data, needles) == set()
    assert held(data) == current_id(data)
    assert snapshot_ids(data) == [current_id(data)]


def test_what_a_service_has_open_goes_with_the_next_purge(told: tuple[Path, Path, dict[str, bytes]], overlay: Overlay) -> None:
    """It is named, the exit code is 1, the deletion stays pending; answers from the document are erased at once."""
    data, config, needles = told
    first = current_id(data)
    used = open_snapshot(data, first, SearchSettings())
    overlay.delete(SECRET_ID, "anna")
    report = purge(config, "--wait", "0.5", exit_code=1)
    assert (report["in_use"], report["snapshots"]) == ([first], [])
    assert isinstance(report["answers"], list)
    assert (len(report["answers"]), len(overlay.pending())) == (1, 1)
    assert current_id(data) != first
    used.close()
    report = purge(config)
    assert (report["snapshots"], report["snapshot"], report["documents"]) == ([first], None, {SECRET_ID: [first]})
    assert places(data, needles) == set()
    assert overlay.pending() == []


def test_every_snapshot_that_holds_a_deleted_document_goes(
    told: tuple[Path, Path, dict[str, bytes]], run: Run, overlay: Overlay
) -> None:
    """Also older ones that `--keep` would keep, and one of before the document was moved; the others stay."""
    data, config, needles = told
    source = data.parent / "documents"
    first = current_id(data)
    (source / "secret.md").rename(source / "moved.md")
    second = run(job_settings(data, source)).snapshot
    moved = document_id_of("documents", "moved.md")
    snapshot, _ = open_current(data, SearchSettings())
    overlay.delete(moved, "anna", snapshot.seen(moved))
    snapshot.close()
    third = run(job_settings(data, source)).snapshot
    assert places(data, needles)
    report = purge(config, "--keep", "9")
    assert report["snapshots"] == [first, second]
    assert report["documents"] == {SECRET_ID: [first], moved: [second]}
    assert snapshot_ids(data) == [third]
    assert places(data, needles) == set()


@pytest.mark.parametrize("in_one_night", [False, True])
def test_answers_go_with_the_version_that_they_rest_on(
    told: tuple[Path, Path, dict[str, bytes]], run: Run, overlay: Overlay, in_one_night: bool
) -> None:
    """A rename alone erases no answer; the delete of what was renamed does, although another document has its id now."""
    data, config, needles = told
    source = data.parent / "documents"
    (source / "secret.md").rename(source / "moved.md")
    if not in_one_night:
        assert run(job_settings(data, source)).moved == 1
        assert purge(config, "--keep", "1")["answers"] == []
    write_files(source, {"secret.md": "# Parking\n\nBehind the house.\n"})
    run(job_settings(data, source))
    moved = document_id_of("documents", "moved.md")
    snapshot, _ = open_current(data, SearchSettings())
    overlay.delete(moved, "anna", snapshot.seen(moved))
    snapshot.close()
    report = purge(config)
    assert len(list(report["answers"])) == 1  # type: ignore[call-overload]
    assert places(data, needles) == set()
    snapshot, _ = open_current(data, SearchSettings())
    assert SECRET_ID in snapshot.store.stored.document_ids()
    snapshot.close()


def test_a_delete_that_comes_while_a_purge_begins_is_not_marked_as_erased_before_it_is(
    told: tuple[Path, Path, dict[str, bytes]], overlay: Overlay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is marked was in what the purge went by."""
    data, config, needles = told
    pending = Overlay.pending

    def late(self: Overlay) -> list[Entry]:
        if not overlay.entries():
            overlay.delete(SECRET_ID, "anna")
        return pending(self)

    monkeypatch.setattr(Overlay, "pending", late)
    purge(config)
    assert (pending(overlay), places(data, needles)) == ([], set())


def test_uploads_go_where_all_that_is_in_them_was_deleted(tmp_path: Path, run: Run) -> None:
    """A file with its sidecar; one that holds other rows too stays and is named, and its own deletion with it."""
    data = tmp_path / "data"
    rows = "".join(json.dumps({"id": str(n), "text": f"Row {n} of it."}) + "\n" for n in range(2))
    uploads = write_files(
        data / "uploads",
        {
            "secret.md": f"# Secret\n\n{CANARY}\n",
            "secret.md.meta.yaml": f"title: {CANARY}\n",
            "rows.jsonl": rows,
            "a.md": "A.\n",
        },
    )
    run(job_settings(data, uploads))
    overlay = Overlay(data / "overlay.db")
    overlay.delete(document_id_of("uploads", "secret.md"), "anna")
    overlay.delete(document_id_of("uploads", "rows.jsonl#1"), "anna")
    config = tmp_path / "archivist.yaml"
    config.write_text(json.dumps({"data_dir": str(data), "sources": [{"path": str(uploads)}]}))
    report = purge(config)
    assert report["uploads"] == ["uploads/secret.md", "uploads/secret.md.meta.yaml"]
    assert report["uploads_kept"] == ["uploads/rows.jsonl"]
    assert sorted(path.name for path in uploads.iterdir()) == ["a.md", "rows.jsonl"]
    assert [entry.document_id for entry in overlay.pending()] == [document_id_of("uploads", "rows.jsonl#1")]
    overlay.close()
