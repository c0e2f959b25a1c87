"""POST /v1/ask and /v1/search through the whole application."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.app.serving import Serve, ServiceClient

pytestmark = pytest.mark.anyio

QUESTION = "When are expense reports due?"
ANSWER_FIELDS = {
    "answerability",
    "clarifies",
    "answer",
    "abstained",
    "citations",
    "conversation_id",
    "message_id",
    "standalone_question",
    "provider",
    "model",
    "route",
    "snapshot",
    "usage",
    "finish_reason",
    "grounding",
    "timings_ms",
}


def events_of(text: str) -> list[tuple[str, Any]]:
    """The events of a stream; every event's data is one JSON object."""
    events = []
    for block in text.replace("\r\n", "\n").strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
        if fields:
            events.append((fields["event"], json.loads(fields["data"])))
    return events


async def test_an_answer_cites_the_exact_words_of_a_document(client: ServiceClient) -> None:
    """The answer holds the fact, and its citation's span is the quote in the document's own text."""
    body = (await client.post("/v1/ask", json={"question": QUESTION})).json()
    assert set(body) == ANSWER_FIELDS
    assert "30 days" in body["answer"]
    assert body["abstained"] is False
    assert body["provider"] == "extractive"
    assert body["usage"] == {
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "cost_usd": 0.0,
        "cached_tokens": 0,
        "estimated": False,
    }
    assert set(body["timings_ms"]) == {"history", "embed", "search", "prompt", "first_token", "generate", "total"}
    citation = body["citations"][0]
    assert citation["source"] == "policies/travel.md"
    assert citation["title"] == "Travel policy"
    document = (await client.get(f"/v1/documents/{citation['document_id']}", params={"version": citation["version"]})).json()
    assert document["text"][citation["start"] : citation["end"]] == citation["quote"]
    assert "30 days" in citation["quote"]


async def test_a_stream_says_the_same_as_one_answer(client: ServiceClient) -> None:
    """Sources first, then text, then everything; the deltas together are the answer, which is that of the plain call."""
    plain = (await client.post("/v1/ask", json={"question": QUESTION})).json()
    response = await client.post("/v1/ask", json={"question": QUESTION, "stream": True})
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-cache"
    events = events_of(response.text)
    names = [name for name, _ in events]
    assert names == ["sources", *["delta"] * (len(names) - 2), "done"]
    done = events[-1][1]
    assert set(done) == ANSWER_FIELDS
    assert "".join(data["text"] for name, data in events if name == "delta") == done["answer"] == plain["answer"]
    sources = events[0][1]
    assert set(sources) == {"citations", "standalone_question"}
    assert done["citations"][0]["chunk_id"] in {each["chunk_id"] for each in sources["citations"]}


async def test_a_conversation_goes_on_and_is_stored(client: ServiceClient) -> None:
    """A follow-up with the conversation's id is understood from what came before and stored behind it."""
    first = (await client.post("/v1/ask", json={"question": "May employees work from home?"})).json()
    conversation_id = first["conversation_id"]
    second = (
        await client.post("/v1/ask", json={"question": "And for contractors?", "conversation_id": conversation_id})
    ).json()
    assert second["conversation_id"] == conversation_id
    assert "one day" in second["answer"]
    shown = (await client.get(f"/v1/conversations/{conversation_id}")).json()
    assert shown["title"] == "May employees work from home?"
    assert [message["role"] for message in shown["messages"]] == ["user", "assistant"] * 2
    assert shown["messages"][2]["content"] == "And for contractors?"
    assert shown["messages"][3]["message_id"] == second["message_id"]
    assert shown["messages"][3]["citations"] == second["citations"]


