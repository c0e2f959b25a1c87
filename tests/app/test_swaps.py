"""Threat B9: snapshots are swapped under load, in a service of its own process; no request fails, and no answer mixes two."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from corpus.published import current_id, snapshot_ids
from corpus.settings import SearchSettings
from corpus.snapshot import activate, open_snapshot
from ingest import job
from tests.making import job_settings, write_files
from tests.servers import free_port, wait_until

ROOT = Path(__file__).parents[2]
TOPICS = ("parking", "lunch", "travel", "badges", "holidays", "laptops")
EFFECTIVE_WITHIN_S = 3.0


@pytest.fixture(scope="module")
def data(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three snapshots of the same documents, each of which says something else in each."""
    root = tmp_path_factory.mktemp("swaps")
    shutil.copytree(models, root / "data" / "models", copy_function=os.link)
    for day in ("Monday", "Wednesday", "Friday"):
        texts = {f"{topic}.md": f"# About {topic}\n\nThe rule of {topic} is read out on {day}.\n" for topic in TOPICS}
        job.run(job_settings(root / "data", write_files(root / "documents", texts)))
    return root / "data"


@contextmanager
def service(data_dir: Path, log: Path) -> Iterator[tuple[str, int]]:
    """`archivist serve` in a process of its own; its address and process id."""
    port = free_port()
    arguments = [sys.executable, "-m", "archivist", "serve", "--data", str(data_dir), "--port", str(port)]
    address = f"http://127.0.0.1:{port}"

    def is_ready() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            return httpx.get(f"{address}/readyz", timeout=5).json()["status"] == "ready"
        except httpx.TransportError:
            return False

    with log.open("wb") as output:
        process = subprocess.Popen(
            arguments, cwd=log.parent, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=output, stderr=output
        )
        try:
            assert wait_until(is_ready, within_s=90), log.read_text()
            yield address, process.pid
        finally:
            process.terminate()
            process.wait(timeout=30)


@dataclass
class Load:
    """Callers that ask, search and list until they are stopped; what failed, and how many answers each snapshot gave."""

    address: str
    versions: dict[str, dict[str, str]]
    stop: threading.Event = field(default_factory=threading.Event)
    failures: list[str] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    calls: int = 0

    def run(self, number: int) -> None:
        """One caller: asks, searches and lists in turn."""
        with httpx.Client(base_url=self.address, timeout=60) as client:
            turn = number
            while not self.stop.is_set():
                turn += 1
                topic = TOPICS[turn % len(TOPICS)]
                try:
                    problem = self._call(client, turn % 3, f"When is the rule of {topic} read out?")
                except (httpx.HTTPError, KeyError) as error:
                    problem = repr(error)
                if problem:
                    self.failures.append(problem)
                self.calls += 1

    def _call(self, client: httpx.Client, kind: int, question: str) -> str:
        if kind == 2:
            response = client.get("/v1/documents")
            if response.status_code != 200:
                return response.text
            listed = {each["document_id"]: each["version"] for each in response.json()["documents"]}
            return "" if listed in self.versions.values() else f"documents of two snapshots: {listed}"
        path, body = ("/v1/ask", {"question": question}) if kind else ("/v1/search", {"query": question})
        response = client.post(path, json=body)
        if response.status_code != 200:
            return response.text
        found: dict[str, Any] = response.json()
        cited = found["citations" if kind else "hits"]
        if not cited:
            return f"nothing cited: {found}"
        whose = [name for name, known in self.versions.items() if all(known[c["document_id"]] == c["version"] for c in cited)]
        if kind:
            self.answers.append(found["snapshot"])
            if whose != [found["snapshot"]]:
                return f"an answer of {found['snapshot']} cites {whose}"
        return "" if len(whose) == 1 else f"passages of {whose}"


def versions_in(data_dir: Path) -> dict[str, dict[str, str]]:
    """Each snapshot's documents and their versions."""
    found = {}
    for name in snapshot_ids(data_dir):
        snapshot = open_snapshot(data_dir, name, SearchSettings())
        found[name] = {each.document_id: each.version for each in snapshot.store.stored.summaries()}
        snapshot.close()
    return found


def memory_mb(pid: int) -> float:
    """The resident memory of a process."""
    return int((Path("/proc") / str(pid) / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def served(address: str) -> str:
    """The snapshot that the service says it serves; empty where it is too busy to say."""
    return str(httpx.get(f"{address}/readyz", timeout=30).json().get("snapshot", {}).get("id", ""))


def swapped(data: Path, tmp_path: Path, swaps: int, clients: int) -> tuple[Load, list[float], list[float]]:
    """Swap under load; what the callers saw, seconds until each swap's first answer, and memory before and after."""
    ids = snapshot_ids(data)
    with service(data, tmp_path / "log") as (address, pid):
        load = Load(address, versions_in(data))
        callers = [threading.Thread(target=load.run, args=(number,)) for number in range(clients)]
        for caller in callers:
            caller.start()
        took, memory = [], []
        try:
            assert wait_until(lambda: len(load.answers) >= clients, 120)
            memory.append(memory_mb(pid))
            for swap in range(swaps):
                # In turn: an answer that was begun on the one before is not taken for one of the next.
                wanted = ids[swap % len(ids)]
                since, began = len(load.answers), time.monotonic()
                activate(data, wanted)
                assert wait_until(lambda since=since, wanted=wanted: wanted in load.answers[since:], 60), "no answer from it"
                took.append(time.monotonic() - began)
        finally:
            load.stop.set()
            for caller in callers:
                caller.join()
        memory.append(memory_mb(pid))
    return load, took, memory


def test_swaps_under_load_fail_nobody_and_mix_nothing(data: Path, tmp_path: Path) -> None:
    """Eight swaps, five callers: every call is answered, by one snapshot; each of them answered."""
    load, _, _ = swapped(data, tmp_path, swaps=8, clients=5)
    assert load.failures == []
    assert set(load.answers) == set(snapshot_ids(data))


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_a_hundred_swaps_under_twenty_callers(data: Path, tmp_path: Path) -> None:
    """No call fails, no answer mixes two snapshots, each swap is effective in seconds, and memory does not grow."""
    load, took, memory = swapped(data, tmp_path, swaps=100, clients=20)
    print(  # noqa: T201 - the measured figures
        f"{load.calls} calls, {len(load.failures)} failed; first answer after {sorted(took)[len(took) // 2]:.2f} s (median), "
        f"{max(took):.2f} s at most; resident {memory[0]:.0f} MB before, {memory[1]:.0f} MB after"
    )
    assert load.failures == []
    assert set(load.answers) == set(snapshot_ids(data))
    assert memory[1] < memory[0] + 100


def test_activating_by_command_is_effective_within_seconds(data: Path, tmp_path: Path) -> None:
    """The service takes up what `archivist snapshots activate` put in place within three seconds of its end."""
    wanted = next(each for each in snapshot_ids(data) if each != current_id(data))
    with service(data, tmp_path / "log") as (address, _):
        assert served(address) != wanted
        done = subprocess.run(
            [sys.executable, "-m", "archivist", "snapshots", "activate", wanted, "--data", str(data)],
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (0, f"{wanted} is current.\n")
        assert wait_until(lambda: served(address) == wanted, EFFECTIVE_WITHIN_S)
