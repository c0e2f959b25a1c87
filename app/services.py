"""The service's composition root: what one process holds, made once from the settings, replaced whole in tests."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import structlog

from app.answering.extractive import ExtractiveBackend
from app.answering.given import GivenAnswers
from app.answering.prompt import Prompts
from app.llm.gateway import Gateway
from app.metrics import Metrics
from app.settings import ServiceSettings
from app.snapshots import SnapshotHolder
from app.state import State
from corpus.egress import Egress
from corpus.embedders.embedder import Embedder, open_embedder
from corpus.errors import ConfigError
from corpus.types import Vectors

T = TypeVar("T")

COMPUTE_THREADS = 4
SNAPSHOT_POLL_S = 1.0

_log = structlog.get_logger(__name__)


class Services:
    """Everything a request needs."""

    def __init__(self, settings: ServiceSettings, embedder: Embedder, state: State, egress: Egress) -> None:
        self.settings, self.embedder, self.state = settings, embedder, state
        self.started_at = time.time()
        self.metrics = Metrics()
        self.prompts = Prompts.load(settings.prompt)
        self.snapshots = SnapshotHolder(settings.data_dir, settings.search, embedder.fingerprint, embedder.model)
        self.given = GivenAnswers()
        self._egress = egress
        self.gateway = Gateway(settings.llm, settings.labels, ExtractiveBackend(self.embed, settings.labels.order[-1]), egress)
        self._threads = ThreadPoolExecutor(COMPUTE_THREADS, thread_name_prefix="compute")
        # More than one forward pass at a time only slows both; waiting questions queue here, not on a lock.
        self._embedding = ThreadPoolExecutor(1, thread_name_prefix="embed")
        self._watcher: asyncio.Task[None] | None = None

    async def compute(self, function: Callable[..., T], *values: object) -> T:
        """Run plain synchronous work off the event loop: the one place where that happens."""
        # With the context of the request, so that what is logged in the thread has the request's id.
        context = contextvars.copy_context()
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(context.run, function, *values))

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Vectors of questions or sentences. Shapes: (len(texts), dimension)."""
        return await asyncio.get_running_loop().run_in_executor(self._embedding, self.embedder.embed_queries, texts)

    async def start(self) -> None:
        """Open the snapshot and begin to watch for the next one."""
        await self.embed(["ready"])
        await self.compute(self.snapshots.refresh)
        self._watcher = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(SNAPSHOT_POLL_S)
            try:
                await self.compute(self.snapshots.refresh)
            except Exception as error:  # noqa: BLE001 - the watcher's boundary: it must outlive whatever a look at the disk raises
                _log.error("looking for a new snapshot failed", action="watch_failed", error=type(error).__name__)

    async def close(self) -> None:
        """Stop watching and close everything."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
        await self.gateway.close()
        await self._egress.close()
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._embedding.shutdown(wait=True, cancel_futures=True)
        self.snapshots.close()
        self.state.close()


def build_services(settings: ServiceSettings) -> Services:
    """Everything from the settings.

    Raises: ConfigError, EmbedderError, StateError.
    """
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"data_dir {str(settings.data_dir)!r} cannot be made: {error.strerror}; name another") from error
    egress = Egress(provider.base_url for provider in settings.llm.providers.values())
    embedder = open_embedder(settings.embedder, threads=settings.embedder.query_threads)
    return Services(settings, embedder, State(settings.data_dir / "service.db"), egress)