async def test_a_stateless_caller_leaves_nothing_behind(client: ServiceClient) -> None:
    """With `messages` the follow-up is understood, but no conversation is made."""
    turns = [
        {"role": "user", "content": "May employees work from home?"},
        {"role": "assistant", "content": "Three days a week."},
    ]
    body = (await client.post("/v1/ask", json={"question": "And for contractors?", "messages": turns})).json()
    assert "one day" in body["answer"]
    assert (body["conversation_id"], body["message_id"]) == (None, None)
    assert (await client.post("/v1/ask", json={"question": QUESTION, "messages": []})).json()["conversation_id"] is None
    assert (await client.get("/v1/conversations")).json() == {"conversations": [], "next_cursor": None}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"question": ""}, "question"),
        ({"question": " \n\t\u2003"}, "question"),
        ({"question": "\x00"}, "question"),
        ({"question": 5}, "question"),
        ({"question": None}, "question"),
        ({"question": "canary-4711 " * 1000}, "question"),
        ({"top_k": -1}, "top_k"),
        ({"top_k": 0}, "top_k"),
        ({"top_k": 51}, "top_k"),
        ({"top_k": 10**9}, "top_k"),
        ({"top_k": "5"}, "top_k"),
        ({"top_k": 5.0}, "top_k"),
        ({"top_k": True}, "top_k"),
        ({"stream": "yes"}, "stream"),
        ({"provider": "nobody"}, "provider"),
        ({"unknown": 1}, "unknown"),
        ({"questions": "typo"}, "questions"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": "x"}] * 101}, "messages"),
        ({"messages": [], "conversation_id": "abc"}, ""),
        ({"conversation_id": "x" * 65}, "conversation_id"),
        ({"filters": {"nothing": "x"}}, "filters"),
        ({"filters": {"source": []}}, "filters.source"),
        ({"filters": ["source"]}, "filters"),
    ],
    ids=lambda value: json.dumps(value)[:40] if isinstance(value, dict) else "",
)
async def test_a_value_out_of_bounds_is_422_and_names_its_field(
    client: ServiceClient, change: dict[str, Any], field: str
) -> None:
    """Each wrong value is refused with the field's name and never repeated."""
    response = await client.post("/v1/ask", json={"question": "canary-4711?", **change})
    assert response.status_code == 422
    problem = response.json()
    assert problem["type"] == "urn:archivist:problem:invalid"
    assert field in problem["detail"]
    assert "canary" not in response.text
    if "errors" in problem and field:
        assert any(each["field"].startswith(field) for each in problem["errors"])


async def test_filters_and_access_rule_what_is_found(client: ServiceClient) -> None:
    """A filter narrows the hits; what another group alone may see is not found by its exact words."""
    hits = (await client.post("/v1/search", json={"query": "working from home or travel", "top_k": 50})).json()["hits"]
    assert {"policies/travel.md", "policies/remote.md"} <= {hit["source"] for hit in hits}
    assert [hit["rank"] for hit in hits] == list(range(1, len(hits) + 1))
    assert "score" not in hits[0]
    narrowed = await client.post(
        "/v1/search", json={"query": "working from home or travel", "filters": {"source": ["policies/remote.md"]}}
    )
    assert {hit["source"] for hit in narrowed.json()["hits"]} == {"policies/remote.md"}
    secret = await client.post("/v1/search", json={"query": "canary salary band of directors 190000", "top_k": 50})
    assert "canary" not in json.dumps(secret.json()["hits"])
    asked = await client.post("/v1/ask", json={"question": "Where does the salary band of directors begin?", "messages": []})
    assert "190000" not in asked.text


async def test_hits_are_spans_of_their_documents(client: ServiceClient) -> None:
    """A hit's text is the span it names."""
    hits = (await client.post("/v1/search", json={"query": "E-4410"})).json()["hits"]
    assert hits[0]["source"] == "it/errors.txt"
    text = (await client.get(f"/v1/documents/{hits[0]['document_id']}")).json()["text"]
    assert text[hits[0]["start"] : hits[0]["end"]] == hits[0]["text"]


async def test_an_unknown_conversation_is_404_before_the_stream_begins(client: ServiceClient) -> None:
    """A conversation that is not there has its own status, for a stream too."""
    for stream in (False, True):
        body = {"question": QUESTION, "conversation_id": "nothing", "stream": stream}
        response = await client.post("/v1/ask", json=body)
        assert (response.status_code, response.json()["type"]) == (404, "urn:archivist:problem:not-found")


async def test_two_questions_at_once_on_one_conversation_meet_a_conflict(client: ServiceClient) -> None:
    """The second gets 409 while the first is on its way; afterwards the conversation takes questions again."""
    conversation_id = (await client.post("/v1/ask", json={"question": QUESTION})).json()["conversation_id"]
    body = {"question": "And the form?", "conversation_id": conversation_id}
    responses = await asyncio.gather(*(client.post("/v1/ask", json=body) for _ in range(3)))
    assert sorted(response.status_code for response in responses) == [200, 409, 409]
    assert (await client.post("/v1/ask", json={**body, "stream": True})).status_code == 200
    messages = (await client.get(f"/v1/conversations/{conversation_id}")).json()["messages"]
    assert len(messages) == 6


async def test_without_a_snapshot_the_service_says_what_to_run(serve: Serve, site: Any) -> None:
    """An empty data folder: asking is 503 with the command to run, for a stream too."""
    (site / "data" / "CURRENT").unlink()
    async with serve() as client:
        for stream in (False, True):
            response = await client.post("/v1/ask", json={"question": QUESTION, "stream": stream})
            assert response.status_code == 503
            assert "archivist ingest" in response.json()["detail"]


async def test_questions_in_any_script_are_answered(client: ServiceClient) -> None:
    """NUL, bidi marks, emoji and a very long word are questions like others."""
    for question in (
        "expense\x00 reports?",
        "\u202eexpense\u2066 reports",
        "\U0001f468\u200d\U0001f469?",
        "a" * 8000,
        "' OR 1=1 --",
    ):
        response = await client.post("/v1/ask", json={"question": question, "messages": []})
        assert response.status_code == 200, question[:20]
