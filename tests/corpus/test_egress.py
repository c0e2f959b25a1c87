"""Outbound HTTP: what may be called, how long it may take, how much may come back, and what is never said."""

from __future__ import annotations

import asyncio
import logging
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpus.egress import OUR_MISTAKES, TRANSLATIONS, Answer, Egress, EventParser, Limits, Timeouts, translated
from corpus.errors import EgressBroken, EgressError, EgressRefused, EgressTimeout, EgressUnreachable

pytestmark = pytest.mark.anyio

CANARY = "sk-canary-4711"
OK = b"HTTP/1.1 200 OK\r\n"
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def self_signed(tmp_path: Path) -> ssl.SSLContext:
    """A server's TLS with a certificate of its own making."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed, so there is no certificate to serve")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1"]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


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


@asynccontextmanager
async def listening(handler: Handler, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A raw TCP server; the handler gets each connection. Yields the port, and ends every connection afterwards."""
    connections: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError):  # the client left; some tests are about that
                await handler(reader, writer)
        finally:
            writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.add(asyncio.ensure_future(handle(reader, writer)))

    server = await asyncio.start_server(accept, host, 0, ssl=tls)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    """The same, for a handler that is called when a whole request head is there. Yields the address."""

    async def after_the_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await handler(reader, writer)

    async with listening(after_the_head) as port:
        yield f"http://127.0.0.1:{port}"


def sending(*parts: bytes) -> Handler:
    async def handler(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()

    return handler


async def silent(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(30)


async def fetched(url: str, timeouts: Timeouts | None = None, limits: Limits | None = None) -> list[str]:
    """All events of one answer."""
    egress = Egress([url])
    try:
        call = egress.stream(url, json={}, timeouts=timeouts or Timeouts(), limits=limits or Limits())
        async with call as answer:
            return await all_events(answer)
    finally:
        await egress.close()


async def all_events(answer: Answer, wait_s: float = 5) -> list[str]:
    events: list[str] = []
    while (batch := await answer.next_events(asyncio.get_running_loop().time() + wait_s)) is not None:
        events += batch
    return events


async def test_events_arrive_as_the_server_sent_them() -> None:
    """Comments, other fields and every kind of line end are understood; an event cut at the end is dropped."""
    body = b": hello\r\nevent: x\r\ndata: one\r\n\r\ndata:two\ndata: lines\n\n\rdata: three\r\rdata: cut"
    async with serving(sending(OK + b"connection: close\r\n\r\n", body)) as url:
        assert await fetched(url) == ["one", "two\nlines", "three"]


@given(
    events=st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), min_size=1), max_size=5),
    line_end=st.sampled_from([b"\n", b"\r\n", b"\r"]),
    data=st.data(),
)
def test_events_are_the_same_however_the_bytes_are_cut(events: list[str], line_end: bytes, data: st.DataObject) -> None:
    """Where the network cuts the stream makes no difference, not even inside a letter or a line end."""
    stream = b"".join(b"data: " + event.encode() + line_end * 2 for event in events)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    parser = EventParser(max_event_bytes=100_000)
    found: list[str] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += parser.feed(stream[start:end])
    assert found == events


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


async def resolving_to(*addresses: str) -> Callable[[str, int], Awaitable[list[str]]]:
    async def resolve(_host: str, _port: int) -> list[str]:
        return list(addresses)

    return resolve


@pytest.mark.parametrize("addresses", [["192.0.2.7"], ["127.0.0.1", "192.0.2.7"], ["::ffff:192.0.2.7"], ["0.0.0.0"]])
async def test_localhost_that_resolves_elsewhere_is_refused(addresses: list[str]) -> None:
    """One foreign address among those of localhost is enough, and nothing is sent."""
    egress = Egress(["http://localhost:9"], resolve=await resolving_to(*addresses))
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
        egress = Egress([f"http://localhost:{port}"], resolve=await resolving_to("127.0.0.3", "127.0.0.2"))
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


async def test_a_connection_that_is_never_accepted_times_out_as_connect() -> None:
    """A full queue of connections uses up connect_s, and the error names that stage."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for client in waiting:
            client.setblocking(False)
            client.connect_ex(address)
        with pytest.raises(EgressTimeout, match=r"no connection within 0\.2 s") as caught:
            await fetched(f"http://127.0.0.1:{address[1]}", Timeouts(connect_s=0.2))
        for client in waiting:
            client.close()
    assert caught.value.stage == "connect"


async def test_a_tls_handshake_without_an_answer_times_out_as_connect() -> None:
    """TLS is part of connecting, with the same limit, and the connection is closed afterwards."""
    closed = asyncio.Event()

    async def listen_only(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()
        closed.set()

    async with listening(listen_only) as port:
        with pytest.raises(EgressTimeout) as caught:
            await fetched(f"https://127.0.0.1:{port}", Timeouts(connect_s=0.2))
        await asyncio.wait_for(closed.wait(), 1)
    assert caught.value.stage == "connect"


async def test_a_server_that_says_nothing_times_out_as_response() -> None:
    """Connected, but no headers within response_s."""
    async with serving(silent) as url:
        with pytest.raises(EgressTimeout) as caught:
            await fetched(url, Timeouts(response_s=0.2))
    assert (caught.value.stage, caught.value.waited_s) == ("response", 0.2)


async def test_headers_that_drip_time_out_as_response() -> None:
    """A byte now and then does not start the clock again."""

    async def drip(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for byte in OK * 10:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.05)

    async with serving(drip) as url:
        with pytest.raises(EgressTimeout) as caught:
            await fetched(url, Timeouts(response_s=0.3))
    assert caught.value.stage == "response"


async def test_the_total_covers_everything() -> None:
    """An answer that keeps coming still ends at total_s."""

    async def endless(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + b"\r\n")
        while True:
            writer.write(b"data: tick\n\n")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with serving(endless) as url:
        with pytest.raises(EgressTimeout) as caught:
            await fetched(url, Timeouts(total_s=0.3))
    assert (caught.value.stage, caught.value.waited_s) == ("total", 0.3)


async def test_a_full_pool_times_out_as_pool() -> None:
    """Waiting for a connection that another call holds has its own limit."""
    async with serving(silent) as url:
        egress = Egress([url], max_connections=1)
        holding = asyncio.create_task(egress.call_json(url))
        await asyncio.sleep(0.1)
        with pytest.raises(EgressTimeout) as caught:
            await egress.call_json(url, timeouts=Timeouts(pool_s=0.2))
        holding.cancel()
        await asyncio.gather(holding, return_exceptions=True)
        await egress.close()
    assert caught.value.stage == "pool"


async def test_a_certificate_that_nobody_signed_is_unreachable(self_signed: ssl.SSLContext) -> None:
    """A TLS server that cannot prove its name gets no request."""
    async with listening(silent, tls=self_signed) as port:
        with pytest.raises(EgressUnreachable):
            await fetched(f"https://127.0.0.1:{port}")


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
