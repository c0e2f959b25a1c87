"""The service as its own process: what it logs, what it never logs, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from app.main import serve
from corpus.errors import ConfigError
from tests.app.serving import settings_of
from tests.servers import free_port, wait_until

ROOT = Path(__file__).parents[2]
KEY = "canary-key-4711"
CANARY_MESSAGE = {"role": "user", "content": "canary"}
SCRIPT = """
import sys
from pathlib import Path
from pydantic import SecretStr
from app.main import serve
from tests.app.serving import settings_of
serve(settings_of(Path(sys.argv[1]), port=int(sys.argv[2]), api_key=SecretStr("canary-key-4711")))
"""


@contextmanager
def serving(data_dir: Path, log: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The service in a process of its own; its address and the process."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        try:
            return httpx.get(f"{address}/livez", timeout=2).status_code == 200
        except httpx.TransportError:
            return False

    with log.open("wb") as output:
        command = [sys.executable, "-c", SCRIPT, str(data_dir), str(port)]
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output, env={**os.environ, "PYTHONPATH": str(ROOT)})
        try:
            assert wait_until(answers, within_s=90), log.read_text()
            yield address, process
        finally:
            process.kill()
            process.wait()


def test_the_log_has_ids_and_numbers_but_no_text_and_no_key(site: Path, tmp_path: Path) -> None:
    """Good, bad and refused requests: every line is JSON, each response's id is in it, no question, passage or key is."""
    log = tmp_path / "log"
    keyed = {"authorization": f"Bearer {KEY}"}
    json_type = {"content-type": "application/json"}
    with serving(site / "data", log) as (address, process):
        asked = {"question": "canary-question: when are expense reports due?"}
        responses = [
            httpx.post(f"{address}/v1/ask", json=asked, headers=keyed, timeout=30),
            httpx.post(f"{address}/v1/ask", json={**asked, "stream": True}, headers=keyed, timeout=30),
            httpx.post(f"{address}/v1/ask", json={**asked, "top_k": "canary-value"}, headers=keyed),
            httpx.post(f"{address}/v1/ask", content=b'{"question": "canary-question', headers=keyed | json_type),
            httpx.post(f"{address}/v1/ask", json=asked, headers={"authorization": "Bearer canary-wrong"}),
            httpx.get(f"{address}/v1/documents/canary-id", headers=keyed),
            httpx.get(f"{address}/canary-path?canary-query=1", headers=keyed),
            httpx.post(
                f"{address}/v1/chat/completions", json={"messages": [{"role": "user", "content": "canary"}]}, headers=keyed
            ),
        ]
        assert [response.status_code for response in responses] == [200, 200, 422, 400, 401, 404, 404, 200]
        assert "30 days" in responses[0].text
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=25) in (0, -signal.SIGTERM)
    text = log.read_text()
    records = [json.loads(line) for line in text.splitlines()]
    requests = {record["request_id"]: record for record in records if record.get("action") == "request"}
    for response in responses:
        record = requests[response.headers["x-request-id"]]
        assert record["status"] == response.status_code
        assert record["took_ms"] > 0
    assert requests[responses[0].headers["x-request-id"]]["route"] == "/v1/ask"
    assert "canary" not in text
    assert "Expense reports" not in text
    assert KEY not in "".join(response.text for response in responses)


def test_a_port_in_use_is_said_before_anything_is_loaded(tmp_path: Path) -> None:
    """The error names the port and what to change, and no database was made."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"cannot listen on '127\.0\.0\.1', port {port}: .*another host or port"):
            serve(settings_of(tmp_path, port=port))
    assert list(tmp_path.iterdir()) == []
