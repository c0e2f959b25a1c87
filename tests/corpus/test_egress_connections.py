"""Certificates and proxies: who is trusted, by which way a call goes, and what is said where it does not work."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

import pytest

from corpus.egress import Egress
from corpus.errors import ConfigError, EgressBroken, EgressUnreachable
from tests.corpus.raw_servers import OK, RawProxy, listening, resolving_to, self_signed, sending, serving, silent

pytestmark = pytest.mark.anyio

CANARY = "sk-canary-4711"
JSON = OK + b"content-length: 2\r\nconnection: close\r\n\r\n{}"
Certified = tuple[ssl.SSLContext, Path]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Certified:
    """TLS for 127.0.0.1, localhost and llm.example."""
    return self_signed(tmp_path_factory.mktemp("certified"), "IP:127.0.0.1,DNS:localhost,DNS:llm.example")


async def called(egress: Egress, url: str) -> tuple[int, object]:
    """One call with a header that must not be seen anywhere, and the end of its egress."""
    try:
        return await egress.call_json(url, headers={"x-key": CANARY})
    finally:
        await egress.close()


async def refusal(egress: Egress, url: str) -> str:
    """What a call that makes no connection says."""
    with pytest.raises(EgressUnreachable) as caught:
        await called(egress, url)
    assert CANARY not in str(caught.value)
    return str(caught.value)


async def test_a_certificate_that_nobody_signed_is_not_trusted(certified: Certified) -> None:
    """The error says what to configure, and no request goes out."""
    async with serving(silent, certified[0]) as url:
        assert await refusal(Egress([url]), url) == (
            f"{url[8:]}: its certificate is not trusted; name the authority's file in ca_file"
        )


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
async def test_ca_file_vouches_for_a_private_address(certified: Certified, name: str) -> None:
    """The same server is called once its certificate is named."""
    async with serving(sending(JSON), certified[0]) as url:
        url = url.replace("127.0.0.1", name)
        assert await called(Egress([url], ca_file=certified[1], resolve=resolving_to("127.0.0.1")), url) == (200, {})


async def test_a_certificate_for_another_name_is_told_apart(tmp_path: Path) -> None:
    """Trusted, but not for this address."""
    tls, certificate = self_signed(tmp_path, "DNS:other.example")
    async with serving(silent, tls) as url:
        for name in ("127.0.0.1", "localhost"):
            named = url.replace("127.0.0.1", name)
            said = await refusal(Egress([named], ca_file=certificate, resolve=resolving_to("127.0.0.1")), named)
            assert said == f"{named[8:]}: its certificate is for another name; give the address that the certificate names"


async def test_a_server_without_tls_is_told_apart() -> None:
    """https:// at a port that speaks plain HTTP."""
    async with listening(sending(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as port:
        url = f"https://127.0.0.1:{port}"
        assert "the TLS handshake failed; does it speak https:// at this port?" in await refusal(Egress([url]), url)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (None, "No such file or directory; name a file that can be read"),
        (b"", "holds no certificate in PEM form; name the authority's file"),
        (b"-----BEGIN CERTIFICATE-----\nbm8=\n-----END CERTIFICATE-----\n", "holds no certificate in PEM form"),
        (b"\x30\x82\x00\xff", "holds no certificate in PEM form"),
    ],
    ids=["missing", "empty", "damaged", "binary"],
)
def test_a_ca_file_that_cannot_be_used_is_an_error_of_the_configuration(
    tmp_path: Path, content: bytes | None, what: str
) -> None:
    """It is named, with the reason, before any call."""
    path = tmp_path / "authority.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        Egress(["https://127.0.0.1:1"], ca_file=path)
    assert str(caught.value).startswith(f"ca_file {str(path)!r}: {what}")


async def test_an_https_call_goes_through_the_proxy_in_a_tunnel(certified: Certified) -> None:
    """The proxy is told host and port and nothing of the request; the certificate is checked behind it."""
    async with serving(sending(JSON), certified[0]) as url:
        proxy = RawProxy(to_port=int(url.rsplit(":", 1)[1]))
        async with listening(proxy) as port:
            egress = Egress(["https://llm.example"], ca_file=certified[1], proxy=f"http://127.0.0.1:{port}")
            assert await called(egress, "https://llm.example/v1") == (200, {})
    assert proxy.heads == [b"CONNECT llm.example:443 HTTP/1.1\r\nHost: llm.example:443\r\n\r\n"]


async def test_a_proxy_can_itself_be_called_by_https(certified: Certified) -> None:
    """TLS to the proxy, and TLS through it; each is checked for its own name."""
    async with serving(sending(JSON), certified[0]) as url:
        proxy = RawProxy(to_port=int(url.rsplit(":", 1)[1]))
        async with listening(proxy, tls=certified[0]) as port:
            egress = Egress(["https://llm.example"], ca_file=certified[1], proxy=f"https://127.0.0.1:{port}")
            assert await called(egress, "https://llm.example/v1") == (200, {})
    assert len(proxy.heads) == 1


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_plain_call_is_passed_on_by_the_proxy(certified: Certified, scheme: str) -> None:
    """http:// needs no tunnel, which many proxies only allow for https://."""
    async with serving(sending(JSON)) as url:
        proxy = RawProxy(to_port=int(url.rsplit(":", 1)[1]))
        async with listening(proxy, tls=certified[0] if scheme == "https" else None) as port:
            egress = Egress(["http://llm.example"], ca_file=certified[1], proxy=f"{scheme}://127.0.0.1:{port}")
            assert await called(egress, "http://llm.example/v1") == (200, {})
    assert proxy.heads[0].startswith(b"GET http://llm.example/v1 HTTP/1.1\r\nHost: llm.example\r\n")


