"""A small published corpus, and the service over a copy of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.app.serving import FILES, Serve, ServiceClient, publish, running, settings_of
from tests.making import copy_published


@pytest.fixture
def anyio_backend() -> str:
    """The service runs on asyncio."""
    return "asyncio"


@pytest.fixture(scope="session")
def published(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `documents/` and, published from them, `data/`. Copied by whoever changes it."""
    root = tmp_path_factory.mktemp("published")
    for name, text in FILES.items():
        path = root / "documents" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    publish(root / "documents", root / "data", models)
    return root


@pytest.fixture
def site(published: Path, tmp_path: Path) -> Path:
    """The published folder, this test's own copy."""
    return copy_published(published, tmp_path / "site")


@pytest.fixture
def serve(site: Path) -> Serve:
    """Starts the service over this test's copy of the corpus; keyword arguments are server settings, `llm`, `answer`."""

    def start(**values: Any) -> AbstractAsyncContextManager[ServiceClient]:
        return running(settings_of(site / "data", **values))

    return start


@pytest.fixture
async def client(serve: Serve) -> AsyncIterator[ServiceClient]:
    """The service with its defaults."""
    async with serve() as client:
        yield client
