"""The multilingual example with another model's folder in its place: the job, the snapshot and the service all use it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from app.services import build_services
from archivist.settings import Settings, load_settings
from corpus.search import Query, Scope, Searcher
from corpus.settings import SearchSettings
from corpus.snapshot import open_current
from ingest import job
from tests.making import write_files
from tests.tiny_embedder import DIMENSION, make_multilingual_model

EXAMPLE = Path(__file__).parents[2] / "config" / "examples" / "multilingual.yaml"
TEXTS = {
    "park.md": "Visitors leave their cars in the yard behind hall three.",
    "passwort.md": "Passwörter haben mindestens vierzehn Zeichen und werden nur bei Verdacht geändert.",
    "oficina.md": "La oficina de Valencia abre a las ocho de la mañana y cierra a las siete de la tarde.",
    "kaigi.md": "会議室は前日までに予約してください。予約は総務部が受け付けます。",
    "ofis.md": "Офис открывается в восемь часов утра и закрывается в семь часов вечера.",
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small model with a vocabulary of all these scripts."""
    return make_multilingual_model(tmp_path_factory.mktemp("models") / "tiny-multilingual", list(TEXTS.values()) * 20)


@pytest.fixture
def settings(model: Path, tmp_path: Path) -> Settings:
    """The example, but for where model, documents and snapshots lie."""
    folder = write_files(tmp_path / "documents", TEXTS)
    example = load_settings(EXAMPLE)
    (source,) = example.sources
    return example.model_copy(
        update={
            "data_dir": tmp_path / "data",
            "sources": (source.model_copy(update={"path": folder, "rules": ()}),),
            "embedder": example.embedder.model_copy(update={"model": str(model), "allow_hub": False}),
        }
    )


def computed(model: Path, text: str) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """A text's vector without sentence-transformers and without us: the mean of the last layer, of unit length."""
    tokens = AutoTokenizer.from_pretrained(str(model))(text, return_tensors="pt")
    with torch.no_grad():
        states = (
            AutoModel.from_pretrained(str(model)).eval()(tokens["input_ids"], tokens["attention_mask"]).last_hidden_state[0]
        )
    vector = states.mean(0).numpy()
    unit: np.ndarray[tuple[int], np.dtype[np.float32]] = vector / np.linalg.norm(vector)
    return unit


def test_documents_are_embedded_by_the_model_that_is_named_with_its_prompt(settings: Settings, model: Path) -> None:
    """The snapshot names the model and holds its vectors of "passage: ", title and text, not those of the default model."""
    report = job.run(settings.job())
    assert (report.documents, report.failures) == (len(TEXTS), ())
    snapshot, _ = open_current(settings.data_dir, SearchSettings())
    try:
        assert (snapshot.manifest.embedder.model, snapshot.dense.dimension) == (str(model), DIMENSION)
        for document, (passage,) in snapshot.store.stored.documents_with_passages():
            stored = snapshot.dense.vectors(np.array([passage.ordinal]))[0]
            expected = computed(model, f"passage: {document.title}\n{passage.text}")
            np.testing.assert_allclose(stored, expected, atol=2e-3)
    finally:
        snapshot.close()


@pytest.mark.anyio
async def test_questions_are_embedded_by_the_same_model_with_the_prompt_for_questions(settings: Settings, model: Path) -> None:
    """The service takes the snapshot, its question's vector is that of "query: " and the question, and it ranks by it."""
    job.run(settings.job())
    services = build_services(settings.service())
    try:
        assert services.snapshots.refresh()
        question = "会議室の予約"
        expected = computed(model, f"query: {question}")
        with services.snapshots.lease() as leased:
            snapshot = leased.snapshot
            (vector,) = await services.embed(leased.embedder, [question])
            np.testing.assert_allclose(vector, expected, atol=1e-5)
            dense = Searcher(snapshot.store, snapshot.dense, snapshot.lexical, SearchSettings(lexical_weight=0))
            hits = dense.search([Query(question, vector)], Scope(("everyone",)), 10)
            cosines = (snapshot.dense.vectors(np.array([hit.passage.ordinal for hit in hits])) @ expected).tolist()
        assert len(hits) == len(TEXTS)
        assert [hit.cosine for hit in hits] == pytest.approx(cosines, abs=1e-3)
        assert cosines == sorted(cosines, reverse=True)
    finally:
        await services.close()
