"""The report as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from evaluation.calibration import Calibration
from evaluation.compare import Comparison
from evaluation.metrics import Metric
from evaluation.notes import notes_of
from evaluation.report import Report, Value
from evaluation.run import TOTAL

MOST_FLIPS = 40
OF_REPLAYS = ("newly_abstained", "newly_answered")
COLOURS = {"better": "green", "worse": "red"}


def report_tables(report: Report) -> Iterator[RenderableType]:
    """Metrics, groups, and what one must know of them."""
    yield _metrics(report)
    if report.groups:
        yield _groups(report)
    if report.risk is not None and report.risk.calibration is not None:
        yield _calibration(report.risk.calibration)
    for note in notes_of(report):
        yield Text(note, style="yellow")


def comparison_tables(comparison: Comparison) -> Iterator[RenderableType]:
    """What changed, and the questions that changed sides."""
    first, second = comparison.first, comparison.second
    title = f"A = {first.about.name}, B = {second.about.name}, {len(first.outcomes)} questions of {first.about.golden}"
    changes = _table(title, ("metric", "A", "B", "difference", "95 % interval", "p", "questions", ""), right=range(1, 7))
    for change in comparison.changes:
        metric, found = change.metric, change.difference
        ends = f"{found.interval[0]:+.3f} to {found.interval[1]:+.3f}" if found.interval else ""
        p_value = "" if found.p_value is None else f"{found.p_value:.4f}"
        cells = (metric.name, metric.shown(change.first), metric.shown(change.second), f"{found.value:+.4g}", ends, p_value)
        verdict = Text(change.verdict, style=COLOURS.get(change.verdict, "dim"))
        changes.add_row(*map(Text, cells), str(change.questions), verdict)
    yield changes
    won = sum(flip.won for flip in comparison.flips)
    title = f"Changed sides: {won} won by B, {len(comparison.flips) - won} lost"
    flips = _table(title, ("B", "id", "question", "in what"))
    for flip in comparison.flips[:MOST_FLIPS]:
        won_or_lost = Text("won", style="green") if flip.won else Text("lost", style="red")
        flips.add_row(won_or_lost, Text(flip.question_id), Text(flip.question), Text(flip.respect))
    yield flips if comparison.flips else Text("No question changed sides.")
    if len(comparison.flips) > MOST_FLIPS:
        yield Text(f"{len(comparison.flips) - MOST_FLIPS} more are in the JSON (--json FILE).")
    for name, report in (("A", first), ("B", second)):
        for note in notes_of(report):
            yield Text(f"{name}: {note}", style="yellow")


def _metrics(report: Report) -> Table:
    run = report.run
    title = (
        f"{len(report.outcomes)} questions of {report.about.golden}, {run.documents} documents, snapshot {run.snapshot}, "
        f"{run.model}, {report.about.name}"
    )
    shown = _table(title, ("", "metric", "value", "95 % interval", "questions"), right=(2, 3, 4))
    before = ""
    for metric, value in report.values.items():
        if before and metric.section != before:
            shown.add_section()
        section = "" if metric.section == before else metric.section
        shown.add_row(section, metric.name, metric.shown(value.value), _interval(metric, value), str(value.questions))
        before = metric.section
    return shown


def _calibration(calibration: Calibration) -> Table:
    title = f"answerability against what is answerable, calibration error {calibration.error:.3f}"
    shown = _table(title, ("answerability", "questions", "mean", "answerable", "95 % interval"), right=range(1, 5))
    for each in calibration.bins:
        interval = f"{each.interval[0]:.2f}–{each.interval[1]:.2f}"
        cells = (f"{each.answerability:.2f}", f"{each.answerable_share:.2f}", interval)
        shown.add_row(f"{each.low:.1f}–{each.high:.1f}", str(each.questions), *cells)
    return shown


def _groups(report: Report) -> Table:
    k = report.about.ks[0]
    names = (
        f"success@{k}",
        f"recall@{k}",
        f"ndcg@{k}",
        "key_fact",
        "citation_precision",
        "false_abstention",
        "abstention_recall",
        *OF_REPLAYS,
    )
    metrics = [metric for name in names for metric in report.values if metric.name == name]
    latency = [metric for metric in report.values if metric.name == f"{TOTAL}_p50_ms"]
    columns = [*metrics, *latency]
    shown = _table("", ("", "group", "questions", *(metric.name for metric in columns)), right=range(2, len(columns) + 3))
    before = ""
    for group in report.groups:
        if before and group.dimension != before:
            shown.add_section()
        cells = [_short_value(metric, group.values.get(metric)) for metric in columns]
        dimension = "" if group.dimension == before else group.dimension
        shown.add_row(dimension, Text(group.name), str(group.questions), *cells)
        before = group.dimension
    return shown


def _short_value(metric: Metric, value: Value | None) -> str:
    if value is None:
        return ""
    if metric.unit == "share":
        ends = f" {value.interval[0]:.2f}–{value.interval[1]:.2f}" if value.interval else ""
        return f"{value.value:.2f}{ends}"
    return metric.shown(value.value)


def _interval(metric: Metric, value: Value) -> str:
    return "–".join(metric.shown(end).removesuffix(" ms") for end in value.interval) if value.interval else ""


def _table(title: str, headings: Sequence[str], right: Sequence[int] = ()) -> Table:
    shown = Table(title=Text(title), title_justify="left", title_style="")
    for column, heading in enumerate(headings):
        shown.add_column(heading, justify="right" if column in right else "left", overflow="fold")
    return shown
