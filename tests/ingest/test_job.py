"""The nightly job over real files: what it publishes, what it leaves alone, and what a failure or a kill costs."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import filelock
import numpy as np
import pytest

from corpus.embedders.embedder import Embedder
from corpus.errors import ArchivistError, ConfigError, LockHeld
from corpus.published import current_id, snapshot_ids
from corpus.settings import LabelSettings, RetentionSettings, SearchSettings
from corpus.snapshot import OpenSnapshot, open_current
from corpus.store_check import contradictions
from ingest import job
from ingest.report import Event, Report
from ingest.settings import ChunkingSettings, JobSettings, RuleSettings
from tests.conftest import Run
from tests.making import FILES, contents, job_settings, link_models, litter, write_files

LONG = "\n\n".join(
    f"## Part {part}\n\n"
    + " ".join(f"Sentence {number} of part {part} speaks of matter {part * 100 + number}." for number in range(12))
    for part in range(8)
)

JOB = """
import sys
from pathlib import Path
from ingest import job
from tests.making import job_settings
report = job.run(job_settings(Path(sys.argv[1]), *map(Path, sys.argv[2:])))
"""

WAITING = """
import sys
from ingest.vectors import VectorSource
keep = VectorSource._keep
def keep_and_wait(self, rows):
    keep(self, rows)
    print("kept", flush=True)
    sys.stdin.read()
VectorSource._keep = keep_and_wait
"""
"""Goes before the job in a process that is to be killed when it has kept its first vectors: it says so, and goes no further."""


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file with its inode and time of change."""
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def opened(data_dir: Path) -> OpenSnapshot:
    """The current snapshot."""
    snapshot, damage = open_current(data_dir, SearchSettings())
    assert damage is None
    return snapshot


def texts(data_dir: Path, *groups: str) -> dict[str, str]:
    """What somebody in some groups may read, by source."""
    snapshot = opened(data_dir)
    try:
        found = [
            snapshot.store.document(s.document_id, groups)
            for s in snapshot.store.document_summaries(groups, after=None, limit=999)
        ]
        return {document.source: document.text for document in found if document is not None}
    finally:
        snapshot.close()


def reasons(report: Report) -> dict[str, str]:
    """Why each file failed."""
    assert all(failure.advice for failure in report.failures)
    return {failure.path + (f" [{failure.item}]" if failure.item else ""): failure.reason for failure in report.failures}


def start(*arguments: str | Path, code: str = JOB) -> subprocess.Popen[str]:
    """Another process that runs the job."""
    root = Path(__file__).parents[2]
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=root,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_everything_that_can_be_read_is_published(organisation: Path) -> None:
    """Groups, labels, languages and offsets are those of the files, their rules and their rows."""
    snapshot = opened(organisation / "data")
    by_source = {document.source: document for document, _ in snapshot.store.stored.documents_with_passages()}
    assert contradictions(snapshot.store.stored) == []
    snapshot.close()
    assert set(by_source) == {*(set(FILES) - {"faq.jsonl"}), "faq.jsonl#1", "faq.jsonl#2", "faq.jsonl#3"}
    assert {s: d.groups for s, d in by_source.items() if d.groups != ("everyone",)} == {
        "board/salaries.md": ("board",),
        "faq.jsonl#2": ("board",),
    }
    assert {s: d.label for s, d in by_source.items() if d.label != "internal"} == {
        "board/salaries.md": "confidential",
        "faq.jsonl#2": "secret",
        "faq.jsonl#3": "secret",
    }
    assert {by_source[s].language for s in ("it/passwörter.txt", "oficina.md", "policies/travel.md")} == {"de", "es", "en"}
    assert litter(organisation / "data") == []


def test_a_second_run_embeds_nothing_and_publishes_nothing(site: Path, run: Run) -> None:
    """Threat A14: nothing changed, so not a byte of the snapshots is written."""
    before = tree(site / "data" / "snapshots")
    report = run(job_settings(site / "data", site / "documents"))
    assert (report.published, report.embedded, report.kept, report.chunks) == (False, 0, len(FILES), report.reused)
    assert tree(site / "data" / "snapshots") == before


