"""The reference engine with the packaged model, and how a model's name becomes a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from corpus.embedders import weights
from corpus.embedders.embedder import Embedder, open_embedder
from corpus.embedders.weights import find_model, fingerprint_of
from corpus.errors import ConfigError, ModelDamaged, ModelNotFound
from corpus.settings import EmbedderSettings

PACKAGED = find_model("all-MiniLM-L6-v2", allow_hub=False)


def test_vectors_are_of_unit_length_and_in_order(embedder: Embedder) -> None:
    """Each text's vector is its own, whatever it is embedded with."""
    texts = ["short", "a much longer text about the travel desk and its opening hours " * 5, "", "kurz"]
    vectors = embedder.embed_documents(texts)
    assert (vectors.shape, vectors.dtype) == ((4, embedder.dimension), np.dtype(np.float32))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    for text, vector in zip(texts, vectors, strict=True):
        np.testing.assert_allclose(embedder.embed_documents([text])[0], vector, atol=1e-5)
    assert embedder.embed_documents([]).shape == (0, 384)


def test_the_model_tells_meaning(embedder: Embedder) -> None:
    """A question is nearer to its answer than to another text."""
    answer, other = embedder.embed_documents(["Visitors leave their cars in the yard.", "Lunch is served at noon."])
    question = embedder.embed_queries(["Where can guests park?"])[0]
    assert question @ answer > question @ other + 0.1


def test_tokens_are_counted_without_special_ones_and_never_cut(embedder: Embedder) -> None:
    """The count goes on beyond what the model embeds."""
    assert (embedder.max_tokens, embedder.special_tokens, embedder.dimension) == (256, 2, 384)
    assert [embedder.count_tokens(text) for text in ("", "hello", "hello " * 5000)] == [0, 1, 5000]


@pytest.mark.parametrize(
    "changes", [{"max_tokens": 128}, {"query_prompt": "query: "}, {"document_prompt": "passage: "}], ids=lambda c: next(iter(c))
)
def test_what_changes_a_vector_changes_the_fingerprint(embedder: Embedder, changes: dict[str, object]) -> None:
    """The fingerprint is the same without loading the model, and another under other settings."""
    assert fingerprint_of(PACKAGED, EmbedderSettings()) == embedder.fingerprint
    assert fingerprint_of(PACKAGED, EmbedderSettings.model_validate(changes)) != embedder.fingerprint
    assert fingerprint_of(PACKAGED, EmbedderSettings(batch_size=3, device="cpu")) == embedder.fingerprint


def test_a_longer_maximum_than_the_models_is_refused() -> None:
    """Text beyond the model's maximum would be cut off silently."""
    with pytest.raises(ConfigError, match=r"embedder\.max_tokens 512 is longer than .*256"):
        open_embedder(EmbedderSettings(max_tokens=512))


def test_a_name_that_is_nowhere_is_refused(tmp_path: Path) -> None:
    """Without the hub's permission the error says how to give it; a folder without safetensors is no model."""
    with pytest.raises(ModelNotFound, match=r"'no/such-model' is neither a folder.*allow_hub"):
        find_model("no/such-model", allow_hub=False)
    with pytest.raises(ModelNotFound, match=r"without a \.safetensors file"):
        find_model(str(tmp_path), allow_hub=False)


def test_weights_that_are_not_the_official_ones_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The packaged weights are hashed before they are loaded."""
    monkeypatch.setattr(weights, "PACKAGED_SHA256", "0" * 64)
    with pytest.raises(ModelDamaged, match="the official release has 0000"):
        open_embedder(EmbedderSettings())


def test_a_folder_that_is_no_model_is_damage(tmp_path: Path) -> None:
    """Weights that cannot be loaded are an error of ours, not the library's."""
    (tmp_path / "model.safetensors").write_bytes(b"garbage")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ModelDamaged, match="cannot be loaded"):
        open_embedder(EmbedderSettings(model=str(tmp_path)))
