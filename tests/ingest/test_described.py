"""What rules, sidecars, front matter and rows say of a document: who wins, and that a doubt keeps the document out."""

from __future__ import annotations

from pathlib import Path

import pytest

from corpus.errors import DocumentError
from corpus.settings import LabelSettings, SearchSettings
from corpus.snapshot import open_current
from corpus.types import Document
from ingest.described import Described, day_of
from ingest.labels import Access, narrowed
from ingest.readers.read import read
from ingest.report import Report
from ingest.settings import RuleSettings, SourceSettings
from ingest.sources.folder import walk
from ingest.sources.sidecar import described_file, parse_sidecar
from tests.conftest import Run
from tests.making import job_settings, write_files

LABELS = LabelSettings()
BOARD = RuleSettings(match="board/**", groups=("board", "audit"), label="confidential", title="Of the board", language="en")


def documents(data_dir: Path) -> dict[str, Document]:
    """What is published, by source."""
    snapshot, _ = open_current(data_dir, SearchSettings())
    try:
        return {document.source: document for document, _ in snapshot.store.stored.documents_with_passages()}
    finally:
        snapshot.close()


def reasons(report: Report) -> dict[str, str]:
    """Why each file was left out."""
    return {failure.path: failure.reason for failure in report.failures}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a/report.pdf.meta.yaml", "a/report.pdf"),
        ("REPORT.PDF.META.YML", "REPORT.PDF"),
        ("report.meta.yaml", "report"),
        ("meta.yaml", None),
        ("report.yaml", None),
    ],
)
def test_a_sidecar_is_known_by_its_name(path: str, expected: str | None) -> None:
    """The name of the file it describes, with .meta.yaml or .meta.yml behind it."""
    assert described_file(path) == expected


def test_everything_a_sidecar_can_say() -> None:
    """Dates may be dates or text, one group need not be a list."""
    data = (
        b"title: The  plan\nlanguage: de\ngroups: hr\nlabel: secret\nvalid_from: 2026-01-31\nvalid_until: '2026-12-31'\n"
        b"metadata: {site: Leeds, floor: 3, final: true, signed: 2026-02-01}\n"
    )
    assert parse_sidecar(data, "x.meta.yaml", "x") == Described(
        title="The plan",
        language="de",
        groups=("hr",),
        label="secret",
        valid_from="2026-01-31",
        valid_until="2026-12-31",
        metadata={"site": "Leeds", "floor": "3", "final": "true", "signed": "2026-02-01"},
    )


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not a mapping"),
        (b"[a]", "not a mapping"),
        (b"title: [", "not valid YAML"),
        (b"groups: [board]\ngroups: [everyone]\n", "it has the key 'groups' twice"),
        (b"metadata: {a: 1, a: 2}", "it has the key 'a' twice"),
        (b"title: \xff", "not valid YAML"),
        (b"group: [a]", "its key number 1 is unknown; known: title"),
        (b"title: A\ngrups: [a]", "its key number 2 is unknown"),
        (b"groups: []", "groups is not a list"),
        (b"groups:", "groups is not a list"),
        (b"groups: [a, '']", "groups is not a list"),
        (b"groups: [1]", "groups is not a list"),
        (b"label:", "label is empty"),
        (b"label: [a]", "label is not a text"),
        (b"valid_until: soon", "valid_until is not a day"),
        (b"valid_from: 2026-13-01", "not valid YAML"),
        (b"valid_from: '2026-13-01'", "valid_from is not a day"),
        (b"valid_from: 7", "valid_from is not a day"),
        (b"metadata: [a]", "metadata is not a mapping"),
        (b"metadata: {a: [1]}", "value 1 of metadata is not a text"),
        (b"title: !!python/object/apply:os.system [id]", "not valid YAML"),
        (b"[" * 100_000, "not valid YAML"),
    ],
)
def test_a_sidecar_that_is_not_understood_is_refused(data: bytes, says: str) -> None:
    """The error is about the file it describes, since that is what stays out, and names the sidecar."""
    with pytest.raises(DocumentError, match=r"its sidecar 'x\.meta\.yaml' is broken") as caught:
        parse_sidecar(data, "x.meta.yaml", "x")
    assert says in caught.value.reason
    assert caught.value.path == "x"


