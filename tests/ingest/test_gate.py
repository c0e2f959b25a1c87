"""The gate before publishing: what must hold, and that a batch which falls is not published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from corpus.errors import ConfigError, RunRefused
from corpus.manifest import as_written, digest_of, read_manifest
from corpus.published import current_id, snapshot_ids
from corpus.search import Searcher
from ingest import job
from ingest.gate import Counts, Embed, Recall, check_counts
from ingest.settings import CanarySettings, GateSettings
from tests.conftest import Run
from tests.making import contents, job_settings, write_files


def outcome(settings: GateSettings, now: Counts, before: Counts | None = None) -> dict[str, tuple[bool, float | None]]:
    """Each check by its name: whether it passed, and what was measured."""
    return {check.name: (check.passed, check.measured) for check in check_counts(settings, now, before)}


def test_nothing_is_asked_for_by_default() -> None:
    """Without settings there are no checks."""
    assert outcome(GateSettings(), Counts(0, 0, 9), Counts(9, 9)) == {}


@pytest.mark.parametrize(("failures", "passed"), [(0, True), (5, True), (6, False)])
def test_the_share_of_failures_has_a_limit(failures: int, passed: bool) -> None:
    """Of all documents, those that could not be read included; the limit itself is allowed."""
    gate = GateSettings(max_failure_share=0.05)
    assert outcome(gate, Counts(100 - failures, 500, failures)) == {"failure_share": (passed, failures / 100)}


@pytest.mark.parametrize(
    ("documents", "chunks", "passed"),
    [(100, 500, (True, True)), (110, 550, (True, True)), (111, 500, (False, True)), (89, 700, (False, False))],
)
def test_counts_may_drift_so_far(documents: int, chunks: int, passed: tuple[bool, bool]) -> None:
    """Up and down, documents and chunks each for themselves; there is no drift from nothing."""
    gate = GateSettings(max_count_drift=0.1)
    found = outcome(gate, Counts(documents, chunks), Counts(100, 500))
    assert (found["documents_drift"][0], found["chunks_drift"][0]) == passed
    assert outcome(gate, Counts(documents, chunks), None) == {}


def last_report(data_dir: Path) -> dict[str, Any]:
    """The newest run's report."""
    return dict(json.loads(max((data_dir / "runs").iterdir()).read_text()))


CANARIES = (
    CanarySettings(question="How far ahead do I book a trip?", document="policies/travel.md"),
    CanarySettings(question="When is the bonus paid?", document="faq.jsonl#2", groups=("board",), within=1),
)


def test_canary_questions_find_their_documents(site: Path, run: Run) -> None:
    """With the rights they are asked with; what was measured stands in the manifest and in the report."""
    write_files(site / "documents", {"new.md": "# New\n\nSomething new.\n"})
    report = run(job_settings(site / "data", site / "documents", gate=GateSettings(canaries=CANARIES)))
    manifest = read_manifest(site / "data" / "snapshots" / str(report.snapshot))
    assert [(check["name"], check["passed"], check["measured"], check["wanted"]) for check in manifest.gate] == [
        ("canary_1", True, 1, 5),
        ("canary_2", True, 1, 1),
    ]
    assert (
        [dict(check) for check in report.gate] == [dict(check) for check in manifest.gate] == last_report(site / "data")["gate"]
    )


def test_a_canary_that_is_not_found_refuses_the_batch(site: Path, run: Run) -> None:
    """The old snapshot stays, the reason names question and document, and the next run embeds nothing twice."""
    before, digest = current_id(site / "data"), contents(site / "data")
    write_files(site / "documents", {"policies/travel.md": "# Lorem\n\nIpsum dolor sit amet.\n"})
    gate = GateSettings(canaries=(CANARIES[0], CANARIES[1].model_copy(update={"groups": ("everyone",)})))
    settings = job_settings(site / "data", site / "documents", gate=gate)
    write_files(
        site / "documents",
        {f"trip{number}.md": f"# Trip {number}\n\nBook a trip far ahead, {number} days.\n" for number in range(9)},
    )
    with pytest.raises(RunRefused) as caught:
        run(settings)
    assert caught.value.reasons == (
        "gate canary_1: canary question 1: 'policies/travel.md' was not found among the first 5 (None instead of 5)",
        "gate canary_2: canary question 2: 'faq.jsonl#2' was not found among the first 1 (None instead of 1)",
    )
    assert (snapshot_ids(site / "data"), current_id(site / "data"), contents(site / "data")) == ([before], before, digest)
    report = last_report(site / "data")
    assert (report["status"], report["reasons"]) == ("refused", list(caught.value.reasons))
    assert [check["passed"] for check in report["gate"]] == [False, False]
    mended = run(settings.model_copy(update={"gate": GateSettings()}))
    assert (mended.published, mended.embedded) == (True, 0)


def test_failures_over_the_limit_refuse_the_batch(site: Path, run: Run) -> None:
    """Five empty files beside eleven documents are more than a tenth."""
    write_files(site / "documents", {f"empty{number}.md": b"" for number in range(5)})
    settings = job_settings(site / "data", site / "documents", gate=GateSettings(max_failure_share=0.1))
    with pytest.raises(
        RunRefused, match=r"gate failure_share: 5 of 16 documents could not be read \(0\.3125 instead of 0\.1\)"
    ):
        run(settings)


@pytest.mark.parametrize(("value", "passes"), [(0.9, True), (0.89, False)])
def test_recall_is_measured_by_what_was_handed_in(site: Path, run: Run, value: float, passes: bool) -> None:
    """It gets the golden set, the depth, and a search over the new snapshot, and what it measures decides."""
    write_files(site / "documents", {"new.md": "# New\n\nSomething new.\n"})
    golden = site / "golden.jsonl"
    seen: list[tuple[Path, int, bool]] = []

    def measure(path: Path, depth: int, searcher: Searcher, embed: Embed) -> Recall:
        seen.append((path, depth, embed(["x"]).shape == (1, 384)))
        return Recall(value, 40)

    settings = job_settings(site / "data", site / "documents", gate=GateSettings(golden=golden, min_recall=0.9, recall_at=3))
    if passes:
        assert job.run(settings, measure=measure).published
    else:
        with pytest.raises(RunRefused, match=r"gate recall@3: over 40 questions of golden\.jsonl \(0\.89 instead of 0\.9\)"):
            job.run(settings, measure=measure)
    assert seen == [(golden, 3, True)]


def test_a_golden_set_without_a_measure_is_a_configuration_error(site: Path, run: Run) -> None:
    """Never a check that silently passes."""
    write_files(site / "documents", {"new.md": "# New\n\nSomething new.\n"})
    before = current_id(site / "data")
    with pytest.raises(ConfigError, match="is measured by `archivist ingest` only"):
        run(job_settings(site / "data", site / "documents", gate=GateSettings(golden=site / "golden.jsonl")))
    assert current_id(site / "data") == before


def test_a_manifest_of_before_the_gate_is_read(site: Path) -> None:
    """A snapshot that an earlier version published opens: its id is that of what is written, not of what could be."""
    folder = site / "data" / "snapshots" / current_id(site / "data")
    assert "gate" in json.loads((folder / "manifest.json").read_text())
    values = json.loads((folder / "manifest.json").read_text())
    del values["gate"]
    values["id"] = f"000007-{digest_of(values)}"
    old = folder.rename(folder.parent / values["id"])
    (old / "manifest.json").write_text(as_written(values))
    assert read_manifest(old).gate == ()
