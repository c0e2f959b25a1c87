"""Planning and doing: what is added, changed, moved, removed and kept; moves keep their vectors, a plan touches nothing."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpus.embedders.embedder import Embedder
from corpus.records import FileRecord
from corpus.settings import EmbedderSettings, SearchSettings
from corpus.snapshot import open_current
from corpus.types import Document, Vectors, document_id_of
from ingest.plan import Move, plan
from ingest.preview import preview
from ingest.settings import JobSettings, RuleSettings
from tests.conftest import Run
from tests.making import FILES, job_settings, write_files

ROOT = Path(__file__).parents[2]


def record(path: str, content: str | None = "x", rules: str = "r", collection: str = "s", size: int = 1) -> FileRecord:
    return FileRecord(collection, path, size, content, rules)


def published(data_dir: Path) -> dict[str, tuple[Document, Vectors]]:
    """Documents by source, with the vectors of their chunks."""
    snapshot, _ = open_current(data_dir, SearchSettings())
    try:
        found = {}
        for document, passages in snapshot.store.stored.documents_with_passages():
            ordinals = np.array([passage.ordinal for passage in passages], dtype=np.int64)
            assert all(passage.chunk_id.startswith(f"{document.document_id}.{document.version}.") for passage in passages)
            found[document.source] = (document, snapshot.dense.vectors(ordinals))
        return found
    finally:
        snapshot.close()


def everything(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file and folder with its inode and the time of its last change."""
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in [folder, *folder.rglob("*")]}


