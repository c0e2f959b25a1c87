"""The embedder of questions is that of the snapshot; both change in one step, there and back, and never mix."""

from __future__ import annotations

import asyncio
import gc
import shutil
import weakref
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest

from app.access import Caller
from app.answering.retrieve import SearchResult, search
from app.main import create_app
from app.services import Services, build_services
from app.snapshots import SnapshotHolder
from corpus.embedders.embedder import Embedder
from corpus.embedders.stamped import open_stamped
from corpus.errors import EmbedderMismatch, ModelNotFound
from corpus.manifest import read_manifest
from corpus.published import current_id, point_to, snapshot_ids
from corpus.settings import EmbedderSettings, SearchSettings
from corpus.snapshot import OpenSnapshot, activate, open_snapshot
from ingest import job
from tests.app.serving import ServiceClient, settings_of
from tests.app.sockets import eventually
from tests.making import FILES, job_settings, write_files
from tests.tiny_embedder import make_multilingual_model

pytestmark = pytest.mark.anyio

CALLER = Caller("local", ("everyone",))
QUESTIONS = ("When are expense reports due?", "Where do visitors park?", "Who books trips?")


def settings_with(model: Path) -> EmbedderSettings:
    """A model's folder, and a prompt that only its own snapshots know of."""
    return EmbedderSettings(model=str(model), query_prompt=f"{model.name}: ")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models of one dimension, and the same documents published with each; the second is current. Not to be changed."""
    root = tmp_path_factory.mktemp("switch")
    texts = [text for text in FILES.values() if isinstance(text, str)]
    make_multilingual_model(root / "first", texts * 5)
    make_multilingual_model(root / "second", [text.upper() for text in texts] * 5)
    documents = write_files(root / "documents", FILES)
    for name in ("first", "second"):
        job.run(job_settings(root / "data", documents, embedder=settings_with(root / name)))
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    """This test's own copy of the data folder; the models stay where their snapshots say that they are."""
    shutil.copytree(made / "data", tmp_path / "data")
    return tmp_path


@pytest.fixture
def services(root: Path) -> Services:
    """The service's parts, under a configuration that names neither of the two."""
    return build_services(settings_of(root / "data"))


def opened(data_dir: Path, snapshot_id: str) -> tuple[OpenSnapshot, Embedder]:
    """A snapshot with its own embedder."""
    snapshot = open_snapshot(data_dir, snapshot_id, SearchSettings())
    return snapshot, open_stamped(snapshot.manifest.embedder, EmbedderSettings(), models=data_dir / "models", threads=1)


def cosine_of(pair: tuple[OpenSnapshot, Embedder], question: str, found: SearchResult) -> float:
    """What the first hit's cosine is, computed from a snapshot's vector of it and a question's."""
    snapshot, embedder = pair
    vector = snapshot.dense.vectors(np.array([found.hits[0].passage.ordinal]))[0]
    return float(vector @ embedder.embed_queries([question])[0])


async def test_every_answer_is_of_one_snapshot_and_its_own_model(services: Services, root: Path) -> None:
    """There, back and there again while eight ask: each cosine is that of the snapshot's vector and its own model's."""
    data = root / "data"
    ids = snapshot_ids(data)
    pairs = {each: opened(data, each) for each in ids}
    found: list[tuple[str, SearchResult]] = []
    done = asyncio.Event()

    async def ask(number: int) -> None:
        while not done.is_set():
            question = QUESTIONS[(number + len(found)) % len(QUESTIONS)]
            found.append((question, await search(services, CALLER, question, (), 3, {})))

    await services.start()
    try:
        async with asyncio.TaskGroup() as tasks:
            for number in range(8):
                tasks.create_task(ask(number))
            for wanted in (ids[0], ids[1], ids[0]):
                await services.compute(activate, data, wanted)
                await services.compute(services.snapshots.refresh)
                enough = len(found) + 24
                assert await eventually(lambda enough=enough: len(found) >= enough, 120)
            done.set()
    finally:
        await services.close()
    assert {result.snapshot for _, result in found} == set(ids)
    assert found[-1][1].snapshot == ids[0]
    for question, result in found:
        other = next(each for each in ids if each != result.snapshot)
        cosine = result.hits[0].cosine
        if cosine is not None:
            assert cosine == pytest.approx(cosine_of(pairs[result.snapshot], question, result), abs=2e-3)
            mixed = float(
                pairs[result.snapshot][0].dense.vectors(np.array([result.hits[0].passage.ordinal]))[0]
                @ pairs[other][1].embed_queries([question])[0]
            )
            assert abs(cosine - mixed) > 0.01
    for snapshot, _ in pairs.values():
        snapshot.close()


async def test_a_model_is_shared_while_it_is_served_and_goes_with_its_last_lease(services: Services, root: Path) -> None:
    """Another snapshot of the same model loads none; once the last question that works with it ends, it is out of memory."""
    data, snapshots = root / "data", services.snapshots
    first = snapshot_ids(data)[0]
    await services.start()
    try:
        with snapshots.lease() as leased:
            second = leased.embedder
        (root / "documents").mkdir()
        (root / "documents" / "new.md").write_text("# New\n\nThe new gate is in the north.\n")
        stamp = read_manifest(data / "snapshots" / current_id(data)).embedder
        settings = job_settings(data, root / "documents", embedder=settings_with(Path(stamp.model)))
        await services.compute(lambda: job.run(settings, allow_removals=True))
        await services.compute(snapshots.refresh)
        with snapshots.lease() as leased:
            assert (leased.snapshot.id, leased.embedder) == (current_id(data), second)
            old = weakref.ref(second)
            del second
            await services.compute(activate, data, first)
            await services.compute(snapshots.refresh)
            with snapshots.lease() as now:
                assert now.embedder.model.endswith("first")
            gc.collect()
            assert old() is leased.embedder
        del leased, now
        gc.collect()
        assert old() is None
    finally:
        await services.close()


