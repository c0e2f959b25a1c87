"""Upload, delete, runs and snapshots over HTTP: the calls that change what is served."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from app.main import create_app
from app.reload import Origin
from archivist.cli import app as cli
from corpus.embedders.stamped import values_of
from corpus.embedders.weights import fingerprint_of
from corpus.lock import locked
from corpus.manifest import EmbedderStamp
from corpus.published import current_id, held, point_to
from corpus.settings import EmbedderSettings
from corpus.types import document_id_of
from tests.app.serving import ServiceClient, composed, job_of, listening, publish, running, settings_of, snapshot_of
from tests.corpus import small

pytestmark = pytest.mark.anyio

FILE = {"content-type": "application/octet-stream"}
CANARY = "The canary lives in the tower room."
KIT = document_id_of("uploads", "kit.md")


@pytest.fixture
async def operated(site: Path) -> AsyncIterator[ServiceClient]:
    """The service over this test's corpus, with the job that belongs to it."""
    settings = settings_of(site / "data")
    async with running(settings, job_of(site, settings)) as client:
        yield client


def uploaded(site: Path) -> list[str]:
    """The names of the files in the folder of uploads."""
    folder = site / "data" / "uploads"
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def files_named(site: Path, part: str) -> list[Path]:
    """Files anywhere in the site with this in their name."""
    return [path for path in site.rglob("*") if part in path.name]


async def upload(client: httpx.AsyncClient, name: str, text: str, **params: str) -> httpx.Response:
    """Upload a text."""
    return await client.post("/v1/documents", params={"name": name, **params}, content=text.encode(), headers=FILE)


async def ended(client: httpx.AsyncClient, run_id: str) -> dict[str, Any]:
    """A run once it has ended."""
    for _ in range(1200):
        found = await client.get(f"/v1/ingest/{run_id}")
        assert found.status_code == 200
        run: dict[str, Any] = found.json()
        if run["status"] not in ("starting", "running"):
            return run
        await asyncio.sleep(0.1)
    raise AssertionError(f"run {run_id} has not ended after two minutes")


async def served(client: ServiceClient, snapshot: str) -> None:
    """Wait until the service has noticed a new snapshot."""
    for _ in range(200):
        if snapshot_of(client) == snapshot:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{snapshot} is not served")


async def found_in(client: httpx.AsyncClient, query: str) -> set[str]:
    """The sources of what a search finds."""
    hits = (await client.post("/v1/search", json={"query": query})).json()["hits"]
    return {hit["source"] for hit in hits}


async def test_from_an_upload_to_an_answer_to_a_delete(operated: ServiceClient, site: Path) -> None:
    """An uploaded file is found after the run that it asked for; deleted, it is gone from the next request on, its file
    and sidecar too, and neither a second delete nor another upload of the name works."""
    stored = await upload(operated, "kit.md", f"# First aid\n\n{CANARY}\n", title="Kit", label="public", ingest="true")
    assert stored.status_code == 201
    body = stored.json()
    assert (body["document_id"], body["source"], body["collection"]) == (KIT, "kit.md", "uploads")
    assert (body["groups"], body["label"], body["replaced"]) == (["everyone"], "public", False)
    assert stored.headers["location"] == f"/v1/documents/{KIT}"
    followed = await operated.get(f"/v1/ingest/{body['run_id']}")
    assert (followed.status_code, followed.json()["run_id"]) == (200, body["run_id"])
    second = await operated.post("/v1/ingest", json={})
    assert (second.status_code, second.json()["type"]) == (409, "urn:archivist:problem:conflict")
    run = await ended(operated, body["run_id"])
    assert (run["status"], run["added"], run["kept"], run["documents"], run["error"]) == ("published", 1, 4, 5, None)
    assert run["report"]["run"] == body["run_id"]
    await served(operated, run["snapshot"])

    shown = (await operated.get(f"/v1/documents/{KIT}")).json()
    assert (shown["title"], shown["label"], shown["collection"]) == ("Kit", "public", "uploads")
    assert "kit.md" in await found_in(operated, "canary tower room")
    assert "kit.md" in {each["source"] for each in (await operated.get("/v1/documents")).json()["documents"]}

    assert (await operated.delete(f"/v1/documents/{KIT}")).status_code == 204
    assert "kit.md" not in await found_in(operated, "canary tower room")
    assert "kit.md" not in {each["source"] for each in (await operated.get("/v1/documents")).json()["documents"]}
    assert (await operated.get(f"/v1/documents/{KIT}")).status_code == 404
    answer = (await operated.post("/v1/ask", json={"question": "Where does the canary live?"})).json()
    assert "tower" not in str(answer)
    assert uploaded(site) == []
    assert (await operated.delete(f"/v1/documents/{KIT}")).status_code == 404
    again = await upload(operated, "kit.md", "# Another\n\nSomething else.\n")
    assert again.status_code == 409
    assert "archivist documents undo 1" in again.json()["detail"]
    assert uploaded(site) == []


