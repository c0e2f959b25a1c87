"""The service's composition root: what a request works with, made from one configuration and replaced whole by the next."""

from __future__ import annotations

from app.answering.extractive import ExtractiveBackend
from app.answering.prompt import Prompts
from app.llm.gateway import Gateway
from app.process import Process
from app.settings import ServiceSettings
from app.state.state import State
from corpus.embedders.embedder import Embedder, open_embedder
from corpus.errors import ConfigError
from corpus.published import MODELS, graph_of_current
from corpus.rerankers.reranker import check_reranker


class Services:
    """Everything a request needs, under one configuration. A request keeps to the one that it began with."""

    def __init__(self, settings: ServiceSettings, process: Process, previous: Services | None = None) -> None:
        """`previous` is what the same process worked with until now. Raises: ConfigError; then nothing has changed."""
        self.settings, self.process = settings, process
        self.embedder, self.state, self.snapshots = process.embedder, process.state, process.snapshots
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

    async def start(self) -> None:
        """Open the snapshot, and begin to load the models that the service runs itself."""
        await self.process.start()
        await self.gateway.start()

    async def close(self) -> None:
        """Close everything, the process's things too."""
        await self.gateway.close()
        await self.process.close()


def compose(settings: ServiceSettings, embedder: Embedder) -> Services:
    """Everything but the embedder from the settings. Raises: ConfigError, StateError."""
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"data_dir {str(settings.data_dir)!r} cannot be made: {error.strerror}; name another") from error
    return Services(settings, Process(settings, embedder, State(settings.data_dir / "service.db")))


def build_services(settings: ServiceSettings) -> Services:
    """Everything from the settings. Questions are embedded by the graph that the snapshot names, where there is one.

    Raises: ConfigError, EmbedderError, StateError.
    """
    models, graph = settings.data_dir / MODELS, graph_of_current(settings.data_dir)
    threads = settings.embedder.query_threads
    return compose(settings, open_embedder(settings.embedder, models=models, graph=graph, threads=threads))
