"""Outbound HTTP: what may be called, how long it may take, how much may come back, and what is never said."""

from __future__ import annotations

import asyncio
import logging
import socket
import tracemalloc

import httpx
import pytest

from corpus.egress import OUR_MISTAKES, TRANSLATIONS, Egress, Limits, translated
from corpus.errors import EgressBroken, EgressError, EgressRefused, EgressUnreachable
from tests.corpus.raw_servers import OK, Handler, fetched, listening, resolving_to, sending, serving

pytestmark = pytest.mark.anyio

CANARY = "sk-canary-4711"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def family(kind: type[Exception]) -> list[type[Exception]]:
    return [kind, *(member for child in kind.__subclasses__() for member in family(child))]


HTTPX_EXCEPTIONS = [
    kind for root in (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, httpx.CookieConflict) for kind in family(root)
]


@pytest.mark.parametrize("kind", HTTPX_EXCEPTIONS, ids=lambda kind: kind.__name__)
async def test_every_exception_of_httpx_is_translated_or_a_mistake_of_ours(kind: type[Exception]) -> None:
    """No exception of httpx escapes: each maps to one of ours, except those that only misuse raises."""
    if issubclass(kind, OUR_MISTAKES):
        assert kind not in TRANSLATIONS
        return
    error = translated(kind.__new__(kind), "host:1")
    assert isinstance(error, EgressError)
    assert str(error).startswith("host:1: ")


def test_httpx_exports_no_exception_outside_these_families() -> None:
    """A new root among httpx's exceptions would be seen here."""
    exported = [value for value in vars(httpx).values() if isinstance(value, type) and issubclass(value, Exception)]
    assert {kind.__name__ for kind in exported} <= {kind.__name__ for kind in HTTPX_EXCEPTIONS}


async def test_events_arrive_as_the_server_sent_them() -> None:
    """Comments, other fields and every kind of line end are understood; an event cut at the end is dropped."""
    body = b": hello\r\nevent: x\r\ndata: one\r\n\r\ndata:two\ndata: lines\n\n\rdata: three\r\rdata: cut"
    async with serving(sending(OK + b"connection: close\r\n\r\n", body)) as url:
        assert await fetched(url) == ["one", "two\nlines", "three"]


async def test_an_address_that_was_not_named_is_refused_before_anything_is_sent() -> None:
    """A call to another port of the same machine makes no connection."""
    connected = asyncio.Event()

    async def handler(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        connected.set()

    async with serving(handler) as url:
        egress = Egress(["http://127.0.0.1:1"])
        with pytest.raises(EgressRefused, match="not an address that the configuration names"):
            await egress.call_json(url)
        await egress.close()
        assert not connected.is_set()


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "file:///etc/passwd", "http://user:pw@127.0.0.1/", "127.0.0.1:80", ""])
async def test_only_plain_http_addresses_can_be_named(url: str) -> None:
    """Other schemes, and addresses with a user, are refused when the egress is built."""
    with pytest.raises(EgressRefused):
        Egress([url])


async def test_a_redirect_is_refused_and_names_its_target() -> None:
    """Nothing is sent to where a redirect points."""
    async with serving(sending(b"HTTP/1.1 307 X\r\nlocation: http://elsewhere.example/x\r\ncontent-length: 0\r\n\r\n")) as url:
        with pytest.raises(EgressRefused, match=r"redirects \(307\) to 'elsewhere.example'"):
            await fetched(url)


@pytest.mark.parametrize("addresses", [["192.0.2.7"], ["127.0.0.1", "192.0.2.7"], ["::ffff:192.0.2.7"], ["0.0.0.0"]])
async def test_localhost_that_resolves_elsewhere_is_refused(addresses: list[str]) -> None:
    """One foreign address among those of localhost is enough, and nothing is sent."""
    egress = Egress(["http://localhost:9"], resolve=resolving_to(*addresses))
    with pytest.raises(EgressRefused, match="is not this machine"):
        await egress.call_json("http://localhost:9/")
    await egress.close()


async def test_localhost_is_called_at_the_address_that_was_checked() -> None:
    """The connection goes to the resolved address, the second where the first refuses, under the name localhost."""
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(OK + b"content-length: 2\r\n\r\n{}")
        await writer.drain()

    async with listening(serve, "127.0.0.2") as port:
        egress = Egress([f"http://localhost:{port}"], resolve=resolving_to("127.0.0.3", "127.0.0.2"))
        assert await egress.call_json(f"http://localhost:{port}/") == (200, {})
        await egress.close()
    assert f"host: localhost:{port}".encode() in seen[0].lower()


async def test_no_cookie_is_kept_and_no_compression_asked_for() -> None:
    """The second request carries no cookie of the first answer, and asks for plain bytes."""
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append((await reader.readuntil(b"\r\n\r\n")).lower())
        writer.write(OK + b"set-cookie: a=b; path=/\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}")
        await writer.drain()

    async with listening(serve) as port:
        url = f"http://127.0.0.1:{port}/"
        egress = Egress([url])
        await egress.call_json(url)
        await egress.call_json(url)
        await egress.close()
    assert len(seen) == 2
    assert b"cookie" not in seen[1]
    assert b"accept-encoding: identity" in seen[1]