async def test_an_upload_under_way_does_not_bring_back_what_is_deleted_meanwhile(operated: ServiceClient, site: Path) -> None:
    """Its name was free when it began: 409 all the same, nothing is stored, and what was there is gone."""
    await upload(operated, "kit.md", f"# First aid\n\n{CANARY}\n")
    begun, deleted = asyncio.Event(), asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield b"# First aid\n\n"
        begun.set()
        await deleted.wait()
        yield CANARY.encode()

    stored = asyncio.create_task(operated.post("/v1/documents", params={"name": "kit.md"}, content=pieces(), headers=FILE))
    await begun.wait()
    assert (await operated.delete(f"/v1/documents/{KIT}")).status_code == 204
    deleted.set()
    refused = await stored
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:archivist:problem:conflict")
    assert "archivist documents undo 1" in refused.json()["detail"]
    assert uploaded(site) == []


async def test_a_document_of_a_source_can_be_deleted_and_stays_away(operated: ServiceClient, site: Path) -> None:
    """Its file stays where it is, and the next run does not bring it back."""
    document_id = document_id_of("handbook", "policies/travel.md")
    assert (await operated.delete(f"/v1/documents/{document_id}")).status_code == 204
    assert "policies/travel.md" not in await found_in(operated, "expense report TR-204")
    assert (site / "documents" / "policies" / "travel.md").exists()
    run = await ended(operated, (await operated.post("/v1/ingest", json={})).json()["run_id"])
    assert (run["status"], run["documents"]) == ("published", 3)
    assert (await operated.get(f"/v1/documents/{document_id}")).status_code == 404


async def test_the_only_upload_can_be_deleted_without_stopping_runs(operated: ServiceClient, site: Path) -> None:
    """The source is empty then because somebody said so: the guard lets the next run publish."""
    stored = await upload(operated, "kit.md", f"# First aid\n\n{CANARY}\n", ingest="true")
    first = await ended(operated, stored.json()["run_id"])
    await served(operated, first["snapshot"])
    assert (await operated.delete(f"/v1/documents/{KIT}")).status_code == 204
    run = await ended(operated, (await operated.post("/v1/ingest", json={})).json()["run_id"])
    assert (run["status"], run["documents"], run["error"]) == ("published", 4, None)


async def test_whatever_groups_may_see_it_an_administrator_deletes_it(operated: ServiceClient) -> None:
    """Another group's document, and one that nobody is left to see; once. An id that is none is 404."""
    board = document_id_of("handbook", "board/salaries.md")
    travel = document_id_of("handbook", "policies/travel.md")
    operated.services.overlay.revoke(travel, "everyone", "anna")
    for document_id in (board, travel):
        assert (await operated.get(f"/v1/documents/{document_id}")).status_code == 404
        assert (await operated.delete(f"/v1/documents/{document_id}")).status_code == 204
    for document_id in (board, travel, "a" * 26):
        refused = await operated.delete(f"/v1/documents/{document_id}")
        assert (refused.status_code, refused.json()["type"]) == (404, "urn:archivist:problem:not-found")
    told = [(entry.kind, entry.document_id) for entry in operated.services.overlay.entries()]
    assert told == [("revoke", travel), ("delete", board), ("delete", travel)]


async def test_an_upload_can_be_taken_back_before_a_run(operated: ServiceClient, site: Path) -> None:
    """By its id, though no snapshot has it; also where it was given to another group."""
    await upload(operated, "kit.md", CANARY)
    await upload(operated, "pay.md", CANARY, groups="board, board")
    assert (await operated.delete(f"/v1/documents/{document_id_of('uploads', 'pay.md')}")).status_code == 204
    assert uploaded(site) == ["kit.md", "kit.md.meta.yaml"]
    assert (await operated.delete(f"/v1/documents/{KIT}")).status_code == 204
    assert uploaded(site) == []


