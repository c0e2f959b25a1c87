"""`snapshots verify` and `purge`: damage is named, and what was deleted is nowhere in the data folder any more."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.state.erasure import ERASED, erase_answers
from app.state.state import State
from archivist.cli import app as cli
from corpus.embedders.embedder import Embedder
from corpus.lock import locked
from corpus.published import current_id, snapshot_ids
from corpus.settings import RetentionSettings, SearchSettings
from corpus.snapshot import open_current
from tests.archivist.canary import CANARY, found_by_word, places, tell
from tests.conftest import Run
from tests.making import job_settings, write_files


@pytest.fixture
def told(tmp_path: Path, run: Run, embedder: Embedder) -> tuple[Path, Path, dict[str, bytes]]:
    """A data folder that holds the canary in every place it can, its configuration, and the canary's spellings."""
    return tell(tmp_path, run, embedder)


def test_what_was_deleted_is_nowhere_after_a_run_and_a_purge(told: tuple[Path, Path, dict[str, bytes]], run: Run) -> None:
    """Threat G1: text, terms and vector bytes are in no file of the data folder; the report says what went from where."""
    data, config, needles = told
    before = places(data, needles)
    assert {place.split(":")[0].split("/")[-1] for place in before} >= {"chunks.db", "dense.faiss", "embeddings.db"}
    assert any(place.startswith("service.db") for place in before)
    assert found_by_word(data) == 1
    first = current_id(data)
    (data.parent / "documents" / "secret.md").unlink()
    settings = job_settings(data, data.parent / "documents", retention=RetentionSettings(snapshots=5))
    assert run(settings).removed == 1
    assert places(data, needles)
    work = data / "work" / "embeddings.db"
    sqlite3.connect(work).close()
    # A run that was refused has kept a page, which is in no snapshot.
    write_files(data / "work" / "pages", {"0123.json": "{}", "0123-4567": CANARY})
    result = CliRunner().invoke(cli, ["snapshots", "purge", "--config", str(config)])
    assert result.exit_code == 0, result.output
    assert places(data, needles) == set()
    assert found_by_word(data) == 0
    report = json.loads(result.stdout)
    assert (report["snapshots"], report["in_use"], report["service_db_rewritten"]) == ([first], [], True)
    assert (len(report["answers"]), report["pages"]) == (1, 2)
    assert work.name not in {path.name for path in data.rglob("*")}
    state = State(data / "service.db")
    (conversation,), _ = state.conversations("anna", None, 9)
    messages, _ = state.messages("anna", conversation.conversation_id)
    state.close()
    assert [message.content for message in messages] == [
        "What does it say?", ERASED, "And else?", "It says: Something else. [1]",
    ]  # fmt: skip
    assert (messages[1].citations, messages[1].grounding, messages[1].standalone_question) == ((), None, None)
    assert messages[1].passages != ()
    assert messages[3].citations[0].quote == "Something else"


def test_a_purge_that_an_open_snapshot_hinders_says_so(told: tuple[Path, Path, dict[str, bytes]], run: Run) -> None:
    """What is in use stays, is named, and the exit code is 1; the next purge removes it."""
    data, config, _ = told
    held, _ = open_current(data, SearchSettings())
    (data.parent / "documents" / "secret.md").unlink()
    run(job_settings(data, data.parent / "documents"))
    result = CliRunner().invoke(cli, ["snapshots", "purge", "--config", str(config)])
    assert (result.exit_code, json.loads(result.stdout)["in_use"]) == (1, [held.id])
    # Its documents are still there, so no answer was taken for one from a deleted document.
    assert json.loads(result.stdout)["answers"] == []
    held.close()
    result = CliRunner().invoke(cli, ["snapshots", "purge", "--config", str(config)])
    assert (result.exit_code, json.loads(result.stdout)["snapshots"]) == (0, [held.id])
    assert snapshot_ids(data) == [current_id(data)]


def test_answers_are_erased_only_where_the_documents_are_known_to_be_gone(told: tuple[Path, Path, dict[str, bytes]]) -> None:
    """Nothing is erased that rests on documents which stand in a snapshot."""
    data, _, _ = told
    assert erase_answers(data / "service.db", set).messages == ()
    assert erase_answers(data / "none.db", lambda ids: set()).messages == ()
    assert len(erase_answers(data / "service.db", lambda ids: set()).messages) == 2
    assert erase_answers(data / "service.db", lambda ids: set()).messages == ()


def test_a_purge_waits_for_no_run(told: tuple[Path, Path, dict[str, bytes]]) -> None:
    """While the job is at work a purge is refused with the lock's error."""
    data, config, _ = told
    with locked(data):
        result = CliRunner().invoke(cli, ["snapshots", "purge", "--config", str(config)])
    assert type(result.exception).__name__ == "LockHeld"


def test_verify_names_what_is_wrong(told: tuple[Path, Path, dict[str, bytes]]) -> None:
    """A whole snapshot is called so; of a damaged one every damaged file is named, for people and for programs."""
    data, config, _ = told
    arguments = ["snapshots", "verify", "--config", str(config)]
    assert CliRunner().invoke(cli, arguments).stdout == f"{current_id(data)} is whole: 2 documents, 2 chunks.\n"
    folder = data / "snapshots" / current_id(data)
    (folder / "dense.faiss").write_bytes(b"")
    (folder / "chunks.db").unlink()
    result = CliRunner().invoke(cli, [*arguments, "--json"])
    assert type(result.exception).__name__ == "SnapshotDamaged"
    assert json.loads(result.stdout)["problems"] == [
        "chunks.db cannot be read (No such file or directory)", "dense.faiss is not the file that was published",
    ]  # fmt: skip
