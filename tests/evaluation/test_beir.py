"""Data sets as folders: what is read, what is ingested, and what is said of a row that is wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from corpus.embedders.embedder import Embedder
from evaluation.beir import ingest, read_data_set
from evaluation.golden import GoldenError
from evaluation.run import ask_all, opened
from ingest.report import Event
from tests.evaluation.outcomes import settings_over
from tests.making import job_settings

DOCUMENTS: tuple[Mapping[str, Any], ...] = (
    {"_id": "4983", "title": "Parking", "text": "Visitors park in the yard behind hall three.", "metadata": {"url": "x"}},
    {"_id": "5836", "title": "The canteen serves lunch from noon", "text": ""},
    {"_id": "7912", "title": "", "text": "The badge reader shows an error where it has lost its network.", "groups": "nobody"},
)
QUERIES = ({"_id": "1", "text": "Where do visitors park?"}, {"_id": "2", "text": "Lunch?"}, {"_id": "3", "text": "Not judged?"})
QRELS = "query-id\tcorpus-id\tscore\n1\t4983\t1\n1\t5836\t0\n2\t5836\t2\n"


def data_set(folder: Path, qrels: str | None = QRELS, **files: tuple[Mapping[str, Any], ...]) -> Path:
    """A folder in BEIR's shape, with other rows in some files."""
    rows = {"corpus": DOCUMENTS, "queries": QUERIES, **files}
    for name, values in rows.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in values), encoding="utf-8")
    if qrels is not None:
        (folder / "qrels").mkdir()
        (folder / "qrels" / "test.tsv").write_text(qrels, encoding="utf-8")
    return folder


def test_beir_s_judged_queries_are_the_questions(tmp_path: Path) -> None:
    """Without those that nobody judged, and without gold of score 0."""
    found = read_data_set(data_set(tmp_path))
    assert [(q.id, q.question, dict(q.gold)) for q in found.questions] == [
        ("1", "Where do visitors park?", {"corpus.jsonl#4983": 1}),
        ("2", "Lunch?", {"corpus.jsonl#5836": 2}),
    ]


def test_gold_may_stand_in_the_queries(tmp_path: Path) -> None:
    """Then a query has all the fields of a golden set's row, and names documents by their ids."""
    queries = ({"id": "a", "question": "Where?", "history": [{"role": "user", "content": "Parking"}], "gold": {"4983": 1}},)
    (question,) = read_data_set(data_set(tmp_path, None, queries=queries)).questions
    assert (question.gold, question.history[0].content) == ({"corpus.jsonl#4983": 1}, "Parking")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"qrels": None, "queries": ({"id": "1", "question": "Where?"},)},
            r"queries\.jsonl has `gold`, and there is no .*qrels",
        ),
        ({"qrels": "1\t4983\tmuch\n2\tx"}, r"test\.tsv line 2: '2.*tx' is not query-id, corpus-id and score"),
        ({"queries": ({"_id": "1"},)}, r"queries\.jsonl line 1: field 'question'"),
        ({"queries": ({"text": "Where?"},)}, r"queries\.jsonl line 1: field '_id' \(or 'id'\) is missing"),
    ],
    ids=["no gold", "wrong qrels", "query without text", "query without id"],
)
def test_a_wrong_data_set_is_named_by_file_line_and_field(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    """The error says what to do."""
    with pytest.raises(GoldenError, match=says):
        read_data_set(data_set(tmp_path, **change))


def test_a_folder_without_documents_is_no_data_set(tmp_path: Path) -> None:
    """The file that is missing is named."""
    with pytest.raises(GoldenError, match=r"is not a data set: it has no corpus\.jsonl"):
        read_data_set(tmp_path)


@pytest.mark.anyio
async def test_documents_are_ingested_once_and_found_by_their_ids(
    tmp_path: Path, embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second run embeds nothing; a title alone is a text; a row's own groups do not hide it."""
    monkeypatch.setattr("ingest.model.open_embedder", lambda settings, **_: embedder)
    (tmp_path / "set").mkdir()
    found = read_data_set(data_set(tmp_path / "set"))
    settings = job_settings(tmp_path / "unused", tmp_path)
    told: list[Event] = []
    data_dir, report = ingest(found, settings, ("everyone",), tmp_path / "data", told.append)
    again = ingest(found, settings, ("everyone",), tmp_path / "data", told.append)
    assert (report.documents, report.failures, again[0], again[1].published) == (3, (), data_dir, False)
    assert data_dir.parent == tmp_path / "data"
    async with opened(settings_over(data_dir), embedder) as services:
        run = await ask_all(services, found.questions, answers=False)
    assert [outcome.found[0].name for outcome in run.outcomes] == ["corpus.jsonl#4983", "corpus.jsonl#5836"]
    assert run.missing == {}


def test_a_document_without_an_id_is_named(tmp_path: Path) -> None:
    """File, line and field."""
    found = read_data_set(data_set(tmp_path, corpus=({"title": "x", "text": "y"},)))
    with pytest.raises(GoldenError, match=r"corpus\.jsonl line 1: field '_id'"):
        ingest(found, job_settings(tmp_path / "unused", tmp_path), ("everyone",), tmp_path / "data", lambda event: None)