def test_a_run_without_changes_loads_no_model(site: Path) -> None:
    """A run that finds nothing to do imports neither torch nor sentence-transformers."""
    code = JOB + (
        "loaded = {'torch', 'sentence_transformers', 'transformers'} & set(sys.modules)\n"
        "print(report.published, report.embedded, sorted(loaded))"
    )
    output, errors = start(site / "data", site / "documents", code=code).communicate(timeout=120)
    assert (output, errors) == ("False 0 []\n", "")


def test_a_changed_file_is_embedded_where_it_changed(tmp_path: Path, run: Run) -> None:
    """Of a long document only the chunks whose text differs are embedded again; nothing of the others is."""
    source = write_files(tmp_path / "documents", {"long.md": f"# Long\n\n{LONG}\n", "other.md": "# Other\n\nUntouched.\n"})
    settings = job_settings(tmp_path / "data", source)
    first = run(settings)
    assert first.embedded == first.chunks >= 9
    write_files(source, {"long.md": f"# Long\n\n{LONG.replace('Sentence 3 of part 4 speaks', 'Sentence 3 of part 4 sings')}\n"})
    second = run(settings)
    assert (second.published, second.changed, second.kept) == (True, 1, 1)
    assert 1 <= second.embedded <= 2
    assert "part 4 sings" in texts(tmp_path / "data", "everyone")["long.md"]


def test_a_change_that_keeps_size_and_time_is_noticed(site: Path, run: Run) -> None:
    """Files are compared by content, never by time."""
    path = site / "documents" / "it" / "errors.txt"
    status = path.stat()
    path.write_text(path.read_text().replace("4410", "4411"))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    assert run(job_settings(site / "data", site / "documents")).changed == 1
    assert "E-4411" in texts(site / "data", "everyone")["it/errors.txt"]


def test_a_removed_file_is_gone(site: Path, run: Run) -> None:
    """What was deleted is not found any more, and nothing else is embedded."""
    (site / "documents" / "oficina.md").unlink()
    report = run(job_settings(site / "data", site / "documents"))
    assert (report.removed, report.embedded, report.published) == (1, 0, True)
    assert "oficina.md" not in texts(site / "data", "everyone")


def test_a_changed_rule_is_applied_without_a_change_of_content(site: Path, run: Run) -> None:
    """Groups and labels follow the configuration at the next run; vectors are kept."""
    rules = (RuleSettings(match="board/**", groups=("everyone",)), RuleSettings(match="it/**", groups=("it",), label="secret"))
    report = run(job_settings(site / "data", site / "documents", rules=rules))
    assert (report.changed, report.embedded) == (3, 0)
    assert "board/salaries.md" in texts(site / "data", "everyone")
    assert "it/errors.txt" not in texts(site / "data", "everyone")
    assert set(texts(site / "data", "it")) == {"it/errors.txt", "it/passwörter.txt"}


def test_a_new_order_of_labels_is_applied_to_rows(site: Path, run: Run) -> None:
    """A row's label that the list did not know, and now does, becomes what it says."""
    labels = LabelSettings(order=("public", "internal", "no-such-label", "confidential", "secret"))
    assert run(job_settings(site / "data", site / "documents", labels=labels)).embedded == 0
    snapshot = opened(site / "data")
    found = {s.source: s.label for s in snapshot.store.document_summaries(["everyone"], after=None, limit=99)}
    snapshot.close()
    assert found["faq.jsonl#3"] == "no-such-label"


def test_other_chunking_makes_everything_anew(site: Path, run: Run) -> None:
    """With another chunk size the old chunks are not kept."""
    report = run(job_settings(site / "data", site / "documents", chunking=ChunkingSettings(max_tokens=48, overlap_tokens=8)))
    assert (report.published, report.kept, report.changed) == (True, 0, len(FILES))


