"""The OpenAPI document states every call, example and error, and the service keeps to it under a fuzzer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from tests.app.serving import ServiceClient, listening, settings_of
from tests.making import copy_published

CALLS = {
    "POST /v1/ask",
    "POST /v1/search",
    "POST /v1/chat/completions",
    "GET /v1/models",
    "GET /v1/conversations",
    "GET /v1/conversations/{conversation_id}",
    "DELETE /v1/conversations/{conversation_id}",
    "GET /v1/documents",
    "GET /v1/documents/{document_id}",
    "POST /v1/documents",
    "DELETE /v1/documents/{document_id}",
    "POST /v1/ingest",
    "GET /v1/ingest",
    "GET /v1/ingest/{run_id}",
    "GET /v1/snapshots",
    "POST /v1/snapshots/{snapshot_id}/activate",
    "DELETE /v1/snapshots/hold",
    "GET /livez",
    "GET /readyz",
    "GET /metrics",
}


@pytest.fixture(scope="module")
def fuzzed_address(tmp_path_factory: pytest.TempPathFactory, published: Path) -> Iterator[str]:
    """A service of its own for the fuzzer."""
    data_dir = copy_published(published / "data", tmp_path_factory.mktemp("fuzzed") / "data")
    with listening(settings_of(data_dir)) as address:
        yield address


@pytest.fixture(scope="module")
def fuzzed_schema(fuzzed_address: str) -> Any:
    """The document as a program reads it from the running service."""
    return schemathesis.openapi.from_url(f"{fuzzed_address}/openapi.json")


CHECKS = [
    schemathesis.checks.not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["allowed", "forbidden"])
@pytest.mark.parametrize("call", sorted(CALLS))
def test_nothing_the_document_allows_or_forbids_breaks_the_service(fuzzed_schema: Any, call: str, mode: GenerationMode) -> None:
    """Generated requests, good and bad: no 5xx, only stated statuses, types and shapes, and nothing invalid accepted."""
    method, path = call.split(" ")
    operation = fuzzed_schema[path][method]
    answered = 0

    @settings(max_examples=10, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def fuzz(case: Any) -> None:
        nonlocal answered
        case.call_and_validate(checks=CHECKS)
        answered += 1

    try:
        fuzz()
    except Unsatisfiable:
        # A call without parameters and body has nothing that could be sent wrongly.
        assert mode is GenerationMode.NEGATIVE
        assert not operation.definition.raw.get("parameters")
        assert "requestBody" not in operation.definition.raw
    else:
        assert answered > 0


@pytest.fixture
def document(fuzzed_address: str) -> dict[str, Any]:
    """The OpenAPI document."""
    found: dict[str, Any] = httpx.get(f"{fuzzed_address}/openapi.json").json()
    return found


def test_the_document_lists_exactly_the_calls_of_the_contract(document: dict[str, Any]) -> None:
    """A call that appears or disappears fails here."""
    assert {f"{method.upper()} {path}" for path, item in document["paths"].items() for method in item} == CALLS


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    """No `$ref` names a schema that the document lacks."""
    named = set(re.findall(r'"\$ref": "#/components/schemas/(\w+)"', json.dumps(document)))
    assert named <= set(document["components"]["schemas"])
    assert "ProblemDetails" in named


def test_every_call_states_its_errors_and_shows_an_example(document: dict[str, Any]) -> None:
    """Every call under /v1 says 401, 421 and 500, each error as an example of its own shape; every body has an example."""
    for path, item in document["paths"].items():
        for method, call in item.items():
            assert call["summary"], path
            if path.startswith("/v1"):
                assert {"401", "421", "500"} <= set(call["responses"]), (method, path)
                for_administrators = path.startswith(("/v1/ingest", "/v1/snapshots"))
                assert ("403" in call["responses"]) is (method != "get" or for_administrators), (method, path)
            for status, response in call["responses"].items():
                for media_type, content in response.get("content", {}).items():
                    if int(status) >= 400 and status != "503" and not path.startswith(("/v1/chat", "/v1/models")):
                        assert media_type == "application/problem+json", (path, status)
                        assert content["example"]["status"] == int(status)
            if "application/json" in call.get("requestBody", {}).get("content", {}):
                reference = call["requestBody"]["content"]["application/json"]["schema"]["$ref"]
                assert document["components"]["schemas"][reference.rsplit("/", 1)[-1]]["examples"], path


def test_the_examples_are_answered(fuzzed_address: str, document: dict[str, Any]) -> None:
    """Every example of a request body works as it stands, where it does not name a conversation of its own."""
    tried = 0
    for path in ("/v1/ask", "/v1/search", "/v1/chat/completions"):
        content = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        for example in document["components"]["schemas"][content["schema"]["$ref"].rsplit("/", 1)[-1]]["examples"]:
            response = httpx.post(f"{fuzzed_address}{path}", json=example, timeout=30)
            assert response.status_code == (404 if "conversation_id" in example else 200), (path, example)
            tried += 1
    assert tried == 5


def test_the_docs_page_shows_every_call_and_loads_nothing(fuzzed_address: str) -> None:
    """/docs names each call and its errors, and has no script, style or address of another place."""
    page = httpx.get(f"{fuzzed_address}/docs")
    assert page.headers["content-type"].startswith("text/html")
    for call in CALLS:
        assert f"<code>{call}</code>" in page.text
    assert "410 Version gone" in page.text
    assert "When are expense reports due?" in page.text
    assert re.findall(r"<(?:script|link|img|style|iframe)\b", page.text) == []
    assert re.findall(r"""(?:src|href)=["'](?!/)""", page.text) == []


@pytest.mark.anyio
async def test_the_page_is_served_with_its_types(client: ServiceClient) -> None:
    """`/` is the page, and its scripts and styles have types that a browser accepts under nosniff."""
    page = await client.get("/")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    for name in re.findall(r'(?:src|href)="(?:\./|/)?([^":#]+\.(?:js|css|svg))"', page.text):
        found = await client.get(f"/{name}")
        assert found.status_code == 200, name
        assert found.headers["content-type"].split(";")[0] in ("text/javascript", "text/css", "image/svg+xml"), name
