"""The dense index against numpy's brute force over the same fp16-rounded vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from corpus.dense import TYPICAL_SPREAD, DenseIndex, DenseWriter
from corpus.errors import EmbedderMismatch, ModelDamaged, SnapshotDamaged
from corpus.types import Vectors

SIZE, DIMENSION = 5000, 48


def unit(rng: np.random.Generator, size: int) -> Vectors:
    """Random directions."""
    vectors = rng.standard_normal((size, DIMENSION)).astype(np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


# The job rounds to fp16 before it writes; faiss rounds exact halves the other way than numpy does.
STORED = VECTORS = unit(np.random.default_rng(1), SIZE).astype(np.float16).astype(np.float32)
QUERIES = unit(np.random.default_rng(2), 20)


def written(path: Path, vectors: Vectors) -> DenseIndex:
    """An index that was saved and is opened again."""
    writer = DenseWriter(path, vectors.shape[1])
    writer.add(vectors[: len(vectors) // 2])
    writer.add(vectors[len(vectors) // 2 :])
    assert writer.close() == {"kind": "exact"}
    return DenseIndex(path)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> DenseIndex:
    """All vectors."""
    return written(tmp_path_factory.mktemp("dense") / "dense.faiss", VECTORS)


def brute(query: np.ndarray, limit: int, mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """The same search by numpy: best first, equal scores by ordinal."""
    scores = STORED @ query
    allowed = np.flatnonzero(mask) if mask is not None else np.arange(SIZE)
    best = allowed[np.lexsort((allowed, -scores[allowed]))][:limit]
    return best, scores[best]


@pytest.mark.parametrize("share", [None, 0.5, 0.1, 0.02, 0.005])
def test_ids_and_scores_are_those_of_brute_force(index: DenseIndex, share: float | None) -> None:
    """Threat D8: at any visible share recall is 1.0, scores agree, and there are never fewer than k."""
    rng = np.random.default_rng(3)
    for query in QUERIES:
        mask = None if share is None else rng.random(SIZE) < share
        ordinals, scores = index.search(query, 20, mask)
        expected, expected_scores = brute(query, 20, mask)
        assert len(ordinals) == min(20, SIZE if mask is None else int(mask.sum()))
        np.testing.assert_array_equal(ordinals, expected)
        np.testing.assert_allclose(scores, expected_scores, atol=1e-5)


def test_more_wanted_than_there_is_gives_all_that_may_be_seen(index: DenseIndex) -> None:
    """A limit above the number of visible chunks returns each of them once."""
    mask = np.zeros(SIZE, dtype=np.bool_)
    mask[[7, 4999, 12]] = True
    assert sorted(index.search(QUERIES[0], 10**9, mask)[0].tolist()) == [7, 12, 4999]
    assert len(index.search(QUERIES[0], SIZE + 1, None)[0]) == SIZE


def test_a_mask_that_hides_everything_finds_nothing(index: DenseIndex) -> None:
    """Filtered to nothing is an empty result, not an error."""
    ordinals, scores = index.search(QUERIES[0], 10, np.zeros(SIZE, dtype=np.bool_))
    assert ordinals.tolist() == []
    assert scores.tolist() == []


@pytest.mark.parametrize("limit", [0, -1])
def test_no_limit_left_finds_nothing(index: DenseIndex, limit: int) -> None:
    """A limit of zero or less gives nothing."""
    assert index.search(QUERIES[0], limit, None)[0].tolist() == []


def test_an_empty_index_opens_and_finds_nothing(tmp_path: Path) -> None:
    """No vectors at all is a valid index."""
    empty = written(tmp_path / "dense.faiss", np.empty((0, DIMENSION), dtype=np.float32))
    assert (empty.size, empty.dimension) == (0, DIMENSION)
    assert empty.search(QUERIES[0], 10, None)[0].tolist() == []


def test_a_zero_query_gives_scores_of_zero_by_ordinal(index: DenseIndex) -> None:
    """The zero vector is as far from everything, so the order is that of the ordinals."""
    ordinals, scores = index.search(np.zeros(DIMENSION, dtype=np.float32), 5, None)
    assert ordinals.tolist() == [0, 1, 2, 3, 4]
    assert scores.tolist() == [0.0] * 5


def test_equal_vectors_come_in_the_order_of_their_ordinals(tmp_path: Path) -> None:
    """Ties are broken by ordinal, also at the limit and under a mask."""
    same = np.repeat(VECTORS[:1], 50, axis=0)
    index = written(tmp_path / "dense.faiss", same)
    assert index.search(same[0], 7, None)[0].tolist() == list(range(7))
    assert index.search(same[0], 3, np.arange(50) % 2 == 1)[0].tolist() == [1, 3, 5]


def test_a_zero_vector_is_stored_and_scores_zero(tmp_path: Path) -> None:
    """A chunk without a direction does not disturb the others."""
    index = written(tmp_path / "dense.faiss", np.vstack([np.zeros((1, DIMENSION), dtype=np.float32), VECTORS[:3]]))
    ordinals, scores = index.search(VECTORS[0], 4, None)
    assert ordinals[0] == 1
    assert scores[ordinals.tolist().index(0)] == 0.0


@pytest.mark.parametrize("shape", [(3, DIMENSION + 1), (DIMENSION,)])
def test_vectors_of_another_dimension_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """Vectors of two models never mix."""
    writer = DenseWriter(tmp_path / "dense.faiss", DIMENSION)
    with pytest.raises(EmbedderMismatch, match="do not fit"):
        writer.add(np.ones(shape, dtype=np.float32))
    writer.abandon()


def test_a_query_of_another_dimension_is_refused(index: DenseIndex) -> None:
    """A query of another model is an error that names both dimensions."""
    with pytest.raises(EmbedderMismatch, match=r"\(3,\).*48"):
        index.search(np.ones(3, dtype=np.float32), 1, None)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_no_number_is_refused(tmp_path: Path, value: float) -> None:
    """A broken model must not poison an index."""
    vectors = VECTORS[:2].copy()
    vectors[1, 3] = value
    writer = DenseWriter(tmp_path / "dense.faiss", DIMENSION)
    with pytest.raises(ModelDamaged, match="not finite; reinstall"):
        writer.add(vectors)
    writer.abandon()


def test_stored_vectors_come_back_as_fp16(index: DenseIndex) -> None:
    """What is given back is what went in, rounded to fp16, in the order asked for."""
    wanted = np.array([4999, 0, 17])
    np.testing.assert_array_equal(index.vectors(wanted), STORED[wanted])
    assert index.vectors(np.array([], dtype=np.int64)).shape == (0, DIMENSION)


def test_a_file_that_is_no_index_is_damage(tmp_path: Path) -> None:
    """faiss's own error becomes ours, naming the file."""
    (tmp_path / "dense.faiss").write_bytes(b"not an index")
    with pytest.raises(SnapshotDamaged, match=r"dense\.faiss cannot be opened"):
        DenseIndex(tmp_path / "dense.faiss")


