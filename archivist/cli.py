"""The command line. Exit codes: 0 done, 1 failed, 2 usage, 3 done with documents that failed, 4 a guard or a gate
refused, 5 another run holds the lock.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
import tempfile
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from app.settings import ServiceSettings
from archivist import progress, reference
from archivist.config_check import check_config
from archivist.documents import documents_app
from archivist.erasing import Erasing
from archivist.evaluate import evaluate_app
from archivist.fake_llm import fake_llm
from archivist.runs import runs_app
from archivist.settings import Settings, find_config, load_settings
from archivist.snapshots import snapshots_app
from corpus.errors import ArchivistError, ConfigError, LockHeld, RunRefused
from ingest.settings import JobSettings

EXIT_FAILED, EXIT_USAGE, EXIT_DOCUMENTS_FAILED, EXIT_REFUSED, EXIT_LOCKED = 1, 2, 3, 4, 5

app = typer.Typer(
    name="archivist",
    help="Answers questions from your documents, and shows where each answer comes from.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
config_app = typer.Typer(help="Look at the configuration.", no_args_is_help=True)
app.add_typer(config_app, name="config")
app.add_typer(snapshots_app, name="snapshots")
app.add_typer(documents_app, name="documents")
app.add_typer(runs_app, name="runs")
app.add_typer(evaluate_app, name="evaluate")

ConfigOption = Annotated[Path | None, typer.Option("--config", "-c", help="Configuration file.")]
DataOption = Annotated[Path | None, typer.Option("--data", help="Folder of snapshots and conversations (data_dir).")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def main() -> None:
    """The top of the command line: an error of ours becomes one line and an exit code."""
    try:
        app()
    except ConfigError as error:
        _fail(error, EXIT_USAGE)
    except RunRefused as error:
        _fail(error, EXIT_REFUSED)
    except LockHeld as error:
        _fail(error, EXIT_LOCKED)
    except ArchivistError as error:
        _fail(error, EXIT_FAILED)


def _fail(error: ArchivistError, code: int) -> None:
    print(f"archivist: {error}", file=sys.stderr)  # noqa: T201 - the command's output
    sys.exit(code)


def _print(text: str) -> None:
    Console(soft_wrap=True, highlight=False, markup=False).print(text)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=1, ensure_ascii=False, default=str))  # noqa: T201 - the command's output


def _settings(config: Path | None, data: Path | None = None, **flags: Any) -> Settings:
    if data is not None:
        flags["data_dir"] = data
    return load_settings(config, flags)


@app.callback(invoke_without_command=True)
def _version(show: Annotated[bool, typer.Option("--version", help="Show the version.", is_eager=True)] = False) -> None:
    if show:
        _print(f"archivist {version('archivist')}")
        raise typer.Exit


@app.command()
def ingest(
    config: ConfigOption = None,
    data: DataOption = None,
    source: Annotated[
        list[Path] | None, typer.Option("--source", help="A folder or file to read, not the configured sources. Repeatable.")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print what would be done, and do nothing.")] = False,
    allow_removals: Annotated[
        bool, typer.Option("--allow-removals", help="Go on although a source is empty or many documents are gone.")
    ] = False,
    run_id: Annotated[str | None, typer.Option("--run-id", hidden=True)] = None,
    as_json: JsonOption = False,
) -> None:
    """Read the documents, embed what changed, publish a snapshot.

    Exit code 3: done, with documents that failed; 4: a guard or the gate stopped it, and nothing was published.
    """
    from ingest.job import run

    flags = {"sources": [{"path": str(path)} for path in source]} if source else {}
    whole = _settings(config, data, **flags)
    settings = whole.job()
    if plan:
        _show_plan(settings, as_json=as_json)
        return
    measure = None
    if settings.gate.golden is not None:
        from archivist.golden import RecallOnGolden

        measure = RecallOnGolden(whole.server.groups, whole.history.turns)
    erasing = Erasing(whole)
    try:
        with erasing.behind(), progress.shown() as listener:
            report = run(settings, listener, allow_removals=allow_removals, measure=measure, run_id=run_id)
    except RunRefused as error:
        if as_json:
            _print_json(error.report)
        raise
    if as_json:
        _print_json({**report.as_json(), "erased": None if erasing.done is None else erasing.done.as_json()})
    else:
        _print(progress.summary(report))
        if erasing.done is not None:
            _print(erasing.done.summary)
    if report.failures:
        raise typer.Exit(EXIT_DOCUMENTS_FAILED)


def _show_plan(settings: JobSettings, *, as_json: bool) -> None:
    from ingest.preview import preview

    found = preview(settings)
    _print_json(found.as_json()) if as_json else _print(progress.plan_summary(found))


@app.command()
def serve(
    config: ConfigOption = None,
    data: DataOption = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    example: Annotated[str, typer.Option(help="Question of the curl line that is printed.")] = "your question",
) -> None:
    """Answer over HTTP, with a page at /."""
    from app.main import serve as run_service
    from app.reload import Origin

    given = {key: value for key, value in (("host", host), ("port", port)) if value is not None}
    flags = {"server": given} if given else {}
    file = find_config(config)

    def load() -> ServiceSettings:
        return _settings(file, data, **flags).service()

    settings = load()
    # The server ends in good order on SIGTERM and then raises it again, which would make an ordered end look like a crash.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    run_service(
        settings,
        on_ready=lambda address: _print(_welcome(address, example, has_key=settings.server.api_key is not None)),
        origin=Origin(file, load, _ingest_command(file, data), partial(_tell_of_run, file, data)),
    )


def _tell_of_run(file: Path, data: Path | None, report: Mapping[str, Any]) -> str | None:
    """Tell the configured webhook of a run that could not do so itself."""
    from ingest.notify import notify

    try:
        url = _settings(file, data).ingest.webhook_url
    except ConfigError:
        return None  # it is being edited; whoever looks at the run still learns that it died
    return None if url is None else notify(url.get_secret_value(), report)


def _ingest_command(file: Path, data: Path | None) -> tuple[str, ...]:
    """What starts the job under the configuration that the service has."""
    # `-m` would put the working folder before our own packages, unless that is where they are run from.
    trusted = () if {"", str(Path.cwd())} & set(sys.path) else ("-P",)
    flags = () if data is None else ("--data", str(data))
    return (sys.executable, *trusted, "-m", "archivist", "ingest", "--config", str(file), *flags)


def _welcome(address: str, example: str, *, has_key: bool) -> str:
    key = " -H 'Authorization: Bearer '$ARCHIVIST_SERVER__API_KEY" if has_key else ""
    body = json.dumps({"question": example}, ensure_ascii=False).replace("'", "'\\''")
    return (
        f"Archivist answers at {address}/\n"
        f"Ask from the command line:\n  curl -s {address}/v1/ask{key} -H 'Content-Type: application/json' -d '{body}'"
    )


@app.command()
def ask(
    question: str,
    config: ConfigOption = None,
    data: DataOption = None,
    conversation: Annotated[str | None, typer.Option(help="Id of a conversation to continue.")] = None,
    provider: Annotated[str | None, typer.Option(help="LLM provider to ask.")] = None,
    top_k: Annotated[int, typer.Option(min=1, max=50, help="Passages looked at.")] = 8,
    as_json: JsonOption = False,
) -> None:
    """Ask one question without a running service."""
    from app.access import LOCAL_OWNER, Caller
    from app.answering.answer import answer
    from app.answering.types import Answer, Ask
    from app.logs import configure_logs
    from app.services import build_services

    configure_logs(logging.WARNING)
    settings = _settings(config, data).service()

    async def whole() -> Answer:
        services = build_services(settings)
        try:
            await services.start()
            caller = Caller(LOCAL_OWNER, settings.server.groups)
            asked = Ask(question, conversation_id=conversation, provider=provider, top_k=top_k)
            async with aclosing(answer(services, caller, asked)) as events:
                async for event in events:
                    if isinstance(event, Answer):
                        return event
            raise AssertionError("the answer path ended without an answer")
        finally:
            await services.close()

    _check_question(question, settings)
    found = asyncio.run(whole())
    if as_json:
        _print_json({key: value for key, value in asdict(found).items() if key != "passages"})
        return
    _print(found.answer)
    for citation in {c.marker: c for c in reversed(found.citations)}.values():
        page = f", page {citation.page}" if citation.page is not None else ""
        _print(f"  [{citation.marker}] {' › '.join([citation.title, *citation.heading])} ({citation.source}{page})")
    _print(f"  conversation {found.conversation_id}")


def _check_question(question: str, settings: ServiceSettings) -> None:
    try:
        question.encode()
    except UnicodeEncodeError as error:
        raise ConfigError("the question is not UTF-8; set the terminal's encoding to it") from error
    if not question.strip():
        raise ConfigError("the question is empty; put it in quotes behind the command")
    most = settings.server.max_question_chars
    if len(question) > most:
        raise ConfigError(f"the question has {len(question)} characters, at most {most} are taken")


@app.command()
def search(
    query: str,
    config: ConfigOption = None,
    data: DataOption = None,
    top_k: Annotated[int, typer.Option(min=1, max=50, help="Passages shown.")] = 8,
    as_json: JsonOption = False,
) -> None:
    """Find passages without a running service."""
    from corpus.embedders.stamped import open_stamped
    from corpus.overlay import NAME, Overlay
    from corpus.published import MODELS
    from corpus.search import Query, Scope
    from corpus.snapshot import open_current

    settings = _settings(config, data).service()
    _check_question(query, settings)
    overlay = Overlay(settings.data_dir / NAME, settings.labels)
    snapshot, _ = open_current(settings.data_dir, settings.search, overlay)
    try:
        models, threads = settings.data_dir / MODELS, settings.embedder.query_threads
        embedder = open_stamped(snapshot.manifest.embedder, settings.embedder, models=models, threads=threads)
        vector = embedder.embed_queries([query])[0]
        hits = snapshot.search.search([Query(query, vector)], Scope(settings.server.groups), top_k)
    finally:
        snapshot.close()
        overlay.close()
    if as_json:
        _print_json([{"rank": rank, **asdict(hit.passage)} for rank, hit in enumerate(hits, start=1)])
        return
    for rank, hit in enumerate(hits, start=1):
        passage = hit.passage
        _print(f"{rank}. {' › '.join([passage.title, *passage.heading])} ({passage.source})")
        _print("   " + " ".join(passage.text.split())[:200])


app.command("fake-llm")(fake_llm)


@app.command()
def bench(
    config: Annotated[Path | None, typer.Option("--config", "-c", help="Configuration file; else the handbook's.")] = None,
    golden: Annotated[Path, typer.Option(help="Golden set of the configured sources.")] = Path("examples/golden.jsonl"),
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="handbook, latency, first_token, startup, livez, gateway, embedding, dataset or scaling; "
            "else all but the last. Repeatable."
        ),
    ] = None,
    data: Annotated[Path | None, typer.Option("--data", help="A data set: folder with corpus.jsonl and queries.jsonl.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder that keeps what was embedded for the next time.")] = None,
    real: Annotated[bool, typer.Option("--real", help="Embed the generated corpus; else random vectors.")] = False,
    sizes: Annotated[
        list[int] | None, typer.Option(min=1, help="Chunks of a corpus for `scaling`. Repeatable; else 10000, 100000, 1000000.")
    ] = None,
    held_s: Annotated[float, typer.Option(min=0, help="Seconds that many streams are held at a time; 0 = not.")] = 60.0,
    misses: Annotated[bool, typer.Option("--misses", help="Print the questions that count against a figure.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit code 1 where an aim is missed.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure this machine: quality on the golden set, latency, start, memory. Starts what it measures; takes minutes."""
    from app.logs import configure_logs
    from evaluation.bench.options import SIZES, Options
    from evaluation.bench.report import chosen, measure_parts

    configure_logs(logging.WARNING)
    handbook = Path("examples/handbook.yaml")
    path = find_config(config or (handbook if handbook.is_file() else None))
    settings = load_settings(path)
    parts = chosen(only or [], has_data=data is not None)
    with tempfile.TemporaryDirectory(prefix="archivist-bench-") as scratch:
        options = Options(
            settings=settings.service(), job=settings.job(), config=path, golden=golden, scratch=Path(scratch),
            data=data, data_dir=data_dir, real=real, sizes=tuple(sizes or SIZES), held_s=held_s,
            say=lambda line: print(line, file=sys.stderr, flush=True),  # noqa: T201
        )  # fmt: skip
        report = measure_parts(parts, options)
    if as_json:
        _print_json(report.as_json())
    else:
        console = Console()
        wide = Console(width=None if console.is_terminal else 180)
        for table in report.as_tables():
            wide.print(table)
    if misses and not as_json:
        _print(report.shown_misses())
    if strict and not report.reached:
        raise typer.Exit(EXIT_FAILED)


@config_app.command("show")
def show_config(config: ConfigOption = None) -> None:
    """The configuration in force, every key, secrets hidden."""
    _print(f"# from {find_config(config)}, the environment and the defaults")
    _print(reference.as_yaml(load_settings(config)))


config_app.command("check")(check_config)


@config_app.command("reference", hidden=True)
def config_reference() -> None:
    """The reference page, docs/configuration.md."""
    print(reference.as_markdown(), end="")  # noqa: T201 - the command's output


@config_app.command("defaults", hidden=True)
def config_defaults() -> None:
    """The default configuration file, config/archivist.yaml."""
    print(reference.default_yaml(), end="")  # noqa: T201 - the command's output
