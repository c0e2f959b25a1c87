"""What is refused before a route sees it: hosts, keys, sizes, types and JSON that is not quite JSON."""

from __future__ import annotations

import json
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from tests.app.serving import Serve, ServiceClient

pytestmark = pytest.mark.anyio

JSON = {"content-type": "application/json"}
CANARY = "canary-4711"


async def test_every_response_has_an_id_and_safe_headers(client: ServiceClient) -> None:
    """Good and bad answers carry a request id of their own and the security headers."""
    seen = set()
    for path in ("/livez", "/v1/documents", "/nowhere", "/v1/conversations/none"):
        response = await client.get(path)
        seen.add(response.headers["x-request-id"])
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["referrer-policy"] == "no-referrer"
        assert response.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
        assert "access-control-allow-origin" not in response.headers
        if response.status_code >= 400:
            assert response.headers["content-type"] == "application/problem+json"
            assert response.json()["instance"] == f"urn:archivist:request:{response.headers['x-request-id']}"
    assert len(seen) == 4


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("testserver", 200),
        ("TESTSERVER", 200),
        ("testserver:8080", 200),
        ("127.0.0.1:9", 200),
        ("evil.example", 421),
        ("testserver.evil.example", 421),
        ("testserver:8080:1", 421),
        ("testserver@evil.example", 421),
        ("", 421),
    ],
)
async def test_a_foreign_host_is_refused(client: ServiceClient, host: str, status: int) -> None:
    """Only names in the allow-list are answered, with any port, so that no other site can rebind to us."""
    response = await client.get("/livez", headers={"host": host})
    assert response.status_code == status


async def test_without_the_key_only_liveness_readiness_and_the_page_answer(serve: Serve) -> None:
    """Every path of the OpenAPI document, and the document, needs the key, except /livez and /readyz without detail."""
    async with serve(api_key=SecretStr(CANARY)) as client:
        keyed = {"authorization": f"Bearer {CANARY}"}
        document = (await client.get("/openapi.json", headers=keyed)).json()
        calls = [(method, path) for path, item in document["paths"].items() for method in item]
        assert len(calls) >= 10
        for method, path in [*calls, ("get", "/openapi.json"), ("get", "/docs"), ("get", "/v1/nowhere"), ("put", "/v1/ask")]:
            response = await client.request(method, re.sub(r"\{.*?\}", "some-id", path), headers=JSON, content=b"{")
            if path in ("/livez", "/readyz"):
                assert response.status_code == 200
                assert set(response.json()) == {"status"}
            else:
                assert (path, response.status_code) == (path, 401)
                assert response.headers["www-authenticate"] == "Bearer"
                assert CANARY not in response.text
        assert (await client.get("/v1/documents", headers=keyed)).status_code == 200
        assert (await client.get("/readyz", headers=keyed)).json()["snapshot"]["documents"] == 4
        for wrong in ("Bearer x' or '1'='1", f"Basic {CANARY}", "Bearer"):
            response = await client.get("/v1/documents", headers={"authorization": wrong})
            assert response.status_code == 401


@pytest.mark.parametrize("header", [{}, {"content-type": "text/plain"}, {"content-type": "application/x-www-form-urlencoded"}])
async def test_a_body_that_is_not_declared_json_is_refused(client: ServiceClient, header: dict[str, str]) -> None:
    """A form or plain text, which a browser sends across sites unasked, is 415."""
    response = await client.post("/v1/search", content=b'{"query": "travel"}', headers=header)
    assert response.status_code == 415


async def test_a_compressed_body_is_refused(client: ServiceClient) -> None:
    """Nothing is unpacked, so a small body cannot become a large one."""
    response = await client.post("/v1/search", content=b"\x1f\x8b", headers={**JSON, "content-encoding": "gzip"})
    assert response.status_code == 415


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", None),
        (b"{", "not JSON"),
        (b'{"query": "a"} x', "not JSON"),
        (b'{"query": "canary-4711', "not JSON"),
        (b"\xff\xfe", "not UTF-8"),
        (b'{"query": "\\ud800 canary-4711"}', "surrogate"),
        (b'{"\\uDfff": 1, "query": "a"}', "surrogate"),
        (b'{"query": "a", "top_k": NaN}', "NaN"),
        (b'{"query": "a", "top_k": -Infinity}', "NaN"),
        (b'{"query": "a", "query": "canary-4711"}', "twice"),
        (b'{"query": "a", "top_k": ' + b"9" * 5000 + b"}", "number"),
        (b"[" * 100_000, "nested"),
        (b'{"query": ' + b"[" * 50_000 + b"]" * 50_000 + b"}", "nested"),
    ],
    ids=[
        "empty",
        "cut",
        "trailing",
        "cut text",
        "UTF-16",
        "surrogate",
        "surrogate key",
        "NaN",
        "Infinity",
        "twice",
        "digits",
        "deep and cut",
        "deep",
    ],
)
async def test_malformed_json_is_the_callers_error(client: ServiceClient, body: bytes, says: str | None) -> None:
    """What is not strict JSON is 400 with the reason (an empty body 422), and nothing of it comes back."""
    response = await client.post("/v1/search", content=body, headers=JSON)
    assert response.status_code == (422 if says is None else 400)
    assert says is None or says in response.json()["detail"]
    assert CANARY not in response.text


