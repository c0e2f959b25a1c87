"""What two snapshots differ in, document by document."""

from __future__ import annotations

from pathlib import Path

import pytest

from corpus.diff import Difference, difference
from corpus.published import current_id
from ingest.settings import RuleSettings
from tests.conftest import Run
from tests.making import job_settings, write_files


@pytest.fixture
def found(tmp_path: Path, run: Run) -> Difference:
    """Ten documents, and what came of them after each thing that can happen to one happened to one."""
    texts = {f"{n}.md": f"# Matter {n}\n\nWhat is to be said about matter {n}.\n" for n in range(10)}
    documents, data = write_files(tmp_path / "documents", texts), tmp_path / "data"
    run(job_settings(data, documents, rules=()))
    before = current_id(data)
    (documents / "0.md").unlink()
    (documents / "1.md").write_text("# Matter 1\n\nSomething else by now.\n")
    (documents / "2.md").rename(documents / "two.md")
    (documents / "new.md").write_text("# New\n\nThis was not there.\n")
    rules = (RuleSettings(match="3.md", groups=("board",)), RuleSettings(match="4.md", label="secret"))
    run(job_settings(data, documents, rules=rules))
    return difference(data / "snapshots" / before, data / "snapshots" / current_id(data))


def test_each_document_is_named_under_what_became_of_it(found: Difference) -> None:
    """Added, changed and gone ones by their source; a moved one, which is a new document by its id, with both."""
    assert [each.source for each in found.added] == ["new.md"]
    assert [each.source for each in found.changed] == ["1.md"]
    assert [each.source for each in found.gone] == ["0.md"]
    assert [(each.was, each.source) for each in found.moved] == [("2.md", "two.md")]
    assert found.kept == 8  # 2 to 9, the moved one among them


def test_other_groups_and_labels_are_told_before_and_now(found: Difference) -> None:
    """Whoever may see it, and how confidential it is, though its text is the same."""
    told = {each.source: (each.labels, each.groups) for each in found.access}
    assert told == {
        "3.md": (("internal", "internal"), (("everyone",), ("board",))),
        "4.md": (("internal", "secret"), (("everyone",), ("everyone",))),
    }


def test_a_snapshot_does_not_differ_from_itself(tmp_path: Path, run: Run) -> None:
    """Every document is kept."""
    data = tmp_path / "data"
    run(job_settings(data, write_files(tmp_path / "documents", {"a.md": "# A\n\nText.\n", "b.md": "# B\n\nMore.\n"})))
    folder = data / "snapshots" / current_id(data)
    assert difference(folder, folder) == Difference(kept=2)
