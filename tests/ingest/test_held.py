"""A run while a snapshot is held: refused before it reads anything, and again before it would publish."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from corpus.errors import RunRefused
from corpus.published import current_id, hold_of, release, snapshot_ids
from corpus.snapshot import activate
from ingest import job
from ingest.preview import preview
from ingest.report import Event
from ingest.runs import run_ids
from tests.conftest import Run
from tests.making import job_settings, litter


def test_a_run_is_refused_before_it_reads_anything(site: Path, run: Run) -> None:
    """Not even a source that is gone is noticed; the report and the plan say since when it is held, and how that ends."""
    data = site / "data"
    current = current_id(data)
    activate(data, current, hold=True)
    hold = hold_of(data)
    assert hold is not None
    settings = job_settings(data, site / "documents")
    assert preview(settings).refused == (hold.reason,)
    with pytest.raises(RunRefused, match=rf"{current}.*held since {hold.since[:10]}.*stays in service") as refused:
        run(job_settings(data, site / "nowhere"))
    assert refused.value.reasons == (hold.reason,)
    report = json.loads((data / "runs" / f"{run_ids(data)[-1]}.json").read_text())
    assert (report["status"], report["snapshot"], report["reasons"]) == ("refused", current, [hold.reason])
    release(data)
    assert run(settings).published is False


def test_one_that_is_held_while_a_run_is_at_work_stays(site: Path, run: Run) -> None:
    """What the run made goes, and the next one, when it may, publishes it."""
    data = site / "data"
    current = current_id(data)
    (site / "documents" / "new.md").write_text("# New\n\nThe new gate is in the north.\n")
    settings = job_settings(data, site / "documents")

    def holding(event: Event) -> None:
        if event.step == "publish":
            activate(data, current, hold=True)

    with pytest.raises(RunRefused, match=f"{current}' is held"):
        job.run(settings, holding)
    assert snapshot_ids(data) == [current]
    release(data)
    assert run(settings).added == 1
    assert litter(data) == []
