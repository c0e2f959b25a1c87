"""What a reranker is, and the one place that chooses an engine."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from corpus.embedders.weights import from_hub, local_folder
from corpus.errors import ConfigError, ModelNotFound

SETTING = "search.reranker"

Scores = NDArray[np.float64]
"""Shapes: (n,) float64, higher is better, without a unit."""


class Reranker(Protocol):
    """How well each text answers a question, read together with it. Safe for use by several threads; keeps no state.

    A text is scored the same whatever else is scored beside it, but for the last digits.
    """

    name: str

    def score(self, question: str, texts: Sequence[str]) -> Scores:
        """Shapes: (len(texts),) finite float64, in the order of `texts`. What is too long for the model is cut at its end.

        Raises: RerankerFailed.
        """
        ...


def check_reranker(model: str, *, allow_hub: bool) -> None:
    """Whether a model is where its name says, without loading or downloading it. Raises: ConfigError."""
    try:
        folder = local_folder(model, SETTING)
    except ModelNotFound as error:
        raise ConfigError(str(error)) from error
    if folder is None and not allow_hub:
        raise ConfigError(
            f"{SETTING} {model!r} is not a folder; name one with a cross-encoder in it, leave it empty to rerank nothing, "
            "or set search.reranker_allow_hub: true to download it"
        )


def open_reranker(model: str, *, allow_hub: bool) -> Reranker:
    """Load a sentence-transformers CrossEncoder: a local folder, or the hub's where that is allowed.

    Raises: ConfigError, ModelNotFound, ModelDamaged.
    """
    check_reranker(model, allow_hub=allow_hub)
    if find_spec("sentence_transformers") is None:
        raise ModelNotFound(f"{SETTING} {model!r} needs sentence-transformers, not installed here: `pip install '.[ingest]'`")
    folder = local_folder(model, SETTING) or from_hub(model, SETTING)
    from corpus.rerankers.cross_encoder import CrossEncoderReranker

    return CrossEncoderReranker(model, folder)
