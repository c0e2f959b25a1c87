"""The measuring client: what it counts, against servers whose delays are known."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from app.llm.fake.behaviour import FakeBehaviour
from evaluation.bench.client import Client, timed_requests
from evaluation.bench.figures import BenchError
from evaluation.bench.first_token import bare_ms, through_service_ms
from evaluation.bench.livez import watched
from tests.servers import running_fake_llm

BODY = {"model": "fake", "messages": [{"role": "user", "content": "hello"}]}
STALL_S = 0.3
STALLED_LOOK = 20


class StallingServer(BaseHTTPRequestHandler):
    """Answers at once, except for one request that it lets wait."""

    protocol_version = "HTTP/1.1"
    looks = 0

    def do_GET(self) -> None:
        """One look at /livez."""
        type(self).looks += 1
        if self.looks == STALLED_LOOK:
            time.sleep(STALL_S)
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is said."""


@contextmanager
def stalling() -> Iterator[str]:
    """Such a server; its address."""
    StallingServer.looks = 0
    with ThreadingHTTPServer(("127.0.0.1", 0), StallingServer) as server:
        server.daemon_threads = True
        server.block_on_close = False
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_the_time_of_a_request_is_that_of_its_answer() -> None:
    """A server that takes 80 ms is measured with 80 ms and little more, each time, on one connection."""
    with running_fake_llm(FakeBehaviour(first_token_delay_s=0.08)) as fake:
        took = timed_requests(fake.base_url.removesuffix("/v1"), None, "/v1/chat/completions", [BODY] * 4, 1)
        assert len({request.client for request in fake.requests}) == 1
    assert len(took) == 4
    assert min(took) >= 80
    assert min(took) < 200


def test_several_clients_ask_at_the_same_time() -> None:
    """Eight requests of 150 ms by four clients take two rounds, and every body is sent once."""
    bodies = [{**BODY, "seed": number} for number in range(8)]
    with running_fake_llm(FakeBehaviour(first_token_delay_s=0.15)) as fake:
        began = time.perf_counter()
        took = timed_requests(fake.base_url.removesuffix("/v1"), None, "/v1/chat/completions", bodies, 4)
        whole_s = time.perf_counter() - began
        assert sorted(request.json()["seed"] for request in fake.requests) == list(range(8))
    assert len(took) == 8
    assert 0.3 <= whole_s < 8 * 0.15


def test_the_first_token_is_counted_and_not_the_last() -> None:
    """First token after 60 ms, five more at 10 a second: what is measured is the first."""
    with running_fake_llm(FakeBehaviour(first_token_delay_s=0.06, tokens_per_second=10)) as fake:
        client = Client(fake.base_url.removesuffix("/v1"))
        began = time.perf_counter()
        first = bare_ms(client, "hello")
        whole = (time.perf_counter() - began) * 1000
        client.close()
    assert 60 <= first < 300
    assert whole - first >= 350


def test_the_key_is_sent() -> None:
    """A service with a key is measured with it, and refuses without."""
    with running_fake_llm(FakeBehaviour(api_key="secret")) as fake:
        address = fake.base_url.removesuffix("/v1")
        keyed, bare = Client(address, "secret"), Client(address)
        assert keyed.post("/v1/chat/completions", BODY)["choices"][0]["message"]["content"] == "The fake model says hello."
        with pytest.raises(BenchError, match="was answered with 401, not 200"):
            bare.post("/v1/chat/completions", BODY)
        keyed.close()
        bare.close()


def test_a_stream_of_another_server_is_not_taken_for_the_services() -> None:
    """Without a `done` event of the fake's answer there is no measurement."""
    with running_fake_llm() as fake:
        client = Client(fake.base_url.removesuffix("/v1"))
        with pytest.raises(BenchError, match="was answered with 404"):
            through_service_ms(client, "hello")
        client.close()


def test_a_server_that_is_gone_is_an_error_with_its_address() -> None:
    """Not a latency of zero."""
    with running_fake_llm() as fake:
        address = fake.base_url.removesuffix("/v1")
    client = Client(address)
    with pytest.raises(BenchError, match=rf"GET {address}/livez failed \(ConnectionRefusedError"):
        client.get("/livez")


def test_a_stall_counts_for_every_look_that_it_delays() -> None:
    """One request waits 300 ms: once since it was sent, and for each of the looks that were due meanwhile."""
    with stalling() as address:
        since_due, since_sent = watched(address, 0.6)
    assert len(since_due) == len(since_sent) == 60
    assert sum(took > 200 for took in since_sent) == 1
    assert sum(took > 200 for took in since_due) >= 10
    assert max(since_due) >= 1000 * STALL_S
