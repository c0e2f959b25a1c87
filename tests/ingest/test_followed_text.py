"""What was decided of a document holds for its text, under whatever name and in whichever snapshot it stands."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest

from corpus.effects import MATCHED_FROM, text_hash_of
from corpus.overlay import Overlay
from corpus.published import current_id, snapshot_ids
from corpus.settings import SearchSettings
from corpus.snapshot import open_snapshot
from corpus.types import Document, document_id_of
from corpus.verify import problems_of
from ingest import job
from ingest.report import Report
from tests.ingest.killing import prepare
from tests.making import job_settings, write_files

LONG = "The lantern by the river is lit each evening at seven by the keeper of the harbour."
OTHER = "Copper from the meadow is weighed each morning at nine by the clerk of the market."
NEW = "Parking is behind the house, and the gate is closed each night at ten by the guard."


class Folder:
    """A source of Markdown files and exports, the data folder made from it, and the overlay."""

    def __init__(self, folder: Path) -> None:
        self.source, self.data = folder / "source", folder / "data"
        self.source.mkdir()
        self.overlay = Overlay(self.data / "overlay.db")

    def write(self, **files: str) -> None:
        """Write files whose whole text is given: the names without their endings."""
        write_files(self.source, {f"{name}.md": f"{text}\n" for name, text in files.items()})

    def rows(self, name: str, **rows: str) -> None:
        """Write an export, rows by their ids."""
        lines = (json.dumps({"id": row, "text": text}) + "\n" for row, text in rows.items())
        (self.source / name).write_text("".join(lines))

    def rename(self, old: str, new: str) -> None:
        """Rename a file."""
        (self.source / f"{old}.md").rename(self.source / f"{new}.md")

    def run(self) -> Report:
        """One run; what it published is whole."""
        report = job.run(job_settings(self.data, self.source))
        assert problems_of(self.data / "snapshots" / current_id(self.data)) == []
        return report

    def decide(self, name: str, kind: str = "delete") -> int:
        """Decide something of a document, as it stands in the current snapshot."""
        document_id = document_id_of("source", name)
        with closing(open_snapshot(self.data, current_id(self.data), SearchSettings())) as snapshot:
            seen = snapshot.seen(document_id)
        if kind == "delete":
            return self.overlay.delete(document_id, "anna", seen).number
        if kind == "revoke":
            return self.overlay.revoke(document_id, "everyone", "anna", seen).number
        return self.overlay.relabel(document_id, "secret", "anna", seen).number

    def stored(self) -> dict[str, Document]:
        """What stands in the current snapshot, whatever the overlay says now."""
        with closing(open_snapshot(self.data, current_id(self.data), SearchSettings())) as snapshot:
            return {document.source: document for document, _ in snapshot.store.stored.documents_with_passages()}

    def shown(self, number: int) -> set[str]:
        """The sources of what may be seen in a snapshot by its place among all there are."""
        name = snapshot_ids(self.data)[number]
        with closing(open_snapshot(self.data, name, SearchSettings(), self.overlay)) as snapshot:
            return {each.source for each in snapshot.store.document_summaries(["everyone"], after=None, limit=99)}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """Two documents, ingested with hashed words."""
    prepare(monkeypatch)
    made = Folder(tmp_path)
    made.write(a=LONG, b=OTHER)
    made.run()
    return made


@pytest.mark.parametrize("kind", ["delete", "revoke", "relabel"])
@pytest.mark.parametrize("is_ingested", [True, False])
def test_a_renamed_document_stays_decided_where_another_takes_its_name(folder: Folder, kind: str, is_ingested: bool) -> None:
    """Renamed with a new file at the old path, which no move shows, it is withheld or labelled as before; the undo ends it."""
    number = folder.decide("a.md", kind)
    if is_ingested:
        folder.run()
    folder.rename("a", "archive")
    folder.write(a=NEW)
    report = folder.run()
    assert report.moved == 0
    stored = folder.stored()
    if kind == "relabel":
        assert (stored["archive.md"].label, stored["b.md"].label) == ("secret", "internal")
    else:
        # The old name stays decided as well: nobody knows whether what stands there is a new version.
        assert (sorted(stored), report.withheld) == (["b.md"], 2)
    assert folder.run().published is False
    folder.overlay.undo(number)
    folder.run()
    assert {name: document.label for name, document in folder.stored().items()} == dict.fromkeys(
        ["a.md", "archive.md", "b.md"], "internal"
    )


def test_two_files_that_swap_their_names(folder: Folder) -> None:
    """The deleted text is not served under the other's name, also once it is edited there."""
    folder.decide("a.md")
    folder.rename("a", "c")
    folder.rename("b", "a")
    folder.rename("c", "b")
    folder.run()
    assert folder.stored() == {}
    folder.write(b=f"{LONG} And edited since.", c=NEW)
    folder.run()
    assert list(folder.stored()) == ["c.md"]


