"""Pages as a source: fetched once, asked about afterwards, kept while their server is away, gone when it says so."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from corpus.errors import ConfigError
from corpus.settings import SearchSettings
from corpus.snapshot import open_current
from ingest.preview import preview
from ingest.settings import ChunkingSettings, JobSettings, RuleSettings, SourceSettings
from ingest.sources.pages import addresses_of, fetch_pages, forget_pages
from tests.conftest import Run
from tests.making import job_settings


class Wiki:
    """A loopback web server with validators. `pages`: path to (content type, body); `status` is what it answers instead."""

    def __init__(self) -> None:
        self.pages: dict[str, tuple[str, str]] = {}
        self.status: dict[str, int] = {}
        self.answered: list[tuple[str, int]] = []
        wiki = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                wiki.answer(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        content_type, body = self.pages.get(request.path, ("", ""))
        etag = f'"{hashlib.sha256(body.encode()).hexdigest()[:8]}"'
        status = self.status.get(request.path, 200 if content_type else 404)
        if status == 200 and request.headers.get("If-None-Match") == etag:
            status = 304
        self.answered.append((request.path, status))
        data = body.encode() if status == 200 else b""
        request.send_response(status)
        request.send_header("ETag", etag)
        request.send_header("Content-Type", content_type)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def wiki() -> Iterator[Wiki]:
    served = Wiki()
    served.pages = {
        "/guide": ("text/html; charset=utf-8", "<title>Guide</title><h1>Guide</h1><p>Visitors park in the yard.</p>"),
        "/notes.md": ("text/plain", "# Notes\n\nLunch is at noon.\n"),
        "/plan?year=2026": ("text/markdown", "# Plan\n\nThe move is in May.\n"),
    }
    yield served
    served.close()


def source(wiki: Wiki, **values: Any) -> SourceSettings:
    """The wiki's three pages."""
    urls = tuple(f"{wiki.url}{path}" for path in ("/guide", "/notes.md", "/plan?year=2026"))
    return SourceSettings(**{"urls": urls, "name": "wiki", "allow_networks": ("127.0.0.1",), **values})


def settings(data_dir: Path, *sources: SourceSettings, **values: Any) -> JobSettings:
    return job_settings(data_dir).model_copy(update={"sources": sources, **values})


def texts(data_dir: Path) -> dict[str, tuple[str, str, str]]:
    """Format, title and text by source."""
    snapshot, _ = open_current(data_dir, SearchSettings())
    try:
        found = [document for document, _ in snapshot.store.stored.documents_with_passages()]
        return {document.source: (document.format, document.title, document.text) for document in found}
    finally:
        snapshot.close()


def test_pages_become_documents_under_their_addresses(tmp_path: Path, wiki: Wiki, run: Run) -> None:
    """The content type decides how a page is read, else its name; rules match the address."""
    rules = (RuleSettings(match="**/plan**", groups=("board",)),)
    report = run(settings(tmp_path, source(wiki, rules=rules)))
    assert (report.added, report.documents, report.failures) == (3, 3, ())
    assert texts(tmp_path) == {
        f"{wiki.url}/guide": ("html", "Guide", "Guide\n\nVisitors park in the yard."),
        f"{wiki.url}/notes.md": ("markdown", "Notes", "# Notes\n\nLunch is at noon.\n"),
        f"{wiki.url}/plan?year=2026": ("markdown", "Plan", "# Plan\n\nThe move is in May.\n"),
    }
    snapshot, _ = open_current(tmp_path, SearchSettings())
    assert [s.source for s in snapshot.store.document_summaries(["board"], after=None, limit=9)] == [
        f"{wiki.url}/plan?year=2026"
    ]
    snapshot.close()


