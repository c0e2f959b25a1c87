"""Asking, following up, the list of conversations, and keys alone."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from app.access import LOCAL_OWNER
from app.llm.fake.behaviour import FakeBehaviour
from app.state.messages import PartialAnswer
from tests.app.web.pages import ChatPage, OpenPage, RunningService
from tests.servers import RunningFake, wait_until

VISITORS = "When does the dome open for visitors?"
MIRROR = "How often is the main mirror washed?"


def test_an_answer_streams_onto_the_page(llm_chat: ChatPage, llm: RunningFake) -> None:
    """Words are shown while later ones are still to come, and at the end all of them are there."""
    llm.behave(FakeBehaviour(reply=" ".join(f"word{number}" for number in range(40)), tokens_per_second=20))
    llm_chat.type(VISITORS)
    llm_chat.page.keyboard.press("Enter")
    prose = llm_chat.turns.first.locator(".prose")
    expect(prose).to_contain_text("word3")
    expect(llm_chat.page.get_by_label("Stop the answer")).to_be_visible()
    assert "word39" not in prose.inner_text()
    llm_chat.wait_until_idle()
    assert prose.inner_text() == " ".join(f"word{number}" for number in range(40))


def test_stopping_keeps_what_was_written_and_ends_the_call(llm_chat: ChatPage, llm: RunningFake) -> None:
    """Stop ends the LLM's call, keeps the words on the page, and offers to ask again."""
    llm.behave(FakeBehaviour(reply="word " * 200, tokens_per_second=20))
    llm_chat.type(VISITORS)
    llm_chat.page.keyboard.press("Enter")
    turn = llm_chat.turns.first
    expect(turn.locator(".prose")).to_contain_text("word word")
    llm_chat.page.get_by_label("Stop the answer").click()
    expect(turn.locator(".note")).to_have_text("Stopped before the end.")
    assert turn.locator(".prose").inner_text().startswith("word word")
    assert llm_chat.focused() == "question"
    assert wait_until(lambda: llm.requests[-1].closed_early, within_s=10)
    llm.behave(FakeBehaviour(reply="A whole answer."))
    turn.get_by_role("button", name="Ask again").click()
    expect(turn.locator(".prose")).to_have_text("A whole answer.")
    expect(turn.locator(".note")).to_be_hidden()
    assert llm_chat.turns.count() == 1


def test_escape_stops_an_answer(llm_chat: ChatPage, llm: RunningFake) -> None:
    """Where nothing is open, Escape stops what is being written."""
    llm.behave(FakeBehaviour(reply="word " * 200, tokens_per_second=20))
    llm_chat.type(VISITORS)
    llm_chat.page.keyboard.press("Enter")
    expect(llm_chat.turns.first.locator(".prose")).to_contain_text("word")
    llm_chat.page.keyboard.press("Escape")
    expect(llm_chat.turns.first.locator(".note")).to_have_text("Stopped before the end.")


def test_a_follow_up_goes_to_the_same_conversation(chat: ChatPage) -> None:
    """Two questions make one conversation with four messages, named after the first."""
    chat.ask(VISITORS)
    first = chat.conversation_id
    chat.ask("And which form do groups need?")
    assert chat.conversation_id == first
    stored = chat.service.get(f"/v1/conversations/{first}").json()
    asked = [message["content"] for message in stored["messages"] if message["role"] == "user"]
    assert asked == [VISITORS, "And which form do groups need?"]
    expect(chat.page.locator("#title")).to_have_text(VISITORS)
    expect(chat.page.locator(".conversation")).to_have_count(1)


def test_reloading_shows_the_same_conversation(chat: ChatPage) -> None:
    """The address keeps the conversation, and stored answers look exactly as streamed ones did."""
    chat.ask(VISITORS)
    chat.ask("What is the airspeed of an unladen swallow?")
    answers = chat.page.locator(".answer")
    before = [answers.nth(number).inner_html() for number in range(2)]
    chat.page.reload()
    expect(chat.turns).to_have_count(2)
    assert [answers.nth(number).inner_html() for number in range(2)] == before
    expect(chat.page.locator(".conversation a[aria-current=page]")).to_contain_text(VISITORS)


def test_an_abstention_looks_different(chat: ChatPage) -> None:
    """An answer that is none says so above its words and lists no sources."""
    turn = chat.ask("What is the airspeed of an unladen swallow?")
    expect(turn.locator(".answer")).to_have_class("answer abstained")
    expect(turn.locator(".verdict")).to_have_text("No answer in the documents")
    expect(turn.locator(".sources")).to_be_hidden()


def test_new_and_earlier_conversations(chat: ChatPage) -> None:
    """A new conversation begins empty; choosing the earlier one in the list brings its answer back; so does going back."""
    chat.ask(VISITORS)
    first = chat.conversation_id
    chat.page.get_by_role("button", name="New conversation").click()
    expect(chat.turns).to_have_count(0)
    expect(chat.page.locator("#empty")).to_be_visible()
    assert chat.focused() == "question"
    chat.ask(MIRROR)
    assert chat.conversation_id != first
    expect(chat.page.locator(".conversation-title")).to_have_text([MIRROR, VISITORS])
    chat.page.locator(".conversation a", has_text=VISITORS).click()
    expect(chat.turns.locator(".question-text")).to_have_text([VISITORS])
    assert chat.conversation_id == first
    chat.page.go_back()
    expect(chat.turns.locator(".question-text")).to_have_text([MIRROR])