def test_a_row_that_comes_again_in_another_export(folder: Folder) -> None:
    """It is withheld there too; the row beside it is not."""
    folder.rows("export-01.jsonl", x1=f"{LONG} One.", x2=f"{LONG} Two.")
    folder.run()
    folder.decide("export-01.jsonl#x1")
    folder.rows("export-02.jsonl", x1=f"{LONG} One.", x2=f"{LONG} Two.", x3=f"{LONG} Three.")
    folder.run()
    assert sorted(name for name in folder.stored() if "export" in name) == [
        "export-01.jsonl#x2", "export-02.jsonl#x2", "export-02.jsonl#x3",
    ]  # fmt: skip


def test_a_file_that_is_away_for_a_night_and_comes_back_as_another(folder: Folder) -> None:
    """It is known by its text, whatever white space it has now."""
    folder.decide("a.md")
    folder.run()
    (folder.source / "a.md").unlink()
    folder.run()
    folder.write(d=LONG.replace(" each", "\neach"))
    assert folder.run().withheld == 1
    assert list(folder.stored()) == ["b.md"]


def test_a_deletion_behind_a_rename_holds_in_the_snapshot_of_before(folder: Folder) -> None:
    """There the text stands under the old id, which another document has now; that one stays."""
    folder.rename("a", "archive")
    folder.write(a=NEW)
    folder.run()
    folder.decide("archive.md")
    assert (folder.shown(0), folder.shown(1)) == ({"b.md"}, {"a.md", "b.md"})
    folder.run()
    assert sorted(folder.stored()) == ["a.md", "b.md"]


def test_copies_that_were_there_stay(folder: Folder) -> None:
    """Deleting one of two alike is no decision on the other, also once that is moved; a third one is as the deleted one."""
    folder.write(copy=LONG)
    folder.run()
    folder.decide("a.md")
    assert folder.shown(-1) == {"b.md", "copy.md"}
    folder.rename("copy", "moved")
    folder.write(third=LONG)
    folder.run()
    assert len([name for name in folder.stored() if name in ("moved.md", "third.md")]) == 1
    assert "a.md" not in folder.stored()


def test_a_short_text_is_known_by_its_id_only(folder: Folder) -> None:
    """One row that says next to nothing does not hide all that say the same later."""
    assert (text_hash_of("x" * (MATCHED_FROM - 1)), len(text_hash_of("x" * MATCHED_FROM))) == ("", 64)
    folder.rows("one.jsonl", x="n/a", y="Another.")
    folder.run()
    folder.decide("one.jsonl#x")
    folder.rows("two.jsonl", z="n/a")
    folder.run()
    assert sorted(name for name in folder.stored() if "jsonl" in name) == ["one.jsonl#y", "two.jsonl#z"]


def test_the_rename_of_a_deleted_file_is_no_decision(folder: Folder) -> None:
    """The run that notes the move does not say that something was deleted meanwhile."""
    folder.decide("a.md")
    folder.run()
    folder.rename("a", "archive")
    report = folder.run()
    assert (report.moved, report.withheld, report.notes) == (1, 1, ())