@pytest.fixture
def no_embedding(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on a run that loads the model fails."""

    def refuse(settings: EmbedderSettings) -> Embedder:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("ingest.model.open_embedder", refuse)


def test_content_decides_what_happens_to_a_file() -> None:
    """New, other content, other rules, gone, and as it was."""
    before = [record("kept"), record("content", "old"), record("rules", rules="old"), record("gone", "only here")]
    now = [record("kept"), record("content", "new"), record("rules", rules="new"), record("new", "never seen")]
    found = plan(now, before)
    assert [file.path for file in found.added] == ["new"]
    assert [file.path for file in found.changed] == ["content", "rules"]
    assert [file.path for file in found.removed] == ["gone"]
    assert [file.path for file in found.kept] == ["kept"]
    assert found.moved == ()


def test_the_content_of_a_file_that_is_gone_under_a_new_name_is_a_move() -> None:
    """Also to another source; a copy beside its original is not a move, and what could not be read never is."""
    a, b = record("a", "A"), record("b", "B")
    assert plan([record("a2", "A"), b], [a, b]).moved == (Move(a, record("a2", "A")),)
    assert plan([record("a", "A", collection="other"), b], [a, b]).moved == (Move(a, record("a", "A", collection="other")),)
    assert plan([a, record("copy", "A"), b], [a, b]).added == (record("copy", "A"),)
    assert plan([record("y", None)], [record("x", None)]).moved == ()


def test_of_several_alike_each_is_moved_once_and_its_own_source_comes_first() -> None:
    """Two files of one content that are gone, and three that are new: two moves, in the order of names, one new file."""
    before = [record("1", collection="a"), record("2", collection="b")]
    now = [record("x", collection="b"), record("y", collection="a"), record("z", collection="a")]
    found = plan(now, before)
    assert [(move.before.collection, move.now.path) for move in found.moved] == [("a", "y"), ("b", "x")]
    assert [file.path for file in found.added] == ["z"]
    assert found.removed == ()


RECORDS = st.dictionaries(
    st.sampled_from("abcdef"), st.tuples(st.sampled_from(["A", "B", "C", None]), st.sampled_from("rs")), max_size=6
).map(lambda files: [record(path, content, rules) for path, (content, rules) in files.items()])


@given(RECORDS, RECORDS, st.booleans())
def test_every_file_is_in_exactly_one_place(now: list[FileRecord], before: list[FileRecord], remake: bool) -> None:
    """Nothing is lost or counted twice, whatever moved; planning what was just done finds nothing to do."""
    found = plan(now, before, remake=remake)
    arrived = [move.now for move in found.moved]
    left = [move.before for move in found.moved]
    assert sorted(map(repr, [*found.added, *found.changed, *arrived, *found.kept])) == sorted(map(repr, now))
    stayed = {file.path for file in [*found.changed, *found.kept]}
    assert sorted([*stayed, *(file.path for file in [*left, *found.removed])]) == sorted(file.path for file in before)
    assert all(move.before.content_hash == move.now.content_hash is not None for move in found.moved)
    assert plan(now, now).is_empty
    assert not (remake and found.kept)


def test_a_plan_has_counts_sizes_and_paths() -> None:
    """As they are printed as JSON."""
    told = plan(
        [record("a2", "A", size=7), record("n", "N", size=5)], [record("a", "A", size=7), record("g", "G", size=3)]
    ).as_json()
    assert told == {
        "added": {"files": 1, "bytes": 5, "paths": [{"source": "s", "path": "n", "size_bytes": 5}]},
        "changed": {"files": 0, "bytes": 0, "paths": []},
        "removed": {"files": 1, "bytes": 3, "paths": [{"source": "s", "path": "g", "size_bytes": 3}]},
        "moved": {
            "files": 1,
            "bytes": 7,
            "paths": [
                {
                    "from": {"source": "s", "path": "a", "size_bytes": 7},
                    "to": {"source": "s", "path": "a2", "size_bytes": 7},
                }
            ],
        },
        "kept": {"files": 0, "bytes": 0},
    }


def test_moves_and_renames_embed_nothing_and_load_no_model(site: Path, run: Run, no_embedding: None) -> None:
    """A moved document has a new id, knows its old one, and keeps its vectors bit for bit; one whose title was its file's
    name has the new name as its title."""
    before = published(site / "data")
    documents = site / "documents"
    (documents / "archive").mkdir()
    (documents / "policies" / "travel.md").rename(documents / "archive" / "travelling.md")
    (documents / "it" / "errors.txt").rename(documents / "it" / "reader-errors.txt")
    (documents / "faq.jsonl").rename(documents / "questions.jsonl")
    report = run(job_settings(site / "data", documents))
    assert (report.moved, report.added, report.removed, report.changed, report.embedded) == (3, 0, 0, 0, 0)
    assert {(move["from_path"], move["path"]) for move in report.moves} == {
        ("policies/travel.md", "archive/travelling.md"),
        ("it/errors.txt", "it/reader-errors.txt"),
        ("faq.jsonl", "questions.jsonl"),
    }
    after = published(site / "data")
    for old, new in (
        ("policies/travel.md", "archive/travelling.md"),
        ("it/errors.txt", "it/reader-errors.txt"),
        ("faq.jsonl#2", "questions.jsonl#2"),
    ):
        document, vectors = after[new]
        assert document.document_id == document_id_of("documents", new)
        assert document.metadata["moved_from"] == before[old][0].document_id
        assert document.text == before[old][0].text
        assert document.groups == before[old][0].groups
        assert np.array_equal(vectors, before[old][1])
    assert after["it/reader-errors.txt"][0].title == "Reader errors"
    assert after["questions.jsonl#1"][0].metadata["site"] == "leeds"
    assert "policies/travel.md" not in after


def test_where_a_document_comes_from_is_not_forgotten(site: Path, run: Run) -> None:
    """Moved twice, it knows both ids, the last one first; changed and read anew under another model, it still does."""
    documents = site / "documents"
    ids = [document_id_of("documents", name) for name in ("oficina.md", "guia.md")]
    for old, new in (("oficina.md", "guia.md"), ("guia.md", "es/guia.md")):
        (documents / new).parent.mkdir(exist_ok=True)
        (documents / old).rename(documents / new)
        assert run(job_settings(site / "data", documents)).moved == 1
    assert published(site / "data")["es/guia.md"][0].metadata["moved_from"] == f"{ids[1]} {ids[0]}"
    (documents / "es" / "guia.md").write_text("# Guía\n\nLa oficina se mudó.\n")
    assert run(job_settings(site / "data", documents)).changed == 1
    assert published(site / "data")["es/guia.md"][0].metadata["moved_from"] == f"{ids[1]} {ids[0]}"
    (documents / "es" / "guia.md").rename(documents / "oficina.md")
    other = EmbedderSettings(document_prompt="passage: ")
    assert run(job_settings(site / "data", documents, embedder=other)).moved == 1
    assert published(site / "data")["oficina.md"][0].metadata["moved_from"] == " ".join(
        [document_id_of("documents", "es/guia.md"), ids[1]]
    )


def test_a_document_cannot_claim_to_have_been_moved(tmp_path: Path, run: Run) -> None:
    """What was decided of a document follows it by `moved_from`, so that only a move sets it."""
    source = write_files(tmp_path / "documents", {"a.md": "---\nmoved_from: somebody\nkind: note\n---\n# A\n\nText.\n"})
    run(job_settings(tmp_path / "data", source))
    assert published(tmp_path / "data")["a.md"][0].metadata == {"kind": "note"}


def test_other_rules_embed_nothing_and_load_no_model(site: Path, run: Run, no_embedding: None) -> None:
    """Groups, a title and validity dates given to files that stay as they are: changed, with the vectors they have."""
    before = published(site / "data")
    rules = (RuleSettings(match="policies/**", groups=("staff",), title="Policy", valid_until="2026-12-31"),)
    report = run(job_settings(site / "data", site / "documents", rules=rules))
    assert (report.changed, report.embedded, report.published) == (5, 0, True)  # board/ lost its rule
    document, vectors = published(site / "data")["policies/travel.md"]
    assert (document.title, document.groups, document.metadata) == ("Policy", ("staff",), {"valid_until": "2026-12-31"})
    assert np.array_equal(vectors, before["policies/travel.md"][1])


def test_a_plan_is_what_the_run_then_does(site: Path, run: Run, no_embedding: None) -> None:
    """Its counts are those of the report."""
    documents = site / "documents"
    (documents / "oficina.md").rename(documents / "office.md")
    (documents / "it" / "errors.txt").unlink()
    settings = job_settings(site / "data", documents, rules=(RuleSettings(match="board/**", groups=("c",)),))
    foreseen = preview(settings)
    report = run(settings)
    todo = foreseen.todo
    counts = tuple(map(len, (todo.added, todo.changed, todo.moved, todo.removed, todo.kept)))
    assert counts == (report.added, report.changed, report.moved, report.removed, report.kept) == (0, 1, 1, 1, len(FILES) - 3)
    assert (foreseen.remake, foreseen.refused, foreseen.problems) == (False, (), ())


def test_a_plan_touches_nothing(site: Path) -> None:
    """Not the sources, not a data folder that is there, and one that is not is not made; no model is loaded."""
    write_files(site / "documents", {"new.md": "# New\n", "broken.pdf": b"no pdf", "new.md.meta.yaml": "groups: []\n"})
    before = everything(site)
    code = (
        "import sys\nfrom pathlib import Path\nfrom ingest.preview import preview\nfrom tests.making import job_settings\n"
        "root = Path(sys.argv[1])\n"
        "for data in ('data', 'nowhere'):\n"
        "    found = preview(job_settings(root / data, root / 'documents'))\n"
        "    print(found.parent is not None, len(found.todo.added), [problem.path for problem in found.problems])\n"
        "print(sorted({'torch', 'sentence_transformers', 'transformers', 'onnxruntime'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(site)], cwd=ROOT, capture_output=True, text=True, check=False)
    total = len(FILES) + 2
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["True 2 ['new.md']", f"False {total} ['new.md']", "[]"]
    assert everything(site) == before


def test_a_plan_says_that_everything_is_made_anew(site: Path) -> None:
    """Under another model nothing can be kept, and what is still there is not called new."""
    settings: JobSettings = job_settings(site / "data", site / "documents", embedder=EmbedderSettings(document_prompt="p: "))
    found = preview(settings)
    assert (found.remake, len(found.todo.changed), len(found.todo.added)) == (True, len(FILES), 0)


def test_a_copied_data_folder_plans_the_same(site: Path, tmp_path: Path) -> None:
    """Nothing but content decides: other inodes and times change no plan."""
    shutil.copytree(site / "data", tmp_path / "copy", copy_function=shutil.copyfile)
    assert preview(job_settings(tmp_path / "copy", site / "documents")).todo.is_empty
