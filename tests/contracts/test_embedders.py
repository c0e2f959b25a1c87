"""What every engine that embeds must hold to: the same vectors, the same tokens, the same fingerprint."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from corpus.embedders.embedder import Embedder, Exporting, open_embedder
from corpus.embedders.onnx import OnnxEmbedder
from corpus.settings import EmbedderSettings

TEXTS = [
    "short",
    "a much longer text about the travel desk and its opening hours " * 5,
    "",
    "kurz, mit Umlauten: Passwörter für Gäste",
    "Ünïcode 😀 見積書 — and UPPER case",
    "beyond the maximum " * 300,
]


@pytest.fixture(params=["sentence-transformers", "onnx", "onnx on three threads"])
def engine(request: pytest.FixtureRequest, embedder: Embedder, models: Path) -> Embedder:
    """The packaged model in each engine."""
    if request.param == "sentence-transformers":
        return embedder
    threads = 3 if "three" in request.param else 1
    opened = open_embedder(EmbedderSettings(batch_size=2), models=models, threads=threads)
    assert isinstance(opened, OnnxEmbedder)
    return opened


def test_vectors_are_those_of_the_reference(engine: Embedder, embedder: Embedder) -> None:
    """Of unit length, in order, whatever a text is embedded with, from questions and documents."""
    expected = embedder.embed_documents(TEXTS)
    vectors = engine.embed_documents(TEXTS)
    assert (vectors.shape, vectors.dtype) == ((len(TEXTS), engine.dimension), np.dtype(np.float32))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert (vectors * expected).sum(axis=1).min() > 0.99999
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    for text, vector in zip(TEXTS, vectors, strict=True):
        np.testing.assert_allclose(engine.embed_queries([text])[0], vector, atol=1e-5)
    assert engine.embed_documents([]).shape == (0, 384)


def test_it_tells_meaning(engine: Embedder) -> None:
    """A question is nearer to its answer than to another text."""
    answer, other = engine.embed_documents(["Visitors leave their cars in the yard.", "Lunch is served at noon."])
    question = engine.embed_queries(["Where can guests park?"])[0]
    assert question @ answer > question @ other + 0.1


def test_tokens_are_counted_without_special_ones_and_never_cut(engine: Embedder) -> None:
    """The count goes on beyond what the model embeds."""
    assert (engine.max_tokens, engine.special_tokens, engine.dimension) == (256, 2, 384)
    assert [engine.count_tokens(text) for text in ("", "hello", "hello " * 5000)] == [0, 1, 5000]


def test_the_fingerprint_does_not_name_the_engine(engine: Embedder, embedder: Embedder) -> None:
    """So the vectors of one engine can be searched and kept by the other."""
    assert (engine.model, engine.fingerprint) == (embedder.model, embedder.fingerprint)


def test_several_threads_may_ask_at_once(engine: Embedder) -> None:
    """Each gets the vector of its own text."""
    expected = engine.embed_queries(TEXTS)
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda text: engine.embed_queries([text])[0], TEXTS * 3))
    np.testing.assert_allclose(np.stack(found), np.concatenate([expected] * 3), atol=1e-5)


def test_prompts_stand_before_the_texts(models: Path, tmp_path: Path, embedder: Embedder) -> None:
    """A question's and a document's, each its own; a graph without them is not of this configuration."""
    settings = EmbedderSettings(query_prompt="query: ", document_prompt="passage: ", max_tokens=32)
    exporting = Exporting("with prompts")
    with_prompts = open_embedder(settings, models=tmp_path, exporting=exporting, threads=1)
    reference = open_embedder(settings.model_copy(update={"engine": "sentence-transformers"}), threads=1)
    for made in (with_prompts, reference):
        np.testing.assert_allclose(made.embed_queries(["a"])[0], embedder.embed_queries(["query: a"])[0], atol=1e-5)
        np.testing.assert_allclose(made.embed_documents(["a"])[0], embedder.embed_queries(["passage: a"])[0], atol=1e-5)
        assert made.max_tokens == 32
    assert open_embedder(settings, models=models, threads=1).engine == "sentence-transformers"
