"""Exported models on disk: found by what they are of, complete or not there, checked before use, removed when unnamed."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from corpus.embedders import embedder as embedder_module
from corpus.embedders import onnx
from corpus.embedders.embedder import Embedder, Exporting, open_embedder
from corpus.embedders.graph import ABOUT, GRAPH, TOKENIZER, building, graphs, read_graph, remove_graphs, write_graph
from corpus.errors import ModelDamaged, ModelNotExported, ModelNotFound
from corpus.settings import EmbedderSettings
from tests.making import fingerprint


@pytest.fixture
def own(models: Path, tmp_path: Path) -> Path:
    """This test's own copy of the exported models."""
    return Path(shutil.copytree(models, tmp_path / "models"))


def test_an_export_is_complete_and_says_what_it_is_of(models: Path, embedder: Embedder) -> None:
    """Three files, their hashes, the settings, and how near it comes to the reference."""
    (graph,) = graphs(models)
    assert sorted(path.name for path in graph.folder.iterdir()) == sorted([ABOUT, GRAPH, TOKENIZER])
    assert sorted(path.name for path in models.iterdir()) == [graph.graph_id]
    about = graph.about
    assert (about.model, about.fingerprint, about.precision) == ("all-MiniLM-L6-v2", embedder.fingerprint, "fp32")
    assert (about.dimension, about.max_tokens, about.special_tokens, about.modules) == (
        384,
        256,
        2,
        ("Transformer", "Pooling", "Normalize"),
    )
    assert about.checked["least_cosine"] > 0.99999
    assert about.loss is None
    graph.check()


