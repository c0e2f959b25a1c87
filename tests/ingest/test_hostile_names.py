"""Threat C7: a file or a row may be called what it likes: nothing is made outside the data folder or under its name."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from corpus.settings import SearchSettings
from corpus.snapshot import open_current
from tests.ingest.killing import Runs, run, traced
from tests.ingest.sample_files import word

OURS = re.compile(
    r"CURRENT|ingest\.lock|work|models|runs(/\d{6}-[0-9a-f]{8}\.json)?"
    r"|snapshots(/\d{6}-[0-9a-f]{8}(/(chunks\.db|dense\.faiss|manifest\.json|lexical(/(\.?[a-z-]+\.(json|lock)|[0-9a-f]{32}\.[a-z]+))?))?)?"
)
DECOMPOSED, COMPOSED = "cafe\u0301.md", "caf\u00e9.md"
NAMES = (
    "x..\\..\\evil.md", "%2e%2e%2fevil.md", "C:evil.md", "CON.md", "nul.md", "~root.md", "-rf.md", "two\nlines.md", "tab\t.md",
    "case.md", "CASE.md", "\u202egnp.md", DECOMPOSED, COMPOSED, "é" * 120 + ".md", "a" * 250 + ".md", "a b;$(id)`id`.md",
)  # fmt: skip
ROWS = ("../../evil", "/etc/passwd", "..\\evil", "nul\x00byte", "x" * 4096, "%2e%2e/evil", "row#1?x=1", "")


def slipping_word() -> bytes:
    """A Word file with members that would be written elsewhere by whoever unpacks it."""
    content = io.BytesIO(word())
    with zipfile.ZipFile(content, "a") as archive:
        archive.writestr("../../../slipped.txt", "slipped")
        archive.writestr("/tmp/slipped.txt", "slipped")
        link = zipfile.ZipInfo("word/link")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    return content.getvalue()


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """Documents by every hostile name, rows by hostile ids, links out of the folder, and a file that slips."""
    folder, outside = tmp_path / "documents", tmp_path / "outside"
    for place in (folder, outside):
        place.mkdir()
    (outside / "secret.md").write_text("# Secret\n\nThe canary stands outside.\n")
    for number, name in enumerate(NAMES):
        (folder / name).write_text(f"# Document {number}\n\nIt speaks of matter {number}.\n")
    rows = [{"id": name, "title": "../title", "text": f"Row {number}."} for number, name in enumerate(ROWS)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "slip.docx").write_bytes(slipping_word())
    (folder / "link.md").symlink_to(outside / "secret.md")
    (folder / "linked").symlink_to(outside, target_is_directory=True)
    (folder / "passwd.txt").symlink_to("/etc/passwd")
    os.mkfifo(folder / "pipe.md")
    return folder


def published(data: Path) -> dict[str, str]:
    """The texts by source."""
    snapshot, damage = open_current(data, SearchSettings())
    assert damage is None
    try:
        return {document.source: document.text for document, _ in snapshot.store.stored.documents_with_passages()}
    finally:
        snapshot.close()


def not_ours(data: Path) -> list[str]:
    """What lies in the data folder under a name that we do not give."""
    names = [path.relative_to(data).as_posix() for path in data.rglob("*")]
    return [name for name in names if not OURS.fullmatch(name)]


def test_c7_hostile_names_make_nothing_outside_and_no_name_of_theirs(hostile: Path) -> None:
    """Each file is read under its own name, cases apart; links are not followed; on disk there are only names of ours."""
    around = hostile.parent
    before = sorted(path for path in around.rglob("*") if not path.is_relative_to(around / "data"))
    report = run(around / "data", hostile)
    assert sorted(path for path in around.rglob("*") if not path.is_relative_to(around / "data")) == before
    assert not_ours(around / "data") == []
    texts = published(around / "data")
    read = {f"# Document {number}\n\nIt speaks of matter {number}.\n" for number, name in enumerate(NAMES) if name != COMPOSED}
    assert {text for text in texts.values() if "matter" in text} == read
    assert {source.partition("#")[2] for source in texts if source.startswith("rows.jsonl#")} == {
        row.replace("\x00", "") for row in ROWS if row
    }
    assert "canary" not in repr(texts)
    assert "root:" not in repr(texts)
    reasons = {problem.path: problem.reason for problem in report.failures}
    links = dict.fromkeys(("link.md", "linked", "passwd.txt"), "is a link that leads out of the source")
    assert reasons.items() >= links.items()
    assert {*reasons} - {*links} == {f"{COMPOSED} (2)", "pipe.md", "rows.jsonl"}


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Runs]:
    """Runs as processes."""
    made = Runs(tmp_path / "errors.txt")
    yield made
    made.close()


@pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("strace") is None,
    reason="NOT CHECKED: which files a run makes takes Linux and strace (apt-get install strace)",
)
def test_c7_every_file_that_a_run_makes_is_in_the_data_folder(hostile: Path, runs: Runs) -> None:
    """By the system calls of the run and of the readers that it starts: made, renamed or linked is nothing elsewhere."""
    data, said = hostile.parent / "data", hostile.parent / "strace.txt"
    pid = runs.start(data, hostile, stopped=True)
    calls = "trace=openat,open,creat,mkdir,mkdirat,link,linkat,symlink,symlinkat,rename,renameat,renameat2,mknod,mknodat"
    with traced(pid, "-f", "-s", "4096", "-e", calls, output=said):
        assert runs.end() == 0, runs.errors()
    made: set[str] = set()
    for line in said.read_text(errors="surrogateescape").splitlines():
        if " = -1 " in line or ("open" in line and "O_CREAT" not in line):
            continue
        made |= set(re.findall(r'"((?:[^"\\]|\\.)*)"', line))
    assert any(name.startswith(str(data / "snapshots")) for name in made)
    assert [name for name in made if not name.startswith((str(data), "/dev/null"))] == []
