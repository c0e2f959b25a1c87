"""The product: real files in every format, the job and the service as processes, questions over HTTP, cited answers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.ingest.sample_files import MARKDOWN, message, pdf, slides, word, workbook
from tests.making import write_files
from tests.servers import free_port, wait_until

ROOT = Path(__file__).parents[1]
FILES: dict[str, str | bytes] = {
    "handbook.md": MARKDOWN,
    "note.txt": "The spare key of the cellar hangs behind the grey fuse box.\n",
    "reisen.html": "<!doctype html><html lang='de'><title>Reisen</title><h1>Reisen</h1>"
    "<p>Hotels in Hamburg kosten höchstens 140 Euro je Nacht.</p></html>",
    "report.pdf": pdf(
        [
            [("Annual report", 18), ("Revenue grew by eleven percent in the year.", 10)],
            [("We will open an office in Malmo in September.", 10)],
        ]
    ),
    "policy.docx": word(),
    "deck.pptx": slides(),
    "staff.xlsx": workbook({"Staff": [("Name", "Holiday days"), ("Ada Lovelace", 25), ("Bob Hopper", 30)]}),
    "codes.csv": "Code,Meaning\nE-4410,badge reader lost its network\nE-4411,badge reader is too warm\n",
    "mail.eml": message(plain="The fire drill takes place on Tuesday at ten. Meet at the yard behind hall three."),
    "export.jsonl": json.dumps({"id": "7", "title": "Printer", "text": "The printer on floor four uses toner TN-2420."}) + "\n",
}
QUESTIONS = {
    "handbook.md": ("How many days of leave are there?", "Twenty-five days"),
    "note.txt": ("Where does the spare key of the cellar hang?", "behind the grey fuse box"),
    "reisen.html": ("Wie viel kosten Hotels in Hamburg höchstens?", "140 Euro"),
    "report.pdf": ("When will an office in Malmo open?", "September"),
    "policy.docx": ("From when may I fly business class on long distance flights?", "above eight hours"),
    "deck.pptx": ("When do we ship the first version of the road map?", "in March"),
    "staff.xlsx": ("How many holiday days has Ada Lovelace?", "25"),
    "codes.csv": ("What does E-4410 mean?", "lost its network"),
    "mail.eml": ("When does the fire drill take place?", "Tuesday at ten"),
    "export.jsonl": ("Which toner does the printer on floor four use?", "TN-2420"),
}


def environment() -> dict[str, str]:
    """This process's, without what would configure Archivist."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ARCHIVIST_")}
    return {**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def ingest(home: Path) -> dict[str, Any]:
    """Run `archivist ingest` over the documents; its report."""
    command = [sys.executable, "-m", "archivist", "ingest", "--source", "documents", "--json"]
    done = subprocess.run(command, cwd=home, env=environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


class Running:
    """`archivist serve` on a free loopback port."""

    def __init__(self, home: Path) -> None:
        port = free_port()
        self.log = home / "serve.log"
        command = [sys.executable, "-m", "archivist", "serve", "--port", str(port)]
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(command, cwd=home, env=environment(), stdout=output, stderr=output)
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30)

    def is_ready(self) -> bool:
        """Whether it answers questions."""
        assert self.process.poll() is None, self.log.read_text()
        try:
            return self.client.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def ask(self, question: str, **values: Any) -> dict[str, Any]:
        """A question over HTTP; the answer's body."""
        response = self.client.post("/v1/ask", json={"question": question, **values})
        assert response.status_code == 200, response.text
        body: dict[str, Any] = response.json()
        return body

    def stop(self) -> int:
        """The exit code after SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30)


@contextmanager
def serving(home: Path) -> Iterator[Running]:
    """The service, ready; killed at the end if it still runs."""
    running = Running(home)
    try:
        assert wait_until(running.is_ready, within_s=90), running.log.read_text()
        yield running
    finally:
        running.client.close()
        running.process.kill()
        running.process.wait()


def picked_up(running: Running, holds: Callable[[], bool]) -> bool:
    """Whether the service notices a new snapshot by itself, without one failed request on the way."""
    return wait_until(lambda: running.ask("Where is the key?")["answer"] is not None and holds(), within_s=15)


@pytest.mark.timeout(240)
def test_the_product(tmp_path: Path) -> None:
    """Ingest ten formats, ask each over HTTP, follow up, restart, change the folder while serving, end by SIGTERM."""
    write_files(tmp_path / "documents", FILES)
    report = ingest(tmp_path)
    assert report["failures"] == []

    with serving(tmp_path) as service:
        for name, (question, fact) in QUESTIONS.items():
            _answers_from(service, name, question, fact)

        first = service.ask("Where does the spare key of the cellar hang?")
        follow_up = service.ask("And what colour is it?", conversation_id=first["conversation_id"])
        assert follow_up["conversation_id"] == first["conversation_id"]
        assert follow_up["standalone_question"] == "Where does the spare key of the cellar hang? And what colour is it?"
        assert "grey fuse box" in follow_up["answer"]

        drill = service.ask("When does the fire drill take place?")
        before = drill["snapshot"]
        assert service.stop() == 0, service.log.read_text()

    with serving(tmp_path) as service:
        path = f"/v1/conversations/{first['conversation_id']}"
        contents = [message["content"] for message in service.client.get(path).json()["messages"]]
        assert contents == [
            "Where does the spare key of the cellar hang?", first["answer"], "And what colour is it?", follow_up["answer"],
        ]  # fmt: skip
        again = service.ask("And where exactly is it?", conversation_id=first["conversation_id"])
        assert "grey fuse box" in again["answer"]

        (tmp_path / "documents" / "mail.eml").unlink()
        (tmp_path / "documents" / "new.txt").write_text("The bicycle shed is painted in ultramarine blue.\n")
        ingest(tmp_path)
        question = "In which colour is the bicycle shed painted?"
        assert picked_up(service, lambda: service.ask(question)["snapshot"] != before)
        assert "ultramarine" in service.ask(question)["answer"]

        gone = service.ask("When does the fire drill take place?")
        assert "Tuesday" not in gone["answer"]
        shown = service.client.get(f"/v1/conversations/{drill['conversation_id']}").text
        assert "Tuesday" not in shown
        assert service.client.get(f"/v1/documents/{drill['citations'][0]['document_id']}").status_code == 404
        followed = service.ask("At what time is it?", conversation_id=drill["conversation_id"])
        assert "Tuesday" not in followed["answer"]
        assert service.stop() == 0, service.log.read_text()


def _answers_from(service: Running, name: str, question: str, fact: str) -> None:
    """The answer holds the fact; a citation leads to the file, and its quote is the document's own text."""
    body = service.ask(question)
    assert fact in " ".join(body["answer"].split()), (name, body["answer"])
    assert body["abstained"] is False
    sources = {citation["source"].split("#")[0] for citation in body["citations"]}
    assert name in sources, (name, body["answer"], sources)
    quotes = ""
    for citation in body["citations"]:
        document = service.client.get(f"/v1/documents/{citation['document_id']}").json()
        assert document["version"] == citation["version"]
        assert document["text"][citation["start"] : citation["end"]] == citation["quote"] != ""
        quotes += citation["quote"]
    assert fact in " ".join(quotes.split())
    if name == "report.pdf":
        assert {citation["page"] for citation in body["citations"] if citation["source"] == name} >= {2}
