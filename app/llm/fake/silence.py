"""Listening sockets at which a caller hangs before there is any HTTP."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from corpus.errors import ConfigError

FILLED_WITHIN = 64
"""Connections after which a queue of length nought must be full; Linux takes one or two."""
PROBE_S = 0.2


@contextmanager
def silent_listener(listener: socket.socket, *, connects: bool) -> Iterator[None]:
    """Makes a bound socket listen to nobody.

    With `connects` the kernel takes connections, on which nothing is read or answered: a TLS handshake hangs, and an
    HTTP request waits for its headers. Without it the kernel's queue is full: a connection never comes about.
    Raises: ConfigError where this machine's kernel takes connections however full its queue is.
    """
    if connects:
        listener.listen(128)
        yield
        return
    listener.listen(0)
    with ExitStack() as held:
        for _ in range(FILLED_WITHIN):
            waiting = held.enter_context(socket.socket(listener.family, socket.SOCK_STREAM))
            waiting.settimeout(PROBE_S)
            try:
                waiting.connect(listener.getsockname())
            except TimeoutError:
                yield
                return
        raise ConfigError("this machine takes connections that nobody accepts; choose another hang than 'connect'")
