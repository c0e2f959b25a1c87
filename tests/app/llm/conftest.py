"""Fixtures for everything that talks to an LLM."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from app.llm.fake_server import FakeBehaviour
from app.llm.openai import OpenAIBackend
from app.llm.settings import ProviderSettings
from corpus.egress import Egress
from tests.servers import RunningFake, running_fake_llm


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def fake_server() -> Iterator[RunningFake]:
    with running_fake_llm() as fake:
        yield fake


@pytest.fixture
def fake(fake_server: RunningFake) -> RunningFake:
    """The fake LLM, well-behaved and with nothing recorded."""
    fake_server.behave(FakeBehaviour())
    fake_server.requests.clear()
    return fake_server


@pytest.fixture
async def backend_for() -> AsyncIterator[Callable[..., OpenAIBackend]]:
    """Makes a backend for an address, with any provider settings changed."""
    opened: list[Egress] = []

    def make(base_url: str, **changes: object) -> OpenAIBackend:
        values: dict[str, object] = {"base_url": base_url, "model": "fake", **changes}
        settings = ProviderSettings.model_validate(values)
        egress = Egress([settings.base_url])
        opened.append(egress)
        return OpenAIBackend("acme", settings, egress, clearance="secret")

    yield make
    for egress in opened:
        await egress.close()
