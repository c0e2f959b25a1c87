"""The consistency check names what is wrong; whatever byte of a published file is damaged, nothing opens it."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import faiss
import pytest

from corpus.embedders.weights import file_sha256
from corpus.errors import SnapshotDamaged
from corpus.lexical import LexicalWriter
from corpus.manifest import Manifest, as_written, digest_of, read_manifest
from corpus.published import current_id, snapshot_ids
from corpus.settings import SearchSettings
from corpus.snapshot import open_current, open_snapshot
from corpus.verify import problems_of
from tests.conftest import Run
from tests.corpus.corpora import Text, published
from tests.making import job_settings


@pytest.fixture
def folder(site: Path) -> Path:
    """The folder of a published snapshot, this test's own copy."""
    return site / "data" / "snapshots" / current_id(site / "data")


def resign(folder: Path) -> Path:
    """Rewrite the manifest to what lies there, as somebody would who can compute hashes; returns where the snapshot is now."""
    manifest = read_manifest(folder)
    files = {name: file_sha256(folder / name) for name in manifest.files if (folder / name).exists()}
    files |= {p.relative_to(folder).as_posix(): file_sha256(p) for p in (folder / "lexical").iterdir() if p.suffix != ".lock"}
    return resigned(folder, replace(manifest, files=files))


def resigned(folder: Path, manifest: Manifest) -> Path:
    """Write a manifest with the id that it should have."""
    changed = replace(manifest, id=f"{manifest.id.split('-')[0]}-{digest_of(asdict(manifest))}")
    (folder / "manifest.json").write_text(as_written(asdict(changed)))
    return folder.rename(folder.parent / changed.id)


def test_a_published_snapshot_is_whole(folder: Path) -> None:
    """Nothing is wrong with what the job published, not a file too many."""
    assert problems_of(folder) == []


