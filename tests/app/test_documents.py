"""/v1/documents: what the caller may see, page by page, and one with its text."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.app.serving import FILES, Serve, ServiceClient, publish, snapshot_after, snapshot_of

pytestmark = pytest.mark.anyio


async def _all(client: ServiceClient, limit: int) -> list[dict[str, str]]:
    found: list[dict[str, str]] = []
    cursor = None
    while True:
        page = (await client.get("/v1/documents", params={"limit": limit, **({"cursor": cursor} if cursor else {})})).json()
        found += page["documents"]
        cursor = page["next_cursor"]
        if cursor is None:
            return found


async def test_the_list_holds_every_visible_document_once(client: ServiceClient) -> None:
    """Whatever the page's size: the same documents in the order of their ids, and none of another group."""
    visible = {name for name in FILES if not name.startswith("board/")}
    for limit in (1, 2, 50):
        found = await _all(client, limit)
        assert {each["source"] for each in found} == visible
        assert [each["document_id"] for each in found] == sorted({each["document_id"] for each in found})
    assert "groups" not in found[0]


async def test_a_document_comes_with_its_text_and_sections(client: ServiceClient) -> None:
    """Title, label and format, and sections whose spans lie in the text."""
    listed = {each["source"]: each for each in await _all(client, 50)}
    shown = (await client.get(f"/v1/documents/{listed['policies/travel.md']['document_id']}")).json()
    assert (shown["title"], shown["label"], shown["collection"]) == ("Travel policy", "internal", "handbook")
    assert "Expense reports are due within 30 days" in shown["text"]
    expenses = next(section for section in shown["sections"] if section["heading"] == ["Expenses"])
    assert "TR-204" in shown["text"][expenses["start"] : expenses["end"]]


async def test_a_hidden_document_looks_like_one_that_does_not_exist(serve: Serve) -> None:
    """The id of another group's document gives the same 404 as a made-up one, whatever version is asked for."""
    async with serve(groups=("board",)) as client:
        (hidden,) = await _all(client, 50)
        assert hidden["source"] == "board/salaries.md"
        hidden_id, version = hidden["document_id"], hidden["version"]
    async with serve() as client:
        for query in ({}, {"version": version}, {"version": "other"}):
            answers = set()
            for asked_id in (hidden_id, "a" * 26):
                response = await client.get(f"/v1/documents/{asked_id}", params=query)
                request_id = response.headers["x-request-id"]
                answers.add(response.text.replace(asked_id, "ID").replace(request_id, "REQUEST"))
                assert response.status_code == 404
            assert len(answers) == 1


async def test_a_version_that_is_gone_is_410_and_names_the_current_one(client: ServiceClient, site: Path) -> None:
    """After a change the old version is gone under the same id; the new one is served as soon as it is published."""
    listed = {each["source"]: each for each in await _all(client, 50)}
    old = listed["policies/travel.md"]
    path = f"/v1/documents/{old['document_id']}"
    assert (await client.get(path, params={"version": old["version"]})).status_code == 200

    (site / "documents" / "policies" / "travel.md").write_text("# Travel policy\n\nReports are due within 14 days.\n")
    before_publishing = snapshot_of(client)
    publish(site / "documents", site / "data")
    await snapshot_after(client, before_publishing)

    gone = await client.get(path, params={"version": old["version"]})
    assert (gone.status_code, gone.json()["type"]) == (410, "urn:archivist:problem:gone")
    current = (await client.get(path)).json()
    assert "14 days" in current["text"]
    assert current["version"] in gone.json()["detail"]
    assert (await client.get(path, params={"version": current["version"]})).status_code == 200


@pytest.mark.parametrize("document_id", ["' OR 1=1 --", "a" * 65, "%", "\u202e"])
async def test_odd_ids_find_nothing(client: ServiceClient, document_id: str) -> None:
    """An id is compared, never interpreted; one too long is refused."""
    response = await client.get(f"/v1/documents/{document_id}")
    assert response.status_code == (422 if len(document_id) > 64 else 404)
