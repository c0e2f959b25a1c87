"""`archivist snapshots verify` and `purge`: whether what was published is whole, and that what was deleted is gone."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from archivist.settings import load_settings
from corpus.errors import SnapshotDamaged

ConfigOption = Annotated[Path | None, typer.Option("--config", "-c", help="Configuration file.")]
DataOption = Annotated[Path | None, typer.Option("--data", help="Folder of snapshots and conversations (data_dir).")]


def verify_snapshot(
    snapshot: Annotated[str | None, typer.Argument(help="Id of a snapshot; the current one if left out.")] = None,
    config: ConfigOption = None,
    data: DataOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check a snapshot: hashes, counts, ids, offsets, groups, the three stores against each other, the exported model.

    Exit code 1: damaged.
    """
    from corpus.manifest import read_manifest
    from corpus.published import current_id
    from corpus.verify import problems_of

    data_dir = _data_dir(config, data)
    name = snapshot or current_id(data_dir)
    folder = data_dir / "snapshots" / name
    problems = problems_of(folder)
    if as_json:
        typer.echo(json.dumps({"snapshot": name, "problems": problems}, indent=1, ensure_ascii=False))
    elif not problems:
        manifest = read_manifest(folder)
        typer.echo(f"{name} is whole: {manifest.documents} documents, {manifest.chunks} chunks.")
    else:
        for problem in problems:
            typer.echo(f"{name}: {problem}")
    if problems:
        raise SnapshotDamaged(name, problems[0] if len(problems) == 1 else f"{problems[0]}, and {len(problems) - 1} more")


def purge_snapshots(
    keep: Annotated[int, typer.Option(min=1, help="Newest snapshots that stay; the current one always does.")] = 1,
    config: ConfigOption = None,
    data: DataOption = None,
) -> None:
    """Remove old snapshots and all else that holds text of deleted documents; print as JSON what was removed where.

    `pages` counts the files that were kept of pages which the current snapshot does not hold.
    Answers that rest on documents which stand in no snapshot any more are erased from the conversations.
    """
    from app.state.erasure import erase_answers
    from corpus.erasure import documents_there, erase_old, files_served
    from ingest.lock import locked
    from ingest.sources.pages import forget_pages

    data_dir = _data_dir(config, data)
    with locked(data_dir):
        erased = erase_old(data_dir, keep)
        pages = forget_pages(data_dir, files_served(data_dir))
        answers = erase_answers(data_dir / "service.db", lambda ids: documents_there(data_dir, ids))
    report = {**asdict(erased), "pages": pages, "answers": answers.messages, "service_db_rewritten": answers.rewritten}
    typer.echo(json.dumps(report, indent=1))
    if erased.in_use or not answers.rewritten:
        typer.echo("archivist: some of it is in use; purge again in a minute", err=True)
        raise typer.Exit(1)


def _data_dir(config: Path | None, data: Path | None) -> Path:
    return load_settings(config, {"data_dir": data} if data is not None else {}).data_dir
