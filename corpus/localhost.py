"""What counts as this machine, and where `localhost` really is. Imports nothing of ours but the errors."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable

from corpus.errors import EgressRefused, EgressUnreachable

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""From a host name and a port to the addresses it has right now."""


def is_localhost(host: str) -> bool:
    """Whether a name means this machine. Source: RFC 6761, section 6.3."""
    name = host.rstrip(".")
    return name == "localhost" or name.endswith(".localhost")


def is_loopback(host: str) -> bool:
    """Whether a host is given as this machine: by such a name, or by a literal loopback address."""
    try:
        return is_localhost(host) or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Localhost:
    """The addresses of localhost, each checked to be this machine before it is handed out."""

    def __init__(self, resolve: Resolve | None = None) -> None:
        self._resolve = resolve or resolve_name
        self._checked: dict[str, list[str]] = {}

    async def addresses(self, host: str, port: int, target: str) -> list[str]:
        """Where to connect, in order. Raises: EgressRefused for a foreign address, EgressUnreachable for none."""
        if host in self._checked:
            return self._checked[host]  # asking again could only make it another machine
        try:
            addresses = await self._resolve(host, port)
        except OSError as error:
            raise EgressUnreachable(f"{target}: the name could not be resolved") from error
        for address in addresses:
            if not ipaddress.ip_address(address).is_loopback:
                raise EgressRefused(f"{target}: resolves to {address!r}, which is not this machine; nothing was sent")
        if not addresses:
            raise EgressUnreachable(f"{target}: the name has no address")
        self._checked[host] = addresses
        return addresses


async def resolve_name(host: str, port: int) -> list[str]:
    """The addresses that a name has now, each once. Raises: OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))
