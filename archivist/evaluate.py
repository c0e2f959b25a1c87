"""`archivist evaluate`: how well it answers a golden set, or how two configurations or snapshots differ; and drafting one."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from typer.core import TyperGroup

from archivist import progress
from archivist.fit import fit_answerability
from archivist.settings import Settings, find_config, load_settings
from corpus.errors import ConfigError

if TYPE_CHECKING:
    from app.settings import ServiceSettings
    from corpus.embedders.embedder import Embedder
    from evaluation.beir import DataSet
    from evaluation.golden import Question
    from evaluation.report import Report
    from evaluation.run import Run

EXIT_GATE = 4
NARROW = 200
"""Columns of the tables where the output is no terminal."""
TOLD = 10
"""How often a run says how far it is, where the output is no terminal."""
MEASURE = "measure"


class _MeasuresByDefault(TyperGroup):
    """`evaluate FILE` measures; only `evaluate generate` names its command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or args[0] not in self.commands:
            args = [MEASURE, *args]
        return super().parse_args(ctx, args)


evaluate_app = typer.Typer(
    cls=_MeasuresByDefault,
    help="Measure how well it answers a golden set, or stored conversations anew; `evaluate generate` drafts a golden set.",
)

ConfigOption = Annotated[Path | None, typer.Option("--config", "-c", help="Configuration file.")]
DataOption = Annotated[
    Path | None, typer.Option("--data", help="data_dir; for a data set the folder that its documents are ingested into.")
]
ProviderOption = Annotated[str | None, typer.Option(help="LLM provider to ask.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Seed of all that is drawn.")]


@dataclass(frozen=True, slots=True)
class _Side:
    """One of the things measured: a configuration, and a snapshot where it is not the current one."""

    name: str
    settings: Settings
    snapshot: str | None = None


@evaluate_app.command(MEASURE, epilog="`archivist evaluate generate --help`: draft a golden set from the documents.")
def measure(
    golden: Annotated[Path | None, typer.Argument(help="Golden set (.jsonl), or a data set: a folder in BEIR's shape.")] = None,
    config: ConfigOption = None,
    data: DataOption = None,
    k: Annotated[list[int] | None, typer.Option("--k", min=1, max=100, help="Depth of rankings; 5. Repeatable.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many questions.")] = None,
    retrieval_only: Annotated[bool, typer.Option("--retrieval-only", help="Search and do not answer.")] = False,
    provider: ProviderOption = None,
    compare: Annotated[
        tuple[str, str] | None, typer.Option(metavar="A B", help="Two configuration files, or the ids of two snapshots.")
    ] = None,
    minimum: Annotated[
        list[str] | None,
        typer.Option("--min", metavar="METRIC=VALUE", help="Exit code 4 where less is measured (of B). Repeatable."),
    ] = None,
    from_conversations: Annotated[
        bool,
        typer.Option(
            "--from-conversations", help="Ask the questions of stored conversations again (see conversations.replay)."
        ),
    ] = False,
    owner: Annotated[
        str | None, typer.Option(help="Whose conversations; those of whoever server.api_key lets in.", metavar="OWNER")
    ] = None,
    since: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Only what was answered on that day (UTC) or after it.")
    ] = None,
    json_file: Annotated[str | None, typer.Option("--json", metavar="FILE", help="Write JSON; - = to the output.")] = None,
    html_file: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a report for people.")] = None,
    seed: SeedOption = 0,
) -> None:
    """Measure how well a golden set is answered, or stored conversations anew. Exit code 4: a --min was not reached."""
    _require_extra()
    from app.logs import configure_logs
    from evaluation.compare import compare as compare_reports
    from evaluation.gate import check, least_of
    from evaluation.metrics import check_names, depths_asked
    from evaluation.report_html import comparison_html, report_html
    from evaluation.report_terminal import comparison_tables, report_tables

    configure_logs(logging.WARNING)
    for file in (json_file, html_file):
        if file not in (None, "-"):
            _require_folder(Path(file))
    leasts = [least_of(text) for text in minimum or ()]
    names = [least.name for least in leasts]
    check_names(names, has_answers=not retrieval_only)
    if retrieval_only and provider is not None:
        raise ConfigError("--provider answers, and --retrieval-only asks for no answer; leave one of them out")
    _check_source(golden, from_conversations, owner, since)
    data_set = None
    if golden is not None:
        name = golden.name
        questions, data_set = _questions(golden, data, limit)
        sides = _sides(config, data if data_set is None else None, compare, has_data_set=data_set is not None)
    else:
        sides = _sides(config, data, compare, has_data_set=False)
        name, questions = _stored_questions(sides, owner, since, limit)
    asking = _Asking(name, questions, data_set, data, tuple(dict.fromkeys([*(k or [5]), *depths_asked(names)])), seed)
    reports = [asking.report(side, provider, answers=not retrieval_only) for side in sides]
    checked = check(reports[-1], leasts)
    gate = {"gate": [one.as_json() for one in checked]}

    if len(reports) == 1:
        told, tables, page = reports[0].as_json(), report_tables(reports[0]), report_html(reports[0])
    else:
        compared = compare_reports(reports[0], reports[1])
        told, tables, page = compared.as_json(), comparison_tables(compared), comparison_html(compared)
    if json_file is not None:
        _write_json(json_file, told | gate)
    if html_file is not None:
        _write(html_file, page)
    if json_file != "-":
        console = Console()
        console = Console(width=None if console.is_terminal else NARROW, highlight=False)
        for table in tables:
            console.print(table)
    for one in checked:
        print(f"archivist: {one.shown}", file=sys.stderr)  # noqa: T201 - the command's output
    if not all(one.passed for one in checked):
        raise typer.Exit(EXIT_GATE)


