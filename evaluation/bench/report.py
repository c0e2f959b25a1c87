"""Runs the parts that were chosen, and shows what they measured: a table for people, JSON for machines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from corpus.errors import ConfigError
from evaluation.bench.dataset import measure_dataset
from evaluation.bench.embedding import measure_embedding
from evaluation.bench.figures import Figure, Part
from evaluation.bench.first_token import measure_first_token
from evaluation.bench.gateway import measure_gateway
from evaluation.bench.handbook import measure_handbook
from evaluation.bench.latency import measure_latency
from evaluation.bench.livez import measure_livez
from evaluation.bench.machine import Machine, this_machine
from evaluation.bench.options import Options
from evaluation.bench.scaling import measure_scaling
from evaluation.bench.startup import measure_startup

PARTS: dict[str, Callable[[Options], Part]] = {
    "handbook": measure_handbook,
    "latency": measure_latency,
    "first_token": measure_first_token,
    "startup": measure_startup,
    "livez": measure_livez,
    "gateway": measure_gateway,
    "embedding": measure_embedding,
    "dataset": measure_dataset,
    "scaling": measure_scaling,
}
WHEN_NAMED = ("scaling",)
"""Parts that take longer than all others together."""

VERDICTS = {None: "", True: "[green]pass[/]", False: "[red]MISS[/]"}


@dataclass(frozen=True, slots=True)
class BenchReport:
    """What was measured, on what."""

    machine: Machine
    parts: tuple[Part, ...]

    @property
    def figures(self) -> Iterator[Figure]:
        """All figures in order."""
        return (figure for part in self.parts for figure in part.figures)

    @property
    def reached(self) -> bool:
        """Whether every figure that has an aim reaches it."""
        return all(figure.passed is not False for figure in self.figures)

    def as_json(self) -> dict[str, Any]:
        """The report for machines."""
        return {
            "machine": asdict(self.machine),
            "figures": [figure.as_json() for figure in self.figures],
            "misses": {name: list(ids) for part in self.parts for name, ids in part.misses.items()},
        }

    def as_tables(self) -> list[Table]:
        """The report for people: one table, and one for each part that measured the same several times."""
        rows = [figure for part in self.parts if not part.caption for figure in part.figures]
        tables = [_in_rows(rows)] if rows else []
        tables += [_in_columns(part) for part in self.parts if part.caption]
        if tables:
            tables[0].title = self.machine.shown
        return tables

    def shown_misses(self) -> str:
        """The ids that count against a figure, one line a figure."""
        lines = [f"{name}: {', '.join(ids) or 'none'}" for part in self.parts for name, ids in part.misses.items()]
        return "\n".join(lines)


def _in_rows(figures: Sequence[Figure]) -> Table:
    table = Table(title_justify="left", title_style="")
    for column in ("part", "figure", "measured", "aim", "", "data"):
        table.add_column(column, justify="right" if column in ("measured", "aim") else "left")
    before = None
    for figure in figures:
        if before is not None and figure.part != before:
            table.add_section()
        part = "" if figure.part == before else figure.part
        table.add_row(part, figure.name, figure.shown, figure.shown_aim, VERDICTS[figure.passed], figure.data)
        before = figure.part
    return table


def _in_columns(part: Part) -> Table:
    columns = list(dict.fromkeys(figure.part for figure in part.figures))
    table = Table("figure", title_justify="left", title_style="", caption=part.caption, caption_justify="left")
    for column in columns:
        table.add_column(column, justify="right")
    found = {(figure.name, figure.part): figure for figure in part.figures}
    for name in dict.fromkeys(figure.name for figure in part.figures):
        table.add_row(name, *(_cell(found.get((name, column))) for column in columns))
    return table


def _cell(figure: Figure | None) -> str:
    if figure is None or figure.aim is None:
        return "" if figure is None else figure.shown
    return f"{figure.shown}  {figure.shown_aim} {VERDICTS[figure.passed]}"


def chosen(only: Sequence[str], *, has_data: bool) -> list[str]:
    """The parts to run: those named, or all that do not take long; the data set only where there is one.

    Raises: ConfigError for a part that there is not.
    """
    for name in only:
        if name not in PARTS:
            raise ConfigError(f"--only {name!r} is not a part; known: {', '.join(PARTS)}")
    left_out = WHEN_NAMED if has_data else (*WHEN_NAMED, "dataset")
    return [name for name in PARTS if (name in only if only else name not in left_out)]


def measure_parts(names: Sequence[str], options: Options) -> BenchReport:
    """Run the parts one after the other. Raises: BenchError and whatever the parts' own rooms raise."""
    machine = this_machine()
    parts = []
    for name in names:
        options.say(f"{name}:")
        parts.append(PARTS[name](options))
    return BenchReport(machine, tuple(parts))
