"""What an embedder is, and the one place that chooses an engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from corpus.settings import EmbedderSettings
from corpus.types import Vectors


class Embedder(Protocol):
    """Text in, unit vectors out. Questions and documents are embedded by different calls. Safe for use by several threads.

    `fingerprint` changes when a vector could: weights, tokenizer, pooling, maximum length, prompts, precision class. It does
    not name the engine. `max_tokens` counts `special_tokens`; `count_tokens` does not, and never truncates.
    """

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


def open_embedder(settings: EmbedderSettings, *, threads: int | None = None) -> Embedder:
    """Load the configured model, its weights verified. `threads` None leaves the engine its own choice.

    Raises: ModelNotFound, ModelDamaged, ConfigError where max_tokens is longer than the model allows.
    """
    from corpus.embedders.sentence_transformer import SentenceTransformerEmbedder

    return SentenceTransformerEmbedder(settings, threads=threads)
