"""A phone, the dark, and motion."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import expect

from app.llm.fake.behaviour import FakeBehaviour
from tests.app.web.pages import LONG_WORD, ChatPage, OpenPage, RunningService
from tests.servers import RunningFake

VISITORS = "When does the dome open for visitors?"
PHONE: dict[str, Any] = {
    "viewport": {"width": 360, "height": 740},
    "is_mobile": True,
    "has_touch": True,
    "device_scale_factor": 2,
}

TOO_WIDE = """() => [...document.querySelectorAll("body *")]
  .filter((node) => node.checkVisibility() && getComputedStyle(node).clipPath === "none")
  .filter((node) => node.getBoundingClientRect().right > innerWidth + 0.5 ||
    (node.scrollWidth > innerWidth && getComputedStyle(node).textOverflow !== "ellipsis"))
  .map((node) => `${node.tagName}.${node.className}`)"""

# Text and the nearest background under it, as both are painted.
COLOURS = """(selector) => {
  const node = document.querySelector(selector);
  let under = node;
  while (getComputedStyle(under).backgroundColor === "rgba(0, 0, 0, 0)") under = under.parentElement;
  return [getComputedStyle(node).color, getComputedStyle(under).backgroundColor];
}"""
READ = (
    ".prose", ".question-text", ".marker", ".source-title", ".source-place", ".meta", ".hint", ".conversation time",
    ".conversation-title", "#title", "#panel-place", "#panel-source", ".document-text", ".document-text mark", "#send",
)  # fmt: skip


def luminance(colour: str) -> float:
    """Relative luminance of `rgb(…)`. Source: WCAG 2.2."""
    red, green, blue = (int(part) / 255 for part in re.findall(r"\d+", colour)[:3])
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in (red, green, blue)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    """How far two colours are apart, 1 to 21. Source: WCAG 2.2."""
    darker, lighter = sorted((luminance(first), luminance(second)))
    return (lighter + 0.05) / (darker + 0.05)


def assert_no_overflow(chat: ChatPage) -> None:
    assert chat.page.evaluate("document.documentElement.scrollWidth") <= 360
    assert chat.page.evaluate(TOO_WIDE) == []


def test_a_phone_shows_everything_without_scrolling_sideways(
    open_page: OpenPage, llm_service: RunningService, llm: RunningFake
) -> None:
    """Long German words, words without an end, the drawer and the document fit into 360 pixels."""
    llm.behave(FakeBehaviour(reply=f"Das Formular heißt {LONG_WORD} [1]. Es liegt am Empfang.\n\n- {'x' * 400}\n- kurz"))
    chat = open_page(llm_service, **PHONE)
    assert_no_overflow(chat)
    chat.ask("Wie heißt das Formular am Empfang der Sternwarte? " + "Donaudampfschifffahrt" * 20)
    chat.page.get_by_label("Show the list of conversations").tap()
    expect(chat.page.get_by_role("button", name="New conversation")).to_be_in_viewport()
    assert chat.focused() == "close-drawer"
    assert_no_overflow(chat)
    chat.page.keyboard.press("Escape")
    expect(chat.page.get_by_role("button", name="New conversation")).to_be_hidden()
    assert chat.focused() == "open-drawer"
    assert_no_overflow(chat)


def test_a_document_fills_a_phone(open_page: OpenPage, service: RunningService) -> None:
    """The document lies over the whole screen, the highlighted words in view, and what is under it takes no focus."""
    chat = open_page(service, **PHONE)
    turn = chat.ask(VISITORS)
    turn.locator(".marker").first.tap()
    expect(chat.panel.locator("mark")).to_be_in_viewport()
    assert chat.panel.bounding_box() == {"x": 0, "y": 0, "width": 360, "height": 740}
    assert chat.page.locator("#main").evaluate("node => node.inert")
    assert_no_overflow(chat)
    chat.page.get_by_label("Close the document").tap()
    expect(chat.panel).to_be_hidden()
    assert not chat.page.locator("#main").evaluate("node => node.inert")


def test_choosing_a_conversation_closes_the_drawer(open_page: OpenPage, service: RunningService) -> None:
    """On a phone the drawer goes away when a conversation is chosen in it."""
    chat = open_page(service, **PHONE)
    chat.ask(VISITORS)
    chat.page.get_by_label("Show the list of conversations").tap()
    chat.page.get_by_role("button", name="New conversation").tap()
    expect(chat.turns).to_have_count(0)
    expect(chat.page.locator("#scrim")).to_be_hidden()
    chat.page.get_by_label("Show the list of conversations").tap()
    chat.page.locator(".conversation a").tap()
    expect(chat.turns).to_have_count(1)
    expect(chat.page.locator("#scrim")).to_be_hidden()


def test_the_newest_question_stands_at_the_top(llm_chat: ChatPage, llm: RunningFake) -> None:
    """However long the conversation, the page itself never scrolls: the box stays at the foot, the question in view."""
    llm.behave(FakeBehaviour(reply="A line of the answer.\n\n" * 12))
    for number in range(4):
        turn = llm_chat.ask(f"{VISITORS} ({number})")
        assert llm_chat.page.evaluate("[scrollY, document.documentElement.scrollHeight]") == [0, 800]
        expect(llm_chat.page.locator("#composer")).to_be_in_viewport(ratio=1)
        top = turn.locator(".question-text").bounding_box()
        assert top is not None
        assert top["y"] < 150
    llm.behave(FakeBehaviour(status=500))
    turn = llm_chat.ask(VISITORS)
    expect(turn.locator(".problem")).to_be_in_viewport(ratio=1)
    llm_chat.page.reload()
    expect(llm_chat.turns.last.locator(".question-text")).to_be_in_viewport(ratio=1)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_what_is_under_it(open_page: OpenPage, service: RunningService, scheme: str) -> None:
    """Every kind of text reaches AA (4.5 to 1), on a light page by day and a dark one by night."""
    chat = open_page(service, color_scheme=scheme, reduced_motion="reduce")
    turn = chat.ask(VISITORS)
    background = luminance(chat.page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert background < 0.05 if scheme == "dark" else background > 0.9
    turn.locator(".marker").first.click()
    expect(chat.panel.locator("mark")).to_be_visible()
    chat.page.mouse.move(5, 790)
    found = {selector: contrast(*chat.page.evaluate(COLOURS, selector)) for selector in READ}
    assert {selector: round(ratio, 2) for selector, ratio in found.items() if ratio < 4.5} == {}


def test_reduced_motion_is_respected(open_page: OpenPage, service: RunningService) -> None:
    """Whoever wants no motion sees none: no transition of the drawer, no dots that breathe."""
    chat = open_page(service, reduced_motion="reduce", **PHONE)
    styles = chat.page.evaluate(
        """() => {
          const turn = document.getElementById("turn-template").content.cloneNode(true);
          document.getElementById("turns").append(turn);
          const dots = getComputedStyle(document.querySelector(".dots i")).animationName;
          return [dots, getComputedStyle(document.getElementById("sidebar")).transitionDuration];
        }"""
    )
    assert styles == ["none", "0s"]
