"""Servers that say exactly what a test wants on the wire, with or without TLS, and a proxy. Loopback only."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from corpus.egress import Answer, Egress, Limits, Timeouts
from corpus.localhost import Resolve

OK = b"HTTP/1.1 200 OK\r\n"
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


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
async def serving(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """The same, for a handler that is called when a whole request head is there. Yields the address."""

    async def after_the_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await handler(reader, writer)

    async with listening(after_the_head, tls=tls) as port:
        yield f"{'http' if tls is None else 'https'}://127.0.0.1:{port}"


def sending(*parts: bytes) -> Handler:
    """A handler that sends these parts, one after another."""

    async def handler(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()

    return handler


async def silent(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    """A handler that says nothing."""
    await asyncio.sleep(30)


async def fetched(
    url: str, timeouts: Timeouts | None = None, limits: Limits | None = None, egress: Egress | None = None
) -> list[str]:
    """All events of one answer."""
    egress = egress or Egress([url])
    try:
        call = egress.stream(url, json={}, timeouts=timeouts or Timeouts(), limits=limits or Limits())
        async with call as answer:
            return await all_events(answer)
    finally:
        await egress.close()


async def all_events(answer: Answer, wait_s: float = 5) -> list[str]:
    """The events that are still to come."""
    events: list[str] = []
    while (batch := await answer.next_events(asyncio.get_running_loop().time() + wait_s)) is not None:
        events += batch
    return events


def resolving_to(*addresses: str) -> Resolve:
    """A lookup that finds the same addresses for every name."""

    async def resolve(_host: str, _port: int) -> list[str]:
        return list(addresses)

    return resolve


def self_signed(folder: Path, names: str = "IP:127.0.0.1,DNS:localhost", days: int = 30) -> tuple[ssl.SSLContext, Path]:
    """A server's TLS and the file of its certificate, which it signed itself. Python 3.13 insists on the extensions."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed, so there is no certificate to serve")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    extensions = [f"subjectAltName={names}", "keyUsage=critical,digitalSignature,keyCertSign"]
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=archivist-test", "-days", str(days)]
    command += [word for extension in extensions for word in ("-addext", extension)]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context, certificate


async def piped(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copies from one connection to another until the first ends."""
    with suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


class RawProxy:
    """An HTTP proxy: CONNECT to any loopback port whatever the host is called, and http:// requests passed on."""

    def __init__(self, reply: bytes = b"HTTP/1.1 200 Connection established\r\n\r\n", to_port: int | None = None) -> None:
        self.heads: list[bytes] = []
        self._reply, self._to_port = reply, to_port

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        if self._to_port is None:
            writer.write(self._reply)
            await writer.drain()
            return
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._to_port)
        try:
            if head.startswith(b"CONNECT "):
                writer.write(self._reply)
            else:
                there_writer.write(head)
            await asyncio.gather(piped(reader, there_writer), piped(there_reader, writer))
        finally:
            there_writer.close()
