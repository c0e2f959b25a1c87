"""The service behind real sockets and in the event loop of the test, so that what it holds can be counted; and its callers."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from app.listening import bound_socket
from app.main import create_app, server_config
from app.services import Services, build_services
from app.settings import ServiceSettings
from corpus.embedders.embedder import Embedder
from tests.app.serving import composed
from tests.servers import wait_until

QUESTION = "When are expense reports due?"


@dataclass(frozen=True, slots=True)
class Served:
    """A service that listens, and what it holds."""

    port: int
    services: Services

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def provider(self, name: str) -> dict[str, Any]:
        """What the service knows of a provider."""
        providers = self.services.gateway.status()["providers"]
        assert isinstance(providers, dict)
        status: dict[str, Any] = providers[name]
        return status


@asynccontextmanager
async def serving_here(settings: ServiceSettings, embedder: Embedder | None = None) -> AsyncIterator[Served]:
    """The service on a free loopback port, in the running event loop."""
    services = composed(settings) if embedder is None else build_services(settings, embedder)
    app = create_app(settings, services)
    with closing(bound_socket("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(server_config(app, settings.server))
        running = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            assert await eventually(lambda: server.started, 60), "the service did not start"
            yield Served(int(listener.getsockname()[1]), services)
        finally:
            server.should_exit = True
            await running


async def eventually(holds: Callable[[], object], within_s: float) -> bool:
    """Whether something comes true in time, while the event loop goes on."""
    return await asyncio.to_thread(wait_until, holds, within_s)


def open_sockets() -> int:
    """How many sockets this process holds, of whatever kind."""
    count = 0
    for entry in Path("/proc/self/fd").iterdir():
        try:
            count += os.readlink(entry).startswith("socket:")
        except OSError:  # the handle with which the folder is read
            continue
    return count


def resident_bytes() -> int:
    """How much memory this process has in use."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@dataclass(slots=True)
class Streamed:
    """What one caller of a stream got. Times are seconds from the request; `ended` is its last event: done, error or none."""

    status: int = 0
    retry_after: str | None = None
    sources: int = 0
    text: str = ""
    ended: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    first_s: float | None = None
    took_s: float = 0.0


async def asked(
    client: httpx.AsyncClient, question: str = QUESTION, *, begun: Callable[[], object] = lambda: None, **body: object
) -> Streamed:
    """Ask in a stream and read it to its end. `begun` is called at its first word."""
    got = Streamed()
    began = time.perf_counter()
    async with client.stream("POST", "/v1/ask", json={"question": question, "stream": True, **body}) as response:
        got.status, got.retry_after = response.status_code, response.headers.get("retry-after")
        if got.status != 200:
            await response.aread()
        else:
            async for name, data in _events(response):
                assert not got.ended, f"{name!r} came after {got.ended!r}"
                if name == "delta" and got.first_s is None:
                    begun()
                _take(got, name, data, time.perf_counter() - began)
    got.took_s = time.perf_counter() - began
    return got


def _take(got: Streamed, name: str, data: dict[str, Any], at_s: float) -> None:
    if name == "sources":
        got.sources += 1
    elif name == "delta":
        got.first_s = got.first_s or at_s
        got.text += data["text"]
    else:
        got.ended, got.data = name, data


async def _events(response: httpx.Response) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    name = ""
    async for line in response.aiter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


class Caller:
    """A caller with a bare socket, that can hang up without a word at any moment."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def asking(cls, port: int, body: Mapping[str, object], path: str = "/v1/ask") -> Caller:
        """One that has sent its request."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        content = json.dumps(body).encode()
        head = (f"POST {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json", f"Content-Length: {len(content)}")
        writer.write("\r\n".join([*head, "", ""]).encode() + content)
        await writer.drain()
        return cls(reader, writer)

    async def sees(self, part: bytes) -> bytes:
        """All that came until some bytes did."""
        return await asyncio.wait_for(self._reader.readuntil(part), 30)

    def hang_up(self) -> None:
        """Leave at once."""
        self._writer.transport.abort()
