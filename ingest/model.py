"""The embedding model of a run: what it is called, loaded only where it is needed, and exported for the service."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from functools import cached_property

from corpus.embedders.embedder import Embedder, Exporting, exported, open_embedder
from corpus.embedders.graph import read_graph
from corpus.embedders.weights import find_model, fingerprint_of
from corpus.errors import ConfigError, DocumentError, ModelDamaged, ModelNotExported, ModelNotFound
from corpus.published import MODELS
from ingest.chunking import remembering
from ingest.isolation.pool import Readers
from ingest.settings import JobSettings
from ingest.sources.folder import SourceFile

SAMPLE_FILES, SAMPLE_PIECES, SAMPLE_CHARS, SAMPLE_TEXTS = 100, 5, 800, 300
"""Texts on which the loss of a precision is measured: files looked at, pieces of one document, characters, texts at most."""


class Model:
    """The configured model, or one that was given in its place. What its vectors depend on is `fingerprint`.

    `note` hears, in a sentence, what belongs into the report, `loading` that the model is about to be loaded. A sample of
    texts is taken from `files`. `loaded` is the embedder where it was needed.
    """

    def __init__(
        self, settings: JobSettings, given: Embedder | None, note: Callable[[str], None], loading: Callable[[str], None]
    ) -> None:
        """Raises: ModelNotFound."""
        self._settings, self._given, self._note, self._loading = settings, given, note, loading
        self.loaded: Embedder | None = None
        self.files: Sequence[SourceFile] = ()
        if given is not None:
            self.name, self.fingerprint = given.model, given.fingerprint
        else:
            folder = find_model(settings.embedder.model, allow_hub=settings.embedder.allow_hub)
            self.name, self.fingerprint = settings.embedder.model, fingerprint_of(folder, settings.embedder)

    def load(self) -> Embedder:
        """The embedder, loaded when it is first needed: a run that embeds nothing loads no model."""
        if self.loaded is None:
            self._loading(f"loading {self.name}")
            self.loaded = self._given or self._open()
            longest = self.loaded.max_tokens
            if self._settings.chunking.max_tokens > longest:
                raise ConfigError(
                    f"chunking.max_tokens {self._settings.chunking.max_tokens} is longer than the {longest} tokens that "
                    f"{self.name!r} embeds; set it to {longest} or less"
                )
        return self.loaded

    @cached_property
    def count_tokens(self) -> Callable[[str], int]:
        """Counts the tokens of a text, and remembers them."""
        return remembering(self.load().count_tokens)

    def graph(self) -> str | None:
        """The exported model for a snapshot whose parent names none, so that the service need not import torch."""
        if self.loaded is not None or self._given is not None or self._settings.embedder.engine == "sentence-transformers":
            return None
        try:
            graph = exported(self._settings.embedder, self._settings.data_dir / MODELS, self._exporting)
        except ModelNotExported as error:
            self._note(f"the model was not exported: {error.reason}")
            return None
        return None if graph is None else graph.graph_id

    def mend_graph(self, named: str | None) -> None:
        """Export the model again where the graph that a snapshot names is gone or damaged: the service needs it."""
        if self._settings.embedder.engine == "sentence-transformers":
            return
        if named is None:
            self._note("the snapshot names no exported model; the next run that publishes tries to export it")
            return
        try:
            read_graph(self._settings.data_dir / MODELS, named).check()
        except (ModelNotFound, ModelDamaged):
            self.load()

    def _open(self) -> Embedder:
        return open_embedder(self._settings.embedder, models=self._settings.data_dir / MODELS, exporting=self._exporting)

    @property
    def _exporting(self) -> Exporting:
        return Exporting(self.fingerprint, self._sample, self._note)

    def _sample(self) -> list[str]:
        """Pieces of the documents, from files all over the sources."""
        pieces: list[str] = []
        files = self.files[:: max(1, len(self.files) // SAMPLE_FILES)]
        with closing(Readers(self._settings.isolation, files)) as readers:
            for file in files:
                for found in readers.extracts(file):
                    if not isinstance(found, DocumentError):
                        text = found.text[: SAMPLE_CHARS * SAMPLE_PIECES]
                        pieces += [text[begin : begin + SAMPLE_CHARS] for begin in range(0, len(text), SAMPLE_CHARS)]
        return pieces[:SAMPLE_TEXTS]
