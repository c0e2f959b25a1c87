"""What was decided of a document holds at every run: it is withheld, narrowed or relabelled, whatever its source says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from corpus.overlay import Overlay
from corpus.published import current_id
from corpus.search import Query, Scope
from corpus.settings import SearchSettings
from corpus.snapshot import OpenSnapshot, open_current
from corpus.types import Document, document_id_of
from corpus.verify import problems_of
from ingest import job
from ingest.preview import preview
from ingest.report import Event, Report
from ingest.settings import GateSettings, JobSettings
from tests.ingest.killing import HashedWords, prepare
from tests.making import job_settings, write_files


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs embed with hashed words."""
    prepare(monkeypatch)


class Site:
    """A source, the data folder made from it, and the overlay."""

    def __init__(self, folder: Path) -> None:
        self.source, self.data = folder / "source", folder / "data"
        self.source.mkdir()
        self.overlay = Overlay(self.data / "overlay.db")

    def write(self, **files: str) -> None:
        """Write Markdown files: the name without its ending, and the sentence that stands in it."""
        write_files(self.source, {f"{name}.md": f"# {name}\n\n{text}\n" for name, text in files.items()})

    def settings(self, **values: Any) -> JobSettings:
        """The job's."""
        return job_settings(self.data, self.source, **values)

    def run(self, **values: Any) -> Report:
        """One run; what it published is whole."""
        report = job.run(self.settings(**values))
        assert problems_of(self.data / "snapshots" / current_id(self.data)) == []
        return report

    def stored(self) -> dict[str, Document]:
        """What stands in the current snapshot, whatever the overlay says now."""
        snapshot = self.opened()
        try:
            return {document.source: document for document, _ in snapshot.store.stored.documents_with_passages()}
        finally:
            snapshot.close()

    def opened(self, overlay: Overlay | None = None) -> OpenSnapshot:
        """The current snapshot."""
        return open_current(self.data, SearchSettings(), overlay)[0]

    def id_of(self, name: str) -> str:
        """The id of a document by its source."""
        return document_id_of("source", name)

    def delete(self, name: str) -> int:
        """Delete a document as the command does, knowing how it was called before."""
        snapshot = self.opened()
        seen = snapshot.seen(self.id_of(name))
        snapshot.close()
        return self.overlay.delete(self.id_of(name), "anna", seen).number


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A source with three documents, ingested."""
    made = Site(tmp_path)
    made.write(a="River and lantern.", b="Copper and meadow.", c="Signal and harbour.")
    made.run()
    yield made
    made.overlay.close()


def test_a_deleted_document_does_not_come_back(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not at the next run nor at any other, not with another content or model, while its file lies there."""
    number = site.delete("b.md")
    report = site.run()
    assert (report.published, report.withheld, report.embedded, report.changed) == (True, 1, 0, 1)
    assert sorted(site.stored()) == ["a.md", "c.md"]
    again = site.run()
    assert (again.published, again.withheld) == (False, 1)
    site.write(b="Another text altogether.")
    assert (site.run().embedded, sorted(site.stored())) == (0, ["a.md", "c.md"])
    site.write(d="Velvet and engine.")
    assert site.run().as_json()["withheld"] == 1
    monkeypatch.setattr(HashedWords, "fingerprint", "hashed-words-2")
    monkeypatch.setattr("ingest.model.fingerprint_of", lambda folder, settings: "hashed-words-2")
    remade = site.run()
    assert (remade.embedded, remade.withheld, sorted(site.stored())) == (3, 1, ["a.md", "c.md", "d.md"])
    site.overlay.undo(number)
    back = site.run()
    assert (back.embedded, back.withheld, back.changed) == (1, 0, 1)
    assert "Another text altogether." in site.stored()["b.md"].text


def test_groups_and_labels_are_what_was_decided(site: Site) -> None:
    """Without anything being read twice by a model; what the source says later cannot open it again; an undo does."""
    rules = {"groups": ("board", "everyone"), "label": "internal"}
    source = site.settings().sources[0].model_copy(update=rules)
    site.run(sources=(source,))
    entries = [
        site.overlay.revoke(site.id_of("a.md"), "everyone", "anna"),
        site.overlay.relabel(site.id_of("a.md"), "secret", "anna"),
        site.overlay.relabel(site.id_of("b.md"), "public", "anna"),
    ]
    report = site.run(sources=(source,))
    assert (report.changed, report.embedded, report.withheld) == (2, 0, 0)
    shown = {name: (document.groups, document.label) for name, document in site.stored().items()}
    both = (("board", "everyone"), "internal")
    assert shown == {"a.md": (("board",), "secret"), "b.md": both, "c.md": both}
    opened = source.model_copy(update={"groups": ("everyone", "staff"), "label": "public"})
    site.run(sources=(opened,))
    assert (site.stored()["a.md"].groups, site.stored()["a.md"].label) == (("staff",), "secret")
    # Where nobody is left, it is not stored at all.
    closed = source.model_copy(update={"groups": ("everyone",)})
    assert (site.run(sources=(closed,)).withheld, sorted(site.stored())) == (1, ["b.md", "c.md"])
    for entry in entries:
        site.overlay.undo(entry.number)
    site.run(sources=(source,))
    assert (site.stored()["a.md"].groups, site.stored()["a.md"].label) == (("board", "everyone"), "internal")
    assert site.run(sources=(source,)).published is False