async def test_a_document_that_no_run_stores_can_be_deleted(operated: ServiceClient) -> None:
    """Revoked from everyone, a run leaves it out; the snapshot still knows of it."""
    travel = document_id_of("handbook", "policies/travel.md")
    operated.services.overlay.revoke(travel, "everyone", "anna")
    run = await ended(operated, (await operated.post("/v1/ingest", json={})).json()["run_id"])
    await served(operated, run["snapshot"])
    assert (await operated.delete(f"/v1/documents/{travel}")).status_code == 204
    assert (await operated.delete(f"/v1/documents/{travel}")).status_code == 404


async def test_the_same_name_again_takes_the_place(operated: ServiceClient, site: Path) -> None:
    """200 rather than 201, the new bytes, and no third file."""
    assert (await upload(operated, "kit.md", "one")).status_code == 201
    again = await upload(operated, "kit.md", "two")
    assert (again.status_code, again.json()["replaced"], again.json()["run_id"]) == (200, True, None)
    assert "POST /v1/ingest" in again.json()["detail"]
    assert (site / "data" / "uploads" / "kit.md").read_text() == "two"
    assert len(uploaded(site)) == 2


@pytest.mark.parametrize(
    ("params", "headers", "content", "status", "says"),
    [
        ({"name": "../../evil.md"}, FILE, b"x", 422, "name"),
        ({"name": "a.exe"}, FILE, b"x", 415, ".pdf"),
        ({"name": "a.md.meta.yaml"}, FILE, b"x", 415, ".pdf"),
        ({"name": "archive"}, FILE, b"x", 415, ".pdf"),
        ({"name": "a.md", "label": "top"}, FILE, b"x", 422, "labels.order"),
        ({"name": "a.md", "groups": " , "}, FILE, b"x", 422, "groups"),
        ({"name": "a.md", "groups": "a\x00"}, FILE, b"x", 422, "groups"),
        ({"name": "a.md"}, FILE, b"", 422, "empty"),
        ({"name": "a.md"}, {"content-type": "multipart/form-data; boundary=x"}, b"x", 415, "not a form"),
        ({"name": "a.md"}, {"content-type": "application/x-www-form-urlencoded"}, b"x", 415, "not a form"),
        ({"name": "a.md"}, {**FILE, "content-encoding": "gzip"}, b"x", 415, "Content-Encoding"),
        ({}, FILE, b"x", 422, "name"),
    ],
)
async def test_what_cannot_be_stored_leaves_nothing(
    operated: ServiceClient, site: Path, params: dict[str, str], headers: dict[str, str], content: bytes, status: int, says: str
) -> None:
    """The status and a word of the reason; no file anywhere, and none outside of the folder."""
    refused = await operated.post("/v1/documents", params=params, headers=headers, content=content)
    assert refused.status_code == status, refused.text
    assert says in refused.text
    assert uploaded(site) == []
    assert files_named(site, "evil") == []


async def test_an_upload_has_its_own_limit(site: Path) -> None:
    """Larger than max_body_bytes is taken here and nowhere else; larger than max_upload_bytes is 413, declared or not."""
    async with running(settings_of(site / "data", max_body_bytes=1000, max_upload_bytes=3000)) as client:

        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(4):
                yield b"x" * 1000

        assert (await upload(client, "a.txt", "x" * 3000)).status_code == 201
        for content in (b"x" * 3001, pieces()):
            refused = await client.post("/v1/documents", params={"name": "b.txt"}, content=content, headers=FILE)
            assert refused.status_code == 413
            assert "server.max_upload_bytes" in refused.json()["detail"]
        assert (await client.post("/v1/search", json={"query": "x" * 1000})).status_code == 413
    assert uploaded(site) == ["a.txt", "a.txt.meta.yaml"]


async def test_whoever_hangs_up_leaves_nothing(site: Path) -> None:
    """A connection that ends in the middle of an upload: no file, over a real server."""
    with listening(settings_of(site / "data")) as address:
        host, port = address.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        head = "POST /v1/documents?name=a.txt HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000000\r\n\r\n"
        writer.write(head.encode() + b"x" * 200_000)
        await writer.drain()
        folder = site / "data" / "uploads"
        for _ in range(200):
            if folder.is_dir() and any(path.stat().st_size for path in folder.iterdir()):
                break
            await asyncio.sleep(0.02)
        assert [path.name[:8] for path in folder.iterdir()] == [".upload-"]
        writer.close()
        for _ in range(200):
            if not list(folder.iterdir()):
                break
            await asyncio.sleep(0.02)
        assert list(folder.iterdir()) == []


