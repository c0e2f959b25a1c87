"""What did not change from one snapshot to the next is stored once, and goes only with the last that has it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from corpus.disk import link
from corpus.manifest import EmbedderStamp, Manifest
from corpus.published import purge
from corpus.settings import SearchSettings
from corpus.snapshot import SnapshotWriter, open_snapshot
from corpus.types import Chunk, Document, Section, chunk_id_of, document_id_of, version_of
from corpus.verify import problems_of

DIMENSION, SIZE = 1024, 60


def publish(data_dir: Path, parent: str | None, *, groups: tuple[str, ...], seed: int = 1) -> Manifest:
    """The same documents each time, for other groups or with other vectors: 120 kB of them."""
    stamp = EmbedderStamp("model", "fingerprint", DIMENSION)
    writer = SnapshotWriter(data_dir, parent, stamp, {"max_tokens": 256})
    vectors = np.random.default_rng(seed).standard_normal((SIZE, DIMENSION)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for number in range(SIZE):
        text = f"Document {number}."
        name, version = document_id_of("c", str(number)), version_of("title", text)
        document = Document(
            name, version, "c", f"{number}.md", "title", text, (Section(0, len(text)),), "md", "en", groups, "internal"
        )
        chunk = Chunk(chunk_id_of(name, version, 0, len(text)), name, version, 0, len(text), text, (), None)
        writer.add_document(f"{number}.md", document, [chunk], [bytes([number])], vectors[number : number + 1])
    return writer.publish()


def linked(data_dir: Path, snapshot: str) -> dict[str, int]:
    """How many names each of the large files has."""
    folder = data_dir / "snapshots" / snapshot
    return {name: (folder / name).stat().st_nlink for name in ("chunks.db", "dense.faiss")}


def test_what_is_as_the_parents_is_stored_once(tmp_path: Path) -> None:
    """Only who may see documents changed: the vectors are the same file, chunks.db is not."""
    first = publish(tmp_path, None, groups=("everyone",))
    second = publish(tmp_path, first.id, groups=("staff",))
    assert linked(tmp_path, second.id) == linked(tmp_path, first.id) == {"chunks.db": 1, "dense.faiss": 2}
    third = publish(tmp_path, second.id, groups=("staff",), seed=2)
    assert linked(tmp_path, third.id)["dense.faiss"] == 1
    for snapshot in (first, second, third):
        folder = tmp_path / "snapshots" / snapshot.id
        assert problems_of(folder) == []
        assert [path for path in folder.rglob("*") if path.name.endswith(".link")] == []


def test_either_may_go_without_the_other(tmp_path: Path) -> None:
    """Purging the older leaves the newer whole; its vectors go with the last that has them."""
    first = publish(tmp_path, None, groups=("everyone",))
    second = publish(tmp_path, first.id, groups=("staff",))
    shared = tmp_path / "snapshots" / second.id / "dense.faiss"
    with shared.open("rb") as file:
        assert purge(tmp_path, 1) == [first.id]
        assert os.fstat(file.fileno()).st_nlink == 1
        assert problems_of(tmp_path / "snapshots" / second.id) == []
        open_snapshot(tmp_path, second.id, SearchSettings()).close()
        third = publish(tmp_path, second.id, groups=("board",), seed=2)
        assert purge(tmp_path, 1) == [second.id]
        assert os.fstat(file.fileno()).st_nlink == 0
    assert problems_of(tmp_path / "snapshots" / third.id) == []


def test_a_damaged_file_of_the_parent_is_not_taken_over(tmp_path: Path) -> None:
    """Its manifest says the right hash, the file has another."""
    first = publish(tmp_path, None, groups=("everyone",))
    vectors = tmp_path / "snapshots" / first.id / "dense.faiss"
    vectors.write_bytes(vectors.read_bytes()[:-1] + b"\xff")
    second = publish(tmp_path, first.id, groups=("staff",))
    assert linked(tmp_path, second.id)["dense.faiss"] == 1
    assert problems_of(tmp_path / "snapshots" / second.id) == []


def test_where_files_cannot_be_linked_each_has_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on file systems that do not know links."""

    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    first = publish(tmp_path, None, groups=("everyone",))
    second = publish(tmp_path, first.id, groups=("staff",))
    assert linked(tmp_path, second.id)["dense.faiss"] == 1
    assert problems_of(tmp_path / "snapshots" / second.id) == []


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="no file system in memory here")
def test_files_of_two_file_systems_stay_two(tmp_path: Path) -> None:
    """A file elsewhere is no name for this one."""
    here = tmp_path / "here"
    here.write_bytes(b"same")
    folder = Path("/dev/shm") / f"archivist-{os.getpid()}"
    folder.mkdir()
    try:
        there = folder / "there"
        there.write_bytes(b"same")
        other = os.stat(there).st_dev != os.stat(here).st_dev
        assert link(there, here) is not other
        assert (here.read_bytes(), here.stat().st_nlink) == (b"same", 1 if other else 2)
        (folder / "again").write_bytes(b"same")
        assert link(there, folder / "again")
        assert there.stat().st_ino == (folder / "again").stat().st_ino
    finally:
        shutil.rmtree(folder)
