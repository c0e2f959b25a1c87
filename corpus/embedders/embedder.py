"""What an embedder is, and the one place that chooses an engine."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from corpus.embedders.graph import Graph, graphs, read_graph
from corpus.errors import ModelNotExported, ModelNotFound
from corpus.settings import EmbedderSettings
from corpus.types import Vectors

if TYPE_CHECKING:
    from corpus.embedders.sentence_transformer import SentenceTransformerEmbedder

GRAPHICS = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")
"""What a driver of a graphics card puts there: NVIDIA's, the one under Windows, AMD's."""


class Embedder(Protocol):
    """Text in, unit vectors out. Questions and documents are embedded by different calls. Safe for use by several threads.

    `fingerprint` changes when a vector could: weights, tokenizer, pooling, maximum length, prompts, precision class. It does
    not name the engine: that is `engine`, and `graph` the exported model that gives these vectors, if there is one.
    `max_tokens` counts `special_tokens`; `count_tokens` does not, and never truncates.
    """

    engine: str
    graph: str | None
    model: str
    fingerprint: str
    dimension: int
    max_tokens: int
    special_tokens: int

    def count_tokens(self, text: str) -> int: ...

    def embed_documents(self, texts: Sequence[str]) -> Vectors:
        """Shapes: (len(texts), dimension) float32, rows unit length, in the order of `texts`."""
        ...

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """Shapes: (len(texts), dimension) float32, rows unit length, in the order of `texts`."""
        ...


@dataclass(frozen=True, slots=True)
class Exporting:
    """Leave to export a model that has no graph yet, which takes torch and some seconds.

    `fingerprint` is the configured model's. `samples` gives texts of the kind that will be embedded; `note` hears, in a
    sentence, what a person should know: why a model cannot be exported, and what int8 loses.
    """

    fingerprint: str
    samples: Callable[[], Sequence[str]] = tuple
    note: Callable[[str], None] = lambda sentence: None


def open_embedder(
    settings: EmbedderSettings,
    *,
    models: Path | None = None,
    graph: str | None = None,
    exporting: Exporting | None = None,
    threads: int | None = None,
) -> Embedder:
    """Load the configured model, its weights verified: its exported graph in the folder `models`, or else its weights.

    `graph` is the one that a snapshot names. `threads` None leaves the engine its own choice.

    Raises: ModelNotFound, ModelDamaged, ModelNotExported, ConfigError where max_tokens is longer than the model allows.
    """
    if settings.engine == "sentence-transformers" or models is None:
        return _reference(settings, threads)
    found = exported(settings, models, exporting) if exporting else _fitting(settings, models, graph)
    if found is None or (exporting is not None and _runs_elsewhere(settings)):
        reference = _reference(settings, threads)
        reference.graph = found.graph_id if found is not None else None
        return reference

    from corpus.embedders.onnx import OnnxEmbedder

    return OnnxEmbedder(found, settings, threads=threads)


def _fitting(settings: EmbedderSettings, models: Path, named: str | None) -> Graph | None:
    """The graph that a snapshot names, if it is of this configuration, or else any that is."""
    if named is not None and (graph := read_graph(models, named)).fits(settings):
        return graph
    return next((graph for graph in graphs(models) if graph.fits(settings)), None)


def exported(settings: EmbedderSettings, models: Path, exporting: Exporting) -> Graph | None:
    """The configured model's graph, made where there is none that is whole; None where auto may do without one.

    Raises: ModelNotExported where there may not.
    """
    for graph in graphs(models):
        if graph.about.fingerprint == exporting.fingerprint and graph.is_whole:
            return graph
    try:
        _require_libraries(settings)
        from corpus.embedders.export import export_model

        graph = export_model(settings, models, exporting.fingerprint, exporting.samples)
    except ModelNotExported as error:
        if settings.engine == "onnx" or settings.precision == "int8":
            raise
        exporting.note(f"embedded with sentence-transformers, which is slower: {error.reason}")
        return None
    if (loss := graph.about.loss) is not None:
        measured = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in loss.items())
        exporting.note(f"int8 against fp32: {measured}; embedder.precision: fp32 loses nothing")
    return graph


def require_reference(settings: EmbedderSettings) -> None:
    """Raises: ModelNotFound where a model cannot be run by its weights, wherever those are."""
    if settings.precision == "int8":
        raise ModelNotFound(
            f"embedder.precision int8 of {settings.model!r} needs its exported graph; run `archivist ingest`, which exports it"
        )
    if find_spec("sentence_transformers") is None:
        raise ModelNotFound(
            f"embedder.model {settings.model!r} is not exported here, and sentence-transformers is not installed; "
            "run `archivist ingest` where it is (`pip install '.[ingest]'`) and serve that data folder"
        )


def _reference(settings: EmbedderSettings, threads: int | None) -> SentenceTransformerEmbedder:
    require_reference(settings)
    from corpus.embedders.sentence_transformer import SentenceTransformerEmbedder

    return SentenceTransformerEmbedder(settings, threads=threads)


def _require_libraries(settings: EmbedderSettings) -> None:
    install = "is not installed (`pip install '.[ingest]'`)"
    if find_spec("sentence_transformers") is None:
        raise ModelNotExported(settings.model, f"sentence_transformers {install}", advice=None)
    if find_spec("onnx") is None:
        raise ModelNotExported(settings.model, f"onnx {install}")


def _runs_elsewhere(settings: EmbedderSettings) -> bool:
    """Whether the model is to be run on a graphics card. torch, which knows, is asked only where there may be one."""
    if settings.device != "auto":
        return settings.device != "cpu"
    if settings.engine == "onnx" or settings.precision == "int8" or find_spec("torch") is None:
        return False
    if sys.platform == "linux" and not any(Path(name).exists() for name in GRAPHICS):
        return False
    from corpus.embedders.sentence_transformer import has_accelerator

    return has_accelerator()
