"""/v1/conversations: own ones only, and access decided again on every read."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from app.routes.conversations import WITHDRAWN
from tests.app.serving import Serve, ServiceClient, publish, snapshot_after, snapshot_of

pytestmark = pytest.mark.anyio

QUESTION = "When are expense reports due?"


async def test_conversations_are_listed_page_by_page_and_deleted(client: ServiceClient) -> None:
    """Following the cursor shows each once, last used first; a deleted one is gone everywhere."""
    made = []
    for number in range(3):
        body = (await client.post("/v1/ask", json={"question": f"{QUESTION} ({number})"})).json()
        made.append(body["conversation_id"])
    first = (await client.get("/v1/conversations", params={"limit": 2})).json()
    second = (await client.get("/v1/conversations", params={"limit": 2, "cursor": first["next_cursor"]})).json()
    listed = [each["conversation_id"] for each in [*first["conversations"], *second["conversations"]]]
    assert listed == made[::-1]
    assert second["next_cursor"] is None
    assert first["conversations"][0]["title"] == f"{QUESTION} (2)"

    deleted = await client.delete(f"/v1/conversations/{made[1]}")
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert (await client.get(f"/v1/conversations/{made[1]}")).status_code == 404
    assert (await client.delete(f"/v1/conversations/{made[1]}")).status_code == 404
    asked = await client.post("/v1/ask", json={"question": QUESTION, "conversation_id": made[1]})
    assert asked.status_code == 404


async def test_a_long_conversation_is_shown_from_its_end(client: ServiceClient) -> None:
    """The first page holds the newest messages, its cursor the older ones."""
    conversation_id = (await client.post("/v1/ask", json={"question": QUESTION})).json()["conversation_id"]
    await client.post("/v1/ask", json={"question": "And which form?", "conversation_id": conversation_id})
    path = f"/v1/conversations/{conversation_id}"
    newest = (await client.get(path, params={"limit": 2})).json()
    assert [message["role"] for message in newest["messages"]] == ["user", "assistant"]
    assert newest["messages"][0]["content"] == "And which form?"
    older = (await client.get(path, params={"limit": 2, "cursor": newest["next_cursor"]})).json()
    assert older["messages"][0]["content"] == QUESTION
    assert older["next_cursor"] is None


@pytest.mark.parametrize("query", ["cursor=nonsense!", "cursor=abc", "limit=0", "limit=201", "limit=x"])
async def test_foreign_cursors_and_limits_are_refused(client: ServiceClient, query: str) -> None:
    """A cursor that we did not give out and a limit out of bounds are 422."""
    assert (await client.get(f"/v1/conversations?{query}")).status_code == 422


async def test_a_conversation_survives_a_restart(serve: Serve) -> None:
    """What was asked before a restart is there after it, and goes on."""
    async with serve() as client:
        conversation_id = (await client.post("/v1/ask", json={"question": QUESTION})).json()["conversation_id"]
    async with serve() as client:
        shown = (await client.get(f"/v1/conversations/{conversation_id}")).json()
        assert "30 days" in shown["messages"][1]["content"]
        body = {"question": "And which form?", "conversation_id": conversation_id}
        assert (await client.post("/v1/ask", json=body)).status_code == 200


async def test_anothers_conversation_looks_like_one_that_does_not_exist(serve: Serve) -> None:
    """Read, continued or deleted under another key: the same 404 as for an id that never was; it stays whole."""
    async with serve(api_key=SecretStr("key of anna")) as client:
        keyed = {"authorization": "Bearer key of anna"}
        asked = await client.post("/v1/ask", json={"question": "canary question, expense reports?"}, headers=keyed)
        conversation_id = asked.json()["conversation_id"]
    async with serve(api_key=SecretStr("key of ben")) as client:
        keyed = {"authorization": "Bearer key of ben"}
        for method, path, body in (
            ("GET", "/v1/conversations/{}", None),
            ("DELETE", "/v1/conversations/{}", None),
            ("POST", "/v1/ask", {"question": QUESTION, "conversation_id": "{}"}),
        ):
            answers = []
            for asked_id in (conversation_id, "A" * len(conversation_id)):
                sent = None if body is None else {**body, "conversation_id": asked_id}
                response = await client.request(method, path.format(asked_id), json=sent, headers=keyed)
                problem = response.json()
                request_id = response.headers["x-request-id"]
                answers.append((response.status_code, response.text.replace(asked_id, "ID").replace(request_id, "REQUEST")))
                assert problem["status"] == 404
            assert answers[0] == answers[1]
        assert (await client.get("/v1/conversations", headers=keyed)).json()["conversations"] == []
    async with serve(api_key=SecretStr("key of anna")) as client:
        keyed = {"authorization": "Bearer key of anna"}
        assert len((await client.get(f"/v1/conversations/{conversation_id}", headers=keyed)).json()["messages"]) == 2


async def test_an_answer_is_withdrawn_when_its_document_goes(client: ServiceClient, site: Path) -> None:
    """After the document was removed and ingested again the stored answer is not shown, nor is anything that quotes it."""
    asked = (await client.post("/v1/ask", json={"question": QUESTION})).json()
    path = f"/v1/conversations/{asked['conversation_id']}"
    before = (await client.get(path)).json()["messages"][1]
    assert (before["withdrawn"], before["content"]) == (False, asked["answer"])

    (site / "documents" / "policies" / "travel.md").unlink()
    before_publishing = snapshot_of(client)
    publish(site / "documents", site / "data")
    await snapshot_after(client, before_publishing)

    response = await client.get(path)
    user, answered = response.json()["messages"]
    assert (user["withdrawn"], user["content"]) == (False, QUESTION)
    assert (answered["withdrawn"], answered["content"], answered["citations"]) == (True, WITHDRAWN, [])
    assert (answered["standalone_question"], answered["grounding"]) == (None, None)
    assert "30 days" not in response.text


async def test_an_answer_is_withdrawn_when_the_callers_group_goes(serve: Serve) -> None:
    """An answer from a group's document is shown to its members, and withdrawn from the same caller outside the group."""
    async with serve(groups=("everyone", "board")) as client:
        question = {"question": "Where does the canary salary band of directors begin?"}
        asked = (await client.post("/v1/ask", json=question)).json()
        assert "190000" in asked["answer"]
        path = f"/v1/conversations/{asked['conversation_id']}"
        assert "190000" in (await client.get(path)).text
    async with serve(groups=("everyone",)) as client:
        response = await client.get(path)
        assert response.json()["messages"][1]["withdrawn"] is True
        assert "190000" not in response.text
        follow = await client.post(
            "/v1/ask", json={"question": "And why?", "conversation_id": asked["conversation_id"], "stream": True}
        )
        assert "190000" not in follow.text


async def test_answers_are_not_shown_while_access_cannot_be_decided(serve: Serve, site: Path) -> None:
    """Without a snapshot nothing says who may see what, so a conversation with answers is 503, the list still works."""
    async with serve() as client:
        conversation_id = (await client.post("/v1/ask", json={"question": QUESTION})).json()["conversation_id"]
    (site / "data" / "CURRENT").unlink()
    async with serve() as client:
        assert (await client.get(f"/v1/conversations/{conversation_id}")).status_code == 503
        assert len((await client.get("/v1/conversations")).json()["conversations"]) == 1