ADMINISTRATORS_ONLY = [
    ("POST", "/v1/ingest"),
    ("GET", "/v1/ingest"),
    ("GET", "/v1/ingest/000001-00000000"),
    ("GET", "/v1/snapshots"),
    ("POST", "/v1/snapshots/000001-00000000/activate"),
    ("DELETE", "/v1/snapshots/hold"),
    ("POST", "/v1/documents?name=a.md"),
    ("DELETE", f"/v1/documents/{KIT}"),
]


async def test_only_an_administrator_may_change_things(site: Path) -> None:
    """Without a key a caller from another machine is refused each of these calls, and may still read documents."""
    async with running(settings_of(site / "data"), address="192.0.2.7") as client:
        for method, path in ADMINISTRATORS_ONLY:
            refused = await client.request(method, path, json={})
            assert (refused.status_code, refused.json()["type"]) == (403, "urn:archivist:problem:forbidden"), path
        assert (await client.get("/v1/documents")).status_code == 200
    assert not (site / "data" / "uploads").exists()


async def test_whoever_has_the_key_is_an_administrator(site: Path) -> None:
    """From another machine too; without it each call is 401."""
    settings = settings_of(site / "data", api_key=SecretStr("a-key"))
    async with running(settings, address="192.0.2.7") as client:
        for method, path in ADMINISTRATORS_ONLY:
            assert (await client.request(method, path, json={})).status_code == 401
        keyed = {"authorization": "Bearer a-key"}
        assert (await client.get("/v1/snapshots", headers=keyed)).status_code == 200
        assert (await client.get("/v1/ingest", headers=keyed)).json()["runs"][0]["status"] == "published"


@pytest.mark.parametrize("headers", [{"origin": "http://evil.example"}, {"sec-fetch-site": "cross-site"}])
async def test_a_page_of_another_site_uploads_and_deletes_nothing(
    operated: ServiceClient, site: Path, headers: dict[str, str]
) -> None:
    """A text/plain body, which a browser sends anywhere unasked, is refused for where it comes from."""
    sent = {"content-type": "text/plain", **headers}
    refused = await operated.post("/v1/documents", params={"name": "a.txt"}, headers=sent, content=b"x")
    assert refused.status_code == 403
    document_id = document_id_of("handbook", "policies/travel.md")
    assert (await operated.delete(f"/v1/documents/{document_id}", headers=headers)).status_code == 403
    assert (await operated.post("/v1/ingest", headers=headers, json={})).status_code == 403
    assert (await operated.post("/v1/ingest", headers={"content-type": "text/plain"}, content=b"{}")).status_code == 415
    assert not (site / "data" / "uploads").exists()
    assert (await operated.get(f"/v1/documents/{document_id}")).status_code == 200


async def test_a_run_cannot_start_beside_another(operated: ServiceClient, site: Path) -> None:
    """While the nightly run has the lock: 409, and no report of it. An upload is stored all the same, and says so."""
    with locked(site / "data"):
        refused = await operated.post("/v1/ingest", json={"allow_removals": True})
        assert (refused.status_code, refused.json()["type"]) == (409, "urn:archivist:problem:conflict")
        stored = await upload(operated, "kit.md", CANARY, ingest="true")
        assert (stored.status_code, stored.json()["run_id"]) == (201, None)
        assert "is at work" in stored.json()["detail"]
    assert len((await operated.get("/v1/ingest")).json()["runs"]) == 1


async def test_a_run_outlives_the_service_that_started_it(site: Path) -> None:
    """The service stops while its run is at work; another service follows the run to its end."""
    settings = settings_of(site / "data")
    origin = job_of(site, settings)
    (site / "documents" / "new.md").write_text("# New\n\nSomething new.\n")
    async with running(settings, origin) as client:
        started = await client.post("/v1/ingest", json={})
        assert started.status_code == 202
        run_id = started.json()["run_id"]
        assert started.headers["location"] == f"/v1/ingest/{run_id}"
    async with running(settings, origin) as client:
        run = await ended(client, run_id)
        assert (run["status"], run["added"]) == ("published", 1)


async def test_a_job_that_cannot_begin_says_why(site: Path) -> None:
    """A configuration that the job refuses: the run has failed, with the command's own words."""
    settings = settings_of(site / "data")
    command = (sys.executable, "-m", "archivist", "ingest", "--config", str(site / "nowhere.yaml"))
    async with running(settings, Origin(job_of(site, settings).file, lambda: settings, command)) as client:
        run = await ended(client, (await client.post("/v1/ingest", json={})).json()["run_id"])
        assert run["status"] == "failed"
        assert "no configuration file" in run["error"]