@pytest.mark.parametrize(
    ("groups", "named", "expected"),
    [
        (("everyone",), ("hr",), ("hr",)),
        (("everyone",), ("hr", "board"), ("board", "hr")),
        (("board", "hr"), ("hr", "others"), ("hr",)),
        (("board", "hr"), ("everyone",), None),
        (("board",), (" ",), None),
        (("board",), None, ("board",)),
    ],
)
def test_groups_are_only_narrowed(
    groups: tuple[str, ...], named: tuple[str, ...] | None, expected: tuple[str, ...] | None
) -> None:
    """Where everyone may see a file any groups can be named, else only some of its own; none left is nobody."""
    found = narrowed(Access(groups, "internal"), named, None, LABELS)
    assert (found.groups if found else None) == expected


@pytest.mark.parametrize(("label", "expected"), [("public", "confidential"), ("secret", "secret"), ("typo", "secret")])
def test_a_label_is_only_raised(label: str, expected: str) -> None:
    """The higher of the file's label and the one that is named; an unknown one is the highest."""
    found = narrowed(Access(("hr",), "confidential"), None, label, LABELS)
    assert found is not None
    assert found.label == expected


def test_who_wins(tmp_path: Path, run: Run) -> None:
    """Title, language and dates: sidecar over rule over the document itself; what nobody says is as it was found."""
    front = "---\ntitle: Front\nlanguage: de\nvalid_from: 2026-03-01\nvalid_until: 2026-03-31\nowner: Ada\n---\nWords.\n"
    source = write_files(
        tmp_path / "documents",
        {
            "front.md": front,
            "board/rule.md": front,
            "board/sidecar.md": front,
            "board/sidecar.md.meta.yaml": "title: Sidecar\nvalid_until: 2026-06-30\nmetadata: {owner: Grace}\n",
            "rows.jsonl": '{"id": "1", "text": "Row.", "valid_from": "2026-05-01", "language": "es"}\n',
        },
    )
    run(job_settings(tmp_path / "data", source, rules=(BOARD, RuleSettings(match="board/**", valid_from="2026-02-01"))))
    found = documents(tmp_path / "data")
    assert {s: (d.title, d.language, dict(d.metadata)) for s, d in found.items()} == {
        "front.md": ("Front", "de", {"valid_from": "2026-03-01", "valid_until": "2026-03-31", "owner": "Ada"}),
        "board/rule.md": ("Of the board", "en", {"valid_from": "2026-02-01", "valid_until": "2026-03-31", "owner": "Ada"}),
        "board/sidecar.md": ("Sidecar", "en", {"valid_from": "2026-02-01", "valid_until": "2026-06-30", "owner": "Grace"}),
        "rows.jsonl#1": ("Row.", "es", {"valid_from": "2026-05-01"}),
    }


def test_neither_a_sidecar_nor_front_matter_opens_what_a_rule_closed(tmp_path: Path, run: Run) -> None:
    """Threat D13: they can close a file further, and one that would open it is left out with the reason."""
    source = write_files(
        tmp_path / "documents",
        {
            "open.md": "---\ngroups: [hr]\nlabel: secret\n---\nFor some.\n",
            "list.txt": "For one.",
            "list.txt.meta.yaml": "groups: ann\nlabel: public\n",
            "board/closer.md": "---\ngroups: [audit, everyone]\nlabel: public\n---\nCloser.\n",
            "board/wider.md": "---\ngroups: everyone\n---\nWider.\n",
            "board/wide.txt": "Wide.",
            "board/wide.txt.meta.yaml": "groups: [everyone]\n",
        },
    )
    report = run(job_settings(tmp_path / "data", source, rules=(BOARD,)))
    found = documents(tmp_path / "data")
    assert {s: (d.groups, d.label) for s, d in found.items()} == {
        "open.md": (("hr",), "secret"),
        "list.txt": (("ann",), "internal"),
        "board/closer.md": (("audit",), "confidential"),
    }
    assert reasons(report) == {
        "board/wider.md": "its front matter names none of the groups that its file is given to, ['audit', 'board']",
        "board/wide.txt": "its sidecar names none of the groups that its source gives it to, ['audit', 'board']",
    }
    assert all("groups" not in document.metadata for document in found.values())


