"""Searching many vectors by their codes: what is found, what is measured, and when all is scored instead.

Vectors lie around topics, as those of texts do: of random directions no two are near, and nobody would miss the nearest.
"""

from __future__ import annotations

import json
from pathlib import Path

import faiss
import numpy as np
import pytest

from corpus.dense import DenseIndex, DenseWriter
from corpus.errors import SnapshotDamaged
from corpus.types import Mask, Ordinals, Vectors

SIZE, DIMENSION, TOPICS = 12_000, 48, 300
EXACT_UP_TO = 1000


def unit(vectors: np.ndarray) -> Vectors:
    """Of length one, as fp16 keeps them."""
    return np.asarray(
        (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16).astype(np.float32), dtype=np.float32
    )


RANDOM = np.random.default_rng(1)
CENTRES = RANDOM.standard_normal((TOPICS, DIMENSION))
TOPIC = RANDOM.integers(0, TOPICS, SIZE)
STORED = unit(CENTRES[TOPIC] + 0.6 * RANDOM.standard_normal((SIZE, DIMENSION)))
QUERIES = unit(CENTRES[RANDOM.integers(0, TOPICS, 60)] + 0.6 * RANDOM.standard_normal((60, DIMENSION)))


def written(path: Path, vectors: Vectors, exact_up_to: int = EXACT_UP_TO) -> tuple[DenseIndex, dict[str, object]]:
    """An index that was saved and is opened again, and what was said of it."""
    writer = DenseWriter(path, vectors.shape[1], exact_up_to=exact_up_to)
    for begin in range(0, len(vectors), 700):
        writer.add(vectors[begin : begin + 700])
    said = dict(writer.close())
    return DenseIndex(path), said


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Vectors with codes. Not to be changed."""
    folder = tmp_path_factory.mktemp("fastscan")
    written(folder / "dense.faiss", STORED)
    return folder


@pytest.fixture(scope="module")
def index(folder: Path) -> DenseIndex:
    """The same, open."""
    return DenseIndex(folder / "dense.faiss")


def truth(query: np.ndarray, limit: int, mask: Mask | None) -> tuple[Ordinals, np.ndarray]:
    """The best by numpy: equal scores by ordinal."""
    scores = STORED @ query
    allowed = np.flatnonzero(mask) if mask is not None else np.arange(len(STORED))
    best = allowed[np.lexsort((allowed, -scores[allowed]))][:limit]
    return best, scores[best]


@pytest.mark.parametrize("share", [1.0, 0.5, 0.2, 0.1])
def test_the_truly_best_are_found_with_exact_scores(index: DenseIndex, share: float) -> None:
    """Threat D8: at every share that is searched by codes, .98 of the true ten and more, each with its own score."""
    random = np.random.default_rng(2)
    found = 0
    for query in QUERIES:
        mask = None if share == 1 else random.random(SIZE) < share
        ordinals, scores = index.search(query, 10, mask)
        best, _ = truth(query, 10, mask)
        assert len(ordinals) == 10
        assert mask is None or mask[ordinals].all()
        np.testing.assert_allclose(scores, STORED[ordinals] @ query, atol=1e-5)
        assert (np.diff(scores) <= 0).all()
        found += len(np.intersect1d(ordinals, best))
    assert found >= 0.98 * 10 * len(QUERIES)


@pytest.mark.parametrize("share", [0.08, 0.02, 0.001])
def test_of_few_that_are_visible_all_are_scored(index: DenseIndex, share: float) -> None:
    """Threat D8: under a narrow filter recall is 1.0, ids and scores are those of brute force."""
    random = np.random.default_rng(3)
    for query in QUERIES:
        mask = random.random(SIZE) < share
        ordinals, scores = index.search(query, 10, mask)
        best, best_scores = truth(query, 10, mask)
        np.testing.assert_array_equal(ordinals, best)
        np.testing.assert_allclose(scores, best_scores, atol=1e-5)


def test_where_the_best_are_hidden_the_others_are_found(index: DenseIndex) -> None:
    """A filter may hide just what a question is about: then the nearest of what is left, of which the codes first gave none."""
    for query in QUERIES[:20]:
        far = STORED @ query < 0
        assert far.mean() > 0.3
        ordinals, scores = index.search(query, 10, far)
        best, best_scores = truth(query, 10, far)
        np.testing.assert_array_equal(ordinals, best)
        np.testing.assert_allclose(scores, best_scores, atol=1e-5)


def test_equal_vectors_come_in_the_order_of_their_ordinals(tmp_path: Path) -> None:
    """Candidates are in no order, hits are."""
    vectors = STORED.copy()
    vectors[[17, 5000, 9000]] = vectors[11_000]
    index, _ = written(tmp_path / "dense.faiss", vectors)
    ordinals, scores = index.search(vectors[11_000], 4, None)
    assert ordinals.tolist() == [17, 5000, 9000, 11_000]
    assert len(set(scores.tolist())) == 1


def test_more_wanted_than_there_is_gives_all(index: DenseIndex) -> None:
    """Each of them once."""
    assert sorted(index.search(QUERIES[0], SIZE * 2, None)[0].tolist()) == list(range(SIZE))


def test_a_zero_query_finds_the_first(index: DenseIndex) -> None:
    """It is as far from everything, so all is scored and the order is that of the ordinals."""
    ordinals, scores = index.search(np.zeros(DIMENSION, dtype=np.float32), 5, None)
    assert ordinals.tolist() == [0, 1, 2, 3, 4]
    assert scores.tolist() == [0.0] * 5


def test_what_was_measured_is_written_down(folder: Path, tmp_path: Path) -> None:
    """Recall at four shares, none under .98, and the same for the same vectors."""
    said = written(tmp_path / "dense.faiss", STORED)[1]
    assert said["kind"] == "fast-scan"
    measured = json.loads((folder / "dense.json").read_text())
    assert {"kind": "fast-scan", **measured} == said
    assert list(measured["recall_at_10"]) == ["1", "0.5", "0.2", "0.1"]
    assert min(measured["recall_at_10"].values()) >= 0.98
    assert (tmp_path / "dense.pq.faiss").read_bytes() == (folder / "dense.pq.faiss").read_bytes()


def test_few_vectors_have_no_codes(tmp_path: Path) -> None:
    """Up to the limit all are scored."""
    _, said = written(tmp_path / "dense.faiss", STORED[:EXACT_UP_TO])
    assert said == {"kind": "exact"}
    assert [path.name for path in tmp_path.iterdir()] == ["dense.faiss"]


def test_a_dimension_that_cannot_be_cut_is_searched_exactly(tmp_path: Path) -> None:
    """Codes stand for four values each."""
    index, said = written(tmp_path / "dense.faiss", unit(STORED[:2000, :47]))
    assert said == {"kind": "exact"}
    assert index.search(index.vectors(np.array([3]))[0], 1, None)[0].tolist() == [3]


def test_where_candidates_do_not_suffice_all_are_scored(tmp_path: Path) -> None:
    """Where too much is missed, no codes are kept, and the manifest says what was measured with the most candidates."""
    writer = DenseWriter(tmp_path / "dense.faiss", DIMENSION, exact_up_to=EXACT_UP_TO, candidates=(5, 10))
    writer.add(STORED)
    said = writer.close()
    assert said["kind"] == "exact"
    assert said["given_up"]["candidates"] == 10
    assert min(said["given_up"]["recall_at_10"].values()) < 0.98
    assert [path.name for path in tmp_path.iterdir()] == ["dense.faiss"]
    ordinals, _ = DenseIndex(tmp_path / "dense.faiss").search(QUERIES[0], 10, None)
    assert ordinals.tolist() == truth(QUERIES[0], 10, None)[0].tolist()


def test_as_many_candidates_are_taken_as_it_needs(tmp_path: Path) -> None:
    """The first number with which enough is found."""
    writer = DenseWriter(tmp_path / "dense.faiss", DIMENSION, exact_up_to=EXACT_UP_TO, candidates=(5, 4000, 8000))
    writer.add(STORED)
    assert writer.close()["candidates"] == 4000


def test_codes_of_other_vectors_are_damage(folder: Path, tmp_path: Path) -> None:
    """As many codes as vectors, or neither is used."""
    written(tmp_path / "dense.faiss", STORED[:5000])
    (tmp_path / "dense.faiss").write_bytes((folder / "dense.faiss").read_bytes())
    with pytest.raises(SnapshotDamaged, match=r"dense\.pq\.faiss is not of the vectors"):
        DenseIndex(tmp_path / "dense.faiss")


@pytest.mark.parametrize("name", ["dense.pq.faiss", "dense.json"])
def test_a_file_that_is_none_is_damage(folder: Path, tmp_path: Path, name: str) -> None:
    """faiss's own error and that of JSON become ours."""
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / name).write_bytes(b"not that")
    with pytest.raises(SnapshotDamaged, match=rf"{name} cannot be"):
        DenseIndex(tmp_path / "dense.faiss")


def test_an_index_of_another_kind_is_damage(tmp_path: Path) -> None:
    """Vectors are kept in fp16 and nothing else."""
    index = faiss.IndexFlatIP(DIMENSION)
    index.add(STORED[:10])
    faiss.write_index(index, str(tmp_path / "dense.faiss"))
    with pytest.raises(SnapshotDamaged, match="of another kind"):
        DenseIndex(tmp_path / "dense.faiss")
