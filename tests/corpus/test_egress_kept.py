"""Connections that are kept from call to call, and servers that close them unannounced."""

from __future__ import annotations

import asyncio

import pytest

from corpus.egress import Egress
from corpus.errors import EgressBroken
from tests.corpus.raw_servers import OK, listening

pytestmark = pytest.mark.anyio

WHOLE = OK + b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Closing:
    """Answers so many requests of each connection, reads one more, and closes without a word of it."""

    def __init__(self, answered: int, wait_s: float = 0.0) -> None:
        self.answered, self.wait_s = answered, wait_s
        self.connections = self.requests = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        for _ in range(self.answered):
            await reader.readuntil(b"\r\n\r\n")
            self.requests += 1
            writer.write(WHOLE)
            await writer.drain()
        await reader.readuntil(b"\r\n\r\n")
        self.requests += 1
        await asyncio.sleep(self.wait_s)


async def test_a_kept_connection_that_was_closed_is_replaced_by_a_fresh_one() -> None:
    """llama.cpp announces that it keeps a connection and closes it: ten calls, ten answers."""
    server = Closing(answered=1)
    async with listening(server) as port:
        egress = Egress([f"http://127.0.0.1:{port}"])
        answers = [await egress.call_json(f"http://127.0.0.1:{port}/") for _ in range(10)]
        await egress.close()
    assert answers == [(200, {})] * 10
    assert server.connections == 10


async def test_a_fresh_connection_that_is_closed_without_an_answer_is_an_error() -> None:
    """It is not tried again here: whether that makes sense is not for a transport to say."""
    server = Closing(answered=0)
    async with listening(server) as port:
        egress = Egress([f"http://127.0.0.1:{port}"])
        with pytest.raises(EgressBroken, match="closed early"):
            await egress.call_json(f"http://127.0.0.1:{port}/")
        await egress.close()
    assert (server.connections, server.requests) == (1, 1)


async def test_a_request_that_was_read_for_long_is_not_sent_again() -> None:
    """A server that thinks for more than a second and then hangs up has had the request."""
    server = Closing(answered=1, wait_s=1.2)
    async with listening(server) as port:
        egress = Egress([f"http://127.0.0.1:{port}"])
        await egress.call_json(f"http://127.0.0.1:{port}/")
        with pytest.raises(EgressBroken, match="closed early"):
            await egress.call_json(f"http://127.0.0.1:{port}/")
        await egress.close()
    assert (server.connections, server.requests) == (1, 2)
