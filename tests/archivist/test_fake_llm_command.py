"""`archivist fake-llm`: its options are the fake's knobs, and it answers where it says."""

from __future__ import annotations

import inspect
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from dataclasses import fields
from pathlib import Path

import pytest

from app.llm.fake.behaviour import FakeBehaviour
from archivist.fake_llm import fake_llm
from tests.servers import free_port, wait_until

ROOT = Path(__file__).parents[2]


def test_every_knob_is_an_option_with_the_same_default() -> None:
    """The options are host, port, record and the fields of FakeBehaviour; left alone, the fake behaves as it does in tests."""
    options = {
        name: parameter.default
        for name, parameter in inspect.signature(fake_llm).parameters.items()
        if name not in ("context", "host", "port", "record")
    }
    knobs = {field.name: field.default for field in fields(FakeBehaviour)}
    assert {**options, "models": tuple(options["models"] or ())} == knobs


def test_it_prints_its_address_and_answers_there_as_it_was_told(tmp_path: Path) -> None:
    """The first lines are the base_url of each format; the reply is the one ordered, and the request is recorded."""
    port, record = free_port(), tmp_path / "record.jsonl"
    options = ["--port", str(port), "--reply", "One two three.", "--cut-after-tokens", "9", "--record", str(record)]
    started = subprocess.Popen(
        [sys.executable, "-m", "archivist", "fake-llm", *options],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert started.stdout is not None
        assert [started.stdout.readline().split() for _ in range(3)] == [
            ["openai", f"http://127.0.0.1:{port}/v1"],
            ["anthropic", f"http://127.0.0.1:{port}/v1"],
            ["google", f"http://127.0.0.1:{port}/v1beta"],
        ]
        assert wait_until(lambda: _answers(port), within_s=30)
        body = {"model": "any", "messages": [{"role": "user", "content": "Count."}]}
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            answer = json.load(response)
        assert answer["choices"][0]["message"] == {"role": "assistant", "content": "One two three."}
    finally:
        started.send_signal(signal.SIGTERM)
        started.communicate(timeout=30)
    recorded = [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()]
    assert [json.loads(line["body"]) for line in recorded if line.get("method") == "POST"] == [body]


@pytest.mark.parametrize(("hang", "connects"), [("connect", False), ("tls", True)])
def test_it_can_be_started_so_that_nothing_is_answered(tmp_path: Path, hang: str, connects: bool) -> None:
    """connect: no connection comes about. tls: one does, and that is all. It ends when told to."""
    port = free_port()
    started = subprocess.Popen(
        [sys.executable, "-m", "archivist", "fake-llm", "--port", str(port), "--hang", hang],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert started.stdout is not None
        assert started.stdout.readline().split()[1] == f"http://127.0.0.1:{port}/v1"
        with socket.socket() as caller:
            caller.settimeout(0.2)
            assert _connects(caller, port) is connects
            if connects:
                caller.sendall(b"GET /health HTTP/1.1\r\nHost: fake\r\n\r\n")
                with pytest.raises(TimeoutError):
                    caller.recv(1)
    finally:
        started.send_signal(signal.SIGTERM)
        started.communicate(timeout=30)


def _connects(caller: socket.socket, port: int) -> bool:
    try:
        caller.connect(("127.0.0.1", port))
    except TimeoutError:
        return False
    return True


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False
