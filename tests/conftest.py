"""What tests of several rooms share: the real embedding model, loaded once, and a small corpus published by the real job."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog
from filelock import FileLock

from corpus.embedders.embedder import Embedder, Exporting, open_embedder
from corpus.settings import EmbedderSettings, SearchSettings
from corpus.snapshot import OpenSnapshot, open_current
from ingest import job
from ingest.report import Report
from ingest.settings import JobSettings
from tests.making import FILES, copy_published, fingerprint, job_settings, write_files

Run = Callable[[JobSettings], Report]


@pytest.fixture
def anyio_backend() -> str:
    """The service runs on asyncio."""
    return "asyncio"


@pytest.fixture(autouse=True)
def logs_of_its_own() -> Iterator[None]:
    """A test that runs a command in this process leaves no log behind that writes to what pytest has closed."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def embedder() -> Embedder:
    """The default model, on one thread: tests share their processors."""
    return open_embedder(EmbedderSettings(), threads=1)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of exported models with the default model's. Not to be changed."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    # An export takes fifteen seconds: one does for all processes of this run of the tests, and for all tests but those of it.
    with FileLock(shared / "models.lock"):
        open_embedder(EmbedderSettings(engine="onnx"), models=shared / "models", exporting=Exporting(fingerprint()), threads=1)
    return shared / "models"


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> EmbedderSettings:
    """The settings of a model of few weights that is exported in a second, engine onnx."""
    from tests.tiny_embedder import make_multilingual_model  # torch, which many tests need not wait for

    folder = make_multilingual_model(tmp_path_factory.mktemp("tiny") / "model", list(FILES.values()) * 5)
    return EmbedderSettings(model=str(folder), engine="onnx")


@pytest.fixture
def run(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The real job, with the model that is loaded already, which is not exported."""
    monkeypatch.setattr("ingest.model.open_embedder", lambda settings, **_: embedder)
    monkeypatch.setattr("ingest.model.exported", lambda *_: None)
    return job.run


@pytest.fixture(scope="session")
def organisation(embedder: Embedder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `documents/` and, published from them, `data/`. Not to be changed."""
    root = tmp_path_factory.mktemp("organisation")
    write_files(root / "documents", FILES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ingest.model.open_embedder", lambda settings, **_: embedder)
        job.run(job_settings(root / "data", root / "documents"))
    return root


@pytest.fixture
def site(organisation: Path, tmp_path: Path) -> Path:
    """The same, this test's own copy."""
    return copy_published(organisation, tmp_path / "site")


@pytest.fixture(scope="session")
def snapshot(organisation: Path) -> Iterator[OpenSnapshot]:
    """The published snapshot, open."""
    opened, damage = open_current(organisation / "data", SearchSettings())
    assert damage is None
    yield opened
    opened.close()
