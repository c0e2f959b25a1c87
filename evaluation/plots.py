"""Plots as inline SVG: colours and fonts are the page's, so that they follow its light and dark. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from evaluation.calibration import Calibration
from evaluation.intervals import Interval
from evaluation.risk import RiskCurve

WIDTH, LABELS, VALUES, ROW = 820, 210, 190, 24
PLOT = WIDTH - LABELS - VALUES
TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)
SIDES = ("a", "b")
"""The colours of two runs."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A share with its interval. `note` stands behind the label."""

    label: str
    value: float
    interval: Interval | None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Whisker:
    """A difference with its interval; `verdict` chooses its colour."""

    label: str
    value: float
    interval: Interval | None
    verdict: str


@dataclass(frozen=True, slots=True)
class Time:
    """A stage's median and 95th percentile. Units: milliseconds."""

    stage: str
    median: float
    p95: float


def bars(title: str, sections: Sequence[tuple[str, Sequence[Bar]]]) -> str:
    """Bars from 0 to 1 with whiskers, under headings."""
    drawn: list[str] = []
    y = 4
    for heading, rows in sections:
        if heading:
            drawn.append(_text(0, y + 16, heading, "heading"))
            y += ROW
        for row in rows:
            middle = y + ROW / 2
            drawn.append(_text(LABELS - 10, middle + 4, _short(row.label), "label", "end"))
            drawn.append(
                f'<rect class="a" x="{LABELS}" y="{y + 5}" width="{PLOT * row.value:.1f}" height="{ROW - 10}" rx="2"/>'
            )
            if row.interval:
                drawn.append(_whisker(LABELS, PLOT, middle, row.interval, "ink"))
            drawn.append(_text(LABELS + PLOT + 10, middle + 4, f"{_with_ends(row.value, row.interval)} {row.note}", "value"))
            y += ROW
    grid = "".join(_grid(LABELS + PLOT * tick, y, f"{tick:g}") for tick in TICKS)
    return _svg(title, WIDTH, y + 20, grid + "".join(drawn))


def forest(title: str, rows: Sequence[Whisker]) -> str:
    """Differences with whiskers around zero, on one scale."""
    ends = [abs(end) for row in rows for end in (row.value, *(row.interval or ()))]
    most = max([*ends, 0.01]) * 1.05
    height = 4 + ROW * len(rows)
    drawn = [_grid(LABELS + PLOT * share, height, f"{most * (2 * share - 1):+.2f}") for share in (0.0, 0.25, 0.75, 1.0)]
    drawn.append(_grid(LABELS + PLOT / 2, height, "0", "zero"))
    for number, row in enumerate(rows):
        middle = 4 + ROW * number + ROW / 2
        scaled = None if row.interval is None else tuple((end / most + 1) / 2 for end in row.interval)
        colour = {"better": "good", "worse": "bad"}.get(row.verdict, "ink")
        drawn.append(_text(LABELS - 10, middle + 4, _short(row.label), "label", "end"))
        if scaled is not None:
            drawn.append(_whisker(LABELS, PLOT, middle, (scaled[0], scaled[1]), colour))
        drawn.append(f'<circle class="{colour}" cx="{LABELS + PLOT * (row.value / most + 1) / 2:.1f}" cy="{middle}" r="4"/>')
        drawn.append(_text(LABELS + PLOT + 10, middle + 4, f"{row.value:+.3f} {_ends(row.interval, '+.3f')}", "value"))
    return _svg(title, WIDTH, height + 20, "".join(drawn))


def risk_lines(title: str, curves: Sequence[tuple[str, RiskCurve]]) -> str:
    """Risk over coverage, one line a run, and where each service stood."""
    left, top, width, height = 60, 14, 460, 260
    drawn = [_grid(left + width * tick, top + height, f"{tick:g}", top=top) for tick in TICKS]
    for tick in TICKS:
        y = top + height * (1 - tick)
        drawn.append(f'<line class="grid" x1="{left}" x2="{left + width}" y1="{y}" y2="{y}"/>')
        drawn.append(_text(left - 8, y + 4, f"{tick:g}", "tick", "end"))
    drawn.append(_text(left + width / 2, top + height + 36, "coverage: share of questions answered", "tick", "middle"))
    drawn.append(_text(left, top - 3, "risk: share of those that go wrong", "tick"))
    for number, (name, curve) in enumerate(curves):
        side = SIDES[number]
        path = " ".join(f"{left + width * p.coverage:.1f},{top + height * (1 - p.risk):.1f}" for p in curve.points)
        drawn.append(f'<polyline class="{side}" points="{path}"/>')
        y = top + 20 + 44 * number
        drawn.append(f'<rect class="{side}" x="{left + width + 20}" y="{y - 9}" width="10" height="10" rx="2"/>')
        drawn.append(_text(left + width + 36, y, _short(name, 26), "label"))
        drawn.append(_text(left + width + 36, y + 17, f"area {_with_ends(curve.area, curve.area_interval)}", "value"))
        if curve.at_work is not None:
            x, y = left + width * curve.at_work.coverage, top + height * (1 - curve.at_work.risk)
            drawn.append(f'<circle class="{side} hollow" cx="{x:.1f}" cy="{y:.1f}" r="6"/>')
    drawn.append(_text(left + width + 20, top + height - 4, "ring: where the service stood", "tick"))
    return _svg(title, WIDTH, top + height + 46, "".join(drawn))


