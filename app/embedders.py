"""The models that embed questions: one for each kind of vectors that is being served, shared, and let go after its last use."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

import structlog

from corpus.embedders.embedder import Embedder
from corpus.embedders.stamped import open_stamped, require
from corpus.manifest import EmbedderStamp
from corpus.settings import EmbedderSettings

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Loaded:
    embedder: Embedder
    users: int = 0


class Embedders:
    """Opens the model of a snapshot, unless it is open. Safe for use by several threads; one at a time takes."""

    def __init__(self, models: Path, configured: EmbedderSettings, at_hand: Embedder | None = None) -> None:
        """`at_hand` is one that is loaded already: it embeds for the snapshots whose vectors are its own, and stays."""
        self.configured = configured
        self._models, self._at_hand = models, at_hand
        self._lock = threading.Lock()
        self._loaded: dict[tuple[str, str | None], _Loaded] = {}

    def take(self, stamp: EmbedderStamp) -> Embedder:
        """The embedder of a snapshot's vectors, which has embedded a first question; to be given back.

        Raises: ModelNotFound, ModelDamaged, EmbedderMismatch.
        """
        if self._at_hand is not None and self._at_hand.fingerprint == stamp.fingerprint:
            require(stamp, self._at_hand)
            return self._at_hand
        with self._lock:
            loaded = self._loaded.get(_key(stamp))
            if loaded is not None:
                loaded.users += 1
                return loaded.embedder
        embedder = open_stamped(stamp, self.configured, models=self._models, threads=self.configured.query_threads)
        embedder.embed_queries(["ready"])
        _log.info("embedder opened", action="embedder_opened", model=stamp.model, engine=embedder.engine)
        with self._lock:
            self._loaded[_key(stamp)] = _Loaded(embedder, 1)
        return embedder

    def give_back(self, stamp: EmbedderStamp) -> None:
        """The snapshot that it was taken for is closed; with the last one the model goes."""
        with self._lock:
            loaded = self._loaded.get(_key(stamp))
            if loaded is None:  # the one at hand
                return
            loaded.users -= 1
            if loaded.users == 0:
                del self._loaded[_key(stamp)]
                _log.info("embedder let go", action="embedder_closed", model=stamp.model)


def _key(stamp: EmbedderStamp) -> tuple[str, str | None]:
    return stamp.fingerprint, stamp.graph
