"""Which addresses a page may be fetched from: public ones, and the private ones that the configuration names.

A name is resolved once for a connection, every address it has is judged, and the connection goes to the address that was
judged, so that a name which resolves differently a moment later changes nothing.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from corpus.errors import ConfigError, EgressRefused, EgressUnreachable
from corpus.localhost import Resolve, resolve_name

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_EMBEDDING = tuple(
    ipaddress.IPv6Network(text) for text in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "::/96")
)
"""IPv6 addresses that carry an IPv4 address (NAT64, 6to4, Teredo, IPv4-compatible): a gateway would pass them on to it."""


def network_of(text: str) -> Network:
    """A network such as 10.20.0.0/16, or one address. Raises: ConfigError."""
    try:
        return ipaddress.ip_network(text.strip())
    except ValueError as error:
        raise ConfigError(f"{text!r} is not an address or a network such as 10.20.0.0/16; mend allow_networks") from error


def is_public(address: Address) -> bool:
    """Whether an address is one of the open Internet, not of this machine, its network or a gateway into them."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address.is_site_local or any(address in network for network in _EMBEDDING):
            return False
    return address.is_global and not (address.is_multicast or address.is_reserved)


class Guard:
    """Judges where a name leads. `allow_networks` are private networks that may be reached, as text."""

    def __init__(self, allow_networks: Iterable[str] = (), resolve: Resolve | None = None) -> None:
        self._allowed = tuple(network_of(text) for text in allow_networks)
        self._resolve = resolve or resolve_name

    async def addresses(self, host: str, port: int, target: str) -> list[str]:
        """Where to connect, in order; nothing is remembered.

        Raises: EgressRefused where any address of the name may not be reached, EgressUnreachable where it has none.
        """
        try:
            addresses = await self._resolve(host, port)
        except OSError as error:
            raise EgressUnreachable(f"{target}: the name could not be resolved") from error
        except UnicodeError as error:
            raise EgressRefused(f"{target}: not a host name that can be looked up") from error
        if not addresses:
            raise EgressUnreachable(f"{target}: the name has no address")
        for address in addresses:
            if not self._may(ipaddress.ip_address(address)):
                raise EgressRefused(
                    f"{target}: {address!r} is not a public address; nothing was sent. "
                    "Name it in the source's allow_networks if it is meant"
                )
        return addresses

    def _may(self, address: Address) -> bool:
        judged: Address = address
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            judged = address.ipv4_mapped
        return is_public(judged) or any(judged in network for network in self._allowed)
