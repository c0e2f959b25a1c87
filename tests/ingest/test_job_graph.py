"""The job and the exported model: exported when first needed, named by the manifest, kept as long as a snapshot names it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from corpus.embedders.graph import GRAPH, Graph, building, graphs, read_graph, write_graph
from corpus.manifest import as_written, digest_of, read_manifest
from corpus.published import current_id, point_to, purge
from corpus.settings import EmbedderSettings, RetentionSettings, SearchSettings
from corpus.snapshot import open_current
from ingest import job
from ingest.report import Report
from ingest.settings import JobSettings
from tests.making import job_settings, link_models, litter, write_files


@pytest.fixture
def settings(tmp_path: Path, models: Path) -> JobSettings:
    """Two documents, and a data folder where the default model is exported already."""
    link_models(models, tmp_path / "data")
    source = write_files(
        tmp_path / "documents", {"a.md": "# Parking\n\nVisitors park in the yard.\n", "b.md": "Lunch is at noon.\n"}
    )
    return job_settings(tmp_path / "data", source)


def edited(settings: JobSettings, text: str) -> Report:
    """A run after a document was changed."""
    (settings.sources[0].folder / "b.md").write_text(text)
    return job.run(settings)


def graph_named(data_dir: Path) -> str | None:
    """The exported model that the current snapshot names."""
    return read_manifest(data_dir / "snapshots" / current_id(data_dir)).embedder.graph


def test_the_manifest_names_the_graph_and_the_engine(settings: JobSettings) -> None:
    """And the report the engine; nothing is left beside them."""
    report = job.run(settings)
    (graph,) = graphs(settings.data_dir / "models")
    stamp = read_manifest(settings.data_dir / "snapshots" / current_id(settings.data_dir)).embedder
    assert (stamp.engine, stamp.graph) == ("onnx", graph.graph_id)
    assert (report.engine, report.notes, report.embedded) == ("onnx", (), 2)
    assert graph_named(settings.data_dir) == graph.graph_id
    assert litter(settings.data_dir) == []


def test_vectors_of_one_engine_are_kept_by_the_other(settings: JobSettings, models: Path) -> None:
    """The fingerprint is the model's: a snapshot of sentence-transformers is the parent of one of onnx."""
    reference = job.run(settings.model_copy(update={"embedder": EmbedderSettings(engine="sentence-transformers")}))
    assert (reference.engine, graph_named(settings.data_dir)) == ("sentence-transformers", None)
    report = edited(settings, "Lunch is at one.\n")
    assert (report.embedded, report.reused, report.engine) == (1, 1, "onnx")
    assert graph_named(settings.data_dir) is not None


def test_a_run_that_embeds_nothing_keeps_the_graph_of_its_parent(settings: JobSettings) -> None:
    """Only a removal: no model is loaded, and the new manifest names the same graph."""
    job.run(settings)
    before = graph_named(settings.data_dir)
    (settings.sources[0].folder / "b.md").unlink()
    report = job.run(settings)
    assert (report.embedded, report.removed, report.engine) == (0, 1, "onnx")
    assert graph_named(settings.data_dir) == before is not None


def test_a_run_that_embeds_nothing_exports_for_a_parent_without_a_graph(settings: JobSettings, models: Path) -> None:
    """Its vectors were made by sentence-transformers; an unchanged run says what is missing, one that publishes mends it."""
    shutil.rmtree(settings.data_dir / "models")
    job.run(settings.model_copy(update={"embedder": EmbedderSettings(engine="sentence-transformers")}))
    assert graph_named(settings.data_dir) is None
    shutil.copytree(models, settings.data_dir / "models", dirs_exist_ok=True)
    unchanged = job.run(settings)
    assert (unchanged.published, unchanged.notes) == (
        False,
        ("the snapshot names no exported model; the next run that publishes tries to export it",),
    )
    (settings.sources[0].folder / "b.md").unlink()
    report = job.run(settings)
    (graph,) = graphs(settings.data_dir / "models")
    assert (report.embedded, report.removed, report.engine) == (0, 1, "sentence-transformers")
    assert graph_named(settings.data_dir) == graph.graph_id


