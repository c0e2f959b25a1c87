"""Reranking models: a real tiny cross-encoder, loaded from its folder, and what is refused."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from corpus.embedders.weights import find_model
from corpus.errors import ConfigError, ModelDamaged, RerankerFailed
from corpus.rerankers.reranker import Reranker, check_reranker, open_reranker
from tests.tiny_reranker import LONGEST, make_cross_encoder

QUESTION = "Where is the badge reader?"
TEXTS = [
    "Trips are booked through the travel desk.",
    "Restart the marigold and wait two minutes.",
    "Expense reports are due within 30 days of the last day of travel, and then some more words follow here.",
    "Marigold!",
    "",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that likes the word `marigold`."""
    return make_cross_encoder(tmp_path_factory.mktemp("model"), "marigold")


@pytest.fixture(scope="module")
def reranker(folder: Path) -> Reranker:
    return open_reranker(str(folder), allow_hub=False)


def by_the_model_itself(folder: Path, question: str, texts: list[str]) -> list[float]:
    """The same scores without sentence-transformers, one text at a time."""
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True).eval()
    with torch.no_grad():
        return [float(model(**tokenizer(question, text, truncation=True, return_tensors="pt")).logits) for text in texts]


def test_scores_are_those_of_the_model_in_the_order_of_the_texts(reranker: Reranker, folder: Path) -> None:
    """Batched and padded, each text has the score that the model gives it alone."""
    scores = reranker.score(QUESTION, TEXTS)
    assert scores.dtype == np.float64
    np.testing.assert_allclose(scores, by_the_model_itself(folder, QUESTION, TEXTS), atol=1e-4)


def test_what_the_model_likes_is_ahead(reranker: Reranker) -> None:
    """The two texts with the word it was trained to like have the two highest scores."""
    scores = reranker.score(QUESTION, TEXTS)
    assert set(np.argsort(-scores)[:2].tolist()) == {1, 3}


def test_a_text_is_scored_the_same_in_any_company(reranker: Reranker) -> None:
    """Alone, in another order and among many the score is the same."""
    scores = reranker.score(QUESTION, TEXTS)
    np.testing.assert_allclose(reranker.score(QUESTION, TEXTS[1:2]), scores[1:2], atol=1e-4)
    np.testing.assert_allclose(reranker.score(QUESTION, TEXTS[::-1] * 9)[:5], scores[::-1], atol=1e-4)


def test_without_texts_there_are_no_scores(reranker: Reranker) -> None:
    """An empty array comes back."""
    assert reranker.score(QUESTION, []).shape == (0,)


def test_what_is_too_long_is_cut_at_its_end(reranker: Reranker) -> None:
    """A liked word behind the model's maximum changes nothing; before it, it does; a question of a thousand words is scored."""
    long = "a " * LONGEST
    plain, behind, before = reranker.score(QUESTION, [long, f"{long} marigold", f"marigold {long}"])
    assert behind == pytest.approx(plain, abs=1e-4)
    assert before > plain
    assert np.isfinite(reranker.score("why " * 1000, TEXTS)).all()


def test_several_threads_get_their_own_scores(reranker: Reranker) -> None:
    """Eight threads that score at once get what one gets."""
    expected = [reranker.score(QUESTION, TEXTS[:n]) for n in range(1, 6)]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda n: reranker.score(QUESTION, TEXTS[:n]), [1, 2, 3, 4, 5] * 4))
    for number, scores in enumerate(found):
        np.testing.assert_allclose(scores, expected[number % 5], atol=1e-4)


def test_a_model_of_weights_that_are_no_numbers_fails(folder: Path, tmp_path: Path) -> None:
    """A score that is no number would order by chance, so it is an error that names the model."""
    damaged = Path(shutil.copytree(folder, tmp_path / "damaged"))
    weights = load_file(damaged / "model.safetensors")
    weights["classifier.bias"].fill_(float("nan"))
    save_file(weights, damaged / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RerankerFailed, match=r"search\.reranker '.*damaged' gave a score that is no number"):
        open_reranker(str(damaged), allow_hub=False).score(QUESTION, TEXTS)


def test_a_failing_forward_pass_is_an_error_of_ours(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of memory, as torch tells it, becomes RerankerFailed without a word of what was read."""
    reranker = open_reranker(str(folder), allow_hub=False)

    def fails(*_values: object, **_named: object) -> None:
        raise torch.OutOfMemoryError("no room for Trips are booked")

    monkeypatch.setattr(reranker, "_model", type("Full", (), {"predict": fails})())
    with pytest.raises(RerankerFailed, match="failed over 5 passages") as caught:
        reranker.score(QUESTION, TEXTS)
    assert "Trips" not in str(caught.value)


def test_a_name_that_is_nowhere_is_refused(tmp_path: Path) -> None:
    """Without the hub's permission the error names the key and what to do; a folder without weights is no model."""
    with pytest.raises(ConfigError, match=r"search\.reranker 'no/such-model' is not a folder; .*reranker_allow_hub: true"):
        open_reranker("no/such-model", allow_hub=False)
    with pytest.raises(ConfigError, match=r"search\.reranker .* without a \.safetensors file"):
        check_reranker(str(tmp_path), allow_hub=True)
    check_reranker("some/model-on-the-hub", allow_hub=True)


def test_an_embedding_model_is_refused() -> None:
    """It would be given a head of random numbers, and order by chance."""
    packaged = find_model("all-MiniLM-L6-v2", allow_hub=False)
    with pytest.raises(ModelDamaged, match=r"is no cross-encoder, its architecture is BertModel"):
        open_reranker(str(packaged), allow_hub=False)


def test_a_classifier_of_several_classes_is_refused(tmp_path: Path) -> None:
    """Three scores for a pair are no rank."""
    folder = make_cross_encoder(tmp_path / "three", "marigold", scores=3)
    with pytest.raises(ModelDamaged, match="gives 3 scores for a pair"):
        open_reranker(str(folder), allow_hub=False)


@pytest.mark.parametrize("config", ["garbage", "[]", json.dumps({"architectures": ["BertForSequenceClassification"]})])
def test_a_folder_that_is_no_model_is_damage(tmp_path: Path, config: str) -> None:
    """Files that cannot be loaded are an error of ours, not the library's."""
    (tmp_path / "model.safetensors").write_bytes(b"garbage")
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(ModelDamaged, match=r"search\.reranker .* (cannot be (loaded|read))"):
        open_reranker(str(tmp_path), allow_hub=False)