def test_a_sidecar_is_never_a_document_and_counts_whatever_the_globs_say(tmp_path: Path) -> None:
    """Excluded or not included, it still closes its file: a glob must not open one."""
    write_files(
        tmp_path,
        {
            "a.txt": "A",
            "a.txt.meta.yaml": "groups: [hr]\n",
            "b.txt": "B",
            "B.TXT.meta.yaml": "x: 1\n",
            "c.md": "C",
            "c.md.meta.yml": "label: secret\n",
        },
    )
    source = SourceSettings(path=tmp_path, include=("*.txt",), exclude=("*.yaml",))
    found = {file.path: file for file in walk(source)}
    assert set(found) == {"a.txt", "b.txt", "B.TXT.meta.yaml"}
    assert found["a.txt"].described == Described(groups=("hr",))
    problem = found["B.TXT.meta.yaml"].problem
    assert problem is not None
    assert problem.reason == "there is no 'B.TXT' that it describes"
    (one,) = walk(SourceSettings(path=tmp_path / "c.md"))
    assert one.described == Described(label="secret")


def test_a_folder_with_the_name_of_a_sidecar_keeps_its_file_out(tmp_path: Path) -> None:
    """It may be a sidecar gone wrong: the file is listed, also as a source of its own, and so is a folder beside no file."""
    write_files(tmp_path, {"c.md": "C", "c.md.meta.yaml/kept.md": "K", "d.md.meta.yml/notes.md": "N", "sub/e.md": "E"})
    (tmp_path / "sub" / "e.md.META.yaml").mkdir()
    found = {file.path: file for file in walk(SourceSettings(path=tmp_path, exclude=("c.md.meta.yaml",)))}
    problems = {path: file.problem.reason for path, file in found.items() if file.problem is not None}
    assert problems == {
        "c.md": "its sidecar 'c.md.meta.yaml' is broken: it is not a regular file",
        "sub/e.md": "its sidecar 'e.md.META.yaml' is broken: it is not a regular file",
        "d.md.meta.yml": "there is no 'd.md' that it describes",
    }
    assert found["c.md"].content_hash is None
    assert set(found) == {*problems, "d.md.meta.yml/notes.md"}
    (one,) = walk(SourceSettings(path=tmp_path / "c.md"))
    assert one.problem is not None
    assert "not a regular file" in one.problem.reason


def test_a_broken_sidecar_takes_its_document_out_until_it_is_mended(tmp_path: Path, run: Run) -> None:
    """Threat D13: what was published goes, rather than stay open; mended, the file is back with nothing embedded again."""
    source = write_files(
        tmp_path / "documents", {"a.md": "Alpha.\n", "b.md": "Beta.\n", "c.md": "Gamma.\n", "d.md": "Delta.\n"}
    )
    (tmp_path / "outside.yaml").write_text("groups: [hr]\n")
    settings = job_settings(tmp_path / "data", source)
    run(settings)
    (source / "a.md.meta.yaml").write_text("groups: [hr\n")
    report = run(settings)
    assert reasons(report) == {"a.md": "its sidecar 'a.md.meta.yaml' is broken: it is not valid YAML in UTF-8"}
    assert set(documents(tmp_path / "data")) == {"b.md", "c.md", "d.md"}
    (source / "a.md.meta.yaml").unlink()
    (source / "a.md.meta.yaml").symlink_to(tmp_path / "outside.yaml")
    assert "link that leads out of the source" in reasons(run(settings))["a.md"]
    (source / "a.md.meta.yaml").unlink()
    write_files(source, {"a.md.meta.yaml": "groups: [hr]\n", "a.md.meta.yml": "groups: [it]\n"})
    assert "it has two sidecars" in reasons(run(settings))["a.md"]
    (source / "a.md.meta.yml").unlink()
    assert run(settings).failures == ()
    assert documents(tmp_path / "data")["a.md"].groups == ("hr",)


