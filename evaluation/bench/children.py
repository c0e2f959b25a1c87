"""The processes that are measured: the job, the service, the fake LLM, and the model library alone. Loopback only."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corpus.embedders.weights import find_model
from corpus.settings import EmbedderSettings
from evaluation.bench.client import Client
from evaluation.bench.figures import BenchError

START_WITHIN_S = 180
STOP_WITHIN_S = 30
LOOK_EVERY_S = 0.01
DONE_WITH_FAILED_DOCUMENTS = 3

ARCHIVIST = (sys.executable, "-m", "archivist")
LIBRARY_ALONE = """
import sys
from sentence_transformers import SentenceTransformer
SentenceTransformer(sys.argv[1], device=sys.argv[2] or None, local_files_only=True)
print("loaded", flush=True)
"""


@dataclass(frozen=True, slots=True)
class RunningService:
    """A service that is ready. `ready_s` is how long it took from the start of its process."""

    address: str
    pid: int
    ready_s: float
    chunks: int


@dataclass(frozen=True, slots=True)
class RunningFake:
    """A fake LLM that listens. `kill` ends it without a word (SIGKILL)."""

    address: str
    kill: Callable[[], None]


def ingest(config: Path, data_dir: Path) -> dict[str, Any]:
    """Run the job to its end; its report. Raises: BenchError."""
    command = [*ARCHIVIST, "ingest", "--config", str(config), "--data", str(data_dir), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own command
    if done.returncode not in (0, DONE_WITH_FAILED_DOCUMENTS):
        raise BenchError(f"`archivist ingest` ended with {done.returncode}: {done.stderr[-500:]}")
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@contextmanager
def running_service(config: Path, data_dir: Path, key: str | None = None) -> Iterator[RunningService]:
    """The service on a free port, as whoever installed it starts it. Raises: BenchError where it does not get ready."""
    log = data_dir.parent / f"{data_dir.name}.log"
    command = [*ARCHIVIST, "serve", "--config", str(config), "--data", str(data_dir), "--port", "0"]
    started = time.perf_counter()
    with _running(command, log) as process:
        address = _address(process, log, started)
        client = Client(address, key)
        try:
            ready = _ready(client, process, log, started)
        finally:
            client.close()
        took = time.perf_counter() - started
        yield RunningService(address, process.pid, took, int(ready.get("snapshot", {}).get("chunks", 0)))


@contextmanager
def running_fake_llm(scratch: Path, *knobs: str) -> Iterator[RunningFake]:
    """The fake LLM, which answers at once unless its knobs (options of `archivist fake-llm`) say otherwise."""
    port = free_port()
    log = scratch / f"fake-llm-{port}.log"
    started = time.perf_counter()
    with _running([*ARCHIVIST, "fake-llm", "--port", str(port), *knobs], log) as process:
        while not _listens(port):
            _go_on(process, log, started)
        yield RunningFake(f"http://127.0.0.1:{port}", process.kill)


def free_port() -> int:
    """A port of this machine on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def library_alone_s(embedder: EmbedderSettings) -> float:
    """How long a process takes to import sentence-transformers and load the model, and nothing else, in seconds."""
    folder = find_model(embedder.model, allow_hub=embedder.allow_hub)
    device = "" if embedder.device == "auto" else embedder.device
    command = [sys.executable, "-c", LIBRARY_ALONE, str(folder), device]
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:  # noqa: S603 - as above
        assert process.stdout is not None
        line = process.stdout.readline()
        took = time.perf_counter() - started
    if line != b"loaded\n":
        raise BenchError(f"a process that only loads {embedder.model!r} ended with {process.returncode}; load it by hand")
    return took


@contextmanager
def _running(command: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)  # noqa: S603 - our own commands
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _address(process: subprocess.Popen[bytes], log: Path, started: float) -> str:
    """The address that the service prints once it listens."""
    while True:
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
            if line.startswith("Archivist answers at ") and line.endswith("\n"):
                return line.split()[-1].rstrip("/")
        _go_on(process, log, started)


def _ready(client: Client, process: subprocess.Popen[bytes], log: Path, started: float) -> dict[str, Any]:
    while True:
        try:
            found: dict[str, Any] = client.get("/readyz")
        except BenchError:
            client.close()
            _go_on(process, log, started)
        else:
            return found


def _go_on(process: subprocess.Popen[bytes], log: Path, started: float) -> None:
    """Wait a moment. Raises: BenchError where there is nothing to wait for."""
    late = time.perf_counter() - started > START_WITHIN_S
    if late or process.poll() is not None:
        why = f"was not ready within {START_WITHIN_S} s" if late else f"ended with {process.returncode}"
        raise BenchError(f"a process to measure {why}: {log.read_text(encoding='utf-8', errors='replace')[-500:]}")
    time.sleep(LOOK_EVERY_S)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
