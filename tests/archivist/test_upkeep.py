"""`snapshots verify` and `purge`: damage is named, and what was deleted is nowhere in the data folder any more."""

from __future__ import annotations

import base64
import gzip
import json
import re
import sqlite3
import urllib.parse
import zlib
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from app.answering.types import Answer, Citation, Grounding
from app.llm.backend import Usage
from app.state.erasure import ERASED, erase_answers
from app.state.state import State
from archivist.cli import app as cli
from corpus.embedders.embedder import Embedder
from corpus.lexical import LexicalFilter
from corpus.published import current_id, snapshot_ids
from corpus.settings import RetentionSettings, SearchSettings
from corpus.snapshot import open_current
from corpus.types import Passage
from ingest.lock import locked
from ingest.vectors import VectorSource, input_hash
from tests.conftest import Run
from tests.making import job_settings, write_files

CANARY = "Zebrafish-Quartz-Überlauf 4711 \u2014 the canary sings"
SECRET = f"# Canary heading zirkon\n\nIt says: {CANARY}, and nobody else says so.\n"


def spellings(text: str) -> dict[str, bytes]:
    """The ways in which a text may stand in a file."""
    return {
        "raw": text.encode(),
        "utf-16-le": text.encode("utf-16-le"),
        "utf-16-be": text.encode("utf-16-be"),
        "json": json.dumps(text)[1:-1].encode(),
        "lower": text.lower().encode(),
        "percent": urllib.parse.quote(text).encode(),
        "base64": base64.b64encode(text.encode())[4:-4],
    }


def expanded(data: bytes) -> bytes:
    """A file's bytes, and behind them whatever in it can be unpacked."""
    found = [data]
    for match in re.finditer(rb"\x78[\x01\x5e\x9c\xda]|\x1f\x8b\x08", data):
        try:
            unpack = gzip.decompress if data[match.start()] == 0x1F else zlib.decompressobj().decompress
            found.append(unpack(data[match.start() :])[:1_000_000])
        except (OSError, EOFError, zlib.error):
            continue
    return b"\x00".join(found)


def places(folder: Path, needles: dict[str, bytes]) -> set[str]:
    """Where any of them stands: `file: spelling`."""
    found = set()
    for path in folder.rglob("*"):
        if path.is_file():
            data = expanded(path.read_bytes())
            found |= {f"{path.relative_to(folder)}: {name}" for name, needle in needles.items() if needle in data}
    return found


def found_by_word(data: Path) -> int:
    """How many chunks the lexical index has for a word of the canary: its terms are packed too well to be seen in the file."""
    snapshot, _ = open_current(data, SearchSettings())
    try:
        return len(snapshot.lexical.search("zirkon", 9, LexicalFilter(["everyone"], {}, sees_everything=True))[0])
    finally:
        snapshot.close()


def passage(document_id: str, version: str, text: str) -> Passage:
    """A passage that an answer rests on."""
    chunk_id = f"{document_id}.{version}.0-9"
    return Passage(0, chunk_id, document_id, version, "t", "s", "c", text, (), None, 0, 9, "internal", (), None)


def given(document_id: str, version: str, text: str) -> Answer:
    """An answer that quotes a document."""
    return Answer(
        answer=f"It says: {text}. [1]", abstained=False,
        citations=(Citation(1, f"{document_id}.{version}.0-9", document_id, version, "t", "s", None, (), text, 0, 9),),
        conversation_id=None, message_id=None, standalone_question=f"What of {text}?", provider="p", model="m", route="r",
        snapshot="000001-abc", usage=Usage(1, 1), grounding=Grounding(0.5, (text,)), timings_ms={},
        passages=(passage(document_id, version, text),),
    )  # fmt: skip


@pytest.fixture
def told(tmp_path: Path, run: Run, embedder: Embedder) -> tuple[Path, Path, dict[str, bytes]]:
    """A data folder that holds the canary in every place it can, its configuration, and the canary's spellings."""
    source = write_files(tmp_path / "documents", {"other.md": "# Other\n\nSomething else.\n", "secret.md": SECRET})
    data = tmp_path / "data"
    settings = job_settings(data, source)
    run(settings)
    snapshot, _ = open_current(data, SearchSettings())
    documents = {d.source: d for d, _ in snapshot.store.documents_with_passages()}
    secret, other = documents["secret.md"], documents["other.md"]
    (stored,) = snapshot.dense.vectors(np.array([p.ordinal for p in snapshot.store.passages_of(secret.document_id)]))
    snapshot.close()
    # A run that died has left vectors for the next one, of the canary among others.
    work = VectorSource(data / "work" / "embeddings.db", None, lambda: embedder, len(stored))
    work.vectors([CANARY], [input_hash("f", CANARY)])
    work.vectors([SECRET], [input_hash("f", SECRET)])
    work._keep([(b"k", stored.astype(np.float16).tobytes())])
    work.close(finished=False)
    state = State(data / "service.db")
    conversation = state.create_conversation("anna", "What does it say?")
    state.add_turn("anna", conversation, "What does it say?", given(secret.document_id, secret.version, CANARY), "complete")
    state.add_turn("anna", conversation, "And else?", given(other.document_id, other.version, "Something else"), "complete")
    state.close()
    config = tmp_path / "archivist.yaml"
    config.write_text(yaml.safe_dump({"data_dir": str(data), "sources": [{"path": str(source), "name": "documents"}]}))
    needles = {**spellings(CANARY), "vector": stored.astype(np.float16).tobytes()}
    return data, config, needles


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