def test_the_spread_is_that_of_the_cosines_of_all_pairs(index: DenseIndex) -> None:
    """From a sample of 128 of them it is what numpy finds over all, but for a tenth; of few enough it is exact."""
    cosines = (STORED @ STORED.T)[np.triu_indices(SIZE, k=1)]
    assert index.spread(np.arange(SIZE)) == pytest.approx(float(cosines.std()), rel=0.1)
    some = np.arange(7, 500, 5)
    exactly = (STORED[some] @ STORED[some].T)[np.triu_indices(len(some), k=1)]
    assert index.spread(some) == pytest.approx(float(exactly.std()), rel=1e-4)


def test_the_spread_follows_the_model(tmp_path: Path) -> None:
    """Vectors that lie close together, as some models' do, have the spread of their few differences."""
    close = VECTORS[:200] * 0.5 + unit(np.random.default_rng(5), 1)[0]
    close /= np.linalg.norm(close, axis=1, keepdims=True)
    index = written(tmp_path / "close.faiss", close)
    stored = index.vectors(np.arange(200))
    expected = (stored[::2] @ stored[::2].T)[np.triu_indices(100, k=1)].std()
    assert index.spread(np.arange(200)) == pytest.approx(float(expected), rel=1e-4)
    assert index.spread(np.arange(200)) < 0.6 * float((VECTORS[:200] @ VECTORS[:200].T)[np.triu_indices(200, k=1)].std())


def test_what_cannot_tell_a_spread_counts_as_typical(tmp_path: Path, index: DenseIndex) -> None:
    """Fewer than sixteen chunks, and chunks that all say the same."""
    assert index.spread(np.arange(15)) == TYPICAL_SPREAD
    assert index.spread(np.arange(0)) == TYPICAL_SPREAD
    assert written(tmp_path / "same.faiss", np.repeat(VECTORS[:1], 40, axis=0)).spread(np.arange(40)) == TYPICAL_SPREAD
