"""Data sets as folders, in BEIR's shape or with the gold inside the queries: reads them, and has their documents ingested."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evaluation.golden import GoldenError, Question, question_of, read_golden, read_rows
from ingest.job import run
from ingest.report import Listener, Report
from ingest.settings import GateSettings, IngestSettings, JobSettings, SourceSettings

CORPUS, QUERIES, QRELS = "corpus.jsonl", "queries.jsonl", "qrels/test.tsv"


@dataclass(frozen=True, slots=True)
class DataSet:
    """A folder with documents and questions about them. The gold names a document by its source: `corpus.jsonl#<id>`."""

    name: str
    corpus: Path
    questions: tuple[Question, ...]


def read_data_set(folder: Path) -> DataSet:
    """Read the questions of a data set, those without gold only where the file says what is expected of them.

    Raises: GoldenError that names the file, the line, the field and what to do.
    """
    for name in (CORPUS, QUERIES):
        if not (folder / name).is_file():
            raise GoldenError(
                f"{str(folder)!r} is not a data set: it has no {name}; name a folder that has it, or a .jsonl file"
            )
    queries, qrels = folder / QUERIES, folder / QRELS
    questions = _judged(queries, qrels) if qrels.is_file() else [_named_by_source(row) for row in read_golden(queries)]
    if not any(question.gold for question in questions):
        raise GoldenError(f"no row of {queries} has `gold`, and there is no {qrels}; add one of them")
    return DataSet(folder.resolve().name, folder / CORPUS, tuple(questions))


def _judged(queries: Path, qrels: Path) -> list[Question]:
    """The queries that somebody judged, in the file's order."""
    gold: dict[str, dict[str, int]] = {}
    for number, line in enumerate(qrels.read_text(encoding="utf-8").splitlines(), start=1):
        cells = line.split("\t")
        if number == 1 and not cells[-1].strip().lstrip("-").isdigit():
            continue
        try:
            query, document, relevance = cells
            gold.setdefault(query, {})[source_of(document)] = int(relevance)
        except ValueError as error:
            wanted = "query-id, corpus-id and score with tabs between them"
            raise GoldenError(f"{qrels} line {number}: {line[:60]!r} is not {wanted}; mend the line") from error
    questions = []
    for number, row in read_rows(queries, "queries"):
        row_id = str(_id_of(queries, number, row))
        if row_id in gold:
            named = {"id": row_id, "question": row.get("text", row.get("question")), "gold": gold[row_id]}
            questions.append(question_of(queries, number, named))
    return questions


def _named_by_source(question: Question) -> Question:
    return replace(question, gold={source_of(name): relevance for name, relevance in question.gold.items()})


def source_of(row_id: str) -> str:
    """The source by which a document of a data set is found."""
    return f"{CORPUS}#{row_id}"


def ingest(
    data_set: DataSet, settings: JobSettings, groups: tuple[str, ...], data: Path, listener: Listener
) -> tuple[Path, Report]:
    """Bring the documents into a folder of their own below `data`, unless they are there already; returns that folder.

    The folder is named after the data set, the model and the chunking, so that what was embedded once is there the next time.
    Raises: GoldenError for a wrong row, and whatever the job raises.
    """
    made_with = f"{settings.embedder.model_dump_json()}\x00{settings.chunking.model_dump_json()}"
    data_dir = data / f"{data_set.name}-{hashlib.sha256(made_with.encode()).hexdigest()[:8]}"
    copy = data_dir / "documents" / CORPUS
    copy.parent.mkdir(parents=True, exist_ok=True)
    with copy.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in _documents(data_set.corpus))
    source = SourceSettings(path=copy, name=data_set.name, groups=groups, max_file_bytes=max(1, copy.stat().st_size))
    # The configuration's gate and webhook are about the organisation's own documents.
    own = {"data_dir": data_dir, "sources": (source,), "gate": GateSettings(), "ingest": IngestSettings()}
    return data_dir, run(settings.model_copy(update=own), listener, allow_removals=True)


def _documents(corpus: Path) -> Iterator[Mapping[str, str]]:
    """The documents as the job reads them: what else a row says, such as groups, is the data set's own business."""
    for number, row in read_rows(corpus, "documents"):
        values = {"id": str(_id_of(corpus, number, row))}
        for name in ("title", "text", "language"):
            value = row.get(name) or ""
            if not isinstance(value, str):
                raise GoldenError(f"{corpus} line {number}: field {name!r} is {value!r}, not a text; mend the row or remove it")
            values[name] = value
        # BEIR has documents of a title alone.
        values["text"] = values["text"] if values["text"].strip() else values["title"]
        yield {name: value for name, value in values.items() if value}


def _id_of(path: Path, number: int, row: Mapping[str, Any]) -> str | int:
    found = row.get("_id", row.get("id"))
    if isinstance(found, bool) or not isinstance(found, str | int) or not str(found).strip():
        raise GoldenError(f"{path} line {number}: field '_id' (or 'id') is missing; give the row one, or remove it")
    return found