def test_one_row_of_an_export_is_withheld(site: Site) -> None:
    """The other rows stay as they are, and nothing is embedded."""
    rows = [{"id": str(number), "text": f"Row {number} of the table."} for number in range(5)]
    (site.source / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    site.run()
    site.delete("rows.jsonl#3")
    report = site.run()
    assert (report.embedded, report.withheld, len(site.stored())) == (0, 1, 7)
    rows[3]["text"] = "Row 3, changed."
    (site.source / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert (site.run().withheld, "rows.jsonl#3" in site.stored()) == (1, False)


def test_what_was_decided_follows_moves(site: Site) -> None:
    """From name to name, also where every snapshot is lost meanwhile; undone, the document comes back where it is now."""
    number = site.delete("b.md")
    site.overlay.relabel(site.id_of("a.md"), "confidential", "anna")
    for step, (old, new) in enumerate((("b", "x/b1"), ("x/b1", "b2"), ("b2", "b3"))):
        (site.source / "x").mkdir(exist_ok=True)
        (site.source / f"{old}.md").rename(site.source / f"{new}.md")
        (site.source / ("a.md" if step == 0 else f"a{step - 1}.md")).rename(site.source / f"a{step}.md")
        report = site.run()
        assert (report.moved, report.withheld, report.embedded) == (2, 1, 0)
        assert sorted(site.stored()) == [f"a{step}.md", "c.md"]
        assert site.stored()[f"a{step}.md"].label == "confidential"
    shutil.rmtree(site.data / "snapshots")
    (site.data / "CURRENT").unlink()
    assert (site.run().withheld, site.stored()["a2.md"].label) == (1, "confidential")
    site.overlay.undo(number)
    site.run()
    assert sorted(site.stored()) == ["a2.md", "b3.md", "c.md"]


def test_who_takes_the_name_of_a_moved_document_is_another_one(site: Site) -> None:
    """Deleting the new one does not delete the one that had its name before."""
    (site.source / "b.md").rename(site.source / "archive.md")
    site.run()
    site.write(b="A new text under an old name.")
    site.run()
    site.delete("b.md")
    opened = site.opened(site.overlay)
    assert opened.store.document(site.id_of("archive.md"), ["everyone"]) is not None
    assert opened.store.document(site.id_of("b.md"), ["everyone"]) is None
    opened.close()
    assert (site.run().withheld, sorted(site.stored())) == (1, ["a.md", "archive.md", "c.md"])


def test_a_plan_shows_what_was_decided_and_touches_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files change; a source whose documents were deleted and that lost its files does not count as unmounted."""
    monkeypatch.setattr("ingest.preview.find_model", lambda model, allow_hub: Path())
    monkeypatch.setattr("ingest.preview.fingerprint_of", lambda folder, settings: HashedWords.fingerprint)
    site.delete("a.md")
    site.overlay.relabel(site.id_of("b.md"), "secret", "anna")
    before = {str(path): path.stat().st_mtime_ns for path in site.data.rglob("*") if path.is_file()}
    found = preview(site.settings())
    assert ([file.path for file in found.todo.changed], found.overridden) == (["a.md", "b.md"], 2)
    assert found.as_json()["overridden"] == 2
    assert {str(path): path.stat().st_mtime_ns for path in site.data.rglob("*") if path.is_file()} == before
    site.run()
    assert preview(site.settings()).todo.is_empty
    for name in "abc":
        (site.source / f"{name}.md").unlink()
        if name != "a":
            site.delete(f"{name}.md")
    assert preview(site.settings()).refused == ()


def test_ordered_deletes_do_not_trip_the_guards(tmp_path: Path) -> None:
    """Neither those of removals, by files and documents, nor that of the count's drift; a missing file still does."""
    site = Site(tmp_path)
    site.write(**{f"n{number}": f"Sentence {number}." for number in range(10)})
    gate = GateSettings(max_count_drift=0.05)
    site.run(gate=gate)
    for number in range(6):
        site.delete(f"n{number}.md")
    for number in range(3):
        (site.source / f"n{number}.md").unlink()
    report = site.run(gate=gate)
    assert (report.published, report.documents, report.withheld, report.removed) == (True, 4, 3, 3)
    for number in (6, 7):
        (site.source / f"n{number}.md").unlink()
    with pytest.raises(job.RunRefused, match="2 of 4 files"):
        site.run()
    site.overlay.close()


@pytest.mark.parametrize("files_go_too", [False, True])
def test_a_source_whose_every_document_is_deleted_comes_to_nothing(site: Site, files_go_too: bool) -> None:
    """An empty snapshot is published, that answers with nothing; the next document is found as ever."""
    for name in "abc":
        site.delete(f"{name}.md")
        if files_go_too:
            (site.source / f"{name}.md").unlink()
    report = site.run()
    assert (report.published, report.documents, report.withheld) == (True, 0, 0 if files_go_too else 3)
    snapshot = site.opened(site.overlay)
    vector = HashedWords().embed_queries(["river"])[0]
    assert snapshot.search.search([Query("river", vector)], Scope(("everyone",)), 5) == []
    snapshot.close()
    site.write(d="River again.")
    assert site.run().documents == 1
    assert list(site.stored()) == ["d.md"]


def test_a_delete_while_a_run_is_at_work_holds_at_once_and_from_the_next_run_on(site: Site) -> None:
    """The run publishes what it began with and says so; no read shows the document."""
    site.write(d="Velvet and engine.")

    def hear(event: Event) -> None:
        if event.step == "publish" and not site.overlay.entries():
            site.overlay.delete(site.id_of("a.md"), "anna")

    report = job.run(site.settings(), hear)
    assert "while the run was at work" in report.notes[0]
    assert sorted(site.stored()) == ["a.md", "b.md", "c.md", "d.md"]
    snapshot = site.opened(site.overlay)
    assert snapshot.store.document(site.id_of("a.md"), ["everyone"]) is None
    snapshot.close()
    assert site.run().withheld == 1
    assert sorted(site.stored()) == ["b.md", "c.md", "d.md"]
