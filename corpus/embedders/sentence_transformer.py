"""Runs any sentence-transformers model. Imports sentence_transformers and torch (six seconds: import it late)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from sentence_transformers import SentenceTransformer
from transformers.utils.logging import disable_progress_bar

from corpus.embedders.weights import find_model, fingerprint_of
from corpus.errors import ConfigError, ModelDamaged
from corpus.settings import EmbedderSettings
from corpus.types import Vectors


class SentenceTransformerEmbedder:
    """The reference engine. `graph` names the exported model that gives the same vectors without torch, if there is one."""

    engine = "sentence-transformers"
    graph: str | None = None

    def __init__(self, settings: EmbedderSettings, *, threads: int | None = None) -> None:
        folder = find_model(settings.model, allow_hub=settings.allow_hub)
        if threads is not None:
            torch.set_num_threads(threads)
        _require_device(settings.device)
        model = load_model(folder, settings, device=settings.device)
        own_maximum = int(model.max_seq_length or 512)
        if settings.max_tokens is not None and settings.max_tokens > own_maximum:
            raise ConfigError(
                f"embedder.max_tokens {settings.max_tokens} is longer than the maximum of {settings.model!r}, {own_maximum}"
            )
        self.model = settings.model
        self.max_tokens = settings.max_tokens or own_maximum
        model.max_seq_length = self.max_tokens
        self.dimension = int(model.get_embedding_dimension() or 0)
        self._model = model
        self._settings = settings
        # The tokenizer is not safe for several threads at once, and more than one forward pass at a time only slows both.
        self._lock = threading.Lock()
        self._counter = _counting_tokenizer(folder, model)
        self.special_tokens = int(model.tokenizer.num_special_tokens_to_add())
        self.fingerprint = fingerprint_of(folder, settings)

    def count_tokens(self, text: str) -> int:
        """Tokens of a text without special tokens."""
        return self._counter(text)

    def embed_documents(self, texts: Sequence[str]) -> Vectors:
        """Shapes: (len(texts), dimension) float32, rows unit length."""
        return self._embed([self._settings.document_prompt + text for text in texts])

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """Shapes: (len(texts), dimension) float32, rows unit length."""
        return self._embed([self._settings.query_prompt + text for text in texts])

    def _embed(self, texts: list[str]) -> Vectors:
        if not texts:
            return np.zeros((0, self.dimension), dtype=np.float32)
        with self._lock:
            vectors = self._model.encode(
                texts,
                batch_size=self._settings.batch_size,
                normalize_embeddings=True,
                convert_to_numpy=True,
                show_progress_bar=False,
            )
        return np.ascontiguousarray(vectors, dtype=np.float32)


def load_model(folder: Path, settings: EmbedderSettings, *, device: str, **values: object) -> SentenceTransformer:
    """The library's model at fp32; `values` go to its first module. Raises: ModelDamaged."""
    disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        return SentenceTransformer(
            str(folder),
            device=None if device == "auto" else device,
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True, "torch_dtype": torch.float32, **values},
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelDamaged(f"embedder.model {settings.model!r} in {folder} cannot be loaded: {error}") from error


def _require_device(device: str) -> None:
    """Raises: ConfigError where torch cannot use the device here."""
    if device in ("auto", "cpu"):
        return
    try:
        torch.empty(1, device=device)
    # AssertionError: a torch that was built without it.
    except (AssertionError, RuntimeError, NotImplementedError) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise ConfigError(f"embedder.device {device!r} cannot be used here ({reason}); set it to auto or cpu") from error


def has_accelerator() -> bool:
    """Whether the library, left the choice, runs a model elsewhere than on the processor."""
    return torch.cuda.is_available() or torch.backends.mps.is_available()


def _counting_tokenizer(folder: Path, model: SentenceTransformer) -> Callable[[str], int]:
    """A counter that neither truncates nor pads: the model's own tokenizer does both."""
    path = folder / "tokenizer.json"
    if path.is_file():
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(path))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)
    slow = model.tokenizer
    return lambda text: len(slow.encode(text, add_special_tokens=False, truncation=False))