def test_a_model_is_exported_once(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next run finds the graph by the fingerprint and needs no torch."""
    monkeypatch.setattr(embedder_module, "find_spec", lambda name: None)
    notes: list[str] = []
    opened = open_embedder(EmbedderSettings(), models=own, exporting=Exporting(fingerprint(), note=notes.append), threads=1)
    assert (opened.engine, opened.graph, notes) == ("onnx", next(graphs(own)).graph_id, [])


@pytest.mark.parametrize("name", [GRAPH, TOKENIZER])
def test_a_damaged_file_is_refused_before_it_is_opened(own: Path, name: str) -> None:
    """One flipped bit is enough, and the error says what to do."""
    (graph,) = graphs(own)
    content = bytearray((graph.folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (graph.folder / name).write_bytes(content)
    with pytest.raises(ModelDamaged, match=rf"{name} is not the file that was exported; run `archivist ingest`"):
        open_embedder(EmbedderSettings(), models=own, graph=graph.graph_id, threads=1)
    (graph.folder / name).unlink()
    with pytest.raises(ModelDamaged, match=rf"{name} cannot be read"):
        graph.check()


def test_a_damaged_graph_is_exported_again(tiny: EmbedderSettings, tmp_path: Path) -> None:
    """The job mends what the service refuses, and leaves one graph."""
    open_embedder(tiny, models=tmp_path, exporting=Exporting("f"), threads=1)
    (graph,) = graphs(tmp_path)
    (graph.folder / GRAPH).write_bytes(b"damaged")
    opened = open_embedder(tiny, models=tmp_path, exporting=Exporting("f"), threads=1)
    assert opened.engine == "onnx"
    assert opened.graph is not None
    read_graph(tmp_path, opened.graph).check()


def test_a_changed_description_is_another_graph(own: Path) -> None:
    """The id stands for model.json: who names a graph cannot be given another."""
    (graph,) = graphs(own)
    about = json.loads((graph.folder / ABOUT).read_text())
    (graph.folder / ABOUT).write_text(json.dumps({**about, "max_tokens": 16}))
    with pytest.raises(ModelDamaged, match=r"model\.json was changed"):
        read_graph(own, graph.graph_id)
    assert list(graphs(own)) == []


def test_a_graph_that_is_not_there_is_named(own: Path) -> None:
    """The error names the folder and the next step."""
    with pytest.raises(ModelNotFound, match=r"no exported model '.*0000'.*archivist ingest"):
        open_embedder(EmbedderSettings(), models=own, graph="0" * 32)


def test_a_graph_of_another_format_is_refused(own: Path) -> None:
    """What a later version wrote is not guessed at."""
    (graph,) = graphs(own)
    later = write_graph(own, Path(shutil.copytree(graph.folder, own / ".building-x")), replace(graph.about, format=2))
    with pytest.raises(ModelDamaged, match="has format 2, this version reads 1"):
        read_graph(own, later.graph_id)


def test_only_unnamed_graphs_are_removed(own: Path) -> None:
    """A graph that any snapshot names stays."""
    (graph,) = graphs(own)
    other = write_graph(own, Path(shutil.copytree(graph.folder, own / ".building-x")), replace(graph.about, model="other"))
    assert remove_graphs(own, {graph.graph_id, None}) == [other.graph_id]
    assert [each.graph_id for each in graphs(own)] == [graph.graph_id]
    assert remove_graphs(own / "nowhere", set()) == []


def test_writing_leaves_no_litter_and_replaces_what_was_there(own: Path) -> None:
    """The folder of an export that was cut short goes with the next."""
    (graph,) = graphs(own)
    (building(own) / "half").write_bytes(b"half")
    os.truncate(graph.folder / GRAPH, 10)
    files = building(own)
    for name in (GRAPH, TOKENIZER):
        (files / name).write_bytes((graph.folder / name).read_bytes())
    again = write_graph(own, files, graph.about)
    assert again.graph_id == graph.graph_id
    assert [path.name for path in own.iterdir()] == [graph.graph_id]


@pytest.mark.parametrize("installed", [True, False])
def test_a_model_that_cannot_be_exported_is_run_by_its_own_library(
    tiny: EmbedderSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: bool
) -> None:
    """With a reason that reaches a person; engine onnx refuses instead."""
    import corpus.embedders.export as export

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no symbolic\n for aten::odd")

    monkeypatch.setattr(export, "optimize_model", fail)
    if not installed:
        monkeypatch.setattr(embedder_module, "find_spec", lambda name: None if name == "onnx" else name)
    notes: list[str] = []
    either = tiny.model_copy(update={"engine": "auto"})
    opened = open_embedder(either, models=tmp_path, exporting=Exporting("f", note=notes.append), threads=1)
    assert (opened.engine, opened.graph) == ("sentence-transformers", None)
    reason = "RuntimeError: no symbolic for aten::odd" if installed else "onnx is not installed"
    assert len(notes) == 1
    assert reason in notes[0]
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ModelNotExported, match=reason):
        open_embedder(tiny, models=tmp_path, exporting=Exporting("f"))


def test_a_graph_whose_vectors_differ_is_not_accepted(
    tiny: EmbedderSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is compared with the reference and found to be other is refused, fused or not."""
    forward = onnx.OnnxEmbedder._forward
    monkeypatch.setattr(onnx.OnnxEmbedder, "_forward", lambda self, batch: np.roll(forward(self, batch), 1, axis=1))
    with pytest.raises(ModelNotExported, match=r"the graph's vectors are not the model's \(least cosine -?0\.\d+\)"):
        open_embedder(tiny, models=tmp_path, exporting=Exporting("f"))
    assert list(tmp_path.iterdir()) == []


def test_int8_says_what_it_loses_and_is_the_same_whatever_a_text_is_embedded_with(tmp_path: Path, embedder: Embedder) -> None:
    """Near the exact vectors but not equal; its graph serves fp32 nowhere; a text's vector does not hang on its neighbours."""
    settings = EmbedderSettings(precision="int8")
    notes: list[str] = []
    texts = [f"The report on subject {number} is due on day {number} of the month." for number in range(1, 25)]
    exporting = Exporting("int8", lambda: texts, notes.append)
    opened = open_embedder(settings, models=tmp_path, exporting=exporting, threads=2)
    assert opened.engine == "onnx"
    (graph,) = graphs(tmp_path)
    assert graph.about.loss is not None
    assert graph.about.loss["texts"] == 36
    assert 0.9 < graph.about.loss["mean_cosine"] < 0.9999
    assert len(notes) == 1
    assert notes[0].startswith("int8 against fp32: texts 36, mean cosine 0.9")
    vectors = opened.embed_documents(texts)
    cosines = (vectors * embedder.embed_documents(texts)).sum(axis=1)
    assert 0.95 < cosines.min() < cosines.max() < 0.99999
    for text, vector in zip(texts[:5], vectors, strict=False):
        np.testing.assert_array_equal(opened.embed_documents([text])[0], vector)
    assert open_embedder(EmbedderSettings(), models=tmp_path, threads=1).engine == "sentence-transformers"
    with pytest.raises(ModelNotFound, match=r"int8 .* needs its exported graph"):
        open_embedder(settings, models=tmp_path / "nowhere")


def test_without_torch_and_without_a_graph_the_next_step_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To serve is to have a data folder that an ingest has filled."""
    monkeypatch.setattr(embedder_module, "find_spec", lambda name: None)
    with pytest.raises(ModelNotFound, match=r"sentence-transformers is not installed; run `archivist ingest` where it is"):
        open_embedder(EmbedderSettings(), models=tmp_path)


def test_what_cannot_be_exported_without_its_library_is_not_sent_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Engine onnx with nothing exported: the next step is the install, and not an engine that is not installed either."""
    monkeypatch.setattr(embedder_module, "find_spec", lambda name: None)
    settings = EmbedderSettings(engine="onnx")
    with pytest.raises(ModelNotExported) as caught:
        open_embedder(settings, models=tmp_path, exporting=Exporting("f"))
    reason = "sentence_transformers is not installed (`pip install '.[ingest]'`)"
    assert str(caught.value) == f"embedder.model 'all-MiniLM-L6-v2' cannot be exported: {reason}"
    monkeypatch.setattr(embedder_module, "find_spec", lambda name: None if name == "onnx" else name)
    with pytest.raises(ModelNotExported, match=r"set embedder\.engine to sentence-transformers"):
        open_embedder(settings, models=tmp_path, exporting=Exporting("f"))


def test_every_error_of_the_runtime_is_known() -> None:
    """What it raises over a graph becomes an error of ours."""
    from onnxruntime.capi import onnxruntime_pybind11_state as states

    raised = {each for each in vars(states).values() if isinstance(each, type) and issubclass(each, Exception)}
    assert raised == set(onnx.LOAD_ERRORS)


def test_a_graph_that_the_runtime_cannot_load_is_damaged(own: Path) -> None:
    """Also one whose hash is right: made by a version that this runtime does not know, say."""
    (graph,) = graphs(own)
    files = building(own)
    (files / GRAPH).write_bytes(b"no graph")
    shutil.copy(graph.folder / TOKENIZER, files)
    from corpus.embedders.weights import file_sha256

    hashes = {name: file_sha256(files / name) for name in (GRAPH, TOKENIZER)}
    other = write_graph(own, files, replace(graph.about, files=hashes))
    with pytest.raises(ModelDamaged, match=r"model\.onnx cannot be loaded"):
        open_embedder(EmbedderSettings(), models=own, graph=other.graph_id)
