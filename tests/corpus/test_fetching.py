"""Fetching pages: which addresses may be reached, and what is made of redirects, validators and limits. Loopback only."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from corpus.addresses import Guard, is_public, network_of
from corpus.errors import ConfigError, EgressBroken, EgressError, EgressRefused, EgressUnreachable, PageTooLarge
from corpus.fetching import Fetcher, Page
from tests.corpus.raw_servers import listening

pytestmark = pytest.mark.anyio

LOOPBACK = ("127.0.0.0/8",)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass
class Site:
    """A loopback web server: what it answers by path, the heads it was sent, and how many connections it got."""

    port: int = 0
    connections: int = 0
    heads: list[str] = field(default_factory=list)
    answers: dict[str, bytes] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@asynccontextmanager
async def site(**answers: bytes) -> AsyncIterator[Site]:
    """The server; `page=b"..."` is what it answers to /page."""
    served = Site(answers={f"/{name}": answer for name, answer in answers.items()})

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.connections += 1
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            served.heads.append(head)
            writer.write(served.answers.get(head.split()[1], answer("404 Not Found", "")))
            await writer.drain()

    async with listening(handler) as port:
        served.port = port
        yield served


def answer(status: str, body: str, **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body.encode())}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


async def fetch(url: str, *, guard: Guard | None = None, max_bytes: int = 1000, **validators: str) -> tuple[Page, bytes]:
    """One page, with a fetcher of its own."""
    fetcher = Fetcher(guard or Guard(LOOPBACK), max_bytes=max_bytes)
    body = bytearray()
    try:
        page = await fetcher.fetch(url, body.extend, **validators)
    finally:
        await fetcher.close()
    return page, bytes(body)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "192.0.2.1",
        "198.18.0.1", "224.0.0.1", "255.255.255.255", "240.0.0.1", "::1", "::", "::ffff:10.0.0.1", "::ffff:127.0.0.1",
        "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::1", "2002:7f00:1::", "2001:0:1::1", "fe80::1", "fc00::1", "fec0::1",
        "ff02::1", "2001:db8::1",
    ],
)  # fmt: skip
def test_private_and_special_addresses_are_not_public(address: str) -> None:
    """Threat C9: this machine, private and link-local networks, and IPv6 forms that lead to them."""
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["93.184.216.34", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_addresses_of_the_internet_are_public(address: str) -> None:
    """Threat C9: the other side, so that the check is not one that refuses everything."""
    assert is_public(ipaddress.ip_address(address))


async def test_a_public_name_is_pinned_to_what_was_judged() -> None:
    """Threat C9: public addresses are handed out as they were resolved; one private address among them spoils the name."""
    found = {"good.example": ["93.184.216.34", "2606:4700::1111"], "bad.example": ["93.184.216.34", "10.0.0.7"]}

    async def resolve(host: str, port: int) -> list[str]:
        return found[host]

    guard = Guard(resolve=resolve)
    assert await guard.addresses("good.example", 443, "good.example") == found["good.example"]
    with pytest.raises(EgressRefused, match=r"'10\.0\.0\.7' is not a public address; nothing was sent"):
        await guard.addresses("bad.example", 443, "bad.example")
    found["good.example"] = ["127.0.0.1"]
    with pytest.raises(EgressRefused):
        await guard.addresses("good.example", 443, "good.example")


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.1", "0", "0.0.0.0", "localhost", "LOCALHOST", "localhost.", "2130706433", "0x7f000001",
        "0177.0.0.1", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]",
    ],
)  # fmt: skip
async def test_no_spelling_of_this_machine_is_reached(host: str) -> None:
    """Threat C9: refused, or not resolvable, with no connection at a listener on the very port."""
    async with site(page=answer("200 OK", "secret")) as served:
        with pytest.raises((EgressRefused, EgressUnreachable)):
            await fetch(f"http://{host}:{served.port}/page", guard=Guard())
        assert served.connections == 0


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd", "gopher://127.0.0.1:{port}/", "ftp://127.0.0.1:{port}/", "http://user@127.0.0.1:{port}/",
        "http://user:pw@127.0.0.1:{port}/page", "http://127.0.0.1:{port}/page\r\nX: y", "http://127.0.0.1:{port}\r\nX:y/",
        "//127.0.0.1:{port}/page", "127.0.0.1:{port}", "http://[::1", "http://", "", "http://example.com@127.0.0.1:{port}/",
    ],
)  # fmt: skip
async def test_what_is_no_plain_address_is_refused(url: str) -> None:
    """Threat C9: other schemes, users, line breaks and half addresses, even where the machine itself is allowed."""
    async with site(page=answer("200 OK", "secret")) as served:
        with pytest.raises(EgressRefused):
            await fetch(url.format(port=served.port))
        assert served.connections == 0


@pytest.mark.parametrize(
    "target", ["http://127.0.0.2:{port}/page", "http://[::1]:{port}/page", "http://169.254.169.254/", "file:///etc/passwd"]
)
async def test_a_redirect_is_judged_like_an_address(target: str) -> None:
    """Threat C9: a page that may be fetched cannot send the job where it may not go."""
    async with site() as inner, site() as outer:
        outer.answers["/start"] = answer("302 Found", "", location=target.format(port=inner.port))
        with pytest.raises(EgressRefused):
            await fetch(f"{outer.url}/start", guard=Guard(["127.0.0.1"]))
        assert (outer.connections, inner.connections) == (1, 0)


async def test_a_name_that_changes_its_address_between_redirects_is_judged_again() -> None:
    """Threat C9, rebinding: the first answer of the resolver is allowed, its second is not; nothing is connected to then."""
    async with site() as served:
        served.answers["/start"] = answer("302 Found", "", location="/again", connection="close")
        answers = [["127.0.0.1"], ["127.0.0.3"], ["127.0.0.1"]]
        asked: list[str] = []

        async def resolve(host: str, port: int) -> list[str]:
            asked.append(host)
            return answers[len(asked) - 1]

        with pytest.raises(EgressRefused, match=r"127\.0\.0\.3"):
            await fetch(f"http://wiki.example:{served.port}/start", guard=Guard(["127.0.0.1"], resolve))
        assert asked == ["wiki.example", "wiki.example"]
        assert [head.split()[1] for head in served.heads] == ["/start"]
        assert f"host: wiki.example:{served.port}" in served.heads[0].lower()


async def test_redirects_are_followed_so_far_and_no_further() -> None:
    """To another origin that may be reached, with the page as it is there; a circle ends after five."""
    async with site(page=answer("200 OK", "found", content_type="text/html", etag='"1"')) as inner, site() as outer:
        outer.answers["/moved"] = answer("301 Moved", "", location=f"{inner.url}/page#part")
        page, body = await fetch(f"{outer.url}/moved")
        assert (page, body) == (Page("fresh", "text/html", '"1"', None), b"found")
        assert inner.heads[0].startswith("GET /page HTTP/1.1")
        outer.answers["/circle"] = answer("302 Found", "", location="/circle")
        with pytest.raises(EgressRefused, match="more than 5 redirects"):
            await fetch(f"{outer.url}/circle")
        assert len([head for head in outer.heads if "/circle" in head]) == 6


async def test_validators_are_sent_and_304_says_unchanged() -> None:
    """What was kept is asked about; without a body, nothing is written."""
    async with site(page=b"HTTP/1.1 304 Not Modified\r\n\r\n") as served:
        page, body = await fetch(f"{served.url}/page", etag='"abc"', last_modified="Mon, 23 Nov 2026 10:00:00 GMT")
    assert (page.outcome, body) == ("unchanged", b"")
    head = served.heads[0].lower()
    assert 'if-none-match: "abc"\r\n' in head
    assert "if-modified-since: mon, 23 nov 2026 10:00:00 gmt\r\n" in head


@pytest.mark.parametrize("status", ["404 Not Found", "410 Gone"])
async def test_a_page_that_is_not_there_is_gone(status: str) -> None:
    """These two are an answer, not a failure."""
    async with site(page=answer(status, "nothing here")) as served:
        assert (await fetch(f"{served.url}/page"))[0].outcome == "gone"


@pytest.mark.parametrize("status", ["500 Oops", "503 Busy", "403 Forbidden", "401 Who", "204 No Content", "300 Choose"])
async def test_other_answers_are_failures(status: str) -> None:
    """Named by their status."""
    async with site(page=answer(status, "" if status.startswith("204") else "x")) as served:
        with pytest.raises(EgressBroken, match=f"status {status[:3]}"):
            await fetch(f"{served.url}/page")


async def test_a_page_over_the_limit_is_not_read_to_its_end() -> None:
    """The limit itself is allowed; one byte more is refused, and no more than that was handed over."""
    async with site(page=answer("200 OK", "x" * 1000), large=answer("200 OK", "x" * 1001)) as served:
        assert len((await fetch(f"{served.url}/page"))[1]) == 1000
        with pytest.raises(PageTooLarge, match="more than 1,000 bytes"):
            await fetch(f"{served.url}/large")


async def test_a_page_that_is_cut_off_is_a_failure() -> None:
    """Half a page never passes for a page."""
    async with site() as served:
        served.answers["/page"] = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\nconnection: close\r\n\r\nhalf"

        async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(served.answers["/page"])
            writer.close()

        async with listening(cut) as port:
            with pytest.raises(EgressBroken):
                await fetch(f"http://127.0.0.1:{port}/page")


async def test_nobody_there_is_unreachable() -> None:
    """A closed port is told as such."""
    async with site() as served:
        port = served.port
    with pytest.raises(EgressError) as caught:
        await fetch(f"http://127.0.0.1:{port}/page")
    assert isinstance(caught.value, EgressUnreachable)


@pytest.mark.parametrize("network", ["10.0.0.0/33", "intranet", "10.1.2.3/8", ""])
def test_a_network_that_is_none_is_a_configuration_error(network: str) -> None:
    """The error repeats it and shows how one looks."""
    with pytest.raises(ConfigError, match=r"not an address or a network such as 10\.20\.0\.0/16"):
        network_of(network)
