"""`archivist config check`: whether the configuration can be used, and with --call whether its providers answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.llm.settings import EXTRACTIVE, LlmSettings, PriceSettings, ProviderSettings
from app.settings import ServiceSettings
from archivist.settings import Settings, find_config, load_settings
from corpus.errors import ArchivistError, ConfigError

if TYPE_CHECKING:
    from archivist.provider_check import ProviderCheck

EXIT_CALL_FAILED, EXIT_NOT_VALID = 1, 2

PRICE_GOES_STALE_DAYS = 365

NARROW = 160
"""Columns of the table where the output is no terminal."""


def check_config(
    config: Annotated[Path | None, typer.Option("--config", "-c", help="Configuration file.")] = None,
    call: Annotated[
        bool, typer.Option("--call", help="Make one tiny call to each provider; nothing of any document is in it.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Whether the configuration can be used. Exit code 2 and the reasons where it cannot; 1 where a called provider failed."""
    settings = load_settings(config)
    problems = list(problems_of(settings))
    if problems and not as_json:
        raise ConfigError(problems[0] if len(problems) == 1 else f"{len(problems)} problems:\n  " + "\n  ".join(problems))
    warnings = [] if problems else list(warnings_of(settings, date.today()))
    checks = _called(settings) if call and not problems else None
    file = find_config(config)
    if as_json:
        _print_json(file, settings, problems, warnings, checks)
    else:
        _print_plainly(file, settings, warnings, checks)
    if problems:
        raise typer.Exit(EXIT_NOT_VALID)
    if checks is not None and any(check.counts_as_failed for check in checks):
        raise typer.Exit(EXIT_CALL_FAILED)


def problems_of(settings: Settings) -> Iterator[str]:
    """Every reason why the service or the job could not work with it. Opens no data, loads no embedding model."""
    from app.answering.prompt import Prompts
    from app.llm.routes import Routes
    from corpus.embedders.graph import graphs
    from corpus.embedders.weights import find_model
    from corpus.published import MODELS
    from corpus.rerankers.reranker import check_reranker

    yield from _refused(lambda: Routes(settings.llm))
    try:
        service = settings.service()
    except ConfigError as error:
        yield str(error)
    else:
        yield from _refused(lambda: Prompts.load(service.prompt))
        yield from _refused_providers(service)
    yield from _refused(settings.job)
    for source in settings.sources:
        needed = source.urls_file if source.is_pages else source.path
        if needed is not None and not needed.expanduser().exists():
            yield f"source {source.collection!r}: no folder or file {str(needed)!r}; is it mounted?"
    exported = any(graph.fits(settings.embedder) for graph in graphs(settings.data_dir / MODELS))
    if not settings.embedder.allow_hub and not exported:
        yield from _refused(lambda: find_model(settings.embedder.model, allow_hub=False))
    if settings.search.reranker:
        yield from _refused(lambda: check_reranker(settings.search.reranker, allow_hub=settings.search.reranker_allow_hub))


def _refused(build: Callable[[], object]) -> Iterator[str]:
    try:
        build()
    except ArchivistError as error:
        yield str(error)


def _refused_providers(settings: ServiceSettings) -> Iterator[str]:
    """What shows only when a provider is opened: its certificates, its proxy. Nothing is called."""
    from app.llm.clearance import clearance_of
    from app.llm.provider import open_provider
    from app.metrics import Metrics

    metrics = Metrics()

    async def open_and_close(name: str, provider: ProviderSettings) -> None:
        await open_provider(name, provider, clearance_of(name, provider, settings.labels), metrics).close()

    for name, provider in settings.llm.providers.items():
        try:
            asyncio.run(open_and_close(name, provider))
        except ArchivistError as error:
            yield f"llm.providers.{name}: {error}"


