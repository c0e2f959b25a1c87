"""The service's composition root: what a request works with, made from one configuration and replaced whole by the next."""

from __future__ import annotations

from app.answering.extractive import ExtractiveBackend
from app.answering.prompt import Prompts
from app.llm.gateway import Gateway
from app.process import Process
from app.settings import ServiceSettings
from app.state.state import State
from corpus.embedders.embedder import Embedder
from corpus.errors import ConfigError
from corpus.overlay import NAME, Overlay
from corpus.rerankers.reranker import check_reranker


class Services:
    """Everything a request needs, under one configuration. A request keeps to the one that it began with."""

    def __init__(self, settings: ServiceSettings, process: Process, previous: Services | None = None) -> None:
        """`previous` is what the same process worked with until now. Raises: ConfigError; then nothing has changed."""
        self.settings, self.process = settings, process
        self.state, self.snapshots, self.overlay = process.state, process.snapshots, process.overlay
        self.metrics, self.given, self.started_at = process.metrics, process.given, process.started_at
        self.compute, self.embed = process.compute, process.embed
        if settings.search.reranker:
            check_reranker(settings.search.reranker, allow_hub=settings.search.reranker_allow_hub)
        self.prompts = Prompts.load(settings.prompt)
        self.gateway: Gateway = Gateway(
            settings.llm,
            settings.labels,
            ExtractiveBackend(self.embed, settings.labels.order[-1]),
            process.spending,
            process.metrics,
            previous.gateway if previous is not None else None,
        )
        # For the models of the snapshots to come.
        process.embedders.configured = settings.embedder
        process.overlay.use(settings.labels)

    async def start(self) -> None:
        """Open the snapshot, and begin to load the models that the service runs itself."""
        await self.process.start()
        await self.gateway.start()

    async def close(self) -> None:
        """Close everything, the process's things too."""
        await self.gateway.close()
        await self.process.close()


def build_services(settings: ServiceSettings, embedder: Embedder | None = None) -> Services:
    """Everything from the settings. Questions are embedded by the model of the snapshot that is served.

    `embedder` is one that is loaded already, for the snapshots whose vectors are its own.
    Raises: ConfigError, StateError, OverlayError.
    """
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"data_dir {str(settings.data_dir)!r} cannot be made: {error.strerror}; name another") from error
    overlay = Overlay(settings.data_dir / NAME, settings.labels)
    return Services(settings, Process(settings, embedder, State(settings.data_dir / "service.db"), overlay))