def test_what_cannot_be_read_is_listed_and_the_rest_published(tmp_path: Path, run: Run) -> None:
    """Each failing file has a reason and an advice; mended, it drops out; untouched, it stays listed."""
    files: dict[str, str | bytes] = {
        "good.md": "# Good\n\nThis one is fine.\n",
        "empty.md": b"",
        "unknown.xyz": b"what is this",
        "picture.txt": b"\x89PNG\r\n\x1a\n" + b"\x00" * 50,
        "bad.pdf": b"%PDF-1.7 and then nothing",
        "rows.jsonl": '{"id": "1", "text": "Fine."}\n{"id": "2"}\n{"id": "1", "text": "Twice."}\n',
    }
    source = write_files(tmp_path / "documents", files)
    (tmp_path / "outside.md").write_text("secret")
    (tmp_path / "folder").mkdir()
    (source / "link.md").symlink_to(tmp_path / "outside.md")
    (source / "loop").symlink_to(source)
    (source / "away").symlink_to(tmp_path / "folder")
    (source / "dangling.md").symlink_to(source / "nowhere.md")
    os.mkfifo(source / "pipe.txt")
    settings = job_settings(tmp_path / "data", source)
    report = run(settings)
    found = reasons(report)
    assert set(texts(tmp_path / "data", "everyone")) == {"good.md", "rows.jsonl#1"}
    assert set(found) == {
        "empty.md", "unknown.xyz", "picture.txt", "bad.pdf", "link.md", "loop", "away", "dangling.md", "pipe.txt",
        "rows.jsonl [line 2]", "rows.jsonl [line 3]",
    }  # fmt: skip
    assert found["link.md"] == found["away"] == "is a link that leads out of the source"
    assert found["loop"] == "is a link to a folder, which is not followed"
    assert found["pipe.txt"] == found["dangling.md"] == "is not a regular file or leads nowhere"
    again = run(settings)
    assert (again.published, reasons(again)) == (False, found)
    write_files(source, {"empty.md": "Not empty any more.\n"})
    mended = run(settings)
    assert set(found) - set(reasons(mended)) == {"empty.md"}
    assert mended.embedded == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="NOT CHECKED: root may read every file; run the tests as another user")
def test_a_file_without_permission_is_listed(tmp_path: Path, run: Run) -> None:
    """A file and a folder that the job may not read are listed, and read once they can be."""
    source = write_files(tmp_path / "documents", {"good.md": "Fine.\n", "shut.md": "Closed.\n", "shut/in.md": "Inside.\n"})
    (source / "shut.md").chmod(0)
    (source / "shut").chmod(0)
    try:
        found = reasons(run(job_settings(tmp_path / "data", source)))
    finally:
        (source / "shut").chmod(0o755)
        (source / "shut.md").chmod(0o644)
    assert found == {"shut": "no permission to list the folder", "shut.md": "no permission to read it"}
    assert reasons(run(job_settings(tmp_path / "data", source))) == {}


