"""How well documents are found in a data set: corpus.jsonl with the documents, queries.jsonl with questions and gold."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from app.services import build_services
from app.settings import ServiceSettings
from corpus.errors import ConfigError
from evaluation.bench.figures import Aim, Figure, Part
from evaluation.bench.options import Options
from evaluation.golden import Question, read_golden
from evaluation.quality import Ranking, measure, rank
from ingest.job import run
from ingest.settings import GateSettings, IngestSettings, SourceSettings

CORPUS, QUERIES = "corpus.jsonl", "queries.jsonl"
MEASURES = ("nDCG@10", "nDCG@5", "R@5")
NOT_BELOW_LAST_TURN = "nDCG@5"
AIMS = {("scifact", "nDCG@10"): Aim(0.71, at_least=True)}
"""Published for a hybrid search with a model of this class: .713 on BEIR SciFact."""


def measure_dataset(options: Options) -> Part:
    """Ingest the documents (only what is new, where the data folder is kept) and search for each question with gold."""
    folder = options.data
    if folder is None:
        raise ConfigError(f"--data is missing; name a folder with {CORPUS} and {QUERIES}")
    if not (folder / CORPUS).is_file() or not (folder / QUERIES).is_file():
        raise ConfigError(f"--data {str(folder)!r} is not a folder with {CORPUS} and {QUERIES}; name one")
    name = folder.resolve().name
    questions = [question for question in read_golden(folder / QUERIES) if question.is_answerable]
    data_dir = options.data_dir or options.scratch / "dataset"
    options.say(f"ingesting {name}")
    source = SourceSettings(path=folder / CORPUS, name=name, groups=options.settings.server.groups)
    # The configuration's gate and webhook are about the organisation's own documents.
    own = {"data_dir": data_dir, "sources": (source,), "gate": GateSettings(), "ingest": IngestSettings()}
    report = run(options.job.model_copy(update=own), allow_removals=True)
    options.say(f"searching {len(questions)} times")
    settings = options.settings.model_copy(update={"data_dir": data_dir})
    whole, last = asyncio.run(_rankings(settings, questions))
    data = f"{name}, {report.documents} documents, {len(questions)} questions"
    return Part(tuple(dataset_figures(name, data, whole, last)))


def dataset_figures(name: str, data: str, whole: Sequence[Ranking], last: Sequence[Ranking] | None) -> list[Figure]:
    """The figures with history and, where a question has one, by the last turn only, which history must not fall below."""
    part = f"dataset {name}"
    found = measure(whole, MEASURES, names_of(whole))
    if last is None:
        return [Figure(part, key, found[key], "", data, AIMS.get((name, key))) for key in MEASURES]
    alone = measure(last, MEASURES, names_of(last))
    aims = {key: AIMS.get((name, key)) for key in MEASURES}
    aims[NOT_BELOW_LAST_TURN] = Aim(alone[NOT_BELOW_LAST_TURN], at_least=True)
    return [
        *(Figure(part, f"{key}, with history", found[key], "", data, aims[key]) for key in MEASURES),
        *(Figure(part, f"{key}, last turn only", alone[key], "", data) for key in MEASURES),
    ]


def names_of(rankings: Sequence[Ranking]) -> dict[str, str]:
    """By which id the gold knows each source found: a row's source is the file's name, `#` and the row's id."""
    return {source: source.removeprefix(f"{CORPUS}#") for ranking in rankings for source in ranking.sources}


async def _rankings(settings: ServiceSettings, questions: Sequence[Question]) -> tuple[list[Ranking], list[Ranking] | None]:
    services = build_services(settings)
    await services.start()
    try:
        whole = await rank(services, questions)
        if not any(question.history for question in questions):
            return whole, None
        return whole, await rank(services, questions, use_history=False)
    finally:
        await services.close()