async def test_runs_are_listed_newest_first_and_unknown_ones_are_not_there(operated: ServiceClient) -> None:
    """With cursors; ids that are none are 404."""
    run_id = (await operated.get("/v1/ingest")).json()["runs"][0]["run_id"]
    run = await ended(operated, (await operated.post("/v1/ingest", json={})).json()["run_id"])
    assert run["status"] == "unchanged"
    page = (await operated.get("/v1/ingest", params={"limit": 1})).json()
    assert ([each["run_id"] for each in page["runs"]], page["next_cursor"]) == ([run["run_id"]], run["run_id"])
    rest = (await operated.get("/v1/ingest", params={"cursor": page["next_cursor"]})).json()
    assert ([each["run_id"] for each in rest["runs"]], rest["next_cursor"]) == ([run_id], None)
    for unknown in ("000009-00000000", "..%2FCURRENT", "x"):
        assert (await operated.get(f"/v1/ingest/{unknown}")).status_code == 404


async def test_snapshots_are_listed_activated_held_and_released(operated: ServiceClient, site: Path) -> None:
    """The older one serves when the call has returned, and while it is held a run is refused; released, things go on."""
    old = snapshot_of(operated)
    (site / "documents" / "new.md").write_text("# New\n\nThe observatory opens at dusk.\n")
    publish(site / "documents", site / "data")
    listed = (await operated.get("/v1/snapshots")).json()["snapshots"]
    new = listed[0]["id"]
    assert [(each["id"], each["current"], each["held"]) for each in listed] == [(new, True, False), (old, False, False)]
    assert [(each["documents"], each["parent"], each["embedder"]) for each in listed] == [
        (5, old, "all-MiniLM-L6-v2"),
        (4, None, "all-MiniLM-L6-v2"),
    ]
    activated = await operated.post(f"/v1/snapshots/{old}/activate", json={"hold": True})
    assert (activated.status_code, activated.json()["id"]) == (200, old)
    assert (activated.json()["current"], activated.json()["held"]) == (True, True)
    assert snapshot_of(operated) == old
    assert "archivist_snapshot_held 1.0" in (await operated.get("/metrics")).text
    assert "new.md" not in await found_in(operated, "observatory dusk")

    refused = await ended(operated, (await operated.post("/v1/ingest", json={})).json()["run_id"])
    assert refused["status"] in ("refused", "failed")
    assert "is held since" in refused["error"]
    other = await operated.post(f"/v1/snapshots/{new}/activate", json={})
    assert (other.status_code, other.json()["type"]) == (409, "urn:archivist:problem:conflict")

    assert (await operated.delete("/v1/snapshots/hold")).status_code == 204
    assert (await operated.delete("/v1/snapshots/hold")).status_code == 404
    assert (await operated.post(f"/v1/snapshots/{new}/activate", json={})).status_code == 200
    assert snapshot_of(operated) == new
    assert "new.md" in await found_in(operated, "observatory dusk")
    assert "archivist_snapshot_held 0.0" in (await operated.get("/metrics")).text


async def test_a_damaged_or_unknown_snapshot_is_not_activated(operated: ServiceClient, site: Path) -> None:
    """409 and 404; what is served stays, and the list names what is wrong."""
    old = snapshot_of(operated)
    bad = "000009-0123abcd"
    shutil.copytree(site / "data" / "snapshots" / old, site / "data" / "snapshots" / bad)
    refused = await operated.post(f"/v1/snapshots/{bad}/activate", json={"hold": True})
    assert refused.status_code == 409
    assert "is damaged" in refused.json()["detail"]
    for unknown in ("000008-00000000", "..%2F..", "hold"):
        assert (await operated.post(f"/v1/snapshots/{unknown}/activate", json={})).status_code == 404
    assert snapshot_of(operated) == old
    listed = (await operated.get("/v1/snapshots")).json()["snapshots"]
    assert [(each["id"], each["current"], each["held"], each["problem"] is None) for each in listed] == [
        (bad, False, False, False),
        (old, True, False, True),
    ]


async def test_a_snapshot_whose_model_is_not_there_is_not_activated(operated: ServiceClient, site: Path) -> None:
    """409 that names both; what is served stays, and neither CURRENT nor HOLD is touched."""
    old = snapshot_of(operated)
    data = site / "data"
    bad = small.publish(data, ["text"]).id
    point_to(data, old)
    refused = await operated.post(f"/v1/snapshots/{bad}/activate", json={"hold": True})
    assert refused.status_code == 409
    assert f"snapshot '{bad}' cannot be served: embedder.model 'model' is neither a folder" in refused.json()["detail"]
    assert (snapshot_of(operated), current_id(data), held(data)) == (old, old, None)


