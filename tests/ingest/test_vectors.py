"""Vectors come from the model once: then from the work file, or from the parent snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from corpus.embedders.embedder import Embedder
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


def test_a_key_is_the_model_and_the_exact_text() -> None:
    """Another model or another text is another vector; a lone surrogate is hashed like anything else."""
    assert input_hash("f", "x") == input_hash("f", "x")
    assert len({input_hash("f", "x"), input_hash("g", "x"), input_hash("f", "x "), input_hash("f", "\ud800")}) == 4
