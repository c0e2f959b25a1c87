"""Runs any sentence-transformers CrossEncoder. Imports sentence_transformers and torch (six seconds: import it late)."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from sentence_transformers import CrossEncoder

from corpus.errors import ModelDamaged, RerankerFailed
from corpus.rerankers.reranker import SETTING, Scores

SCORING = ("ForSequenceClassification", "ForCausalLM")
"""What a model is built as that scores pairs. Any other would get a head of random numbers, and order by chance."""

BATCH = 16


class CrossEncoderReranker:
    """The reference engine."""

    def __init__(self, name: str, folder: Path) -> None:
        """Raises: ModelDamaged."""
        self.name = name
        built_as = _architectures(name, folder)
        if not any(architecture.endswith(SCORING) for architecture in built_as):
            raise ModelDamaged(
                f"{SETTING} {name!r} in {folder} is no cross-encoder, its architecture is "
                f"{', '.join(built_as) or 'not named'}; name a model that scores pairs of texts"
            )
        try:
            self._model = CrossEncoder(
                str(folder),
                local_files_only=True,
                trust_remote_code=False,
                model_kwargs={"use_safetensors": True, "torch_dtype": torch.float32},
            )
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            raise ModelDamaged(f"{SETTING} {name!r} in {folder} cannot be loaded: {error}") from error
        if self._model.num_labels != 1:
            raise ModelDamaged(
                f"{SETTING} {name!r} in {folder} gives {self._model.num_labels} scores for a pair, not one; "
                "name a model that was trained to rank"
            )
        # The tokenizer is not safe for several threads at once, and more than one forward pass at a time only slows both.
        self._lock = threading.Lock()

    def score(self, question: str, texts: Sequence[str]) -> Scores:
        """Shapes: (len(texts),) finite float64, in the order of `texts`. Raises: RerankerFailed."""
        if not texts:
            return np.zeros(0)
        try:
            with self._lock:
                # Without the model's own last function: a sigmoid makes equal what is far apart.
                found = self._model.predict(
                    [(question, text) for text in texts],
                    batch_size=BATCH,
                    show_progress_bar=False,
                    activation_fn=torch.nn.Identity(),
                    convert_to_numpy=True,
                )
        except (RuntimeError, ValueError, IndexError, MemoryError) as error:
            raise RerankerFailed(
                f"{SETTING} {self.name!r} failed over {len(texts)} passages ({type(error).__name__})"
            ) from error
        scores = np.asarray(found, dtype=np.float64)
        if not np.isfinite(scores).all():
            raise RerankerFailed(f"{SETTING} {self.name!r} gave a score that is no number; its weights may be damaged")
        return scores


def _architectures(name: str, folder: Path) -> list[str]:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return [str(architecture) for architecture in config.get("architectures") or ()]
    except (OSError, ValueError, AttributeError) as error:
        raise ModelDamaged(f"{SETTING} {name!r} in {folder}: config.json cannot be read ({type(error).__name__})") from error
