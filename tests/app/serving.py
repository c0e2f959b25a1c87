"""The whole service over a small corpus of real files, for tests of the HTTP side."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from app.llm.settings import LlmSettings
from app.main import create_app, server_config
from app.reload import Origin
from app.services import Services, build_services
from app.settings import AnswerSettings, HistorySettings, PromptSettings, ServerSettings, ServiceSettings
from corpus.embedders.embedder import Embedder, open_embedder
from corpus.settings import EmbedderSettings, LabelSettings, RetentionSettings, SearchSettings
from ingest import job
from ingest.isolation.settings import IsolationSettings
from ingest.settings import ChunkingSettings, JobSettings, RuleSettings, SourceSettings
from tests.making import link_models
from tests.servers import wait_until

PROMPTS = Path(__file__).parents[2] / "config" / "prompts"

FILES = {
    "policies/travel.md": (
        "# Travel policy\n\n## Booking\n\nTrips are booked through the travel desk at least seven days ahead.\n\n"
        "## Expenses\n\nExpense reports are due within 30 days of the last day of travel. Use form TR-204 for the report.\n"
    ),
    "policies/remote.md": (
        "# Remote work\n\nEmployees may work from home three days a week. Contractors may work from home one day a week.\n"
    ),
    "it/errors.txt": "Error E-4410 means that the badge reader lost its network. Restart the reader and wait two minutes.\n",
    "board/salaries.md": "# Salary bands\n\nThe canary salary band of directors begins at 190000 crowns a year.\n",
}


def publish(folder: Path, data_dir: Path, models: Path | None = None) -> None:
    """Ingest a folder as the nightly job does; what lies under board/ is for the group `board` alone.

    A new data folder is given exported `models`, so that the job need not export one.
    """
    if models is not None:
        link_models(models, data_dir)
    rules = (RuleSettings(match="board/**", groups=("board",), label="confidential"),)
    job.run(
        JobSettings(
            data_dir=data_dir,
            sources=(SourceSettings(path=folder, name="handbook", rules=rules),),
            labels=LabelSettings(),
            embedder=EmbedderSettings(),
            chunking=ChunkingSettings(),
            retention=RetentionSettings(),
            isolation=IsolationSettings(workers=1),
        )
    )


class ServiceClient(httpx.AsyncClient):
    """A client of the application in this process, with what the service holds."""

    def __init__(self, services: Services, transport: httpx.ASGITransport) -> None:
        super().__init__(transport=transport, base_url="http://testserver", timeout=60)
        self.services = services


def settings_of(
    data_dir: Path, *, llm: LlmSettings | None = None, answer: AnswerSettings | None = None, **server: Any
) -> ServiceSettings:
    """The service's settings with the values that a test needs."""
    return ServiceSettings(
        data_dir=data_dir,
        server=ServerSettings(**{"allowed_hosts": ("testserver", "127.0.0.1"), **server}),
        labels=LabelSettings(),
        embedder=EmbedderSettings(),
        search=SearchSettings(),
        history=HistorySettings(),
        prompt=PromptSettings(folder=PROMPTS),
        answer=answer or AnswerSettings(),
        llm=llm or LlmSettings(),
    )


@cache
def _embedder() -> Embedder:
    # Loading the model takes longer than most tests; it keeps no state.
    return open_embedder(EmbedderSettings(), threads=1)


def composed(settings: ServiceSettings) -> Services:
    """The services as `build_services` makes them, with the one model of this process."""
    return build_services(settings, _embedder())


def job_of(site: Path, settings: ServiceSettings) -> Origin:
    """Where the service's configuration comes from, with the real job over the documents of a published folder."""
    rules = [{"match": "board/**", "groups": ["board"], "label": "confidential"}]
    sources = [{"path": str(site / "documents"), "name": "handbook", "rules": rules}]
    file = site / "archivist.yaml"
    file.write_text(json.dumps({"data_dir": str(site / "data"), "sources": sources}))
    return Origin(file, lambda: settings, (sys.executable, "-m", "archivist", "ingest", "--config", str(file)))


@asynccontextmanager
async def running(
    settings: ServiceSettings, origin: Origin | None = None, address: str = "127.0.0.1"
) -> AsyncIterator[ServiceClient]:
    """A client of the whole application, inside its lifespan, that calls from `address`."""
    app = create_app(settings, composed(settings), origin)
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False, client=(address, 4711))
    async with (
        app.router.lifespan_context(app),
        ServiceClient(app.state.current.services, transport) as client,
    ):
        yield client


@contextmanager
def listening(settings: ServiceSettings, origin: Origin | None = None) -> Iterator[str]:
    """The service on a free loopback port, in a thread of this process; the address."""
    app = create_app(settings, composed(settings), origin)
    with socket.socket(proto=socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        server = uvicorn.Server(server_config(app, settings.server))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="service")
        thread.start()
        try:
            assert wait_until(lambda: server.started, within_s=60), "the service did not start"
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


async def snapshot_after(client: ServiceClient, old: str) -> str:
    """The id of the snapshot served once the service has noticed that `old` was replaced."""
    for _ in range(100):
        with client.services.snapshots.lease() as leased:
            if leased.snapshot.id != old:
                return leased.snapshot.id
        await asyncio.sleep(0.1)
    raise AssertionError(f"snapshot {old!r} is still served after ten seconds")


def snapshot_of(client: ServiceClient) -> str:
    """The id of the snapshot being served."""
    with client.services.snapshots.lease() as leased:
        return leased.snapshot.id


Serve = Callable[..., AbstractAsyncContextManager[ServiceClient]]