def test_a_graph_that_stands_in_for_a_damaged_one_is_kept(settings: JobSettings) -> None:
    """A manifest names what is damaged: another of the same vectors stays until a snapshot names it."""
    job.run(settings)
    (old,) = graphs(settings.data_dir / "models")
    files = Path(shutil.copytree(old.folder, settings.data_dir / "models" / ".building-x"))
    other = write_graph(settings.data_dir / "models", files, replace(old.about, made_with={"torch": "newer"}))
    (old.folder / GRAPH).unlink()
    (old.folder / GRAPH).write_bytes(b"damaged")
    purge(settings.data_dir, 1)
    assert other.is_whole
    shutil.rmtree(old.folder)
    purge(settings.data_dir, 1)
    assert other.is_whole


def test_a_graph_goes_with_the_last_snapshot_that_names_it(settings: JobSettings) -> None:
    """A model that was configured once stays while a snapshot of it may be activated, and then goes."""
    models = settings.data_dir / "models"
    settings = settings.model_copy(update={"retention": RetentionSettings(snapshots=2)})
    job.run(settings)
    (old,) = graphs(models)
    # Another graph of the same model, found before the old one since it is newer.
    files = Path(shutil.copytree(old.folder, models / ".building-x"))
    other = write_graph(models, files, replace(old.about, made_with={"torch": "newer"}))
    report = edited(settings, "Lunch is at one.\n")
    assert graph_named(settings.data_dir) == other.graph_id
    assert report.purged == ()
    assert {graph.graph_id for graph in graphs(models)} == {old.graph_id, other.graph_id}
    assert len(edited(settings, "Lunch is at two.\n").purged) == 1
    assert {graph.graph_id for graph in graphs(models)} == {other.graph_id}


@pytest.mark.parametrize("damage", ["removed", "changed"])
def test_an_unchanged_run_mends_the_graph_that_the_service_needs(
    settings: JobSettings, models: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is embedded and nothing is published, but the model is exported again."""
    job.run(settings)
    (exported,) = graphs(models)
    asked: list[str] = []

    def export(settings: EmbedderSettings, folder: Path, fingerprint: str, _: object) -> Graph:
        # What the real one comes to; that is tested where the model is exported.
        asked.append(fingerprint)
        files = building(folder)
        for path in exported.folder.iterdir():
            shutil.copy(path, files)
        return write_graph(folder, files, exported.about)

    monkeypatch.setattr("corpus.embedders.export.export_model", export)
    models = settings.data_dir / "models"
    (graph,) = graphs(models)
    if damage == "removed":
        shutil.rmtree(graph.folder)
    else:
        (graph.folder / GRAPH).unlink()
        (graph.folder / GRAPH).write_bytes(b"damaged")
    report = job.run(settings)
    assert (report.published, report.embedded) == (False, 0)
    mended = next(each for each in graphs(models) if each.is_whole)
    assert mended.fits(settings.embedder)
    assert asked == [mended.about.fingerprint] == [graph.about.fingerprint]


def test_what_int8_loses_is_in_the_report(settings: JobSettings, tiny: EmbedderSettings) -> None:
    """Measured on pieces of the documents; its vectors are another model's, so nothing is kept of the fp32 snapshot."""
    job.run(settings.model_copy(update={"embedder": tiny}))
    report = job.run(settings.model_copy(update={"embedder": tiny.model_copy(update={"precision": "int8"})}))
    assert (report.embedded, report.reused) == (2, 0)
    assert len(report.notes) == 1
    assert report.notes[0].startswith("int8 against fp32: texts 14, mean cosine 0.9")
    named = graph_named(settings.data_dir)
    assert named is not None
    assert read_graph(settings.data_dir / "models", named).about.precision == "int8"


def test_a_manifest_of_before_is_still_read(settings: JobSettings) -> None:
    """One without engine and graph opens, and keeps its id."""
    job.run(settings)
    folder = settings.data_dir / "snapshots" / current_id(settings.data_dir)
    data = json.loads((folder / "manifest.json").read_text())
    del data["embedder"]["engine"], data["embedder"]["graph"], data["embedder"]["settings"]
    data["id"] = f"000001-{digest_of(data)}"
    (folder / "manifest.json").write_text(as_written(data))
    folder.rename(folder.parent / data["id"])
    point_to(settings.data_dir, data["id"])
    opened, damage = open_current(settings.data_dir, SearchSettings())
    assert (damage, opened.manifest.embedder.engine, opened.manifest.embedder.graph) == (None, "sentence-transformers", None)
    opened.close()