def reliability(title: str, runs: Sequence[tuple[str, Calibration]]) -> str:
    """The share that is answerable over answerability, a ring for each bin, and the diagonal on which both are the same."""
    left, top, width, height = 60, 26, 320, 320
    drawn = [_grid(left + width * tick, top + height, f"{tick:g}", top=top) for tick in TICKS]
    for tick in TICKS:
        y = top + height * (1 - tick)
        drawn.append(f'<line class="grid" x1="{left}" x2="{left + width}" y1="{y}" y2="{y}"/>')
        drawn.append(_text(left - 8, y + 4, f"{tick:g}", "tick", "end"))
    drawn.append(f'<line class="zero" x1="{left}" x2="{left + width}" y1="{top + height}" y2="{top}"/>')
    drawn.append(_text(left + width / 2, top + height + 36, "answerability, mean of the bin", "tick", "middle"))
    drawn.append(_text(left, top - 14, "share that is answerable", "tick"))
    for number, (name, calibration) in enumerate(runs):
        side = SIDES[number]
        most = max(each.questions for each in calibration.bins)
        for each in calibration.bins:
            # Two runs beside each other: their whiskers would hide one another.
            x = left + width * each.answerability + 4 * number
            y, low, high = (top + height * (1 - share) for share in (each.answerable_share, *each.interval))
            drawn.append(f'<line class="ink" x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>')
            radius = 3 + 6 * (each.questions / most) ** 0.5
            drawn.append(f'<circle class="{side} hollow" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"/>')
        y = top + 20 + 44 * number
        drawn.append(f'<rect class="{side}" x="{left + width + 20}" y="{y - 9}" width="10" height="10" rx="2"/>')
        drawn.append(_text(left + width + 36, y, _short(name, 40), "label"))
        error = _with_ends(calibration.error, calibration.error_interval)
        drawn.append(_text(left + width + 36, y + 17, f"calibration error {error}", "value"))
    return _svg(title, WIDTH, top + height + 46, "".join(drawn))


def latencies(title: str, runs: Sequence[tuple[str, Sequence[Time]]]) -> str:
    """Medians as bars, 95th percentiles as ticks, one colour a run."""
    most = max([time.p95 for _, times in runs for time in times] + [0.001])
    drawn: list[str] = []
    y = 4
    for stage in dict.fromkeys(time.stage for _, times in runs for time in times):
        drawn.append(_text(LABELS - 10, y + ROW / 2 + 4, stage, "label", "end"))
        for number, (_, times) in enumerate(runs):
            for time in (time for time in times if time.stage == stage):
                x = LABELS + PLOT * time.p95 / most
                drawn.append(
                    f'<rect class="{SIDES[number]}" x="{LABELS}" y="{y + 5}" width="{PLOT * time.median / most:.1f}" '
                    f'height="{ROW - 10}" rx="2"/>'
                )
                drawn.append(f'<line class="ink" x1="{x:.1f}" x2="{x:.1f}" y1="{y + 4}" y2="{y + ROW - 4}"/>')
                drawn.append(_text(LABELS + PLOT + 10, y + ROW / 2 + 4, f"{time.median:.1f} · {time.p95:.1f} ms", "value"))
                y += ROW
    return _svg(title, WIDTH, y + 4, "".join(drawn))


def _svg(title: str, width: float, height: float, drawn: str) -> str:
    name = escape(title)
    return f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{name}"><title>{name}</title>{drawn}</svg>'


def _text(x: float, y: float, text: str, kind: str, anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _grid(x: float, height: float, label: str, kind: str = "grid", top: float = 0) -> str:
    line = f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{top:g}" y2="{height:g}"/>'
    return line + _text(x, height + 15, label, "tick", "middle")


def _whisker(left: float, width: float, y: float, ends: Interval, kind: str) -> str:
    low, high = (left + width * min(1.0, max(0.0, end)) for end in ends)
    caps = "".join(f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{y - 4}" y2="{y + 4}"/>' for x in (low, high))
    return f'<line class="{kind}" x1="{low:.1f}" x2="{high:.1f}" y1="{y}" y2="{y}"/>{caps}'


def _with_ends(value: float, interval: Interval | None) -> str:
    return f"{value:.3f} {_ends(interval, '.2f')}".rstrip()


def _ends(interval: Interval | None, form: str) -> str:
    return f"({interval[0]:{form}} to {interval[1]:{form}})" if interval else ""


def _short(text: str, most: int = 32) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