async def test_a_service_that_waits_for_its_first_snapshot_takes_the_model_with_it(root: Path) -> None:
    """Nothing is loaded at the start; the graph that the first run exported is."""
    services = build_services(settings_of(root / "later"))
    await services.start()
    try:
        assert services.snapshots.status() == ["no_snapshot"]
        for entry in (root / "data").iterdir():
            entry.rename(root / "later" / entry.name)
        assert await services.compute(services.snapshots.refresh) or services.snapshots.status() == []
        with services.snapshots.lease() as leased:
            assert (leased.embedder.engine, leased.embedder.graph) == ("onnx", leased.snapshot.manifest.embedder.graph)
            assert leased.embedder.model.endswith("second")
    finally:
        await services.close()


async def test_a_model_that_cannot_be_opened_leaves_the_old_pair(
    services: Services, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graph of what CURRENT names is gone: the pair before serves on, /readyz says why; put back, it is served."""
    data, snapshots = root / "data", services.snapshots
    first, second = snapshot_ids(data)
    graph = read_manifest(data / "snapshots" / first).embedder.graph
    assert graph is not None
    (data / "models" / graph).rename(root / "elsewhere")
    app = create_app(services.settings, services)
    async with app.router.lifespan_context(app):
        monkeypatch.setattr("app.snapshots.RETRY_S", 0.0)
        point_to(data, first)
        assert await services.compute(snapshots.refresh) is False
        with snapshots.lease() as leased:
            assert (leased.snapshot.id, leased.embedder.model[-6:]) == (second, "second")
        body = await ready(services, app)
        assert (body["status"], body["codes"]) == ("degraded", ["embedder_unavailable", "embedder_pending"])
        assert "cannot be opened" in body["advice"][0]
        (root / "elsewhere").rename(data / "models" / graph)
        assert await services.compute(snapshots.refresh) or snapshots.status() == []
        with snapshots.lease() as leased:
            assert (leased.snapshot.id, leased.embedder.graph) == (first, graph)


async def ready(services: Services, app: object) -> dict[str, object]:
    """What /readyz tells an administrator."""
    transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]
    async with ServiceClient(services, transport) as client:
        body: dict[str, object] = (await client.get("/readyz")).json()
        return body


async def test_another_model_in_the_configuration_waits_for_the_job(services: Services) -> None:
    """The service is ready, names the model it serves, and says what the configuration's waits for."""
    app = create_app(services.settings, services)
    async with app.router.lifespan_context(app):
        body = await ready(services, app)
    assert (body["status"], body["codes"]) == ("ready", ["embedder_pending"])
    assert "run `archivist ingest`" in str(body["advice"])
    snapshot = body["snapshot"]
    assert isinstance(snapshot, dict)
    assert snapshot["embedder"].endswith("second")


def test_a_model_that_was_changed_in_its_folder_is_refused_by_name(made: Path, root: Path) -> None:
    """Two models of one dimension: the fingerprint tells, both are named, and nothing is served with the wrong one."""
    model = Path(shutil.copytree(made / "first", root / "model"))
    settings = settings_with(model).model_copy(update={"engine": "sentence-transformers"})
    documents = write_files(root / "documents", {"a.md": "# Parking\n\nVisitors park in the yard.\n"})
    job.run(job_settings(root / "new", documents, embedder=settings))
    shutil.rmtree(model)
    shutil.copytree(made / "second", model)
    stamp = read_manifest(root / "new" / "snapshots" / current_id(root / "new")).embedder
    embedders = build_services(settings_of(root / "new")).process.embedders
    snapshots = SnapshotHolder(root / "new", SearchSettings(), embedders)
    assert snapshots.refresh() is False
    assert snapshots.status() == ["embedder_mismatch"]
    expected = rf"48-dimensional.*{model}.*{stamp.fingerprint[:12]}.*{model}.*ingest"
    with pytest.raises(EmbedderMismatch, match=expected), snapshots.lease():
        pass


def test_a_snapshot_of_before_takes_what_its_model_needs_from_the_configuration(root: Path) -> None:
    """Without settings in its stamp it opens under those it was made with, and is refused under others."""
    data = root / "data"
    stamp = read_manifest(data / "snapshots" / snapshot_ids(data)[0]).embedder
    old = replace(stamp, settings=None, graph=None)
    shutil.rmtree(data / "models")
    right = settings_with(Path(stamp.model))
    assert open_stamped(old, right, models=data / "models", threads=1).engine == "sentence-transformers"
    with pytest.raises(EmbedderMismatch, match="put the snapshot's model back"):
        open_stamped(old, right.model_copy(update={"query_prompt": "other: "}), models=data / "models", threads=1)
    with pytest.raises(ModelNotFound, match=str(stamp.graph)):
        open_stamped(stamp, right, models=data / "models", threads=1)
