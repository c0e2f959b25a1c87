"""Services with the page, and a real Chromium to look at it with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from app.llm.fake.behaviour import FakeBehaviour
from tests.app.serving import settings_of
from tests.app.web.pages import (
    FILES,
    PATIENCE_MS,
    ChatPage,
    OpenPage,
    RunningService,
    fake_provider,
    publish_files,
    running_service,
)
from tests.making import copy_published
from tests.servers import RunningFake, running_fake_llm

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="session")
def corpus(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with one snapshot of the page's documents. Copied by whoever serves it."""
    return publish_files(FILES, tmp_path_factory.mktemp("page"), models)


@contextmanager
def _serving(corpus: Path, folder: Path, **settings: Any) -> Iterator[RunningService]:
    data_dir = copy_published(corpus, folder / "data")
    with running_service(settings_of(data_dir, **settings)) as service:
        yield service


@pytest.fixture(scope="session")
def extractive_service(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    with _serving(corpus, tmp_path_factory.mktemp("extractive")) as service:
        yield service


@pytest.fixture
def service(extractive_service: RunningService) -> RunningService:
    """The service as it is installed, without an LLM and without a conversation."""
    extractive_service.forget_all()
    return extractive_service


@pytest.fixture(scope="session")
def fake_llm() -> Iterator[RunningFake]:
    with running_fake_llm() as fake:
        yield fake


@pytest.fixture
def llm(fake_llm: RunningFake) -> RunningFake:
    """The LLM of `llm_service`, well-behaved and with nothing recorded."""
    fake_llm.behave(FakeBehaviour())
    fake_llm.requests.clear()
    return fake_llm


@pytest.fixture(scope="session")
def fake_llm_service(corpus: Path, fake_llm: RunningFake, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    with _serving(corpus, tmp_path_factory.mktemp("llm"), llm=fake_provider(fake_llm.base_url)) as service:
        yield service


@pytest.fixture
def llm_service(fake_llm_service: RunningService, llm: RunningFake) -> RunningService:
    """The service with the fake LLM as its provider, without a conversation."""
    fake_llm_service.forget_all()
    return fake_llm_service


# Per module: while Playwright's synchronous API is open, no other test of the process may run an event loop.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, headless."""
    if not CHROMIUM.exists():
        pytest.skip(f"THE CHAT PAGE IS NOT TESTED: no Chromium at {CHROMIUM}; install it (apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    """Opens the page of a service in a fresh profile; keyword arguments are the browser context's."""
    contexts = []

    def open_at(service: RunningService, fragment: str = "", **options: Any) -> ChatPage:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
        contexts.append(context)
        chat = ChatPage(context.new_page(), service)
        chat.page.set_default_timeout(PATIENCE_MS)
        chat.watch()
        chat.open(fragment)
        return chat

    yield open_at
    for context in contexts:
        context.close()


@pytest.fixture
def chat(open_page: OpenPage, service: RunningService) -> ChatPage:
    """The page of the service without an LLM, on a desktop."""
    return open_page(service)


@pytest.fixture
def llm_chat(open_page: OpenPage, llm_service: RunningService) -> ChatPage:
    """The page of the service with the fake LLM, on a desktop."""
    return open_page(llm_service)