async def test_many_unknown_keys_are_not_all_named(client: ServiceClient) -> None:
    """A body full of unknown keys is an error that names a few of them."""
    body = {"query": "a", **{f"key{number}": number for number in range(900)}}
    response = await client.post("/v1/search", json=body)
    assert response.status_code == 422
    assert len(response.json()["errors"]) == 20
    assert len(response.content) < 5_000


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"query": "a", **{f"key{number}": 1 for number in range(60_000)}}, 400),
        ({"query": "a", "filters": {f"key{number}": 1 for number in range(60_000)}}, 400),
        ({"query": "a", "messages": [1] * 300_000}, 422),
        ({"query": "a", "messages": [{}] * 200_000}, 422),
        ({"query": "a", "filters": {"source": [1] * 300_000}}, 422),
    ],
    ids=["keys", "filters", "numbers", "objects", "values"],
)
async def test_a_megabyte_of_wrong_values_is_refused_soon(client: ServiceClient, body: dict[str, Any], status: int) -> None:
    """However many values are wrong, the first ones decide: well under a second, and a short answer."""
    content = json.dumps(body, separators=(",", ":")).encode()
    began = time.perf_counter()
    response = await client.post("/v1/search", content=content, headers=JSON)
    assert response.status_code == status
    assert time.perf_counter() - began < 1.0
    assert len(response.content) < 5_000


async def test_a_body_over_the_limit_is_refused_by_its_declared_length(serve: Serve) -> None:
    """One byte over the limit is 413, at the limit it is read."""
    async with serve(max_body_bytes=2_000) as client:
        for size, status in ((2_000, 422), (2_001, 413)):
            filler = b'{"query": "' + b"a" * (size - 13) + b'"}'
            assert len(filler) == size
            response = await client.post("/v1/search", content=filler.replace(b"query", b"quert"), headers=JSON)
            assert response.status_code == status
        response = await client.post("/v1/search", content=b"{}", headers={**JSON, "content-length": "1e9"})
        assert response.status_code == 413


async def test_a_body_over_the_limit_is_refused_while_it_arrives(serve: Serve) -> None:
    """Without a declared length reading stops at the limit; what would follow is never asked for."""
    sent = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(1000):
            sent += 1000
            yield b"a" * 1000

    async with serve(max_body_bytes=5_000) as client:
        for path in ("/v1/search", "/v1/chat/completions"):
            sent = 0
            response = await client.post(path, content=body(), headers=JSON)
            assert response.status_code == 413
            assert sent <= 7_000


async def test_wrong_methods_and_paths_are_problems(client: ServiceClient) -> None:
    """An unknown path is 404 and a wrong method 405 with Allow, as problem details; under /v1/models as OpenAI's error."""
    response = await client.get("/v1/nowhere")
    assert (response.status_code, response.json()["type"]) == (404, "urn:archivist:problem:not-found")
    response = await client.put("/v1/ask", json={})
    assert (response.status_code, response.headers["allow"]) == (405, "POST")
    response = await client.delete("/v1/models")
    assert response.status_code == 405
    assert response.json()["error"]["code"] == "method_not_allowed"
    assert (await client.post("/v1/nowhere", json={})).status_code == 404


@pytest.mark.parametrize("path", ["/v1/documents/%00", "/v1/documents/%ff%fe", "/v1/documents/..%2f..", "/%2e%2e/main.py"])
async def test_odd_paths_are_not_found(client: ServiceClient, path: str) -> None:
    """NUL, broken UTF-8 and dots in a path find nothing and break nothing."""
    assert (await client.get(path)).status_code == 404


async def test_an_unexpected_error_tells_nothing_but_its_request_id(
    client: ServiceClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bug answers 500 with fixed words; its message reaches neither the caller nor the log."""

    def broken(*_values: object) -> None:
        raise ZeroDivisionError(CANARY)

    monkeypatch.setattr(client.services.state, "conversations", broken)
    response = await client.get("/v1/conversations")
    assert response.status_code == 500
    assert response.json()["title"] == "Internal error"
    assert response.json()["instance"].endswith(response.headers["x-request-id"])
    logged = capsys.readouterr()
    assert "ZeroDivisionError" in logged.out + logged.err
    assert CANARY not in response.text + logged.out + logged.err


async def test_a_damaged_database_is_a_clear_503(client: ServiceClient, site: Path) -> None:
    """When service.db breaks while serving, conversations answer 503 and say so, without naming the path."""
    client.services.state.close()
    (site / "data" / "service.db").write_bytes(b"garbage" * 1000)
    for extra in ("service.db-wal", "service.db-shm"):
        (site / "data" / extra).unlink(missing_ok=True)
    response = await client.get("/v1/conversations")
    assert (response.status_code, response.json()["type"]) == (503, "urn:archivist:problem:state-error")
    assert str(site) not in response.text
    assert (await client.get("/livez")).status_code == 200
    ready = await client.get("/readyz")
    assert (ready.status_code, ready.json()["codes"]) == (503, ["state_unavailable"])


@pytest.mark.parametrize(
    "headers",
    [{"origin": "http://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}],
)
async def test_a_page_of_another_site_changes_nothing(client: ServiceClient, headers: dict[str, str]) -> None:
    """Without a key this machine's browsers are trusted, so what a foreign page sends is 403 for every method that changes."""
    for method, path in (("POST", "/v1/ask"), ("DELETE", "/v1/conversations/x"), ("POST", "/v1/nowhere"), ("PUT", "/")):
        refused = await client.request(method, path, headers={**JSON, **headers}, content=b"{}")
        assert (refused.status_code, refused.json()["type"]) == (403, "urn:archivist:problem:forbidden"), path
    refused = await client.post("/v1/chat/completions", headers={**JSON, **headers}, content=b"{}")
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "forbidden")
    assert (await client.get("/v1/documents", headers=headers)).status_code == 200


async def test_the_services_own_page_may_ask(client: ServiceClient) -> None:
    """What its own page sends is answered, with either header."""
    for headers in ({"origin": "http://testserver"}, {"sec-fetch-site": "same-origin", "origin": "https://testserver"}):
        found = await client.post("/v1/search", headers=headers, json={"query": "travel"})
        assert found.status_code == 200
