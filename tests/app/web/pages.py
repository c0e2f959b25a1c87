"""The chat page as a test drives it: a service on a loopback port, and a browser's page with the words of the product."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import uvicorn
from playwright.sync_api import Locator, Page, Request, expect

from app.access import LOCAL_OWNER
from app.llm.settings import LlmSettings, ProviderSettings
from app.main import create_app
from app.settings import ServiceSettings
from app.state.state import State
from tests.app.serving import publish
from tests.servers import wait_until

PATIENCE_MS = 30_000

LONG_WORD = "Rindfleischetikettierungsüberwachungsaufgabenübertragungsgesetzesentwurfsbesprechungsprotokollführung" * 3

FILES = {
    "observatory/visitors.md": (
        "# Observatory 🔭 handbook\n\n## Visitors 👩🏽‍🚀\n\nAstral signs such as 𝔸, 😀 and 𠮷 stand before these words. "
        "The dome opens for visitors on Fridays at 19:30. Groups of more than twelve people need form OB-31.\n"
    ),
    "observatory/telescope.md": (
        "# Telescope\n\n## Cleaning\n\nThe main mirror is washed every 18 months with distilled water. Nobody touches the "
        "mirror with bare hands.\n"
    ),
    "it/badges.txt": (
        "Badge readers\n\n<script>document.title = 'taken over'</script> <img src=x onerror=\"document.title='taken'\">\n"
        "The badge reader with error E-4410 has lost its network. [Reset it](http://127.0.0.1:9/reset) and wait two minutes.\n"
    ),
    "haus/hausordnung.txt": (
        "Hausordnung der Sternwarte\n\nDie Kuppel wird nach jeder Beobachtungsnacht von der Nachtschicht verschlossen. "
        f"Das Formular heißt {LONG_WORD} und liegt am Empfang.\n"
    ),
}


@dataclass(frozen=True, slots=True)
class RunningService:
    """A service that listens, and its database of conversations."""

    origin: str
    state: State

    def forget_all(self) -> None:
        """Delete every conversation."""
        conversations, _ = self.state.conversations(LOCAL_OWNER, None, 200)
        for conversation in conversations:
            self.state.delete_conversation(LOCAL_OWNER, conversation.conversation_id)

    def get(self, path: str, **parameters: str) -> httpx.Response:
        """A call beside the browser's."""
        return httpx.get(f"{self.origin}{path}", params=parameters, timeout=30)


@contextmanager
def running_service(settings: ServiceSettings) -> Iterator[RunningService]:
    """The real service on a free loopback port, in a thread of this process."""
    app = create_app(settings)
    with socket.socket(proto=socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="page-service")
        thread.start()
        try:
            assert wait_until(lambda: server.started, within_s=60), "the service did not start"
            yield RunningService(f"http://127.0.0.1:{listener.getsockname()[1]}", app.state.current.services.state)
        finally:
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive(), "the service did not stop"


def fake_provider(base_url: str) -> LlmSettings:
    """The fake LLM writes the answers, and nobody steps in where it fails."""
    return LlmSettings(
        default="fake",
        providers={"fake": ProviderSettings(base_url=base_url, model="fake-model")},
        extractive_fallback=False,
    )


def publish_files(files: dict[str, str], root: Path, models: Path) -> Path:
    """Write files and ingest them as the nightly job does. Returns the data folder."""
    for name, text in files.items():
        path = root / "documents" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    publish(root / "documents", root / "data", models)
    return root / "data"


@dataclass(slots=True)
class ChatPage:
    """One tab with the page open. `requested` are the addresses of all requests that the tab made."""

    page: Page
    service: RunningService
    requested: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def watch(self) -> None:
        """Note every request, every exception and every refusal by the content security policy."""

        def note_request(request: Request) -> None:
            self.requested.append(request.url)

        self.page.on("request", note_request)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on(
            "console",
            lambda message: self.complaints.append(message.text) if "Content Security Policy" in message.text else None,
        )

    def open(self, fragment: str = "") -> None:
        """Load the page; another fragment alone would not load it again."""
        self.page.goto("about:blank")
        self.page.goto(f"{self.service.origin}/{fragment}")

    def foreign_requests(self) -> list[str]:
        """Requests to anywhere but the page's own origin."""
        own = urlsplit(self.service.origin).netloc
        parts = [(url, urlsplit(url)) for url in self.requested]
        return [url for url, each in parts if each.scheme not in ("data", "about") and each.netloc != own]

    def type(self, question: str) -> None:
        """Type a question, as a person does, without sending it."""
        self.page.get_by_label("Your question").focus()
        self.page.keyboard.insert_text(question)

    def ask(self, question: str) -> Locator:
        """Ask and wait for the end of the answer. Returns the turn."""
        before = self.turns.count()
        self.type(question)
        self.page.keyboard.press("Enter")
        expect(self.turns).to_have_count(before + 1)
        self.wait_until_idle()
        return self.turns.nth(before)

    def wait_until_idle(self) -> None:
        """Wait until no answer is being written."""
        expect(self.page.locator("#send")).to_be_visible(timeout=PATIENCE_MS)

    @property
    def turns(self) -> Locator:
        return self.page.locator(".turn")

    @property
    def panel(self) -> Locator:
        return self.page.locator("#panel")

    @property
    def conversation_id(self) -> str:
        """The id that the address carries."""
        fragment = urlsplit(self.page.url).fragment
        assert fragment.startswith("c/"), f"the address names no conversation: {self.page.url!r}"
        return fragment.removeprefix("c/")

    def focused(self) -> str:
        """The element that has the focus: its id, or its class."""
        return str(self.page.evaluate("document.activeElement.id || document.activeElement.className"))

    def stored_citations(self) -> list[dict[str, Any]]:
        """The citations of the newest answer, as the service stores them."""
        messages = self.service.get(f"/v1/conversations/{self.conversation_id}").json()["messages"]
        citations: list[dict[str, Any]] = messages[-1]["citations"]
        return citations


OpenPage = Callable[..., ChatPage]
"""Opens the page of a service; keyword arguments are the browser context's."""
