"""What the page shows when something is wrong, and that no question is lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import expect

from app.llm.fake.behaviour import FakeBehaviour
from tests.app.serving import settings_of
from tests.app.web.pages import ChatPage, OpenPage, fake_provider, running_service
from tests.making import copy_published
from tests.servers import RunningFake

QUESTION = "When does the dome open for visitors?"


@pytest.mark.parametrize(
    "behaviour",
    [
        pytest.param(FakeBehaviour(reply="One two three four five.", cut_after_tokens=3), id="cut"),
        pytest.param(FakeBehaviour(reply="One two three four five.", error_after_tokens=3), id="error event"),
    ],
)
def test_a_failure_in_the_middle_keeps_the_words_and_can_be_retried(
    llm_chat: ChatPage, llm: RunningFake, behaviour: FakeBehaviour
) -> None:
    """What came is kept and called incomplete, the problem is shown, and trying again brings the answer."""
    llm.behave(behaviour)
    turn = llm_chat.ask(QUESTION)
    expect(turn.locator(".prose")).to_have_text("One two three")
    expect(turn.locator(".note")).to_have_text("This answer is not complete.")
    expect(turn.locator(".problem h3")).to_contain_text("LLM")
    expect(turn.locator(".problem p")).to_contain_text("'fake'")
    llm.behave(FakeBehaviour(reply="A whole answer."))
    turn.get_by_role("button", name="Try again").click()
    expect(turn.locator(".prose")).to_have_text("A whole answer.")
    expect(turn.locator(".problem")).to_be_hidden()


def test_a_failure_at_the_beginning_is_told(llm_chat: ChatPage, llm: RunningFake) -> None:
    """A provider that refuses is named, the question stands above it, and the banner says that the LLM is down."""
    llm.behave(FakeBehaviour(status=500))
    turn = llm_chat.ask(QUESTION)
    expect(turn.locator(".question-text")).to_have_text(QUESTION)
    expect(turn.locator(".problem h3")).to_have_text("LLM failed")
    expect(llm_chat.page.locator("#banner")).to_contain_text("Archivist answers with limits")
    expect(llm_chat.page.locator("#banner")).to_contain_text("The default LLM provider's last call failed")
    llm.behave(FakeBehaviour(reply="A whole answer."))
    turn.get_by_role("button", name="Try again").click()
    expect(turn.locator(".prose")).to_have_text("A whole answer.")
    expect(llm_chat.page.locator("#banner")).to_be_hidden()


def test_another_route_is_told(open_page: OpenPage, corpus: Path, tmp_path: Path, llm: RunningFake) -> None:
    """Where the extractive backend steps in for a provider that failed, the line under the answer says why."""
    llm.behave(FakeBehaviour(status=500))
    data_dir = copy_published(corpus, tmp_path / "data")
    fallback = fake_provider(llm.base_url).model_copy(update={"extractive_fallback": True})
    with running_service(settings_of(data_dir, llm=fallback)) as service:
        turn = open_page(service).ask(QUESTION)
        expect(turn.locator(".sources")).to_be_visible()
        expect(turn.locator(".meta")).to_contain_text("provider 'fake' failed")


def test_no_connection_is_told_and_the_question_survives_a_reload(chat: ChatPage) -> None:
    """Without a network the page says so; the question is in its box again after a reload, and retrying works."""
    chat.page.context.set_offline(True)
    turn = chat.ask(QUESTION)
    expect(turn.locator(".problem h3")).to_have_text("No connection")
    chat.page.context.set_offline(False)
    turn.get_by_role("button", name="Try again").click()
    expect(turn.locator(".sources")).to_be_visible()
    chat.page.context.set_offline(True)
    chat.ask("And for groups?")
    chat.page.context.set_offline(False)
    chat.page.reload()
    assert chat.page.get_by_label("Your question").input_value() == "And for groups?"


def test_a_question_half_typed_survives_a_reload(chat: ChatPage) -> None:
    """What was typed and not sent is still there."""
    chat.type("When does the dome")
    chat.page.reload()
    assert chat.page.get_by_label("Your question").input_value() == "When does the dome"


def test_without_documents_the_page_says_what_to_run(open_page: OpenPage, tmp_path: Path) -> None:
    """No snapshot: the banner names the command, a question is answered by the same advice and not lost."""
    with running_service(settings_of(tmp_path / "data")) as service:
        chat = open_page(service)
        banner = chat.page.locator("#banner")
        expect(banner).to_contain_text("Archivist cannot answer now")
        expect(banner.locator("code")).to_have_text("archivist ingest")
        turn = chat.ask(QUESTION)
        expect(turn.locator(".problem h3")).to_have_text("No snapshot")
        expect(turn.get_by_role("button", name="Try again")).to_be_visible()


def test_an_unknown_conversation_is_told(open_page: OpenPage, chat: ChatPage) -> None:
    """An address of a conversation that is not there says so, and the next question begins a new one."""
    chat.open("#c/AAAAAAAAAAAAAAAAAAAAAA")
    expect(chat.turns.locator("h3")).to_have_text("Not found")
    chat.type(QUESTION)
    chat.page.keyboard.press("Enter")
    expect(chat.page.locator(".sources")).to_be_visible()
    assert chat.conversation_id != "AAAAAAAAAAAAAAAAAAAAAA"


def test_a_key_is_asked_for_and_kept_for_the_tab_alone(open_page: OpenPage, corpus: Path, tmp_path: Path) -> None:
    """A wrong key is asked for again, the right one opens the service, and it lies in the session storage only."""
    data_dir = copy_published(corpus, tmp_path / "data")
    with running_service(settings_of(data_dir, api_key="right-key")) as service:
        chat = open_page(service)
        dialog = chat.page.locator("#key-dialog")
        expect(dialog).to_be_visible()
        assert chat.focused() == "key"
        chat.page.keyboard.type("wrong-key")
        chat.page.keyboard.press("Enter")
        expect(dialog).to_contain_text("That key was not accepted")
        chat.page.keyboard.type("right-key")
        chat.page.keyboard.press("Enter")
        expect(dialog).to_be_hidden()
        turn = chat.ask(QUESTION)
        expect(turn.locator(".sources")).to_be_visible()
        assert chat.page.evaluate("Object.values(sessionStorage)") == ["right-key"]
        assert chat.page.evaluate("localStorage.length") == 0
        assert chat.page.context.cookies() == []
        assert "right-key" not in chat.page.url
        chat.page.reload()
        expect(chat.turns.locator(".sources")).to_be_visible()
        expect(dialog).to_be_hidden()


def test_without_the_key_the_question_is_kept(open_page: OpenPage, corpus: Path, tmp_path: Path) -> None:
    """Whoever cancels the dialog sees why there is no answer, and can try again."""
    data_dir = copy_published(corpus, tmp_path / "data")
    with running_service(settings_of(data_dir, api_key="right-key")) as service:
        chat = open_page(service)
        dialog = chat.page.locator("#key-dialog")
        expect(dialog).to_be_visible()
        chat.page.keyboard.press("Escape")
        expect(dialog).to_be_hidden()
        chat.type(QUESTION)
        chat.page.keyboard.press("Enter")
        expect(dialog).to_be_visible()
        chat.page.get_by_role("button", name="Cancel").click()
        turn = chat.turns.first
        expect(turn.locator(".problem h3")).to_have_text("Key required")
        turn.get_by_role("button", name="Try again").click()
        chat.page.locator("#key").fill("right-key")
        chat.page.get_by_role("button", name="Continue").click()
        expect(turn.locator(".sources")).to_be_visible()