DAMAGES: dict[str, tuple[str, str]] = {
    "an offset": ('UPDATE chunks SET start = start + 1 WHERE ordinal = 2', "is not its span of the document"),
    "a text": ("UPDATE documents SET text = text || ' more' WHERE number = 1", "is not its version"),
    "a group": ("DELETE FROM document_groups WHERE number = 0", "is visible to [] and says"),
    "another group": ("UPDATE chunks SET groups = '[\"x\"]' WHERE ordinal = 0", "other groups or another label"),
    "a label": ("UPDATE chunks SET label = 'public' WHERE ordinal = 0", "other groups or another label"),
    "a chunk without a document": ("UPDATE chunks SET number = 9999 WHERE ordinal = 1", "belongs to no document"),
    "a lone group": ("INSERT INTO document_groups VALUES ('nobody', 9999)", "group 'nobody' belongs to no document"),
    "a facet without a document": ("INSERT INTO facets VALUES ('f', 'v', 9999)", "facet 'f' belongs to no document"),
    "an ordinal": ("DELETE FROM chunks WHERE ordinal = 3", "chunk ordinals are not 0..N-1"),
    "an id": ("UPDATE chunks SET chunk_id = chunk_id || '0' WHERE ordinal = 0", "has not the id of its document"),
    "a count": ("UPDATE documents SET chunk_count = chunk_count + 1 WHERE number = 0", "has other chunks than it says"),
    "a document": ("DELETE FROM documents WHERE number = 0", "belongs to no document"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_what_chunks_db_says_is_checked(folder: Path, name: str) -> None:
    """Behind hashes that are right, each kind of contradiction is found and named."""
    sql, expected = DAMAGES[name]
    with sqlite3.connect(folder / "chunks.db") as connection:
        assert connection.execute(sql).rowcount >= 1
    connection.close()
    assert any(expected in problem for problem in problems_of(resign(folder)))


def _short_dense(folder: Path) -> None:
    index = faiss.read_index(str(folder / "dense.faiss"))
    smaller = faiss.IndexScalarQuantizer(index.d, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    smaller.add(index.reconstruct_n(0, index.ntotal - 1))
    faiss.write_index(smaller, str(folder / "dense.faiss"))


def _zero_vector(folder: Path) -> None:
    index = faiss.read_index(str(folder / "dense.faiss"))
    vectors = index.reconstruct_n(0, index.ntotal)
    vectors[1] = 0
    other = faiss.IndexScalarQuantizer(index.d, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    other.add(vectors)
    faiss.write_index(other, str(folder / "dense.faiss"))


def _lexical(folder: Path, groups: list[str], *, double: bool) -> None:
    size = faiss.read_index(str(folder / "dense.faiss")).ntotal
    shutil.rmtree(folder / "lexical")
    writer = LexicalWriter(folder / "lexical", [])
    for ordinal in range(size):
        writer.add(0 if double and ordinal == 1 else ordinal, 0, "words", "en", groups, {})
    writer.close()


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (_short_dense, "the dense index has"),
        (_zero_vector, "the vector of chunk 1 is not of unit length"),
        (lambda folder: _lexical(folder, ["everyone"], double=True), "the lexical index lacks chunks [1]"),
        (lambda folder: _lexical(folder, ["everyone"], double=False), "group 'board' may see 0 chunks in the lexical index"),
    ],
    ids=["a vector too few", "a vector of zeros", "a chunk twice", "groups"],
)
def test_the_stores_are_held_against_each_other(folder: Path, damage: Callable[[Path], None], expected: str) -> None:
    """A vector, a word's place or a group that one store has and another has not."""
    damage(folder)
    assert any(expected in problem for problem in problems_of(resign(folder)))


def test_a_model_that_is_gone_is_named(folder: Path) -> None:
    """The exported graph that a manifest names has to be there: without it the service embeds no question."""
    manifest = read_manifest(folder)
    named = replace(manifest, embedder=replace(manifest.embedder, graph="0" * 32))
    (problem,) = problems_of(resigned(folder, named))
    assert problem.startswith("no exported model ")
    assert "0" * 32 in problem


def test_a_file_too_many_is_named(folder: Path) -> None:
    """What nobody published does not belong there."""
    (folder / "lexical" / "notes.txt").write_text("left here")
    assert problems_of(folder) == ["lexical/notes.txt is in the folder and not in the manifest"]


def test_a_missing_file_is_named(folder: Path) -> None:
    """With the system's reason."""
    (folder / "dense.faiss").unlink()
    assert problems_of(folder) == ["dense.faiss cannot be read (No such file or directory)"]


def damaged(random_: random.Random, data: bytes) -> tuple[str, bytes]:
    """A file's content with one thing wrong with it: never the same as before."""
    at = random_.randrange(len(data))
    kind = random_.choice(["flip", "zero", "cut", "end", "swap", "append", "insert"])
    match kind:
        case "flip":
            changed = data[:at] + bytes([data[at] ^ 1 << random_.randrange(8)]) + data[at + 1 :]
        case "zero":
            end = min(len(data), at + random_.choice([1, 16, 512, 4096]))
            changed = data[:at] + bytes(end - at) + data[end:]
        case "cut":
            changed = data[:at]
        case "end":
            changed = data[:-1]
        case "append":
            changed = data + random_.choice([b"\x00", b"\n", b" " * 100])
        case "insert":
            changed = data[:at] + b"\x00" + data[at:]
        case _:
            half = len(data) // 2
            changed = data[half:] + data[:half]
    return kind, changed if changed != data else data + b"\n"


def damage_files(data_dir: Path, count: int, seed: int) -> int:
    """Damage a published file `count` times, each time another way, and mend it. Returns how often it was refused."""
    random_ = random.Random(seed)
    first, second = snapshot_ids(data_dir)
    folder = data_dir / "snapshots" / second
    names = ["manifest.json", *json.loads((folder / "manifest.json").read_text())["files"]]
    refused = 0
    for number in range(count):
        path = folder / names[number % len(names)]
        whole = path.read_bytes()
        kind, content = damaged(random_, whole)
        path.write_bytes(content)
        with pytest.raises(SnapshotDamaged):
            open_snapshot(data_dir, second, SearchSettings()).close()
        assert problems_of(folder), (path.name, kind)
        served, damage = open_current(data_dir, SearchSettings())
        assert (served.id, damage is not None) == (first, True), (path.name, kind)
        served.close()
        path.write_bytes(whole)
        refused += 1
    served, damage = open_current(data_dir, SearchSettings())
    assert (served.id, damage) == (second, None)
    served.close()
    return refused


@pytest.fixture
def two(site: Path, run: Run) -> Path:
    """A data folder with two snapshots of real documents."""
    (site / "documents" / "new.md").write_text("# New\n\nA new document.\n")
    run(job_settings(site / "data", site / "documents"))
    return site / "data"


def test_a_damaged_file_is_refused_before_it_is_used(two: Path) -> None:
    """Threat A5: 60 damages in every file of a snapshot, the manifest included; the one before is served each time."""
    assert damage_files(two, 60, seed=5) == 60


@pytest.fixture
def coded(tmp_path: Path) -> Path:
    """A data folder with two snapshots whose vectors have codes."""
    for size in (40, 60):
        published(
            tmp_path / "data", [Text(f"The text of document {number}.") for number in range(size)], exact_up_to=30
        ).close()
    return tmp_path / "data"


def test_damaged_codes_of_vectors_are_refused_before_they_are_used(coded: Path) -> None:
    """Threat A5: the files of a large snapshot, of which the codes and what was measured of them are two."""
    folder = coded / "snapshots" / current_id(coded)
    assert problems_of(folder) == []
    assert {"dense.faiss", "dense.pq.faiss", "dense.json"} <= set(read_manifest(folder).files)
    assert damage_files(coded, 60, seed=6) == 60


@pytest.mark.nightly
def test_300_damages_of_a_large_snapshot_are_refused(coded: Path) -> None:
    """Threat A5: codes of vectors among its files."""
    assert damage_files(coded, 300, seed=7) == 300


def test_codes_that_find_other_vectors_are_named(coded: Path) -> None:
    """Behind hashes that are right: codes of the same size that were made of other vectors."""
    folder = coded / "snapshots" / current_id(coded)
    codes = faiss.read_index(str(folder / "dense.pq.faiss"))
    reversed_ = codes.reconstruct_n(0, codes.ntotal)[::-1].copy()
    codes.reset()
    codes.add(reversed_)
    faiss.write_index(codes, str(folder / "dense.pq.faiss"))
    assert any("is not the code of its vector" in problem for problem in problems_of(resign(folder)))


@pytest.mark.nightly
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_300_damaged_files_are_refused_before_they_are_used(two: Path, seed: int) -> None:
    """Threat A5: three times 300 damages, 900 refused."""
    assert damage_files(two, 300, seed=seed) == 300


def test_swapped_and_older_files_are_refused(two: Path) -> None:
    """Threat A5: any file in any other's place."""
    older, newer = (two / "snapshots" / name for name in snapshot_ids(two))
    names = list(json.loads((newer / "manifest.json").read_text())["files"])
    for name in names:
        whole = (newer / name).read_bytes()
        others = [(newer / other).read_bytes() for other in names if other != name]
        if (older / name).exists():
            others.append((older / name).read_bytes())
        for other in others:
            if other == whole:
                continue
            (newer / name).write_bytes(other)
            assert problems_of(newer) == [f"{name} is not the file that was published"]
        (newer / name).write_bytes(whole)
    assert problems_of(newer) == []
