"""Figures: intervals and percentiles against scipy and numpy, verdicts, and how a report shows them."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from scipy.stats import binomtest

from corpus.errors import ConfigError
from evaluation.bench.figures import Aim, BenchError, Figure, Part, percentile, share, wilson
from evaluation.bench.machine import Machine, resident_mb, this_machine
from evaluation.bench.report import PARTS, BenchReport, chosen

MACHINE = Machine("2026-11-23T18:00:00+00:00", "a processor", 2, 25.3, 0.5, "Linux x86_64", "3.11.7", {"archivist": "0.1.0"})


def report_of(*figures: Figure, **misses: list[str]) -> BenchReport:
    """A report of one part."""
    return BenchReport(MACHINE, (Part(figures, misses),))


@given(st.integers(1, 2000).flatmap(lambda of: st.tuples(st.integers(0, of), st.just(of))))
def test_the_interval_is_wilsons(counts: tuple[int, int]) -> None:
    """For any share it is what scipy's binomial test gives."""
    expected = binomtest(*counts).proportion_ci(confidence_level=0.95, method="wilson")
    assert wilson(*counts) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_percentiles_are_linear_between_neighbours() -> None:
    """As numpy's are; one value is its own percentile."""
    values = [3.0, 1.0, 2.0, 10.0]
    assert percentile(values, 50) == 2.5
    assert percentile(values, 99) == pytest.approx(float(np.quantile(values, 0.99)))
    assert percentile([7.0], 95) == 7.0


def test_a_percentile_of_nothing_is_an_error() -> None:
    """Not a number that looks like a measurement."""
    with pytest.raises(BenchError, match="nothing was measured"):
        percentile([], 50)


@pytest.mark.parametrize(
    ("aim", "value", "passed"),
    [
        (Aim(35), 34.9, True),
        (Aim(35), 35.0, True),
        (Aim(35), 35.1, False),
        (Aim(95, at_least=True), 95.0, True),
        (Aim(95, at_least=True), 94.9, False),
        (None, 1.0, None),
    ],
)
def test_a_figure_is_judged_by_its_aim(aim: Aim | None, value: float, passed: bool | None) -> None:
    """At the limit it is reached; without one there is no verdict."""
    assert Figure("part", "name", value, "ms", "data", aim).passed is passed


def test_a_share_states_its_counts_and_interval() -> None:
    """In percent; of no things there is no share."""
    (figure,) = share("part", "name", 9, 10, "set", Aim(80, at_least=True))
    assert (figure.value, figure.data, figure.passed) == (90.0, "set, 9 of 10", True)
    assert figure.shown == "90.0 % (59.6–98.2)"
    assert figure.shown_aim == "≥ 80.0 %"
    assert share("part", "name", 0, 0, "set") == []


def test_the_report_of_a_part_is_shown_row_by_row() -> None:
    """Machine and date on top; measured, aim, verdict and data of each figure; misses by figure."""
    report = report_of(
        Figure("latency", "search p50", 22.34, "ms", "10,000 chunks", Aim(35)),
        Figure("latency", "memory", 1200.4, "MB", "100 searches", Aim(1000)),
        Figure("latency", "nDCG@5", 0.71239, "", "a set"),
        top=["q1", "q2"], fine=[],
    )  # fmt: skip
    out = io.StringIO()
    Console(file=out, width=140).print(*report.as_tables())
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.getvalue().splitlines() if line.startswith("│")]
    assert rows == [
        ["latency", "search p50", "22.3 ms", "≤ 35.0 ms", "pass", "10,000 chunks"],
        ["", "memory", "1200 MB", "≤ 1000 MB", "MISS", "100 searches"],
        ["", "nDCG@5", "0.7124", "", "", "a set"],
    ]
    assert "2026-11-23T18:00:00+00:00, a processor, 2 cores, 25.3 GB, load 0.5" in out.getvalue()
    assert "Python 3.11.7, archivist 0.1.0" in out.getvalue()
    assert report.shown_misses() == "top: q1, q2\nfine: none"
    assert not report.reached


def test_what_was_measured_several_times_stands_side_by_side() -> None:
    """In a table of its own below the others: a row a figure, a column a size, each with its own aim."""
    sizes = Part(
        (
            Figure("scaling 10", "build", 1.0, "s", "ten"),
            Figure("scaling 10", "peak", 900.0, "MB", "ten", Aim(1000)),
            Figure("scaling 20", "build", 2.0, "s", "twenty"),
            Figure("scaling 20", "peak", 1100.0, "MB", "twenty", Aim(1000)),
            Figure("scaling 20", "recall", 0.99, "", "twenty"),
        ),
        caption="invented texts",
    )
    plain, table = BenchReport(MACHINE, (Part((Figure("startup", "ready", 1.0, "s", "data"),)), sizes)).as_tables()
    assert "a processor" in str(plain.title)
    out = io.StringIO()
    Console(file=out, width=140).print(table)
    lines = out.getvalue().splitlines()
    assert [cell.strip() for cell in lines[1].strip("┃").split("┃")] == ["figure", "scaling 10", "scaling 20"]
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if line.startswith("│")]
    assert rows == [
        ["build", "1.0 s", "2.0 s"],
        ["peak", "900 MB  ≤ 1000 MB pass", "1100 MB  ≤ 1000 MB MISS"],
        ["recall", "", "0.9900"],
    ]
    assert lines[-1].strip() == "invented texts"


def test_the_report_for_machines_has_the_same_values() -> None:
    """Numbers, units, verdicts and misses, as JSON."""
    report = report_of(*share("handbook", "top 5", 9, 10, "set", Aim(80, at_least=True)), misses=["q1"])
    found = json.loads(json.dumps(report.as_json()))
    assert found["machine"]["cores"] == 2
    assert found["misses"] == {"misses": ["q1"]}
    assert found["figures"] == [
        {
            "part": "handbook", "figure": "top 5", "measured": 90.0, "unit": "%", "interval_95": [59.58, 98.21],
            "aim": "≥ 80.0 %", "data": "set, 9 of 10", "passed": True,
        }
    ]  # fmt: skip
    assert report.reached


def test_parts_are_chosen_by_name() -> None:
    """All in order where none is named, the data set only with data, but none that takes long; an unknown one is an error."""
    assert chosen([], has_data=False) == [name for name in PARTS if name not in ("dataset", "scaling")]
    assert chosen([], has_data=True) == [name for name in PARTS if name != "scaling"]
    assert chosen(["scaling"], has_data=False) == ["scaling"]
    assert chosen(["livez", "latency"], has_data=False) == ["latency", "livez"]
    with pytest.raises(ConfigError, match="--only 'latencies' is not a part; known: handbook, latency, "):
        chosen(["latencies"], has_data=False)


def test_the_machine_is_this_one() -> None:
    """It has cores, memory and the versions of what is installed; this process holds some memory."""
    machine = this_machine()
    assert machine.cores >= 1
    assert machine.memory_gb > 0.2
    assert machine.versions["torch"].startswith("2.")
    memory = resident_mb(1 << 30)
    assert memory is None