def test_a_file_that_changes_while_it_is_read_is_tried_again(site: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threat A10: it is listed tonight, the rest is published, and tomorrow it is read although it is as it was."""
    path = site / "documents" / "new.md"
    path.write_text("# New\n\nA new document.\n")
    settings = job_settings(site / "data", site / "documents")
    read_bytes = Path.read_bytes

    def half(self: Path) -> bytes:
        data = read_bytes(self)
        return data[: len(data) // 2] if self == path else data

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", half)
        assert reasons(run(settings)) == {"new.md": "it changed while the job was reading it"}
    assert "new.md" not in texts(site / "data", "everyone")
    assert reasons(run(settings)) == {}
    assert "new.md" in texts(site / "data", "everyone")


def test_two_names_that_are_one_when_normalised_do_not_stop_the_run(tmp_path: Path, run: Run) -> None:
    """Of a file spelled in NFC and one in NFD, the first is read and the other listed."""
    source = write_files(tmp_path / "documents", {"é.md": "Composed.\n", "e\u0301.md": "Decomposed.\n"})
    report = run(job_settings(tmp_path / "data", source))
    assert list(reasons(report)) == ["é.md (2)"]
    assert texts(tmp_path / "data", "everyone") == {"é.md": "Decomposed.\n"}
    assert run(job_settings(tmp_path / "data", source)).published is False


def test_a_row_and_a_file_of_one_name_do_not_stop_the_run(tmp_path: Path, run: Run) -> None:
    """A row's id that makes it look like another file is listed as failed, not a crash."""
    source = write_files(tmp_path / "documents", {"a.jsonl": '{"id": "b.md", "text": "A row."}\n', "a.jsonl#b.md": "A file.\n"})
    assert reasons(run(job_settings(tmp_path / "data", source))) == {"a.jsonl#b.md": "another document has the same name"}


def test_a_missing_source_leaves_the_old_snapshot(site: Path, run: Run) -> None:
    """A folder that is not mounted is a configuration error, never an empty corpus."""
    before = current_id(site / "data")
    with pytest.raises(ConfigError, match=r"nowhere.*is it mounted"):
        run(job_settings(site / "data", site / "documents", site / "nowhere"))
    assert current_id(site / "data") == before


def test_an_emptied_source_leaves_the_old_snapshot(site: Path, run: Run) -> None:
    """When all files are gone, nothing is published: that is more likely a mistake than a wish."""
    before = current_id(site / "data")
    shutil.rmtree(site / "documents")
    (site / "documents").mkdir()
    with pytest.raises(ArchivistError, match=rf"nothing was published, snapshot '{before}' stays"):
        run(job_settings(site / "data", site / "documents"))
    assert (current_id(site / "data"), litter(site / "data")) == (before, [])


def test_a_source_of_nothing_but_failures_is_not_published(tmp_path: Path, run: Run) -> None:
    """The reasons are in the error, since there is no report."""
    source = write_files(tmp_path / "documents", {"empty.md": b""})
    with pytest.raises(ArchivistError, match=r"none of the 1 files(?s:.*)empty\.md: the file is empty"):
        run(job_settings(tmp_path / "data", source))
    assert snapshot_ids(tmp_path / "data") == []


def test_a_data_folder_that_cannot_be_made_is_a_configuration_error(tmp_path: Path, run: Run) -> None:
    """The error names the folder and why."""
    source = write_files(tmp_path / "documents", {"a.md": "x"})
    with pytest.raises(ConfigError, match=r"data_dir .*a\.md/data' cannot be made \(Not a directory\)"):
        run(job_settings(source / "a.md" / "data", source))


def test_no_source_at_all_is_a_configuration_error(tmp_path: Path, run: Run) -> None:
    """The error says how to name one."""
    with pytest.raises(ConfigError, match="--source PATH"):
        run(job_settings(tmp_path / "data"))


def test_chunks_longer_than_the_model_takes_are_a_configuration_error(tmp_path: Path, run: Run) -> None:
    """Text that would be cut off silently is refused before anything is embedded."""
    source = write_files(tmp_path / "documents", {"a.md": "x"})
    with pytest.raises(ConfigError, match=r"chunking\.max_tokens 300 is longer than the 256"):
        run(job_settings(tmp_path / "data", source, chunking=ChunkingSettings(max_tokens=300)))


def test_the_order_of_sources_and_of_runs_does_not_matter(tmp_path: Path, run: Run) -> None:
    """Threat A14: two sources in either order, or one after the other, publish the same documents, chunks and vectors."""
    one = write_files(tmp_path / "one", {"a.md": FILES["policies/travel.md"], "same.md": "# Same\n\nThe same in both.\n"})
    two = write_files(tmp_path / "two", {"b.md": FILES["oficina.md"], "same.md": "# Same\n\nThe same in both.\n"})
    run(job_settings(tmp_path / "forward", one, two))
    run(job_settings(tmp_path / "backward", two, one))
    assert contents(tmp_path / "forward") == contents(tmp_path / "backward")
    run(job_settings(tmp_path / "stepwise", two))
    run(job_settings(tmp_path / "stepwise", two, one))
    assert contents(tmp_path / "stepwise", vectors=False) == contents(tmp_path / "forward", vectors=False)


def test_old_snapshots_are_purged(site: Path, run: Run) -> None:
    """Only as many as the retention says stay, the current one among them."""
    for number in range(3):
        write_files(site / "documents", {"changing.md": f"Version {number}.\n"})
        run(job_settings(site / "data", site / "documents", retention=RetentionSettings(snapshots=2)))
    assert [name[:6] for name in snapshot_ids(site / "data")] == ["000003", "000004"]


@pytest.mark.parametrize("damaged", ["chunks.db", "CURRENT"])
def test_a_damaged_snapshot_is_replaced(site: Path, run: Run, damaged: str) -> None:
    """A run heals: where the only snapshot is damaged it builds anew, where the pointer is, it points again."""
    data = site / "data"
    path = data / "CURRENT" if damaged == "CURRENT" else data / "snapshots" / current_id(data) / damaged
    before = contents(data)
    path.write_bytes(b"\xff" * 100)
    report = run(job_settings(data, site / "documents"))
    assert report.published is (damaged != "CURRENT")
    assert contents(data) == before


def test_events_tell_how_far_a_run_is(tmp_path: Path, embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps come in order, and the bytes add up to the total."""
    monkeypatch.setattr("ingest.model.open_embedder", lambda settings, **_: embedder)
    source = write_files(tmp_path / "documents", {"a.md": "One.\n", "b.md": "Two.\n"})
    events: list[Event] = []
    job.run(job_settings(tmp_path / "data", source), events.append)
    assert list(dict.fromkeys(event.step for event in events)) == ["scan", "load_model", "ingest", "publish", "done"]
    assert (events[-1].done_bytes, events[-1].total_bytes, events[-1].files, events[-1].embedded) == (10, 10, 2, 2)


def test_only_one_run_at_a_time(site: Path, run: Run) -> None:
    """Threat A8: while another process holds the lock a run ends at once with its own error; after a kill the lock is free."""
    lock = site / "data" / "ingest.lock"
    code = f"import filelock, sys\nwith filelock.FileLock({str(lock)!r}): print('held', flush=True); sys.stdin.read()"
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        started = time.monotonic()
        with pytest.raises(LockHeld, match=r"ingest\.lock"):
            run(job_settings(site / "data", site / "documents"))
        assert time.monotonic() - started < 1
        holder.kill()
    assert run(job_settings(site / "data", site / "documents")).published is False
    assert filelock.FileLock(lock).is_locked is False


def test_a_kill_while_embedding_costs_no_vector_twice(tmp_path: Path, run: Run, models: Path) -> None:
    """Threat A1: what a killed run had embedded stays, the next run embeds the rest, and the result is the same."""
    files = {f"{number:03}.md": f"# File {number}\n\nSentence {number} speaks of matter {number}.\n" for number in range(240)}
    source = write_files(tmp_path / "documents", files)
    settings = job_settings(tmp_path / "data", source)
    work = tmp_path / "data" / "work" / "embeddings.db"
    link_models(models, tmp_path / "data")
    with start(tmp_path / "data", source, code=WAITING + JOB) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "kept\n", child.communicate()
        child.send_signal(signal.SIGKILL)
    held = _held(work)
    assert held == 128
    report = run(settings)
    assert report.published
    assert report.embedded == report.chunks - held > 0
    assert litter(tmp_path / "data") == []
    clean = run(replace_data(settings, tmp_path / "clean"))
    assert clean.embedded == clean.chunks == report.chunks
    assert contents(tmp_path / "data", vectors=False) == contents(tmp_path / "clean", vectors=False)
    np.testing.assert_allclose(_vectors(tmp_path / "data"), _vectors(tmp_path / "clean"), atol=2e-3)


def replace_data(settings: JobSettings, data_dir: Path) -> JobSettings:
    """The same settings with another data folder."""
    return settings.model_copy(update={"data_dir": data_dir})


def _held(work: Path) -> int:
    if not work.is_file():
        return 0
    connection = sqlite3.connect(f"file:{work}?mode=ro", uri=True)
    try:
        return int(connection.execute("SELECT COUNT(*) FROM vectors").fetchone()[0])
    except sqlite3.OperationalError:
        return 0
    finally:
        connection.close()


def _vectors(data_dir: Path) -> np.ndarray:
    snapshot = opened(data_dir)
    vectors = snapshot.dense.vectors(np.arange(snapshot.dense.size))
    snapshot.close()
    return vectors
