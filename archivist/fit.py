"""`archivist evaluate fit-answerability`: fits the weights of answerability to questions whose answers are known."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from archivist import progress
from archivist.settings import find_config, load_settings
from corpus.errors import ConfigError

if TYPE_CHECKING:
    from evaluation.answerability import Fit, Row


def fit_answerability(
    sets: Annotated[list[Path], typer.Argument(help="Golden sets (.jsonl), or data sets: folders in BEIR's shape.")],
    config: Annotated[Path | None, typer.Option("--config", "-c", help="Configuration file.")] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="data_dir; for data sets the folder that their documents are ingested into.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many questions of each.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all that is drawn.")] = 0,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Fit the weights of answerability; prints what to put into the configuration, and what it is worth. Asks no LLM."""
    if find_spec("scipy") is None:
        raise ConfigError("scipy is not installed; run `pip install '.[evaluation]'`")
    from app.logs import configure_logs
    from evaluation.answerability import FEW, fit_rows

    configure_logs(logging.WARNING)
    if data is None and any(each.is_dir() for each in sets):
        raise ConfigError("to fit to a data set, name a folder for its snapshots with --data; it is kept for next time")
    rows = [row for each in sets for row in _rows(each, config, data, limit)]
    fit = fit_rows(rows, seed)
    for kind, count in (
        ("with", sum(row.expects_answer is True for row in rows)),
        ("without", sum(row.expects_answer is False for row in rows)),
    ):
        if count < FEW:
            print(  # noqa: T201 - the command's warning
                f"Only {count} questions {kind} an answer: with fewer than {FEW} the weights are uncertain; add questions.",
                file=sys.stderr,
            )
    if json_output:
        print(json.dumps(asdict(fit) | {"weights": fit.weights.model_dump()}, indent=1))  # noqa: T201 - the command's output
    else:
        print("\n".join(_told(fit)))  # noqa: T201 - the command's output


def _rows(golden: Path, config: Path | None, data: Path | None, limit: int | None) -> list[Row]:
    from corpus.embedders.embedder import open_embedder
    from corpus.published import MODELS
    from evaluation.answerability import measure
    from evaluation.beir import ingest, read_data_set
    from evaluation.golden import read_golden
    from evaluation.run import opened

    file = find_config(config)
    if golden.is_dir():
        assert data is not None, "checked before"
        data_set = read_data_set(golden)
        settings, questions, name = load_settings(file, {"data_dir": data}), list(data_set.questions), data_set.name
        with progress.shown() as listener:
            data_dir, _ = ingest(data_set, settings.job(), settings.server.groups, data, listener)
        service = settings.service().model_copy(update={"data_dir": data_dir})
    else:
        settings, questions, name = (
            load_settings(file, {} if data is None else {"data_dir": data}),
            read_golden(golden),
            golden.stem,
        )
        service = settings.service()
    embedder = open_embedder(service.embedder, models=service.data_dir / MODELS, threads=service.embedder.query_threads)

    async def measured() -> list[Row]:
        async with opened(service, embedder) as services:
            return await measure(services, questions[:limit], name)

    return asyncio.run(measured())


def _told(fit: Fit) -> list[str]:
    sizes = ", ".join(f"{count} {kind}" for kind, count in fit.sizes.items())
    interval = "" if fit.auc_interval is None else f" [{fit.auc_interval[0]:.3f}, {fit.auc_interval[1]:.3f}]"
    return [
        f"Questions: {sizes}.",
        "",
        "Put into the configuration:",
        "answer:",
        "  weights:",
        *(f"    {name}: {value}" for name, value in fit.weights.model_dump().items()),
        "",
        "Area under the ROC curve, cross-validated by conversation, within collections:",
        f"  answerable against unanswerable  {_shown(fit.auc)}{interval}",
        f"  answerable against gold hidden   {_shown(fit.auc_hidden)}",
        *(f"  {name} alone".ljust(35) + _shown(value) for name, value in fit.by_signal.items()),
        "",
        "abstain_below  false abstention  right abstention  of the underspecified  of gold hidden",
        *(
            f"{point.threshold:13.2f}  {_shown(point.false_abstention):>16}  {_shown(point.right_abstention):>16}"
            f"  {_shown(point.underspecified):>21}  {_shown(point.hidden):>14}"
            for point in fit.points
        ),
    ]


def _shown(value: Any) -> str:
    return "-" if value is None else f"{value:.3f}"
