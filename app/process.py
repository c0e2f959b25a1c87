"""What one process holds from its start to its end, whatever becomes of the configuration."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

import structlog

from app.answering.given import GivenAnswers
from app.answering.rerank import Rerankers
from app.embedders import Embedders
from app.llm.budgets import Spending
from app.metrics import Metrics
from app.settings import ServiceSettings
from app.snapshots import SnapshotHolder
from app.state.state import State
from corpus.embedders.embedder import Embedder
from corpus.overlay import Overlay
from corpus.published import MODELS
from corpus.rerankers.reranker import open_reranker
from corpus.types import Vectors

T = TypeVar("T")

COMPUTE_THREADS = 4
SNAPSHOT_POLL_S = 1.0

_log = structlog.get_logger(__name__)


class Process:
    """The databases, the snapshot in service with its model, the threads, and what was counted."""

    def __init__(self, settings: ServiceSettings, embedder: Embedder | None, state: State, overlay: Overlay) -> None:
        """`embedder` is one that is loaded already, for the snapshots whose vectors are its own."""
        self.state, self.overlay = state, overlay
        self.started_at = time.time()
        self.metrics = Metrics()
        self.embedders = Embedders(settings.data_dir / MODELS, settings.embedder, embedder)
        self.snapshots = SnapshotHolder(settings.data_dir, settings.search, self.embedders, overlay)
        self.given = GivenAnswers()
        self.spending = Spending(state.spending_of(datetime.now(UTC).date()))
        self._threads = ThreadPoolExecutor(COMPUTE_THREADS, thread_name_prefix="compute")
        # More than one forward pass at a time only slows both; waiting questions queue here, not on a lock.
        self._embedding = ThreadPoolExecutor(1, thread_name_prefix="embed")
        self._watcher: asyncio.Task[None] | None = None
        self.rerankers = Rerankers(lambda model, hub: self.compute(lambda: open_reranker(model, allow_hub=hub)))

    async def compute(self, function: Callable[..., T], *values: object) -> T:
        """Run plain synchronous work off the event loop: the one place where that happens."""
        # With the context of the request, so that what is logged in the thread has the request's id.
        context = contextvars.copy_context()
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(context.run, function, *values))

    async def embed(self, embedder: Embedder, texts: Sequence[str]) -> Vectors:
        """Vectors of questions or sentences, by the embedder of a lease. Shapes: (len(texts), dimension)."""
        return await self.run_model(embedder.embed_queries, texts)

    async def run_model(self, function: Callable[..., T], *values: object) -> T:
        """Run a forward pass off the event loop, when those that came before are done."""
        return await asyncio.get_running_loop().run_in_executor(self._embedding, partial(function, *values))

    async def start(self) -> None:
        """Open the snapshot and its model, and begin to watch for the next one."""
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
        await self.rerankers.close()
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._embedding.shutdown(wait=True, cancel_futures=True)
        self.snapshots.close()
        self.overlay.close()
        self.state.close()