def test_an_unchanged_page_is_not_sent_again(tmp_path: Path, wiki: Wiki, run: Run) -> None:
    """The second run asks with the validators, gets 304 three times and publishes nothing; a changed page is one change."""
    run(settings(tmp_path, source(wiki)))
    wiki.answered.clear()
    assert run(settings(tmp_path, source(wiki))).published is False
    assert sorted(status for _, status in wiki.answered) == [304, 304, 304]
    wiki.pages["/notes.md"] = ("text/plain", "# Notes\n\nLunch is at one.\n")
    report = run(settings(tmp_path, source(wiki)))
    assert (report.changed, report.kept, report.embedded) == (1, 2, 1)
    assert "Lunch is at one" in texts(tmp_path)[f"{wiki.url}/notes.md"][2]
    assert len(list((tmp_path / "work" / "pages").iterdir())) == 6


def test_a_page_that_cannot_be_had_stands_as_it_was_and_is_reported(tmp_path: Path, wiki: Wiki, run: Run) -> None:
    """A server error is neither a removal nor silence, also where everything has to be read anew; healed, it is forgotten."""
    run(settings(tmp_path, source(wiki)))
    before = texts(tmp_path)
    wiki.status["/guide"] = 503
    report = run(settings(tmp_path, source(wiki)))
    assert (report.published, report.removed, report.stale) == (False, 0, 1)
    (failure,) = report.failures
    assert failure.path == f"{wiki.url}/guide"
    assert failure.reason.endswith("answered with status 503)")
    anew = run(settings(tmp_path, source(wiki), chunking=ChunkingSettings(max_tokens=64)))
    assert (anew.published, anew.changed, anew.stale) == (True, 3, 1)
    assert texts(tmp_path) == before
    wiki.status.clear()
    assert run(settings(tmp_path, source(wiki), chunking=ChunkingSettings(max_tokens=64))).failures == ()


def test_a_server_that_is_away_removes_nothing(tmp_path: Path, wiki: Wiki, run: Run) -> None:
    """With nobody at the address every page stands, and each is reported."""
    run(settings(tmp_path, source(wiki)))
    before, pages = texts(tmp_path), source(wiki)
    wiki.close()
    report = run(settings(tmp_path, pages))
    assert (report.published, report.stale, len(report.failures)) == (False, 3, 3)
    assert texts(tmp_path) == before


@pytest.mark.parametrize("status", [404, 410])
def test_a_page_that_is_gone_is_removed(tmp_path: Path, wiki: Wiki, run: Run, status: int) -> None:
    """And so is what was kept of it; so is a page that is taken off the list."""
    run(settings(tmp_path, source(wiki)))
    wiki.status["/guide"] = status
    report = run(settings(tmp_path, source(wiki)))
    assert (report.published, report.removed, report.failures) == (True, 1, ())
    assert set(texts(tmp_path)) == {f"{wiki.url}/notes.md", f"{wiki.url}/plan?year=2026"}
    run(settings(tmp_path, source(wiki, urls=(f"{wiki.url}/notes.md",))))
    assert set(texts(tmp_path)) == {f"{wiki.url}/notes.md"}
    kept = b"".join(path.read_bytes() for path in (tmp_path / "work" / "pages").iterdir())
    assert b"Lunch" in kept
    assert b"Visitors" not in kept
    assert b"May" not in kept


def test_a_page_that_never_came_is_listed_and_tried_again(tmp_path: Path, wiki: Wiki, run: Run) -> None:
    """There is nothing to keep; the others are published, and the next run has it."""
    wiki.status["/guide"] = 500
    report = run(settings(tmp_path, source(wiki)))
    assert (report.documents, report.stale, len(report.failures)) == (2, 0, 1)
    wiki.status.clear()
    report = run(settings(tmp_path, source(wiki)))
    assert (report.changed, report.documents, report.failures) == (1, 3, ())


def test_a_page_over_the_limit_leaves(tmp_path: Path, wiki: Wiki, run: Run) -> None:
    """It is there and too large, so what it was does not stand for it."""
    run(settings(tmp_path, source(wiki)))
    wiki.pages["/guide"] = ("text/html", "<p>" + "Visitors. " * 50 + "</p>")
    report = run(settings(tmp_path, source(wiki, max_file_bytes=200)))
    assert report.failures[0].reason.endswith("the page has more than 200 bytes)")
    assert f"{wiki.url}/guide" not in texts(tmp_path)