def test_a_changed_sidecar_counts_as_a_change_and_embeds_nothing(tmp_path: Path, run: Run) -> None:
    """Groups follow it at the next run; an untouched one is no change."""
    source = write_files(tmp_path / "documents", {"a.md": "Alpha.\n", "b.md": "Beta.\n", "a.md.meta.yaml": "groups: [hr]\n"})
    settings = job_settings(tmp_path / "data", source)
    run(settings)
    assert run(settings).published is False
    (source / "a.md.meta.yaml").write_text("groups: [it]\ntitle: New title\n")
    report = run(settings)
    assert (report.changed, report.kept, report.embedded) == (1, 1, 0)
    document = documents(tmp_path / "data")["a.md"]
    assert (document.groups, document.title) == (("it",), "New title")


@pytest.mark.parametrize(
    ("front", "says"),
    [
        ("groups: [a", "it names groups or a label, and is not valid YAML"),
        ("- groups\nlabel: x", "it names groups or a label, and is not valid YAML"),
        ("groups: []", "groups is not a list of at least one group"),
        ("groups: [a, 2]", "groups is not a list of at least one group"),
        ("Groups:", "groups is not a list of at least one group"),
        ("label: 3", "label is not the name of a label"),
        ("acl: hr", "unknown key 'acl'"),
        ("group: hr", "unknown key 'group'"),
        ("Labels: [secret]", "unknown key 'labels'"),
    ],
)
def test_front_matter_that_may_mean_to_close_keeps_the_document_out(front: str, says: str) -> None:
    """Threat D13: a misspelt or broken word on access never leaves a document open."""
    with pytest.raises(DocumentError, match="its front matter: ") as caught:
        list(read("a.md", f"---\n{front}\n---\n\nText.\n".encode()))
    assert says in caught.value.reason


def test_other_front_matter_that_is_no_yaml_stays_text() -> None:
    """A thematic break at the beginning of a document is nothing special."""
    (found,) = read("a.md", b"---\nnote: [a\n---\n\nText.\n")
    assert not isinstance(found, DocumentError)
    assert "note: [a" in found.text


@pytest.mark.parametrize(
    ("written", "expected"),
    [("2026-01-31", "2026-01-31"), ("20260131", "2026-01-31"), ("2026-01-31T10:00:00+01:00", "2026-01-31")],
)
def test_a_day_is_written_one_way(written: str, expected: str) -> None:
    """A time of day is left out."""
    assert day_of(written, "valid_from", "x") == expected


def test_a_document_with_dates_that_make_no_sense_is_left_out(tmp_path: Path, run: Run) -> None:
    """A date that is none, and an end before the beginning; the rows beside them are read."""
    rows = (
        '{"id": "1", "text": "Fine.", "valid_until": "2026-01-31"}\n{"id": "2", "text": "No.", "valid_until": "31.12.2026"}\n'
        '{"id": "3", "text": "No.", "metadata": {"valid_from": "2026-02-01", "valid_until": "2026-01-01"}}\n'
    )
    source = write_files(tmp_path / "documents", {"rows.jsonl": rows})
    report = run(job_settings(tmp_path / "data", source))
    assert set(documents(tmp_path / "data")) == {"rows.jsonl#1"}
    assert {failure.item: failure.reason for failure in report.failures} == {
        "2": "valid_until is not a day",
        "3": "valid_until is before valid_from",
    }
    with pytest.raises(ValueError, match="valid_until 2026-01-01 is before valid_from 2026-02-01"):
        RuleSettings(match="**", valid_from="2026-02-01", valid_until="2026-01-01")
