"""The whole service over a small corpus of real files, for tests of the HTTP side."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from app.main import create_app
from app.services import Services
from app.settings import HistorySettings, LlmSettings, PromptSettings, ServerSettings, ServiceSettings
from corpus.settings import EmbedderSettings, LabelSettings, RetentionSettings, SearchSettings
from ingest import job
from ingest.settings import ChunkingSettings, JobSettings, RuleSettings, SourceSettings

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


def publish(folder: Path, data_dir: Path) -> None:
    """Ingest a folder as the nightly job does; what lies under board/ is for the group `board` alone."""
    rules = (RuleSettings(match="board/**", groups=("board",), label="confidential"),)
    job.run(
        JobSettings(
            data_dir=data_dir,
            sources=(SourceSettings(path=folder, name="handbook", rules=rules),),
            labels=LabelSettings(),
            embedder=EmbedderSettings(),
            chunking=ChunkingSettings(),
            retention=RetentionSettings(),
        )
    )


class ServiceClient(httpx.AsyncClient):
    """A client of the application in this process, with what the service holds."""

    def __init__(self, services: Services, transport: httpx.ASGITransport) -> None:
        super().__init__(transport=transport, base_url="http://testserver", timeout=60)
        self.services = services


def settings_of(data_dir: Path, *, llm: LlmSettings | None = None, **server: Any) -> ServiceSettings:
    """The service's settings with the values that a test needs."""
    return ServiceSettings(
        data_dir=data_dir,
        server=ServerSettings(**{"allowed_hosts": ("testserver", "127.0.0.1"), **server}),
        labels=LabelSettings(),
        embedder=EmbedderSettings(),
        search=SearchSettings(),
        history=HistorySettings(),
        prompt=PromptSettings(folder=PROMPTS),
        llm=llm or LlmSettings(),
    )


@asynccontextmanager
async def running(settings: ServiceSettings, services: Services | None = None) -> AsyncIterator[ServiceClient]:
    """A client of the whole application, inside its lifespan."""
    app = create_app(settings, services)
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        ServiceClient(app.state.services, transport) as client,
    ):
        yield client


Serve = Callable[..., AbstractAsyncContextManager[ServiceClient]]
