"""/livez, /readyz, /metrics."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import httpx
import pytest

from app.llm.settings import LlmSettings, ProviderSettings
from app.main import create_app
from tests.app.serving import Serve, ServiceClient, settings_of

pytestmark = pytest.mark.anyio


async def test_ready_tells_an_administrator_what_is_served(client: ServiceClient) -> None:
    """On this machine without a key: the snapshot with its counts, no codes."""
    body = (await client.get("/readyz")).json()
    assert (body["status"], body["codes"], body["advice"]) == ("ready", [], [])
    assert body["snapshot"]["documents"] == 4
    assert body["snapshot"]["chunks"] >= 4


async def test_ready_keeps_its_detail_from_another_machine(site: Path) -> None:
    """A caller that is not on this machine hears the status alone."""
    app = create_app(settings_of(site / "data"))
    transport = httpx.ASGITransport(app=app, client=("192.0.2.7", 5))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://testserver") as client,
    ):
        assert (await client.get("/readyz")).json() == {"status": "ready"}


async def test_without_a_snapshot_it_lives_but_is_not_ready(serve: Serve, site: Path) -> None:
    """The service starts, /livez is 200, /readyz is 503 and says what to run."""
    (site / "data" / "CURRENT").unlink()
    async with serve() as client:
        assert (await client.get("/livez")).json() == {"status": "alive"}
        response = await client.get("/readyz")
        assert response.status_code == 503
        assert response.json()["status"] == "unavailable"
        assert response.json()["codes"] == ["no_snapshot"]
        assert "archivist ingest" in response.json()["advice"][0]


async def test_a_locked_database_is_named_within_two_seconds(client: ServiceClient, site: Path) -> None:
    """While another process holds the write lock /readyz is 503 with the part's name, soon; then it is ready again."""
    holder = sqlite3.connect(site / "data" / "service.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    began = time.perf_counter()
    response = await client.get("/readyz")
    assert time.perf_counter() - began < 2
    assert (response.status_code, response.json()["codes"]) == (503, ["state_unavailable"])
    assert (await client.get("/livez")).status_code == 200
    holder.execute("ROLLBACK")
    holder.close()
    assert (await client.get("/readyz")).json()["status"] == "ready"


async def test_a_provider_that_failed_degrades_without_being_called_again(serve: Serve) -> None:
    """After the default provider refused a connection /readyz is 200 degraded with a code; asking still answers."""
    llm = LlmSettings(default="gone", providers={"gone": ProviderSettings(base_url="http://127.0.0.1:9/v1", model="m")})
    async with serve(llm=llm) as client:
        assert (await client.get("/readyz")).json()["status"] == "ready"
        body = (await client.post("/v1/ask", json={"question": "When are expense reports due?"})).json()
        assert body["provider"] == "extractive"
        assert "30 days" in body["answer"]
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()["status"], ready.json()["codes"]) == (200, "degraded", ["llm_down"])


async def test_metrics_count_requests_by_template_and_answers_by_stage(client: ServiceClient) -> None:
    """Requests by route and status, stages, documents, chunks and the snapshot's age; no id, path or question."""
    await client.post("/v1/ask", json={"question": "canary: when are expense reports due?"})
    await client.get("/v1/documents/canary-id")
    await client.get("/canary-path")
    response = await client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    text = response.text
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert values['archivist_requests_total{route="/v1/ask",status="200"}'] == "1.0"
    assert values['archivist_requests_total{route="/v1/documents/{document_id}",status="404"}'] == "1.0"
    assert values['archivist_stage_seconds_count{stage="search"}'] == "1.0"
    assert values['archivist_answers_total{abstained="false",provider="extractive"}'] == "1.0"
    assert values["archivist_documents"] == "4.0"
    assert float(values["archivist_chunks"]) >= 4
    assert 0 <= float(values["archivist_snapshot_age_seconds"]) < 3600
    assert "canary" not in text


async def test_metrics_without_a_snapshot_say_so(serve: Serve, site: Path) -> None:
    """No snapshot: zero documents and an age that is not a number."""
    (site / "data" / "CURRENT").unlink()
    async with serve() as client:
        text = (await client.get("/metrics")).text
        assert "archivist_documents 0.0" in text
        assert "archivist_snapshot_age_seconds NaN" in text