evaluate_app.command("fit-answerability")(fit_answerability)


@evaluate_app.command("generate")
def generate(
    out: Annotated[Path, typer.Option(metavar="FILE", help="File to write; one that is there is never overwritten.")],
    count: Annotated[int, typer.Option(min=1, max=10_000, help="Questions to draft.")] = 50,
    config: ConfigOption = None,
    data: Annotated[Path | None, typer.Option("--data", help="Folder of snapshots (data_dir).")] = None,
    provider: ProviderOption = None,
    seed: SeedOption = 0,
) -> None:
    """Draft a golden set for a person to review: by the configured LLM, else from headings and key sentences."""
    _require_extra()
    from app.logs import configure_logs
    from evaluation.draft import Drafted, draft, write_rows
    from evaluation.run import opened

    configure_logs(logging.ERROR)
    if out.exists():
        raise ConfigError(f"--out {str(out)!r} is there already; name another file")
    _require_folder(out)
    settings = _load(find_config(config), data).service()

    async def drafted() -> list[Drafted]:
        async with opened(settings, _embedder(settings)) as services:
            with _shown("drafting questions", count) as tell:
                found: list[Drafted] = []
                async for row in draft(services, count, provider=provider, seed=seed):
                    found.append(row)
                    tell(len(found))
                return found

    rows = asyncio.run(drafted())
    if not rows:
        raise ConfigError("no passage says enough for a question; are the documents those of server.groups?")
    try:
        write_rows(out, [row.row for row in rows])
    except OSError as error:
        raise ConfigError(f"--out {str(out)!r} cannot be written ({error.strerror})") from error
    by = Counter(row.by for row in rows)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    console.print(f"Wrote {len(rows)} rows to {out}: {by['llm']} by an LLM, {by['headings']} from headings and key sentences.")
    for problem, times in Counter(row.problem for row in rows if row.problem).most_common(3):
        console.print(f"  {times} not by the LLM: {problem}")
    console.print('Each is marked "drafted": true. Read them, mend or remove what is wrong, take the mark off what you keep,')
    console.print("and write some that have no answer yourself: a draft asks in the words of its passage, which flatters.")


@dataclass(frozen=True, slots=True)
class _Asking:
    """What is asked of each side."""

    name: str
    questions: list[Question]
    data_set: DataSet | None
    data: Path | None
    ks: tuple[int, ...]
    seed: int

    def report(self, side: _Side, provider: str | None, *, answers: bool) -> Report:
        """Ingest where there is a data set, ask, measure."""
        from evaluation.report import About, report_of
        from evaluation.run import ask_all, first_failure, opened

        settings = side.settings.service()
        if self.data_set is not None:
            settings = settings.model_copy(update={"data_dir": self._ingested(side.settings)})
        embedder = _embedder(settings)

        async def asked() -> Run:
            async with opened(settings, embedder, side.snapshot) as services:
                with _shown(f"asking, {side.name}", len(self.questions)) as tell:
                    return await ask_all(
                        services, self.questions, answers=answers, depth=max(self.ks), provider=provider, tell=tell
                    )

        run = asyncio.run(asked())
        failure = first_failure(run)
        if failure is not None:
            raise failure
        return report_of(run, About(self.name, side.name, self.seed, self.ks))

    def _ingested(self, settings: Settings) -> Path:
        from evaluation.beir import ingest

        assert self.data_set is not None, "only a data set is ingested"
        assert self.data is not None, "a data set has a folder to be ingested into"
        with progress.shown() as listener:
            data_dir, report = ingest(self.data_set, settings.job(), settings.server.groups, self.data, listener)
        for failure in report.failures[:3]:
            print(f"archivist: {failure.path} {failure.item}: {failure.reason}", file=sys.stderr)  # noqa: T201
        if report.failures:
            print(f"archivist: {len(report.failures)} rows of the documents could not be read", file=sys.stderr)  # noqa: T201
        return data_dir


def _questions(golden: Path, data: Path | None, limit: int | None) -> tuple[list[Question], DataSet | None]:
    from evaluation.beir import read_data_set
    from evaluation.golden import read_golden

    if not golden.is_dir():
        return read_golden(golden)[:limit], None
    found = read_data_set(golden)
    if data is None:
        raise ConfigError(
            f"{str(golden)!r} is a data set: name a folder for its snapshots with --data; it is kept for next time"
        )
    return list(found.questions[:limit]), found