@pytest.mark.parametrize(
    ("kept", "what"),
    [
        (
            sending(OK + b"content-length: 50000000\r\n\r\n", *[b"data: " + b"x" * 4000 + b"\n\n"] * 30),
            "answer is larger",
        ),
        (sending(OK + b"\r\n", b"data: ", *[b"x" * 4000] * 30), "one event is larger"),
        (sending(OK + b"\r\n", *[b"data: " + b"x" * 4000 + b"\n"] * 30), "one event is larger"),
        (sending(OK + b"content-encoding: gzip\r\n\r\n", b"\x1f\x8b"), "content encoding that was not asked for"),
        (sending(OK + b"content-length: 100\r\n\r\n", b"data: a\n\n"), "closed early"),
        (sending(b"SSH-2.0-OpenSSH_9.2\r\n"), "not HTTP"),
        (sending(), "closed early"),
    ],
    ids=["answer too large", "endless line", "endless event", "compressed", "cut", "not HTTP", "closed at once"],
)
async def test_what_is_too_large_or_not_whole_is_refused(kept: Handler, what: str) -> None:
    """Each ends in an EgressBroken that says which."""
    limits = Limits(event_bytes=50_000 if "event" in what else 5_000, answer_bytes=1_000_000 if "event" in what else 60_000)
    async with serving(kept) as url:
        with pytest.raises(EgressBroken, match=what):
            await fetched(url, limits=limits)


async def test_a_port_where_nobody_listens_is_unreachable() -> None:
    """A refused connection is told apart from an answer that did not come."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        with pytest.raises(EgressUnreachable, match="could not connect"):
            await fetched(url)


@pytest.mark.parametrize("value", [f"{CANARY}\r\nx: y", f"{CANARY}ё"])
async def test_a_header_that_is_none_is_refused_without_quoting_it(value: str) -> None:
    """The name of the header is said, its value is not."""
    egress = Egress(["http://127.0.0.1:9"])
    with pytest.raises(EgressRefused, match="'Authorization'") as caught:
        await egress.call_json("http://127.0.0.1:9/", headers={"Authorization": value})
    await egress.close()
    assert CANARY not in str(caught.value)


async def test_no_header_and_no_body_is_ever_logged(caplog: pytest.LogCaptureFixture) -> None:
    """With every logger at DEBUG, neither what was sent nor what came back is in the log."""
    caplog.set_level(logging.DEBUG)
    async with serving(
        sending(OK + f"x-canary: {CANARY}\r\ncontent-length: 16\r\n\r\n".encode(), f'"{CANARY}"'.encode())
    ) as url:
        egress = Egress([url])
        status, body = await egress.call_json(url, method="POST", headers={"x-key": CANARY}, json={"text": CANARY})
        await egress.close()
    assert (status, body) == (200, CANARY)
    assert CANARY not in caplog.text


async def test_nothing_is_sent_to_where_a_redirect_points() -> None:
    """Another host that listens gets no connection, whatever the kind of redirect."""
    connected = asyncio.Event()

    async def elsewhere(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        connected.set()

    async with listening(elsewhere, "127.0.0.2") as port:
        for status in (301, 302, 303, 307, 308):
            location = f"http://127.0.0.2:{port}/v1/chat/completions"
            head = f"HTTP/1.1 {status} X\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n"
            async with serving(sending(head.encode())) as url:
                with pytest.raises(EgressRefused, match=rf"redirects \({status}\) to '127.0.0.2:{port}'"):
                    await fetched(url)
        await asyncio.sleep(0.05)
        assert not connected.is_set()


@pytest.mark.parametrize("part", [b"x" * 65_536, b"data: " + b"x" * 65_528 + b"\n\n"], ids=["one line", "events"])
@pytest.mark.parametrize("as_events", [True, False], ids=["events", "body"])
async def test_an_answer_of_50_mb_is_refused_in_little_memory(part: bytes, as_events: bool) -> None:
    """The rest is neither read nor kept: the peak stays under three times what an answer may hold."""

    async def flood(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + b"content-length: 50000000\r\n\r\n")
        for _ in range(50_000_000 // len(part)):
            writer.write(part)
            await writer.drain()

    async with serving(flood) as url:
        tracemalloc.start()
        try:
            with pytest.raises(EgressBroken, match=r"larger than (8|1),000,000 bytes; refused"):
                await (fetched(url) if as_events else called(url))
            peak_bytes = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak_bytes < 3 * Limits().answer_bytes


async def called(url: str) -> tuple[int, object]:
    """What one call answers."""
    egress = Egress([url])
    try:
        return await egress.call_json(url)
    finally:
        await egress.close()


async def test_endless_headers_are_refused() -> None:
    """An answer whose headers never end is not HTTP."""

    async def endless(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK)
        while True:
            writer.write(b"x-header: " + b"x" * 8_000 + b"\r\n")
            await writer.drain()

    async with serving(endless) as url:
        with pytest.raises(EgressBroken, match="not HTTP"):
            await fetched(url)


async def test_a_name_that_does_not_exist_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that no resolver knows is told apart from a server that is not running."""

    def unknown(*_arguments: object, **_options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(EgressUnreachable, match="the name could not be resolved"):
        await fetched("http://archivist.invalid:1")


async def test_localhost_is_looked_up_once() -> None:
    """A name that was found to be this machine cannot become another one later."""
    answers = [["127.0.0.1"], ["192.0.2.7"]]

    async def changing(_host: str, _port: int) -> list[str]:
        return answers.pop(0)

    async with serving(sending(OK + b"content-length: 2\r\nconnection: close\r\n\r\n{}")) as url:
        url = url.replace("127.0.0.1", "localhost")
        egress = Egress([url], resolve=changing)
        assert await egress.call_json(url) == (200, {})
        assert await egress.call_json(url) == (200, {})
        await egress.close()
    assert answers == [["192.0.2.7"]]