def warnings_of(settings: Settings, today: date) -> Iterator[str]:
    """What a person should look at, though the service works with it."""
    from app.llm.llamacpp import problem_of
    from app.llm.remote import key_problem

    llm = settings.service().llm
    used = in_use(llm)
    for name, provider in llm.providers.items():
        problem = problem_of(provider) if provider.kind == "llamacpp" else key_problem(provider)
        if problem is not None and name in used:
            yield f"llm.providers.{name} is passed over: {problem}"
        price = price_of(name, llm)
        can_be_called = name in used or (llm.caller_may_choose and problem is None)
        if price is None and not provider.is_local and can_be_called:
            yield f"llm.providers.{name} has no price, so its cost is not known; add llm.prices.{name}"
        elif price is not None and (today - price.as_of).days > PRICE_GOES_STALE_DAYS:
            yield f"the price of llm.providers.{name} is of {price.as_of}, over a year ago; look it up, and set its as_of"


def in_use(llm: LlmSettings) -> set[str]:
    """The providers that the configuration itself sends questions to; others wait for a caller who names them."""
    chains: list[Sequence[str]] = [llm.chain]
    chains += [route.providers for route in llm.routes]
    chains += [budget.then for budget in llm.budgets]
    return {name for chain in chains for name in chain if name != EXTRACTIVE}


def price_of(name: str, llm: LlmSettings) -> PriceSettings | None:
    """The price that a provider's calls are counted at: its own, or its model's; None where there is none."""
    return llm.prices.get(name) or llm.prices.get(llm.providers[name].model)


def _called(settings: Settings) -> list[ProviderCheck]:
    import logging

    from app.logs import configure_logs
    from archivist.provider_check import check_providers

    configure_logs(logging.ERROR)
    service = settings.service()
    return asyncio.run(check_providers(service, in_use(service.llm)))


def _price_in_words(name: str, llm: LlmSettings) -> str:
    price = price_of(name, llm)
    if price is None:
        return "local: free" if llm.providers[name].is_local else "no price"
    cached = "" if price.cached_input_usd is None else f", {price.cached_input_usd:g} cached"
    return f"{price.input_usd:g} in{cached}, {price.output_usd:g} out ({price.as_of})"


def _print_json(
    file: Path, settings: Settings, problems: list[str], warnings: list[str], checks: list[ProviderCheck] | None
) -> None:
    told: dict[str, object] = {
        "config": str(file),
        "valid": not problems,
        "default": settings.llm.default,
        "sources": len(settings.sources),
        "problems": problems,
        "warnings": warnings,
    }
    if checks is not None:
        prices = {name: price_of(name, settings.llm) for name in settings.llm.providers}
        told["providers"] = [
            {
                **asdict(check),
                "failed": check.counts_as_failed,
                "price": None if (price := prices[check.provider]) is None else price.model_dump(mode="json"),
            }
            for check in checks
        ]
    print(json.dumps(told, indent=1, ensure_ascii=False))  # noqa: T201 - the command's output


def _print_plainly(file: Path, settings: Settings, warnings: list[str], checks: list[ProviderCheck] | None) -> None:
    console = Console(soft_wrap=True, highlight=False, markup=False)
    console.print(f"{file} is valid; llm.default is {settings.llm.default!r}, {len(settings.sources)} source(s).")
    for warning in warnings:
        console.print(f"warning: {warning}")
    if checks is None:
        return
    if not checks:
        console.print("No provider is configured, so none was called.")
        return
    Console(width=None if console.is_terminal else NARROW).print(_table(checks, settings.llm))
    for check in checks:
        if check.reason is not None:
            console.print(f"{check.provider}: {check.reason}")


def _table(checks: list[ProviderCheck], llm: LlmSettings) -> Table:
    table = Table(caption="Prices in US dollars per million tokens.", caption_justify="left")
    headings = "provider,kind,model,result,reachable,model present,streams,usage reported,first token,price"
    for heading in headings.split(","):
        table.add_column(heading, overflow="fold")
    for check in checks:
        first_token = "" if check.first_token_s is None else f"{check.first_token_s * 1000:.0f} ms"
        cells = (
            check.provider, check.kind, check.model, check.result, _told(check.reachable),
            _told(check.model_present, unknown="unknown") if check.reachable else "",
            _told(check.streams), check.usage or "", first_token, _price_in_words(check.provider, llm),
        )  # fmt: skip
        table.add_row(*(Text(cell) for cell in cells))  # as Text: a model's name may hold brackets
    return table


def _told(known: bool | None, unknown: str = "") -> str:
    return unknown if known is None else "yes" if known else "no"
