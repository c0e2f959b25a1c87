"""Vectors come from the model once: then from the work file, or from the parent snapshot."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from corpus.embedders.embedder import Embedder
from corpus.errors import ModelDamaged
from ingest.vectors import COMMITTED, VectorSource, input_hash

TEXTS = [f"Sentence number {number}." for number in range(5)]


def keys(texts: Sequence[str]) -> list[bytes]:
    """What the vectors are kept under."""
    return [input_hash("f", text) for text in texts]


def refuse() -> Embedder:
    """Stands where no model may be needed."""
    raise AssertionError("the model was loaded")


def test_vectors_are_those_of_the_model_rounded_to_fp16(tmp_path: Path, embedder: Embedder) -> None:
    """In order, repeats included, each embedded once."""
    source = VectorSource(tmp_path / "work.db", None, lambda: embedder, embedder.dimension)
    texts = [*TEXTS, TEXTS[2]]
    vectors = source.vectors(texts, keys(texts))
    expected = embedder.embed_documents(TEXTS).astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(vectors, expected[[0, 1, 2, 3, 4, 2]])
    assert (source.embedded, source.reused) == (5, 1)
    assert source.vectors([], []).shape == (0, embedder.dimension)
    source.close(finished=True)
    assert list(tmp_path.iterdir()) == []


def test_what_an_unfinished_run_left_is_not_embedded_again(tmp_path: Path, embedder: Embedder) -> None:
    """The work file outlives a run that did not finish, and is used by the next."""
    first = VectorSource(tmp_path / "work.db", None, lambda: embedder, embedder.dimension)
    before = first.vectors(TEXTS, keys(TEXTS))
    first.close(finished=False)
    second = VectorSource(tmp_path / "work.db", None, refuse, embedder.dimension)
    np.testing.assert_array_equal(second.vectors(TEXTS, keys(TEXTS)), before)
    assert (second.embedded, second.reused) == (0, 5)
    second.close(finished=True)


def test_a_failure_costs_no_more_than_one_part(tmp_path: Path, embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much is asked for at once, what was embedded before a failure is kept."""
    texts = [f"Line {number}" for number in range(COMMITTED + 3)]
    calls = 0

    def failing(part: Sequence[str]) -> np.ndarray:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return np.ones((len(part), embedder.dimension), dtype=np.float32)

    with monkeypatch.context() as patch:
        patch.setattr(embedder, "embed_documents", failing)
        source = VectorSource(tmp_path / "work.db", None, lambda: embedder, embedder.dimension)
        with pytest.raises(KeyboardInterrupt):
            source.vectors(texts, keys(texts))
        source.close(finished=False)
    again = VectorSource(tmp_path / "work.db", None, lambda: embedder, embedder.dimension)
    again.vectors(texts, keys(texts))
    assert again.embedded == 3
    again.close(finished=True)


@pytest.mark.parametrize("content", [b"no database at all" * 100, b""])
def test_a_damaged_work_file_is_begun_anew(tmp_path: Path, embedder: Embedder, content: bytes) -> None:
    """The work file only saves time, so damage to it stops nothing."""
    (tmp_path / "work.db").write_bytes(content)
    source = VectorSource(tmp_path / "work.db", None, lambda: embedder, embedder.dimension)
    assert source.vectors(TEXTS[:1], keys(TEXTS[:1])).shape == (1, embedder.dimension)
    source.close(finished=True)


def changed(work: Path, statement: str, *values: object) -> None:
    """A statement that something else ran on the work file."""
    with closing(sqlite3.connect(work)) as connection, connection:
        connection.execute(statement, values)


@pytest.mark.parametrize("value", [np.nan, 0.5], ids=["not finite", "another number"])
def test_a_damaged_row_is_embedded_again_and_replaced(tmp_path: Path, embedder: Embedder, value: float) -> None:
    """Whatever stands there: only the row whose vector was changed, and a run after that one finds it whole."""
    work = tmp_path / "work.db"
    first = VectorSource(work, None, lambda: embedder, embedder.dimension)
    before = first.vectors(TEXTS, keys(TEXTS))
    first.close(finished=False)
    wrong = before[1].astype(np.float16)
    wrong[7] = value
    changed(work, "UPDATE vectors SET vector = ? WHERE input_hash = ?", wrong.tobytes(), keys(TEXTS)[1])
    second = VectorSource(work, None, lambda: embedder, embedder.dimension)
    np.testing.assert_array_equal(second.vectors(TEXTS, keys(TEXTS)), before)
    assert (second.embedded, second.reused) == (1, 4)
    second.close(finished=False)
    third = VectorSource(work, None, refuse, embedder.dimension)
    np.testing.assert_array_equal(third.vectors(TEXTS, keys(TEXTS)), before)
    third.close(finished=True)


def test_a_vector_under_the_key_of_another_is_not_taken(tmp_path: Path, embedder: Embedder) -> None:
    """The checksum is over the key too."""
    work = tmp_path / "work.db"
    first = VectorSource(work, None, lambda: embedder, embedder.dimension)
    before = first.vectors(TEXTS[:1], keys(TEXTS[:1]))
    first.close(finished=False)
    changed(work, "UPDATE vectors SET input_hash = ?", keys(["Another."])[0])
    second = VectorSource(work, None, lambda: embedder, embedder.dimension)
    assert not np.array_equal(second.vectors(["Another."], keys(["Another."])), before)
    assert second.embedded == 1
    second.close(finished=True)


def test_a_work_file_of_another_version_is_begun_anew(tmp_path: Path, embedder: Embedder) -> None:
    """Its rows have no checksum."""
    work = tmp_path / "work.db"
    changed(work, "CREATE TABLE vectors (input_hash BLOB PRIMARY KEY, vector BLOB NOT NULL) STRICT")
    changed(work, "INSERT INTO vectors VALUES (?, ?)", keys(TEXTS)[0], bytes(embedder.dimension * 2))
    source = VectorSource(work, None, lambda: embedder, embedder.dimension)
    assert np.linalg.norm(source.vectors(TEXTS[:1], keys(TEXTS[:1]))[0]) == pytest.approx(1, abs=1e-3)
    source.close(finished=True)


def test_what_is_not_finite_is_an_error_and_not_kept(
    tmp_path: Path, embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that gives it is named; once it works, the next run goes on."""
    work = tmp_path / "work.db"
    with monkeypatch.context() as patch:
        patch.setattr(embedder, "embed_documents", lambda part: np.full((len(part), embedder.dimension), np.nan, np.float32))
        source = VectorSource(work, None, lambda: embedder, embedder.dimension)
        with pytest.raises(ModelDamaged, match=r"'all-MiniLM-L6-v2' gave a vector .* not finite"):
            source.vectors(TEXTS, keys(TEXTS))
        source.close(finished=False)
    again = VectorSource(work, None, lambda: embedder, embedder.dimension)
    again.vectors(TEXTS, keys(TEXTS))
    assert again.embedded == 5
    again.close(finished=True)


def test_a_key_is_the_model_and_the_exact_text() -> None:
    """Another model or another text is another vector; a lone surrogate is hashed like anything else."""
    assert input_hash("f", "x") == input_hash("f", "x")
    assert len({input_hash("f", "x"), input_hash("g", "x"), input_hash("f", "x "), input_hash("f", "\ud800")}) == 4
