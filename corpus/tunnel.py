"""The way through an HTTP proxy to an https:// address. The only importer of httpcore, which httpx is made of.

httpcore brings a tunnel of its own. It takes the proxy's answer for the end of connecting, and where the handshake behind
the proxy fails or is given up, it keeps the connection's place in the pool forever.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterable

import httpcore

MAX_HEAD_BYTES = 16_384
_HEAD = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])[ \r\n]")


class Tunnel(httpcore.AsyncNetworkBackend):
    """Connects to every address by way of one proxy. Its ProxyErrors say what the proxy did, in words of ours."""

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None) -> None:
        self._host, self._port, self._tls = host, port, tls
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the signature is httpcore's
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """A connection to the address. Raises: httpcore.ConnectError, ConnectTimeout, ProxyError."""
        stream = await self._network.connect_tcp(self._host, self._port, timeout, local_address, socket_options)
        try:
            if self._tls is not None:
                stream = await stream.start_tls(self._tls, self._host, timeout)
            address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            await stream.write(f"CONNECT {address} HTTP/1.1\r\nHost: {address}\r\n\r\n".encode("ascii"))
            _require_success(await _head(stream))
        except (httpcore.ReadError, httpcore.WriteError) as error:
            await stream.aclose()
            raise httpcore.ProxyError("it closed the connection") from error
        except BaseException:
            await stream.aclose()  # given up as well: nobody else knows of the connection yet
            raise
        return stream


async def _head(stream: httpcore.AsyncNetworkStream) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head:
        part = await stream.read(MAX_HEAD_BYTES)
        head += part
        if not part or len(head) > MAX_HEAD_BYTES:
            break
    return head


def _require_success(head: bytes) -> None:
    match = _HEAD.match(head)
    if not head:
        raise httpcore.ProxyError("it closed the connection")
    if match is None or b"\r\n\r\n" not in head:
        raise httpcore.ProxyError("what it answered is not HTTP; is it an HTTP proxy?")
    status = int(match[1])
    if status == 407:
        raise httpcore.ProxyError("it wants a user and a password (407), and none are sent; have it let this machine through")
    if not 200 <= status < 300:
        raise httpcore.ProxyError(f"it refused to connect ({status}); does it allow this address?")
    if not head.endswith(b"\r\n\r\n"):
        raise httpcore.ProxyError("it sent more than its answer before it was asked for anything")