async def test_an_untrusted_certificate_behind_a_proxy_is_the_servers(certified: Certified) -> None:
    """The error blames the server and not the proxy, and the place in the pool is free again."""
    async with serving(silent, certified[0]) as url, listening(RawProxy(to_port=int(url.rsplit(":", 1)[1]))) as port:
        egress = Egress(["https://llm.example"], proxy=f"http://127.0.0.1:{port}", max_connections=1)
        for _ in range(3):
            with pytest.raises(EgressUnreachable, match=r"^llm\.example: its certificate is not trusted;"):
                await egress.call_json("https://llm.example")
        await egress.close()


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_is_not_running_is_named(scheme: str, unused_tcp_port: int) -> None:
    """Whoever reads the error looks at the proxy and not at the provider."""
    url = f"{scheme}://llm.example"
    assert await refusal(Egress([url], proxy=f"http://127.0.0.1:{unused_tcp_port}"), url) == (
        f"llm.example: the proxy 127.0.0.1:{unused_tcp_port}: could not connect; is it running, and is the address right?"
    )


@pytest.fixture
def unused_tcp_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_with_an_untrusted_certificate_is_named(certified: Certified, scheme: str) -> None:
    """TLS to the proxy fails, whatever is called through it."""
    async with listening(silent, tls=certified[0]) as port:
        url = f"{scheme}://llm.example"
        said = await refusal(Egress([url], proxy=f"https://127.0.0.1:{port}"), url)
    assert said.startswith(f"llm.example: the proxy 127.0.0.1:{port}: its certificate is not trusted;")


@pytest.mark.parametrize(
    ("reply", "what"),
    [
        (f"HTTP/1.1 407 {CANARY}\r\nproxy-authenticate: Basic\r\n\r\n", "it wants a user and a password (407)"),
        (f"HTTP/1.1 502 {CANARY}\r\ncontent-length: 3\r\n\r\nno!", "it refused to connect (502)"),
        (f"HTTP/1.0 403 {CANARY}\r\n\r\n", "it refused to connect (403)"),
        (f"SSH-2.0-{CANARY}\r\n", "what it answered is not HTTP"),
        ("HTTP/1.1 " + "x" * 20_000, "what it answered is not HTTP"),
        ("", "it closed the connection"),
        ("HTTP/1.1 299 200 \r\n\r\nmore", "it sent more than its answer"),
    ],
    ids=["407", "502", "403", "no HTTP", "endless", "closed", "more"],
)
async def test_a_proxy_that_refuses_says_how(reply: str, what: str) -> None:
    """The status is told, and nothing else of its answer."""
    async with listening(RawProxy(reply.encode())) as port:
        egress = Egress(["https://llm.example"], proxy=f"http://127.0.0.1:{port}", max_connections=1)
        said = await refusal(egress, "https://llm.example")
    assert said.startswith(f"llm.example: the proxy 127.0.0.1:{port}: {what}")


async def test_a_proxy_that_wants_a_password_for_a_plain_call_says_so() -> None:
    """407 is always the proxy's, and so is told as its refusal."""
    async with serving(sending(b"HTTP/1.1 407 No\r\ncontent-length: 0\r\n\r\n")) as proxy:
        said = await refusal(Egress(["http://llm.example"], proxy=proxy), "http://llm.example")
    assert said == f"llm.example: the proxy {proxy[7:]}: it wants a user and a password (407), and none are sent"


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "127.0.0.1:3128", "http://user:pw@127.0.0.1:1", "http://", "::"])
def test_a_proxy_that_is_none_is_an_error_of_the_configuration(proxy: str) -> None:
    """Other schemes, and a user, which could not be told."""
    with pytest.raises(ConfigError, match="proxy") as caught:
        Egress(["https://llm.example"], proxy=proxy)
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST.", "llm.localhost", "127.0.0.1", "127.8.8.8", "[::1]"])
def test_this_machine_is_not_called_by_a_proxy(host: str) -> None:
    """What the proxy calls localhost is another machine."""
    with pytest.raises(ConfigError, match=r"would carry calls to .* away from this machine; take it out"):
        Egress([f"http://{host}:8000/v1"], proxy="http://127.0.0.1:3128")


async def test_proxies_and_certificates_of_the_environment_are_ignored(
    certified: Certified, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a proxy nor an authority comes from a variable."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("SSL_CERT_FILE", str(certified[1]))
    async with serving(sending(JSON)) as url:
        assert await called(Egress([url]), url) == (200, {})
    async with serving(silent, certified[0]) as url:
        assert "its certificate is not trusted" in await refusal(Egress([url]), url)


async def test_a_server_that_leaves_during_the_answer_is_not_unreachable(certified: Certified) -> None:
    """Once the request is out, a cut behind a proxy is a broken answer, which must not be sent again unasked."""
    async with serving(sending(), certified[0]) as url, listening(RawProxy(to_port=int(url.rsplit(":", 1)[1]))) as port:
        egress = Egress(["https://llm.example"], ca_file=certified[1], proxy=f"http://127.0.0.1:{port}")
        with pytest.raises(EgressBroken, match=r"^llm\.example: the connection was c"):
            await called(egress, "https://llm.example")


async def test_calls_at_the_same_time_each_have_their_tunnel(certified: Certified) -> None:
    """Twenty calls through one proxy, all answered."""
    async with serving(sending(JSON), certified[0]) as url:
        proxy = RawProxy(to_port=int(url.rsplit(":", 1)[1]))
        async with listening(proxy) as port:
            egress = Egress(["https://llm.example"], ca_file=certified[1], proxy=f"http://127.0.0.1:{port}")
            answers = await asyncio.gather(*[egress.call_json("https://llm.example") for _ in range(20)])
            await egress.close()
    assert answers == [(200, {})] * 20
    assert len(proxy.heads) == 20
