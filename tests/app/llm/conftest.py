"""Fixtures for everything that talks to an LLM."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from app.llm.anthropic import AnthropicBackend
from app.llm.fake.behaviour import FakeBehaviour
from app.llm.google import GoogleBackend
from app.llm.openai import OpenAIBackend
from app.llm.settings import ProviderSettings
from corpus.egress import Egress
from tests.app.llm.answers import RemoteBackend
from tests.servers import RunningFake, running_fake_llm

BACKENDS: dict[str, type[RemoteBackend]] = {
    "openai": OpenAIBackend,
    "anthropic": AnthropicBackend,
    "google": GoogleBackend,
}


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
async def backend_for() -> AsyncIterator[Callable[..., RemoteBackend]]:
    """Makes a backend for an address, with any provider settings changed; Chat Completions where `kind` is left out."""
    opened: list[Egress] = []

    def make(base_url: str, **changes: object) -> RemoteBackend:
        values: dict[str, object] = {"base_url": base_url, "model": "fake", **changes}
        settings = ProviderSettings.model_validate(values)
        egress = Egress([settings.base_url])
        opened.append(egress)
        return BACKENDS[settings.kind]("acme", settings, egress, clearance="secret")

    yield make
    for egress in opened:
        await egress.close()


@pytest.fixture(params=list(BACKENDS))
def kind(request: pytest.FixtureRequest) -> str:
    """Each wire format in turn."""
    return str(request.param)


@pytest.fixture
def backend_of(kind: str, fake: RunningFake, backend_for: Callable[..., RemoteBackend]) -> Callable[..., RemoteBackend]:
    """Makes a backend of each wire format in turn for the fake, with any provider settings changed."""

    def make(**changes: object) -> RemoteBackend:
        return backend_for(fake.google_base_url if kind == "google" else fake.base_url, kind=kind, **changes)

    return make
