"""The generated corpus: made by its seed, in the frequencies of words, opened by the snapshot's own reader."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from corpus.embedders.embedder import Embedder
from corpus.embedders.stamped import require
from corpus.settings import SearchSettings
from corpus.snapshot import open_current
from corpus.store_check import contradictions
from evaluation.bench.generated import WORDS_A_CHUNK, documents, english, publish, questions
from tests.making import contents


def test_the_same_seed_makes_the_same_corpus() -> None:
    """Document by document, chunk by chunk; another seed makes another."""
    assert list(documents(12, seed=1)) == list(documents(12, seed=1))
    assert [document.text for document, _ in documents(12, seed=1)] != [document.text for document, _ in documents(12, seed=2)]
    assert questions(5, seed=1) == questions(5, seed=1)
    assert questions(5, seed=1) != questions(5, seed=2)


def test_chunks_are_as_many_and_as_long_as_asked() -> None:
    """12 chunks are three documents; each chunk has its words and is its span of the document's text."""
    made = list(documents(12))
    assert [len(chunks) for _, chunks in made] == [5, 5, 2]
    assert len({document.document_id for document, _ in made}) == 3
    for document, chunks in made:
        for chunk in chunks:
            assert document.text[chunk.start : chunk.end] == chunk.text
            assert len(chunk.text.split()) == WORDS_A_CHUNK


def test_questions_have_8_to_13_words() -> None:
    """Each length occurs."""
    assert {len(question.split()) for question in questions(200)} == {8, 9, 10, 11, 12, 13}


def test_frequent_words_are_as_frequent_as_they_should_be() -> None:
    """Over 200,000 words the ten most frequent are drawn within a tenth of their probability, `the` more than any."""
    vocabulary = english()
    probabilities = np.diff(vocabulary.cumulative, prepend=0.0)
    assert all(before > after for before, after in pairwise(probabilities.tolist()))
    drawn = Counter(vocabulary.draw(np.random.default_rng(3), 200_000))
    assert drawn.most_common(1)[0][0] == "the"
    for word, probability in zip(vocabulary.words[:10], probabilities, strict=False):
        assert drawn[word] / 200_000 == pytest.approx(probability, rel=0.1)


def test_it_is_published_as_a_snapshot_that_this_embedder_can_serve(tmp_path: Path, embedder: Embedder) -> None:
    """With unit vectors, the counts asked for and the embedder's fingerprint; the same seed gives the same bits."""
    for name in ("one", "two"):
        publish(tmp_path / name, embedder, 12)
    snapshot, damage = open_current(tmp_path / "one", SearchSettings())
    assert damage is None
    try:
        require(snapshot.manifest.embedder, embedder)
        assert (snapshot.manifest.documents, snapshot.manifest.chunks) == (3, 12)
        lengths = np.linalg.norm(snapshot.dense.vectors(np.arange(12)), axis=1)
        assert lengths == pytest.approx(np.ones(12), abs=1e-3)
        assert contradictions(snapshot.store.stored) == []
    finally:
        snapshot.close()
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_real_vectors_are_those_of_the_embedder(tmp_path: Path, embedder: Embedder) -> None:
    """Asked for honest embeddings, a chunk's vector is that of its title and text."""
    publish(tmp_path, embedder, 2, real=True)
    ((document, chunks),) = documents(2)
    expected = embedder.embed_documents([f"{document.title}\n{chunk.text}" for chunk in chunks])
    snapshot, _ = open_current(tmp_path, SearchSettings())
    try:
        assert snapshot.dense.vectors(np.arange(2)) == pytest.approx(expected, abs=1e-3)
    finally:
        snapshot.close()
