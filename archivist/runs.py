"""`archivist runs`: the history of the job."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from archivist.settings import load_settings
from corpus.runs import read_run, read_runs, run_ids

runs_app = typer.Typer(help="Look at past runs of the job.", no_args_is_help=True)

ConfigOption = Annotated[Path | None, typer.Option("--config", "-c", help="Configuration file.")]
DataOption = Annotated[Path | None, typer.Option("--data", help="Folder of snapshots and conversations (data_dir).")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@runs_app.command("list")
def list_runs(
    config: ConfigOption = None,
    data: DataOption = None,
    limit: Annotated[int, typer.Option(min=1, help="Only the last so many.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """The last runs, oldest first."""
    runs = read_runs(_data_dir(config, data))[-limit:]
    if as_json:
        _print_json(runs)
        return
    for run in runs:
        failures = len(run.get("failures") or ())
        parts = [f"{run.get(name, 0)} {name}" for name in ("added", "changed", "moved", "removed") if run.get(name)]
        if failures:
            parts.append(f"{failures} could not be read")
        _print(f"{run['run']}  {run['started_at']}  {run['status']:<9}  {', '.join(parts)}".rstrip())


@runs_app.command("show")
def show_run(
    run: Annotated[str | None, typer.Argument(help="Id of a run; the last one if left out.")] = None,
    config: ConfigOption = None,
    data: DataOption = None,
) -> None:
    """One run's report, as JSON."""
    data_dir = _data_dir(config, data)
    _print_json(read_run(data_dir, run or next(reversed(run_ids(data_dir)), "")))


def _data_dir(config: Path | None, data: Path | None) -> Path:
    return load_settings(config, {} if data is None else {"data_dir": data}).data_dir


def _print(text: str) -> None:
    Console(soft_wrap=True, highlight=False, markup=False).print(text)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=1, ensure_ascii=False))  # noqa: T201 - the command's output
