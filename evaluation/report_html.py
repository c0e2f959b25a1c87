"""The report as one HTML file for people. Shows questions and the names of documents, never their text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from evaluation.compare import Change, Comparison
from evaluation.metrics import STAGES, Metric
from evaluation.notes import notes_of
from evaluation.page import Marked, marked, note, page, paragraph, table, tile
from evaluation.plots import Bar, Time, Whisker, bars, forest, latencies, reliability, risk_lines
from evaluation.report import Report, Value
from evaluation.run import TOTAL

HEADLINES = (
    "key_fact",
    "citation_precision",
    "abstention_recall",
    "false_abstention",
    "newly_abstained",
    "newly_answered",
    "answerability",
    "supported_share",
)
OF_REPLAYS = ("newly_abstained", "newly_answered")
MOST_ROWS = 200
INTERVALS = (
    "Intervals are 95 %: for a value over questions drawn anew, whole conversations at a time. Two groups whose intervals "
    "overlap widely need not differ."
)


def report_html(report: Report) -> str:
    """A run."""
    about, run = report.about, report.run
    parts = [
        f"<h1>{escape(_title(report))}</h1>",
        paragraph(
            f"{len(report.outcomes)} questions over {run.documents} documents; {about.name}, snapshot {run.snapshot}, model "
            f"{run.model}, {_by(report)}measured {about.created_at}."
        ),
        *(note(text) for text in notes_of(report)),
        f'<div class="tiles">{"".join(_tiles(report))}</div>',
        "<h2>By group</h2>",
        paragraph(INTERVALS),
        *_group_plots(report),
        *_risk([report]),
        *_latency([report]),
        "<h2>All metrics</h2>",
        _metrics_table(report),
        *_misses(report),
    ]
    return page(f"Archivist: {about.name}", parts)


def comparison_html(comparison: Comparison) -> str:
    """Two runs beside each other."""
    first, second = comparison.first, comparison.second
    better, worse = (sum(c.verdict == kind for c in comparison.changes) for kind in ("better", "worse"))
    shares = [change for change in comparison.changes if change.metric.unit == "share"]
    parts = [
        f"<h1>{escape(first.about.name)} against {escape(second.about.name)}</h1>",
        paragraph(
            f"{len(first.outcomes)} questions of {first.about.golden}; A = {first.about.name} (snapshot {first.run.snapshot}, "
            f"{first.run.model}), B = {second.about.name} (snapshot {second.run.snapshot}, {second.run.model}); "
            f"measured {second.about.created_at}."
        ),
        *(note(f"A: {text}") for text in notes_of(first)),
        *(note(f"B: {text}") for text in notes_of(second)),
        f'<div class="tiles">{"".join(_change_tiles(comparison))}</div>',
        "<h2>What changed</h2>",
        paragraph(
            f"B is better in {better} metrics and worse in {worse}, where the paired test has p < .05; of many metrics one in "
            "twenty is called so by chance. Right of zero B has more."
        ),
        forest("Differences, B less A", [_whisker_of(change) for change in shares]),
        *_flips(comparison),
        *_risk([first, second]),
        *_latency([first, second]),
        "<h2>All metrics</h2>",
        _changes_table(comparison.changes),
    ]
    return page(f"Archivist: {first.about.name} against {second.about.name}", parts)


def _title(report: Report) -> str:
    golden = report.about.golden
    return f"The {golden}, asked again" if report.is_replay else f"How well the questions of {golden} are answered"


def _by(report: Report) -> str:
    return f"answered by {', '.join(report.providers)}, " if report.providers else "retrieval only, "


def _tiles(report: Report) -> Iterator[str]:
    k = report.about.ks[0]
    for name in (f"success@{k}", f"ndcg@{k}", *HEADLINES, f"{TOTAL}_p50_ms"):
        for metric, value in report.values.items():
            if metric.name == name:
                yield tile(metric.title, metric.shown(value.value), f"{_interval(metric, value)} · {value.questions} questions")


def _change_tiles(comparison: Comparison) -> Iterator[str]:
    k = comparison.first.about.ks[0]
    for name in (f"success@{k}", f"ndcg@{k}", *HEADLINES, f"{TOTAL}_p50_ms"):
        for change in comparison.changes:
            if change.metric.name == name:
                shown = change.metric.shown
                yield tile(change.metric.title, shown(change.second), f"{shown(change.first)} before · {change.verdict}")


def _group_plots(report: Report) -> Iterator[str]:
    k = report.about.ks[0]
    for name in (f"success@{k}", "key_fact", "abstention_recall", "false_abstention", *OF_REPLAYS):
        metric = next((metric for metric in report.values if metric.name == name), None)
        if metric is None:
            continue
        sections: list[tuple[str, list[Bar]]] = [("", [_bar("all questions", report.values[metric])])]
        for dimension in dict.fromkeys(group.dimension for group in report.groups):
            rows = [
                _bar(group.name, group.values[metric])
                for group in report.groups
                if group.dimension == dimension and metric in group.values
            ]
            if rows:
                sections.append((f"by {dimension}", rows))
        yield f"<h3>{escape(metric.title)}</h3>"
        yield paragraph(f"{metric.means}{'; less is better' if metric.better == 'lower' else ''}", "soft small")
        yield bars(metric.title, sections)


def _bar(label: str, value: Value) -> Bar:
    return Bar(label, value.value, value.interval, f"n={value.questions}")


def _risk(reports: Sequence[Report]) -> Iterator[str]:
    curves = [(report.about.name, report.risk) for report in reports if report.risk is not None]
    if not curves:
        return
    yield "<h2>Knowing when there is none</h2>"
    yield paragraph(
        f"If only the questions with the most confidence were answered (here: the {curves[0][1].confidence}), how many of "
        f"those would go wrong: no answer exists, or the first {reports[0].about.ks[0]} documents do not hold it."
    )
    yield risk_lines("Risk over coverage", curves)
    calibrated = [(name, risk.calibration) for name, risk in curves if risk.calibration is not None]
    if calibrated:
        yield "<h3>Whether answerability is what it says</h3>"
        yield paragraph(
            "Questions in ten bins by their answerability, and the share of each bin that is answerable, with its interval. On "
            "the diagonal the two are the same; below it the service is too sure of itself. The larger the ring, the more "
            "questions."
        )
        yield reliability("Answerability against what is answerable", calibrated)


def _latency(reports: Sequence[Report]) -> Iterator[str]:
    yield "<h2>Time by stage</h2>"
    yield paragraph("Median and 95th percentile (the tick), in milliseconds, one question at a time, one run after the other.")
    yield latencies("Time by stage", [(report.about.name, list(_times(report))) for report in reports])


def _times(report: Report) -> Iterator[Time]:
    for stage in STAGES:
        median, p95 = report.value(f"{stage}_p50_ms"), report.value(f"{stage}_p95_ms")
        if median is not None and p95 is not None:
            yield Time(stage, median.value, p95.value)


def _metrics_table(report: Report) -> str:
    rows = [
        (metric.section, metric.title, metric.shown(value.value), _interval(metric, value), str(value.questions), metric.means)
        for metric, value in report.values.items()
    ]
    return table(("", "metric", "value", "95 % interval", "questions", "means"), rows, numbers=(2, 3, 4))


def _changes_table(changes: Sequence[Change]) -> str:
    headings = ("metric", "A", "B", "difference", "95 % interval", "p", "questions", "")
    return table(headings, [_change_row(change) for change in changes], numbers=(1, 2, 3, 4, 5, 6))


def _change_row(change: Change) -> tuple[str, ...]:
    metric, found = change.metric, change.difference
    ends = found.interval
    return (
        metric.title,
        metric.shown(change.first),
        metric.shown(change.second),
        f"{found.value:+.4g}",
        f"{ends[0]:+.3g} to {ends[1]:+.3g}" if ends else "",
        f"{found.p_value:.4f}" if found.p_value is not None else "",
        str(change.questions),
        marked(change.verdict, {"better": "good", "worse": "bad"}.get(change.verdict, "soft")),
    )


def _whisker_of(change: Change) -> Whisker:
    return Whisker(change.metric.title, change.difference.value, change.difference.interval, change.verdict)


def _interval(metric: Metric, value: Value) -> str:
    return "–".join(metric.shown(end).removesuffix(" ms") for end in value.interval) if value.interval else "no interval"


def _flips(comparison: Comparison) -> Iterator[str]:
    won = sum(flip.won for flip in comparison.flips)
    yield "<h2>Questions that changed sides</h2>"
    right = "as then" if comparison.first.is_replay else "right"
    yield paragraph(f"{won} won (B is {right}, A was not), {len(comparison.flips) - won} lost (A was, B is not).")
    rows: list[tuple[str, ...]] = [
        (marked("won", "good") if flip.won else marked("lost", "bad"), flip.question_id, flip.question, flip.respect)
        for flip in comparison.flips[:MOST_ROWS]
    ]
    if rows:
        yield table(("B", "id", "question", "in what"), rows)
    yield from _left_out(len(comparison.flips))


def _misses(report: Report) -> Iterator[str]:
    rows = [row for number in range(len(report.outcomes)) if (row := _miss(report, number)) is not None]
    yield f"<h2>{'What differs from then' if report.is_replay else 'What went wrong'}</h2>"
    if not rows:
        yield paragraph("Nothing, by these metrics.")
        return
    yield paragraph(f"{len(rows)} of {len(report.outcomes)} questions.")
    reference = "cited then" if report.is_replay else "gold"
    yield table(("id", "question", "what", reference, "first documents found"), rows[:MOST_ROWS])
    yield from _left_out(len(rows))


def _left_out(rows: int) -> Iterator[str]:
    if rows > MOST_ROWS:
        yield paragraph(f"{rows - MOST_ROWS} more are in the JSON.")


def _miss(report: Report, number: int) -> tuple[str, ...] | None:
    outcome = report.outcomes[number]
    question, k = outcome.question, report.about.ks[0]
    what = []
    for metric, pairs in report.observed.items():
        above, below = pairs[number]
        if metric.name == f"success@{k}" and below and not above:
            what.append("no document cited then found" if report.is_replay else "right document not found")
        if metric.name == "key_fact" and below and not above and outcome.answer and not outcome.answer.abstained:
            what.append("key fact not in the answer")
        if metric.name == "false_abstention" and above:
            what.append("no answer, though there is one")
        if metric.name == "newly_abstained" and above:
            what.append("no answer, and one then")
        if metric.name == "newly_answered" and above:
            what.append("an answer, and none then")
    if outcome.answer is not None and not outcome.answer.abstained and question.expected == "abstention":
        what.append("answered, though there is no answer")
    if outcome.failure:
        what.append("the answer failed")
    if not what:
        return None
    found = Marked("<br>".join(escape(f"{place}. {name.source}") for place, name in enumerate(outcome.found[:3], start=1)))
    reference = question.best_gold if question.then is None else question.then.cited
    return question.id, question.question, "; ".join(what), ", ".join(sorted(reference)) or "none", found
