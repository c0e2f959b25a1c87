"""What was deleted, revoked or relabelled between runs holds from the next request on, in every call, and for old answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.llm.settings import LlmSettings
from app.routes.conversations import WITHDRAWN
from corpus.overlay import Overlay
from tests.app.labelled import Providers, running_providers
from tests.app.serving import Serve, ServiceClient

pytestmark = pytest.mark.anyio

QUESTION = "When are expense reports due?"
FOLLOWING = "And which form is used for that?"


@pytest.fixture
def overlay(site: Path) -> Iterator[Overlay]:
    """The overlay as another process opens it beside the running service."""
    opened = Overlay(site / "data" / "overlay.db")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def providers() -> Iterator[Providers]:
    """Stand-ins that record what they are sent."""
    with running_providers() as found:
        yield found


async def id_of(client: ServiceClient, source: str) -> str:
    """A document's id."""
    listed = (await client.get("/v1/documents", params={"limit": 200})).json()["documents"]
    return str(next(each["document_id"] for each in listed if each["source"] == source))


async def sources_found(client: ServiceClient, question: str) -> list[str]:
    """What a search finds."""
    hits = (await client.post("/v1/search", json={"query": question})).json()["hits"]
    return [hit["source"] for hit in hits]


async def test_a_deleted_document_is_gone_from_the_next_request_on(client: ServiceClient, overlay: Overlay) -> None:
    """Search, answers, the list and the document itself: none knows it; after an undo all do."""
    deleted = await id_of(client, "policies/travel.md")
    assert "policies/travel.md" in await sources_found(client, QUESTION)
    number = overlay.delete(deleted, "anna").number
    assert "policies/travel.md" not in await sources_found(client, QUESTION)
    assert "policies/travel.md" not in await sources_found(client, "TR-204")
    assert (await client.get(f"/v1/documents/{deleted}")).status_code == 404
    listed = (await client.get("/v1/documents")).json()["documents"]
    assert sorted(each["source"] for each in listed) == ["it/errors.txt", "policies/remote.md"]
    body = (await client.post("/v1/ask", json={"question": QUESTION})).json()
    assert (body["citations"], "30 days" in body["answer"]) == ([], False)
    ready = (await client.get("/readyz")).json()
    assert ready["snapshot"]["documents"] == 3
    overlay.undo(number)
    assert "policies/travel.md" in await sources_found(client, QUESTION)


async def test_an_answer_from_a_deleted_document_is_withdrawn_and_no_history(client: ServiceClient, overlay: Overlay) -> None:
    """It is not shown, and a follow-up does not find by its words; what the person asked stays."""
    first = (await client.post("/v1/ask", json={"question": QUESTION})).json()
    assert "30 days" in first["answer"]
    path = f"/v1/conversations/{first['conversation_id']}"
    overlay.delete(await id_of(client, "policies/travel.md"), "anna")
    shown = (await client.get(path)).json()["messages"]
    assert [(each["content"], each["withdrawn"]) for each in shown] == [(QUESTION, False), (WITHDRAWN, True)]
    assert "30 days" not in (await client.get(path)).text
    again = await client.post("/v1/ask", json={"question": FOLLOWING, "conversation_id": first["conversation_id"]})
    assert again.status_code == 200
    assert "TR-204" not in again.text
    assert "30 days" not in again.text


async def test_a_revoked_group_sees_nothing_of_it_any_more(serve: Serve, overlay: Overlay) -> None:
    """Its answers are withdrawn too; the other groups' are not."""
    async with serve(groups=("everyone",)) as client:
        first = (await client.post("/v1/ask", json={"question": QUESTION})).json()
        overlay.revoke(await id_of(client, "policies/travel.md"), "everyone", "anna")
        shown = (await client.get(f"/v1/conversations/{first['conversation_id']}")).json()["messages"]
        assert shown[1]["withdrawn"]
        assert "policies/travel.md" not in await sources_found(client, QUESTION)
        assert "policies/remote.md" in await sources_found(client, "working from home")


@pytest.mark.parametrize("is_stored", [True, False], ids=["stored", "stateless"])
async def test_a_label_that_is_raised_holds_for_earlier_answers(
    serve: Serve, overlay: Overlay, providers: Providers, is_stored: bool
) -> None:
    """Threat F3: once a document is secret, neither it nor an old answer from it goes to a provider cleared for internal."""
    providers.clear()
    llm = LlmSettings.model_validate({"default": "partner", "providers": providers.settings()})
    async with serve(llm=llm) as client:
        question = "Which form is used for the expense report?"
        first = (await client.post("/v1/ask", json={"question": question})).json()
        assert first["provider"] == "partner"
        assert len(providers.sent("partner")) == 1
        travel = await id_of(client, "policies/travel.md")
        overlay.relabel(travel, "secret", "anna")
        assert (await client.get(f"/v1/documents/{travel}")).json()["label"] == "secret"
        remote = {"question": "How many days may contractors work from home?"}
        if is_stored:
            remote["conversation_id"] = first["conversation_id"]
        earlier = [{"role": "user", "content": question}, {"role": "assistant", "content": first["answer"]}]
        body = (await client.post("/v1/ask", json=remote if is_stored else {**remote, "messages": earlier})).json()
        assert (body["provider"], len(providers.sent("partner"))) == ("extractive", 1)
        # A new conversation does not find the document where it is not asked for.
        hits = (await client.post("/v1/search", json={"query": question, "filters": {"label": ["secret"]}})).json()["hits"]
        assert {hit["source"] for hit in hits} == {"policies/travel.md"}


async def test_without_a_readable_overlay_nothing_is_shown(client: ServiceClient, site: Path) -> None:
    """Every call that reads documents answers 503, readiness says why, and all works again once the file is back."""
    first = (await client.post("/v1/ask", json={"question": QUESTION})).json()
    path, away = site / "data" / "overlay.db", site / "data" / "away.db"
    conversation = f"/v1/conversations/{first['conversation_id']}"
    path.rename(away)
    responses = [
        await client.post("/v1/search", json={"query": QUESTION}),
        await client.post("/v1/ask", json={"question": QUESTION}),
        await client.get("/v1/documents"),
        await client.get(f"/v1/documents/{first['citations'][0]['document_id']}"),
        await client.get(conversation),
    ]
    assert [response.status_code for response in responses] == [503] * 5
    assert {response.json()["type"] for response in responses} == {"urn:archivist:problem:overlay-error"}
    ready = await client.get("/readyz")
    assert (ready.status_code, ready.json()["codes"]) == (503, ["overlay_unavailable"])
    assert (await client.get("/metrics")).status_code == 200
    away.rename(path)
    assert (await client.get("/readyz")).status_code == 200
    assert (await client.get(conversation)).json()["messages"][1]["content"] == first["answer"]
