"""From a number in an answer to the exact words in a document."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from app.llm.fake.behaviour import FakeBehaviour
from tests.app.serving import publish, settings_of
from tests.app.web.pages import ChatPage, OpenPage, RunningService, publish_files, running_service
from tests.servers import RunningFake, wait_until

VISITORS = "When does the dome open for visitors?"
BADGES = "What does error E-4410 of the badge reader mean?"


def test_the_panel_highlights_exactly_the_quote(chat: ChatPage) -> None:
    """Each number highlights the words of its own citation, although signs beyond the basic plane stand before them."""
    turn = chat.ask(VISITORS)
    citations = chat.stored_citations()
    markers = turn.locator(".marker")
    assert markers.all_inner_texts() == [str(citation["marker"]) for citation in citations]
    cited = [citation for citation in citations if citation["source"] == "observatory/visitors.md"]
    assert cited, "the answer does not cite the document that holds it"
    for number, citation in enumerate(citations):
        markers.nth(number).click()
        mark = chat.panel.locator("mark")
        expect(mark).to_have_text(citation["quote"], use_inner_text=False)
        assert mark.evaluate("node => node.textContent") == citation["quote"]
        expect(mark).to_be_in_viewport()
        document = chat.service.get(f"/v1/documents/{citation['document_id']}").json()
        assert chat.panel.locator(".document-text").evaluate("node => node.textContent") == document["text"]
        expect(chat.panel.locator("h2")).to_have_text(citation["title"])
        expect(chat.panel.locator("#panel-source")).to_have_text(citation["source"])
    text = chat.service.get(f"/v1/documents/{cited[0]['document_id']}").json()["text"]
    assert any(ord(sign) > 0xFFFF for sign in text[: cited[0]["start"]])


def test_every_source_is_listed_once_with_its_place(chat: ChatPage) -> None:
    """The list under the answer names title, heading and source, and opens the same words as the number does."""
    turn = chat.ask(VISITORS)
    citations = chat.stored_citations()
    sources = turn.locator(".source")
    assert turn.locator(".source-number").all_inner_texts() == list(
        dict.fromkeys(str(citation["marker"]) for citation in citations)
    )
    first = citations[0]
    expect(sources.first.locator(".source-title")).to_have_text(first["title"])
    place = [" › ".join(part for part in first["heading"] if part != first["title"]), first["source"]]
    expect(sources.first.locator(".source-place")).to_have_text(" · ".join(part for part in place if part))
    sources.first.click()
    expect(chat.panel.locator("mark")).to_have_text(first["quote"])
    chat.panel.get_by_label("Close the document").click()
    expect(chat.panel).to_be_hidden()
    expect(sources.first).to_be_focused()


def test_numbers_work_while_the_answer_streams(llm_chat: ChatPage, llm: RunningFake) -> None:
    """A number can be opened before the answer has ended, and keeps the focus when the answer ends."""
    sentence = "The dome opens for visitors on Fridays at 19:30 [1]. "
    llm.behave(FakeBehaviour(reply=sentence + "More follows. " * 30, tokens_per_second=15))
    llm_chat.type(VISITORS)
    llm_chat.page.keyboard.press("Enter")
    marker = llm_chat.turns.first.locator(".marker")
    marker.first.click()
    expect(llm_chat.page.get_by_label("Stop the answer")).to_be_visible()
    expect(llm_chat.panel.locator("mark")).to_contain_text("Fridays at 19:30")
    llm_chat.page.keyboard.press("Escape")
    expect(marker).to_be_focused()
    llm_chat.wait_until_idle()
    expect(marker).to_be_focused()


def test_markup_in_a_document_is_shown_as_text(chat: ChatPage) -> None:
    """A document's script, image and link are characters on the page: nothing runs, nothing loads."""
    turn = chat.ask(BADGES)
    turn.locator(".marker").first.click()
    text = chat.panel.locator(".document-text")
    expect(text).to_contain_text("<script>document.title = 'taken over'</script>")
    expect(text).to_contain_text("<img src=x onerror=")
    expect(text).to_contain_text("[Reset it](http://127.0.0.1:9/reset)")
    assert chat.panel.locator("script, img, a").count() == 0
    assert "taken" not in chat.page.title()
    assert chat.foreign_requests() == []


def test_sentences_without_support_are_told(llm_chat: ChatPage, llm: RunningFake) -> None:
    """Under the answer stands how many of its sentences the documents support, and on demand which ones they do not."""
    llm.behave(FakeBehaviour(reply="The dome opens for visitors on Fridays at 19:30 [1]. Penguins juggle purple umbrellas."))
    turn = llm_chat.ask(VISITORS)
    summary = turn.locator(".meta summary")
    expect(summary).to_have_text("1 of 2 sentences supported")
    expect(turn.locator(".meta li")).to_be_hidden()
    summary.click()
    expect(turn.locator(".meta li")).to_have_text("Penguins juggle purple umbrellas.")
    expect(turn.locator(".meta > p")).to_contain_text("fake (fake-model) · ")


@pytest.fixture
def changing(tmp_path: Path, models: Path) -> Iterator[tuple[Path, RunningService]]:
    """A folder of documents, ingested and served, that the test may change."""
    data_dir = publish_files(
        {
            "hours.md": "# Opening hours\n\nThe archive room opens at nine in the morning.\n",
            "keys.md": "# Keys\n\nThe key of the attic hangs behind the green door.\n",
        },
        tmp_path,
        models,
    )
    with running_service(settings_of(data_dir)) as service:
        yield tmp_path, service


def test_documents_that_changed_or_went(open_page: OpenPage, changing: tuple[Path, RunningService]) -> None:
    """Of an older version the stored quote is shown, and the document as it is now; of one that is gone the quote alone."""
    root, service = changing
    chat = open_page(service)
    chat.ask("When does the archive room open?")
    chat.ask("Where does the key of the attic hang?")
    messages = service.get(f"/v1/conversations/{chat.conversation_id}").json()["messages"]
    hours, key = messages[1]["citations"][0], messages[3]["citations"][0]
    assert (hours["source"], key["source"]) == ("hours.md", "keys.md")
    (root / "documents" / "hours.md").write_text("# Opening hours\n\nThe archive room opens at ten.\n", encoding="utf-8")
    (root / "documents" / "keys.md").unlink()
    publish(root / "documents", root / "data")
    path = f"/v1/documents/{hours['document_id']}"
    assert wait_until(lambda: service.get(path, version=hours["version"]).status_code == 410, within_s=20)

    chat.turns.nth(0).locator(".marker").first.click()
    expect(chat.panel.locator(".panel-label")).to_have_text("Older version")
    expect(chat.panel.locator("blockquote")).to_have_text(hours["quote"])
    chat.panel.get_by_role("button", name="Open the document as it is now").click()
    expect(chat.panel.locator(".document-text")).to_contain_text("opens at ten")

    chat.turns.nth(1).locator(".marker").first.click()
    expect(chat.panel.locator(".panel-label")).to_have_text("No longer available")
    expect(chat.panel.locator("blockquote")).to_have_text(key["quote"])

    chat.page.reload()
    withdrawn = chat.turns.nth(1)
    expect(withdrawn.locator(".verdict")).to_have_text("Withdrawn")
    assert "green door" not in withdrawn.locator(".answer").inner_text()