def test_deleting_asks_first(chat: ChatPage) -> None:
    """Keeping changes nothing; deleting erases the conversation and leaves the page on a new one."""
    chat.ask(VISITORS)
    path = f"/v1/conversations/{chat.conversation_id}"
    delete = chat.page.get_by_label(f"Delete “{VISITORS}”")
    delete.click()
    chat.page.get_by_role("button", name="Keep it").click()
    expect(chat.page.locator(".conversation")).to_have_count(1)
    assert chat.service.get(path).status_code == 200
    delete.click()
    chat.page.get_by_role("button", name="Delete", exact=True).click()
    expect(chat.page.locator(".conversation")).to_have_count(0)
    expect(chat.page.locator("#no-conversations")).to_be_visible()
    assert chat.service.get(path).status_code == 404
    expect(chat.turns).to_have_count(0)
    assert "#" not in chat.page.url


def test_the_list_is_read_page_by_page(open_page: OpenPage, service: RunningService) -> None:
    """Load more brings the rest, newest first, and puts the focus on the first of them."""
    for number in range(45):
        service.state.create_conversation(LOCAL_OWNER, f"Question {number}")
    chat = open_page(service)
    titles = chat.page.locator(".conversation-title")
    expect(titles).to_have_count(30)
    chat.page.get_by_role("button", name="Load more").click()
    expect(titles).to_have_text([f"Question {number}" for number in reversed(range(45))])
    expect(chat.page.locator("#more-conversations")).to_be_hidden()
    expect(chat.page.locator(".conversation a", has_text="Question 14")).to_be_focused()


def test_earlier_messages_of_a_long_conversation(open_page: OpenPage, service: RunningService) -> None:
    """The newest messages come first; the earlier ones on demand, above them and in order."""
    conversation_id = service.state.create_conversation(LOCAL_OWNER, "A long one")
    for number in range(110):
        service.state.add_turn(LOCAL_OWNER, conversation_id, f"Q{number}", PartialAnswer(f"A{number}"), "cancelled")
    chat = open_page(service, f"#c/{conversation_id}")
    questions = chat.page.locator(".question-text")
    expect(questions).to_have_count(100)
    chat.page.get_by_role("button", name="Show earlier messages").click()
    expect(questions).to_have_text([f"Q{number}" for number in range(110)])
    expect(chat.page.locator("#older-messages")).to_be_hidden()


def test_keys_alone_are_enough(chat: ChatPage) -> None:
    """Ask, reach a citation with the tab key, open it with Enter, close it with Escape, and ask on."""
    assert chat.focused() == "question"
    chat.page.keyboard.type("When does the dome")
    chat.page.keyboard.press("Shift+Enter")
    chat.page.keyboard.type("open for visitors?")
    assert chat.page.get_by_label("Your question").input_value() == "When does the dome\nopen for visitors?"
    chat.page.keyboard.press("Enter")
    expect(chat.turns).to_have_count(1)
    chat.wait_until_idle()
    assert chat.focused() == "question"
    for _ in range(20):
        chat.page.keyboard.press("Shift+Tab")
        if chat.focused() == "marker":
            break
    assert chat.focused() == "marker"
    outline = chat.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    chat.page.keyboard.press("Enter")
    expect(chat.panel.locator("mark")).to_be_visible()
    assert chat.focused() == "panel-title"
    chat.page.keyboard.press("Escape")
    expect(chat.panel).to_be_hidden()
    assert chat.focused() == "marker"


def test_the_skip_link_leads_to_the_question(chat: ChatPage) -> None:
    """The stop before the list jumps over it, and the address stays."""
    chat.page.locator(".wordmark").click()
    chat.page.keyboard.press("Shift+Tab")
    assert chat.focused() == "skip"
    chat.page.keyboard.press("Enter")
    assert chat.focused() == "question"
    assert "#" not in chat.page.url


def test_an_answer_is_announced_once(llm_chat: ChatPage, llm: RunningFake) -> None:
    """Whoever listens hears that the search began and then the whole answer, not every word."""
    llm.behave(FakeBehaviour(reply="The answer has quite a few words in it.", tokens_per_second=30))
    llm_chat.page.evaluate(
        """() => {
          window.heard = [];
          const region = document.getElementById("announcer");
          new MutationObserver(() => window.heard.push(region.textContent)).observe(region, { childList: true });
        }"""
    )
    turn = llm_chat.ask(VISITORS)
    expect(turn.locator(".answer")).not_to_have_attribute("aria-busy", "true")
    heard = llm_chat.page.evaluate("window.heard")
    assert heard == ["Looking through the documents", "The answer has quite a few words in it."]
    assert llm_chat.page.locator("#announcer").get_attribute("aria-live") == "polite"


@pytest.mark.parametrize("question", ["", "   \n "])
def test_nothing_is_not_asked(chat: ChatPage, question: str) -> None:
    """An empty question is not sent."""
    chat.type(question)
    chat.page.keyboard.press("Enter")
    chat.page.get_by_label("Send the question").click()
    assert chat.turns.count() == 0
    assert not [url for url in chat.requested if url.endswith("/v1/ask")]
