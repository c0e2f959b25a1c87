"""The socket a server of ours listens on."""

from __future__ import annotations

import socket

from corpus.errors import ConfigError


def bound_socket(host: str, port: int) -> socket.socket:
    """A socket at an address, taken before anything is loaded, so that a port in use is known at once.

    Raises: ConfigError where the address cannot be had.
    """
    host = host.strip("[]")
    # With the protocol named: only then does the event loop switch off Nagle's algorithm, which holds a small answer back until
    # the caller's delayed acknowledgement, 40 ms later.
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ConfigError(f"cannot listen on {host!r}, port {port}: {error.strerror}; choose another host or port") from error
    return listener
