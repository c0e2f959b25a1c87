"""A client that measures: the standard library's, on one kept connection, so that little of what it measures is its own."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

from evaluation.bench.figures import BenchError

TIMEOUT_S = 60
OK = 200


class Client:
    """One connection to a server on this machine. `key` is the bearer key, where the service has one."""

    def __init__(self, address: str, key: str | None = None) -> None:
        parts = urlsplit(address)
        self._address = address
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT_S)
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})

    def get(self, path: str) -> Any:
        """The JSON under a path. Raises: BenchError."""
        return json.loads(self._whole("GET", path, None))

    def post(self, path: str, body: object) -> Any:
        """The JSON that a request is answered with. Raises: BenchError."""
        return json.loads(self._whole("POST", path, body))

    def timed(self, method: str, path: str, body: object = None) -> float:
        """How long a request takes, from its first byte sent to its last byte received, in milliseconds."""
        started = time.perf_counter()
        self._whole(method, path, body)
        return (time.perf_counter() - started) * 1000

    def stream(self, path: str, body: object) -> Iterator[tuple[float, bytes]]:
        """The lines of a streamed answer, each with the milliseconds since the request began."""
        started = time.perf_counter()
        with self._opened("POST", path, body) as response:
            while line := response.readline():
                yield (time.perf_counter() - started) * 1000, line.rstrip(b"\r\n")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _whole(self, method: str, path: str, body: object) -> bytes:
        with self._opened(method, path, body) as response:
            return response.read()

    def _opened(self, method: str, path: str, body: object) -> http.client.HTTPResponse:
        data = None if body is None else json.dumps(body).encode()
        try:
            self._connection.request(method, path, data, self._headers)
            response = self._connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise BenchError(f"{method} {self._address}{path} failed ({type(error).__name__}: {error})") from error
        if response.status != OK:
            said = response.read()[:300].decode(errors="replace")
            raise BenchError(f"{method} {self._address}{path} was answered with {response.status}, not {OK}: {said}")
        return response


def timed_requests(address: str, key: str | None, path: str, bodies: Sequence[object], clients: int) -> list[float]:
    """How long each request takes, in milliseconds, with so many clients that each ask one after the other."""

    def one_client(number: int) -> list[float]:
        client = Client(address, key)
        try:
            return [client.timed("POST", path, body) for body in bodies[number::clients]]
        finally:
            client.close()

    with ThreadPoolExecutor(clients) as pool:
        return [took for share in pool.map(one_client, range(clients)) for took in share]