def _check_source(golden: Path | None, from_conversations: bool, owner: str | None, since: datetime | None) -> None:
    """Whether it is said once where the questions are from. Raises: ConfigError."""
    if golden is None and not from_conversations:
        raise ConfigError("nothing to ask: name a golden set (.jsonl) or a data set, or give --from-conversations")
    if golden is not None and from_conversations:
        raise ConfigError(f"a golden set, {str(golden)!r}, and --from-conversations; leave one of them out")
    for option, value in (("--owner", owner), ("--since", since)):
        if value is not None and not from_conversations:
            raise ConfigError(f"{option} chooses among stored conversations; give it with --from-conversations")


def _stored_questions(
    sides: list[_Side], owner: str | None, since: datetime | None, limit: int | None
) -> tuple[str, list[Question]]:
    """The questions of stored conversations and what to call them. Raises: ConfigError, ArchivistError."""
    from app.access import owner_of
    from evaluation.conversations import Side, check_replay, draw

    folders, owners = set(), set()
    for side in sides:
        check_replay(side.settings.conversations, side.name)
        folders.add(side.settings.data_dir.resolve())
        owners.add(owner_of(side.settings.server))
    if len(folders) > 1:
        raise ConfigError(
            f"--compare: the configurations have different data folders ({', '.join(sorted(map(str, folders)))}), and "
            "conversations are of one; name it with --data"
        )
    if owner is None and len(owners) > 1:
        raise ConfigError("--compare: the configurations have different keys, so different owners; name one with --owner")
    whose = owner or owners.pop()
    asked_by = [Side(side.snapshot, side.settings.server.groups) for side in sides]
    when = None if since is None else since.replace(tzinfo=UTC)
    return f"stored conversations of {whose}", draw(folders.pop(), whose, asked_by, when, limit)


def _sides(config: Path | None, data: Path | None, compare: tuple[str, str] | None, *, has_data_set: bool) -> list[_Side]:
    """What to measure. Raises: ConfigError."""
    from corpus.published import ID, snapshot_ids

    if compare is None:
        file = find_config(config)
        return [_Side(str(file), _load(file, data))]
    are_snapshots = [ID.fullmatch(name) is not None for name in compare]
    if not any(are_snapshots):
        if config is not None:
            raise ConfigError("--config and two configurations to --compare; leave --config out")
        return [_Side(name, _load(find_config(Path(name)), data)) for name in compare]
    if not all(are_snapshots) or has_data_set:
        raise ConfigError(
            f"--compare {' '.join(compare)}: give two configuration files, or two snapshots' ids and a golden set (.jsonl)"
        )
    settings = _load(find_config(config), data)
    known = snapshot_ids(settings.data_dir)
    for name in compare:
        if name not in known:
            raise ConfigError(
                f"--compare: no snapshot {name!r} in {str(settings.data_dir)!r}; there: {', '.join(known) or 'none'}"
            )
    return [_Side(name, settings, name) for name in compare]


def _load(file: Path, data: Path | None) -> Settings:
    return load_settings(file, {} if data is None else {"data_dir": data})


_loaded: dict[str, Embedder] = {}


def _embedder(settings: ServiceSettings) -> Embedder:
    """The model, loaded once for both sides of a comparison that use the same."""
    from corpus.embedders.embedder import open_embedder
    from corpus.published import MODELS

    key = f"{settings.data_dir} {settings.embedder.model_dump_json()}"
    if key not in _loaded:
        threads = settings.embedder.query_threads
        _loaded[key] = open_embedder(settings.embedder, models=settings.data_dir / MODELS, threads=threads)
    return _loaded[key]


def _require_extra() -> None:
    from importlib.util import find_spec

    for module in ("ir_measures", "pytrec_eval", "scipy"):
        if find_spec(module) is None:
            raise ConfigError(f"{module} is not installed; run `pip install '.[evaluation]'`")


@contextmanager
def _shown(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Says on standard error how many are done: a bar on a terminal, a JSON line now and then otherwise."""
    if sys.stderr.isatty():
        with Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(what, total=total)
            yield lambda done: bar.update(task, completed=done)
        return

    def tell(done: int) -> None:
        if done == total or done * TOLD // total > (done - 1) * TOLD // total:
            line = json.dumps({"action": "evaluate", "message": what, "done": done, "total": total})
            print(line, file=sys.stderr, flush=True)  # noqa: T201 - the command's output

    yield tell


def _require_folder(file: Path) -> None:
    """Raises: ConfigError where a file cannot be written in its folder: better now than after all was asked and paid for."""
    if not file.parent.is_dir() or not os.access(file.parent, os.W_OK):
        raise ConfigError(f"{str(file)!r} cannot be written: no folder {str(file.parent)!r} to write in; name another file")


def _write_json(file: str, told: dict[str, Any]) -> None:
    text = json.dumps(told, indent=1, ensure_ascii=False) + "\n"
    if file == "-":
        print(text, end="")  # noqa: T201 - the command's output
    else:
        _write(Path(file), text)


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{str(file)!r} cannot be written ({error.strerror}); name another file") from error
