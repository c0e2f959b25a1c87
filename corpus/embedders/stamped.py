"""The embedder of a snapshot's vectors, opened from what the snapshot says of it, whatever the configuration names by now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from corpus.embedders.embedder import Embedder, open_embedder, require_reference
from corpus.embedders.graph import Graph, graphs, read_graph
from corpus.embedders.weights import find_model, fingerprint_of
from corpus.errors import ConfigError, EmbedderMismatch, ModelDamaged, ModelNotFound
from corpus.manifest import EmbedderStamp
from corpus.settings import EmbedderSettings

STAMPED = ("max_tokens", "query_prompt", "document_prompt", "precision")
"""What, besides the model itself, its vectors depend on."""


def values_of(settings: EmbedderSettings) -> dict[str, Any]:
    """What a snapshot keeps of the settings that its vectors were made under."""
    return {name: getattr(settings, name) for name in STAMPED}


def names_another(stamp: EmbedderStamp, settings: EmbedderSettings) -> bool:
    """Whether the configuration names another model than a snapshot's, or the same one used in another way."""
    return stamp.model != settings.model or (stamp.settings is not None and dict(stamp.settings) != values_of(settings))


def open_stamped(stamp: EmbedderStamp, configured: EmbedderSettings, *, models: Path, threads: int | None = None) -> Embedder:
    """The embedder of a snapshot's vectors: its exported graph in the folder `models`, or else the model's weights.

    `configured` says on what it runs. A snapshot of an earlier version does not say how its model was used: the configuration
    does. Raises: ModelNotFound, ModelDamaged; EmbedderMismatch where what is there gives other vectors.
    """
    settings = _settings(stamp, configured)
    embedder = None if settings.engine == "sentence-transformers" else _exported(stamp, settings, models, threads)
    if embedder is None:
        try:
            embedder = open_embedder(settings, threads=threads)
        except ConfigError as error:
            raise EmbedderMismatch(f"the model of the snapshot's vectors, {stamp.model!r}, cannot be used: {error}") from error
    require(stamp, embedder)
    return embedder


def check_stamped(stamp: EmbedderStamp, configured: EmbedderSettings, *, models: Path) -> None:
    """Look whether what `open_stamped` would open is there and whole, without loading it.

    Raises: ModelNotFound, ModelDamaged; EmbedderMismatch where the model that is there gives other vectors.
    """
    settings = _settings(stamp, configured)
    if settings.engine != "sentence-transformers":
        if stamp.graph is not None:
            try:
                return read_graph(models, stamp.graph).check()
            except (ModelNotFound, ModelDamaged):
                if next(_same(stamp, models), None) is None:
                    raise
                return
        if next(_same(stamp, models), None) is not None:
            return
    require_reference(settings)
    found = fingerprint_of(find_model(settings.model, allow_hub=settings.allow_hub), settings)
    if found != stamp.fingerprint:
        raise EmbedderMismatch(
            f"its vectors are those of {stamp.model!r} with the fingerprint {stamp.fingerprint[:12]}…, the model that is there "
            f"has {found[:12]}…; put the snapshot's model back"
        )


def _same(stamp: EmbedderStamp, models: Path) -> Iterator[Graph]:
    """The whole graphs that give the snapshot's vectors."""
    return (graph for graph in graphs(models) if graph.about.fingerprint == stamp.fingerprint and graph.is_whole)


def _exported(stamp: EmbedderStamp, settings: EmbedderSettings, models: Path, threads: int | None) -> Embedder | None:
    """The graph that the snapshot names, or one that gives the same vectors; None where it names none and there is none."""
    from corpus.embedders.onnx import OnnxEmbedder

    same = _same(stamp, models)
    if stamp.graph is None:
        graph = next(same, None)
        return None if graph is None else OnnxEmbedder(graph, settings, threads=threads)
    try:
        return OnnxEmbedder(read_graph(models, stamp.graph), settings, threads=threads)
    except (ModelNotFound, ModelDamaged):
        # A run that found it gone or damaged has exported it again, with the libraries of that day.
        if (graph := next(same, None)) is None:
            raise
        return OnnxEmbedder(graph, settings, threads=threads)


def require(stamp: EmbedderStamp, embedder: Embedder) -> None:
    """Raises: EmbedderMismatch where an embedder's vectors are not the snapshot's: vectors of two models never mix."""
    if (stamp.fingerprint, stamp.dimension) == (embedder.fingerprint, embedder.dimension):
        return
    raise EmbedderMismatch(
        f"the snapshot holds {stamp.dimension}-dimensional vectors of {stamp.model!r} (fingerprint {stamp.fingerprint[:12]}…), "
        f"the model that is there is {embedder.model!r} (fingerprint {embedder.fingerprint[:12]}…, {embedder.dimension} "
        "dimensions); put the snapshot's model back, or run `archivist ingest`"
    )


def _settings(stamp: EmbedderStamp, configured: EmbedderSettings) -> EmbedderSettings:
    """The snapshot's own model and values, run as the configuration says where the two go together."""
    values: Mapping[str, Any] = values_of(configured) if stamp.settings is None else stamp.settings
    kept = configured.model_dump(include={"allow_hub", "batch_size", "query_threads"})
    if values["precision"] == "fp32":
        kept |= configured.model_dump(include={"engine", "device"})
    return EmbedderSettings(model=stamp.model, **kept, **values)