def test_without_leave_no_private_address_is_connected_to(tmp_path: Path, wiki: Wiki) -> None:
    """Threat C9: no request reaches the loopback server, and each address is listed with what to do."""
    urls = tuple(
        f"{start}:{wiki.server.server_address[1]}/guide" for start in ("http://127.0.0.1", "http://localhost", "http://127.1")
    )
    bad = ("file:///etc/passwd", "gopher://127.0.0.1/", "http://user@127.0.0.1/", "http://169.254.169.254/latest", "no address")
    pages = SourceSettings(urls=(*urls, *bad), name="wiki")
    found = fetch_pages(pages, tmp_path, keep=True)
    assert {file.path for file in found} == {*urls, *bad}
    assert all(file.content_hash is None and file.problem is not None for file in found)
    problems = {file.path: file.problem.reason for file in found if file.problem is not None}
    assert "allow_networks" in problems[urls[0]]
    assert wiki.answered == []
    assert list((tmp_path / "work" / "pages").iterdir()) == []


def test_a_plan_asks_and_keeps_nothing(tmp_path: Path, wiki: Wiki, run: Run) -> None:
    """It knows what changed, and neither body nor validator is written: the run after it gets the page."""
    job = settings(tmp_path, source(wiki))
    assert len(preview(settings(tmp_path / "nowhere", source(wiki))).todo.added) == 3
    assert not (tmp_path / "nowhere").exists()
    run(job)
    before = {path.name: path.read_bytes() for path in (tmp_path / "work" / "pages").iterdir()}
    wiki.pages["/guide"] = ("text/html", "<p>Visitors park elsewhere.</p>")
    found = preview(job)
    assert ([file.path for file in found.todo.changed], len(found.todo.kept)) == ([f"{wiki.url}/guide"], 2)
    assert {path.name: path.read_bytes() for path in (tmp_path / "work" / "pages").iterdir()} == before
    assert run(job).changed == 1


@pytest.mark.parametrize("damage", ["body", "note"])
def test_a_kept_page_that_is_damaged_is_fetched_again(tmp_path: Path, wiki: Wiki, damage: str) -> None:
    """What was kept is only good if its hash is; then the page is asked for without validators."""
    pages = source(wiki)
    first = fetch_pages(pages, tmp_path, keep=True)
    for path in (tmp_path / "work" / "pages").iterdir():
        if (path.suffix == ".json") is (damage == "note"):
            path.write_bytes(b"x")
    wiki.answered.clear()
    assert fetch_pages(pages, tmp_path, keep=True) == first
    assert {status for _, status in wiki.answered} == {200}
    assert forget_pages(tmp_path, [("wiki", file.path) for file in first]) == 0
    assert forget_pages(tmp_path, []) == 6


def test_addresses_come_from_the_list_and_the_file(tmp_path: Path) -> None:
    """Comments, blank lines, fragments and repetitions aside; a file that is not there is a configuration error."""
    (tmp_path / "urls.txt").write_text("# ours\nhttp://b.example/x#part\n\n http://a.example/ \nhttp://b.example/x\n")
    listed = SourceSettings(urls=("http://c.example/",), urls_file=tmp_path / "urls.txt", name="w")
    assert addresses_of(listed) == ["http://a.example/", "http://b.example/x", "http://c.example/"]
    with pytest.raises(ConfigError, match=r"urls_file .*nowhere\.txt' cannot be read"):
        addresses_of(SourceSettings(urls_file=tmp_path / "nowhere.txt", name="w"))


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({}, "either a path, or urls"),
        ({"path": "x", "urls": ["http://a/"]}, "either a path, or urls"),
        ({"urls": ["http://a/"]}, "needs a name"),
        ({"urls": ["http://a/"], "name": "a", "allow_networks": ["intranet"]}, "'intranet' is not an address or a network"),
    ],
)
def test_a_source_is_a_folder_or_pages(values: dict[str, Any], says: str) -> None:
    """One of the two, and pages have a name of their own."""
    with pytest.raises(ValueError, match=says):
        SourceSettings.model_validate(values)
