"""Threat A11: a run that would remove far too much stops; told to go on, it goes on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from corpus.errors import RunRefused
from corpus.published import current_id, snapshot_ids
from corpus.records import FileRecord
from ingest import job
from ingest.guard import removals, vanished
from ingest.plan import plan
from ingest.preview import preview
from ingest.settings import IngestSettings
from tests.conftest import Run
from tests.making import contents, job_settings, litter, write_files


def files(count: int, collection: str = "s") -> list[FileRecord]:
    return [FileRecord(collection, f"{number:03}", 1, f"{collection}{number}", "r") for number in range(count)]


@pytest.mark.parametrize(
    ("had", "left", "share", "stops"),
    [
        (10, 7, 0.3, False),
        (10, 6, 0.3, True),
        (100, 70, 0.3, False),
        (100, 69, 0.3, True),
        (3, 2, 0.3, False),
        (10, 8, 0.0, True),
        (10, 1, 1.0, False),
    ],
)
def test_more_than_the_share_stops(had: int, left: int, share: float, stops: bool) -> None:
    """The share itself is allowed, and so is a single file, whatever its share."""
    before, now = files(had), files(left)
    reasons = removals(plan(now, before), now, before, share)
    assert bool(reasons) is stops
    if stops:
        assert f"{had - left} of {had} files" in reasons[0]
        assert "run again with --allow-removals" in reasons[0]


def test_an_empty_source_stops_whatever_its_share() -> None:
    """One of two sources without a file: it is named; moved to the other, its files are not gone."""
    one, two = files(2, "one"), files(98, "two")
    (reason,) = removals(plan(two, [*one, *two]), two, [*one, *two], 0.3)
    assert reason.startswith("source 'one' is empty, and 2 of its 2 files would be removed; is it mounted?")
    moved = [*two, *(FileRecord("two", f"moved-{file.path}", 1, file.content_hash, "r") for file in one)]
    assert removals(plan(moved, [*one, *two]), moved, [*one, *two], 0.3) == []
    assert removals(plan([], []), [], [], 0.3) == []


def test_documents_are_counted_like_files() -> None:
    """An export that shrank is one changed file and many documents gone."""
    assert vanished(300, 1000, 0.3) == []
    assert vanished(301, 1000, 0.3)[0].startswith("301 of 1,000 documents (30%) would be removed")


@pytest.fixture
def ten(tmp_path: Path, run: Run) -> Path:
    """A folder with ten published documents, and another source with an export of ten rows."""
    write_files(tmp_path / "documents", {f"{number}.md": f"# Matter {number}\n\nText of {number}.\n" for number in range(10)})
    rows = "".join(f'{{"id": "{number}", "text": "Row {number}."}}\n' for number in range(10))
    write_files(tmp_path / "export", {"rows.jsonl": rows})
    run(job_settings(tmp_path / "data", tmp_path / "documents", tmp_path / "export"))
    return tmp_path


def test_an_emptied_source_leaves_the_old_snapshot(ten: Path, run: Run) -> None:
    """Threat A11: nothing changes but the history, the plan says it beforehand, and --allow-removals removes."""
    settings = job_settings(ten / "data", ten / "documents", ten / "export")
    before, digest = current_id(ten / "data"), contents(ten / "data")
    shutil.rmtree(ten / "documents")
    (ten / "documents").mkdir()
    (reason,) = preview(settings).refused
    with pytest.raises(RunRefused, match=rf"nothing was published, snapshot '{before}' stays in service") as caught:
        run(settings)
    assert caught.value.reasons == (reason,)
    assert reason.startswith("source 'documents' is empty, and 10 of its 10 files would be removed")
    assert caught.value.report["removed"] == 10
    assert (current_id(ten / "data"), contents(ten / "data"), litter(ten / "data")) == (before, digest, [])
    report = job.run(settings, allow_removals=True)
    assert (report.published, report.removed, report.documents) == (True, 10, 10)


def test_too_many_files_gone_stop_the_run(ten: Path, run: Run) -> None:
    """Threat A11: four of eleven files, where the other source stands; with a larger share allowed they go."""
    for number in range(4):
        (ten / "documents" / f"{number}.md").unlink()
    folders = ten / "documents", ten / "export"
    with pytest.raises(RunRefused, match=r"4 of 11 files \(36%\) would be removed"):
        run(job_settings(ten / "data", *folders))
    assert run(job_settings(ten / "data", *folders, ingest=IngestSettings(max_removed_share=0.4))).removed == 4


def test_an_export_that_shrank_stops_the_run(ten: Path, run: Run) -> None:
    """Threat A11: no file is gone, but nine of twenty documents are; what was built for nothing is removed."""
    before = current_id(ten / "data")
    write_files(ten / "export", {"rows.jsonl": '{"id": "1", "text": "Row 1."}\n'})
    settings = job_settings(ten / "data", ten / "documents", ten / "export")
    assert preview(settings).refused == ()
    with pytest.raises(RunRefused, match=r"9 of 20 documents \(45%\) would be removed"):
        run(settings)
    # What was embedded is kept for the next run.
    assert (snapshot_ids(ten / "data"), litter(ten / "data")) == ([before], ["embeddings.db"])


def test_files_that_cannot_be_read_any_more_count_as_gone(ten: Path, run: Run) -> None:
    """A night on which most files turn out to be empty does not empty the corpus."""
    for path in (ten / "documents").iterdir():
        path.write_bytes(b"")
    with pytest.raises(RunRefused, match="10 of 20 documents") as caught:
        run(job_settings(ten / "data", ten / "documents", ten / "export"))
    assert len(caught.value.report["failures"]) == 10


def test_documents_that_moved_are_not_gone(ten: Path, run: Run) -> None:
    """Also all of them at once, and rows under their export's new name."""
    (ten / "documents").rename(ten / "papers")
    (ten / "export" / "rows.jsonl").rename(ten / "export" / "all.jsonl")
    report = run(job_settings(ten / "data", ten / "papers", ten / "export"))
    assert (report.moved, report.removed, report.embedded) == (11, 0, 0)


def test_a_refused_run_is_written_down(ten: Path, run: Run) -> None:
    """With its reasons and counts."""
    shutil.rmtree(ten / "documents")
    (ten / "documents").mkdir()
    with pytest.raises(RunRefused) as caught:
        run(job_settings(ten / "data", ten / "documents", ten / "export"))
    last = max((ten / "data" / "runs").iterdir())
    report = json.loads(last.read_text())
    assert (report["status"], report["removed"], report["published"]) == ("refused", 10, False)
    assert report["reasons"] == list(caught.value.reasons)
    assert caught.value.report["run"] == report["run"] == last.stem