async def test_an_activation_that_the_service_did_not_take_up_says_so(operated: ServiceClient, site: Path) -> None:
    """Whole as far as anybody could look, its model cannot be opened: `problem` has the reason, and the old one serves on."""
    old = snapshot_of(operated)
    model = site / "model"
    model.mkdir()
    (model / "model.safetensors").write_bytes(b"no weights")
    settings = EmbedderSettings(model=str(model))
    stamp = EmbedderStamp(str(model), fingerprint_of(model, settings), small.DIMENSION, settings=values_of(settings))
    odd = small.publish(site / "data", ["text"], stamp=stamp).id
    point_to(site / "data", old)
    told = (await operated.post(f"/v1/snapshots/{odd}/activate", json={})).json()
    assert (told["id"], told["current"], told["documents"]) == (odd, True, 1)
    assert "cannot be loaded" in told["problem"]
    assert snapshot_of(operated) == old
    again = (await operated.post(f"/v1/snapshots/{old}/activate", json={})).json()
    assert (again["id"], again["current"], again["problem"]) == (old, True, None)


async def test_metrics_and_readiness_tell_of_the_last_run(operated: ServiceClient) -> None:
    """Its end, duration, status and failures, the last that went well, and runs by status; /readyz names it."""
    text = (await operated.get("/metrics")).text
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert values['archivist_ingest_last_run_status{status="published"}'] == "1.0"
    assert values['archivist_ingest_last_run_status{status="failed"}'] == "0.0"
    assert values['archivist_ingest_runs{status="published"}'] == "1.0"
    assert values["archivist_ingest_last_run_failures"] == "0.0"
    assert float(values["archivist_ingest_last_run_duration_seconds"]) > 0
    ended_at = float(values["archivist_ingest_last_run_timestamp_seconds"])
    assert ended_at == float(values["archivist_ingest_last_success_timestamp_seconds"])
    assert 0 <= ended_at - float(values["archivist_snapshot_created_timestamp_seconds"]) < 600
    last = (await operated.get("/readyz")).json()["last_run"]
    assert (last["status"], last["failures"], last["run_id"][:7]) == ("published", 0, "000001-")


@pytest.mark.parametrize("text", ["{}", '{"status": "published", "failures": 7}', '{"status": "unchanged", "started_at": 1}'])
async def test_a_file_that_is_no_report_fails_nothing(operated: ServiceClient, site: Path, text: str) -> None:
    """/readyz, /metrics and the list of runs tell of the last report that is one."""
    (site / "data" / "runs" / "000500-aaaaaaaa.json").write_text(text)
    assert (await operated.get("/readyz")).json()["last_run"]["run_id"][:7] == "000001-"
    assert 'archivist_ingest_runs{status="published"} 1.0' in (await operated.get("/metrics")).text
    assert [each["run_id"][:7] for each in (await operated.get("/v1/ingest")).json()["runs"]] == ["000001-"]
    assert (await operated.get("/v1/ingest/000500-aaaaaaaa")).status_code == 404
    listed = CliRunner().invoke(cli, ["runs", "list", "--data", str(site / "data")])
    assert (listed.exit_code, [line[:7] for line in listed.stdout.splitlines()]) == (0, ["000001-"])


async def test_a_service_without_its_job_starts_none(client: ServiceClient) -> None:
    """Made without a command line: 409 that says what to run."""
    refused = await client.post("/v1/ingest", json={})
    assert refused.status_code == 409
    assert "archivist ingest" in refused.json()["detail"]


async def test_metrics_before_the_first_run(tmp_path: Path) -> None:
    """No run, no snapshot: not a number, and nothing fails."""
    settings = settings_of(tmp_path / "data")
    app = create_app(settings, composed(settings))
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(app.router.lifespan_context(app))
        transport = httpx.ASGITransport(app=app)
        client = await stack.enter_async_context(httpx.AsyncClient(transport=transport, base_url="http://testserver"))
        text = (await client.get("/metrics")).text
        assert "archivist_ingest_last_run_timestamp_seconds NaN" in text
        assert "archivist_snapshot_created_timestamp_seconds NaN" in text
        assert (await client.get("/v1/snapshots")).json() == {"snapshots": []}
        assert (await client.get("/v1/ingest")).json() == {"runs": [], "next_cursor": None}
