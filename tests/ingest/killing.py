"""A small run of the real job that can be killed at any point, and what must hold behind it.

The embedder is a real one of our own: words hashed to coordinates. It takes no time to load, and a text's vector depends on
nothing but the text, so that two runs can be compared bit by bit.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import select
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from corpus.published import current_id, snapshot_ids
from corpus.settings import EmbedderSettings, SearchSettings
from corpus.snapshot import open_current
from corpus.types import Vectors
from corpus.verify import problems_of
from ingest import embedding, job, vectors
from ingest.report import Report
from tests.making import contents, job_settings, litter, write_files

DIMENSION = 16
BATCH = 4
ROOT = Path(__file__).parents[2]


class HashedWords:
    """Embeds a text as the sum of a coordinate for each of its words."""

    engine, graph = "hashed-words", None
    model, fingerprint, dimension, max_tokens, special_tokens = "hashed-words", "hashed-words-1", DIMENSION, 256, 0

    def count_tokens(self, text: str) -> int:
        """Its words."""
        return len(text.split())

    def embed_documents(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors."""
        found = np.full((len(texts), DIMENSION), 0.01, dtype=np.float32)
        for row, text in enumerate(texts):
            for word in text.lower().split():
                digest = hashlib.sha256(word.encode()).digest()
                found[row, digest[0] % DIMENSION] += 1 if digest[1] % 2 else -1
        unit: Vectors = (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)
        return unit

    embed_queries = embed_documents


def prepare(patch: pytest.MonkeyPatch) -> None:
    """Let the job of this process embed with hashed words, and commit after every few chunks."""
    patch.setattr("ingest.model.open_embedder", lambda settings, **_: HashedWords())
    patch.setattr("ingest.model.find_model", lambda model, allow_hub: Path("."))
    patch.setattr("ingest.model.fingerprint_of", lambda folder, settings: HashedWords.fingerprint)
    patch.setattr(job, "BATCH_CHUNKS", BATCH)
    patch.setattr(vectors, "COMMITTED", BATCH)


class AtOnce:
    """Takes the place of the thread that embeds: what is handed to it is done when it is handed over."""

    def __init__(self, *_: object, **__: object) -> None:
        """Takes what a pool of threads takes."""

    def submit(self, call: Callable[..., Vectors], *values: Any) -> Future[Vectors]:
        """Do it."""
        done: Future[Vectors] = Future()
        try:
            done.set_result(call(*values))
        except Exception as error:  # noqa: BLE001 - whoever asks for the result is told
            done.set_exception(error)
        return done

    def shutdown(self, **_: object) -> None:
        """There is nothing to wait for."""


def run(data_dir: Path, documents: Path, *, one_thread: bool = False) -> Report:
    """The job, here and now; in one thread where strace is to see all that is written, in the same order every time."""
    with pytest.MonkeyPatch.context() as patch:
        prepare(patch)
        if one_thread:
            patch.setattr(embedding, "ThreadPoolExecutor", AtOnce)
        return job.run(job_settings(data_dir, documents, embedder=EmbedderSettings(model=".")))


def files(number: int) -> dict[str, str]:
    """Twenty files; in the second state some are new, some changed and some gone."""
    made = {f"{n:02}.md": f"# File {n}\n\n## Part\n\nSentence {n} speaks of matter {n * 7}.\n" for n in range(14)}
    made["rows.jsonl"] = "".join(json.dumps({"id": str(n), "text": f"Row {n} of the table."}) + "\n" for n in range(6))
    if number == 2:
        for gone in ("03.md", "09.md"):
            del made[gone]
        made |= {f"{n:02}.md": f"# File {n}\n\nSentence {n} was changed to {n * 11}.\n" for n in (1, 5, 12)}
        made |= {f"new-{n}.md": f"# New {n}\n\nA new sentence, number {n}.\n\nAnd another.\n" for n in range(15)}
    return made


class Field:
    """A first published state, the files of the second, and what the second comes to when nothing goes wrong."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        write_files(folder / "first", files(1))
        documents = folder / "documents"
        write_files(documents, files(1))
        run(folder / "base", documents)
        shutil.rmtree(documents)
        write_files(documents, files(2))
        self.documents = documents
        self.before = contents(folder / "base")
        clean = folder / "clean"
        shutil.copytree(folder / "base", clean)
        self.report = run(clean, documents)
        self.after = contents(clean)
        assert self.report.embedded > 3 * BATCH
        assert self.before != self.after

    def trial(self) -> Path:
        """A data folder in the first state."""
        data = self.folder / "trial"
        shutil.rmtree(data, ignore_errors=True)
        return Path(shutil.copytree(self.folder / "base", data))

    def check_behind(self, data: Path) -> None:
        """Threats A1, A3, A4: what must hold behind any end of a run, and after the next one."""
        snapshot, damage = open_current(data, SearchSettings())
        snapshot.close()
        assert damage is None
        assert contents(data) in (self.before, self.after)
        for name in snapshot_ids(data):
            assert problems_of(data / "snapshots" / name) == []
        published = contents(data) == self.after
        held = kept(data)
        report = run(data, self.documents)
        assert report.failures == ()
        assert report.embedded == (0 if published else self.report.embedded - held)
        assert contents(data) == self.after
        assert litter(data) == []
        assert problems_of(data / "snapshots" / current_id(data)) == []


def kept(data: Path) -> int:
    """How many vectors a run that did not end has left for the next one."""
    work = data / "work" / "embeddings.db"
    if not work.exists():
        return 0
    connection = sqlite3.connect(work)
    try:
        return int(connection.execute("SELECT COUNT(*) FROM vectors").fetchone()[0])
    except sqlite3.OperationalError:
        return 0
    finally:
        connection.close()


SERVER = """
import os, signal, sys
from pathlib import Path
import faiss, tantivy
from tests.ingest import killing
from corpus.language import detect_language
from ingest import job
detect_language("Its model is loaded here, once for all the runs that are forked from this.")
for line in sys.stdin:
    data, documents, stop = line.rstrip("\\n").split("\\t")
    pid = os.fork()
    if pid == 0:
        if stop == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        try:
            killing.run(Path(data), Path(documents), one_thread=stop == "stop")
        except BaseException as error:
            sys.stderr.write(f"{type(error).__name__}: {error}\\n")
            sys.stderr.flush()
            os._exit(1)
        os._exit(0)
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Runs:
    """Starts runs of the job as processes that begin at once, since everything is imported before they are forked."""

    def __init__(self, errors: Path) -> None:
        self._errors = errors
        self._file = errors.open("wb")
        self._server = subprocess.Popen(
            [sys.executable, "-c", SERVER],
            cwd=ROOT, start_new_session=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._file, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
        )  # fmt: skip

    def start(self, data: Path, documents: Path, *, stopped: bool = False) -> int:
        """Begin a run; returns its process id."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(f"{data}\t{documents}\t{'stop' if stopped else ''}\n")
        self._server.stdin.flush()
        pid = int(self._server.stdout.readline())
        deadline = time.monotonic() + 20
        # A SIGCONT that came before it stopped would be lost.
        while stopped and "\nState:\tT" not in Path(f"/proc/{pid}/status").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.002)
        return pid

    def end(self) -> int:
        """Wait for the run; returns its exit status, below 0 the signal that ended it."""
        assert self._server.stdout is not None
        return int(self._server.stdout.readline())

    def errors(self) -> str:
        """What the runs wrote to stderr."""
        return self._errors.read_text()

    def close(self) -> None:
        """End the server, and a run that a test which failed left stopped: it would hold the pipe open for ever."""
        os.killpg(self._server.pid, signal.SIGKILL)
        self._server.communicate()
        self._file.close()


@contextmanager
def traced(pid: int, *options: str, output: Path | None = None) -> Iterator[None]:
    """Let strace watch a stopped process, and the process go on."""
    command = ["strace", "-p", str(pid), *options, *(["-o", str(output)] if output is not None else ["-o", os.devnull])]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as strace:
        assert strace.stderr is not None
        descriptor = strace.stderr.fileno()
        said, deadline = b"", time.monotonic() + 20
        while b"attached" not in said:
            assert time.monotonic() < deadline, said
            if select.select([descriptor], [], [], 1)[0]:
                part = os.read(descriptor, 4096)
                assert part, said
                said += part
        os.kill(pid, signal.SIGCONT)
        yield
        strace.communicate(timeout=60)


CALLS = (
    "write", "pwrite64", "fsync", "fdatasync", "rename", "renameat", "renameat2", "unlink", "unlinkat", "rmdir", "mkdir",
    "ftruncate",
)  # fmt: skip
"""What changes the disk, or makes it durable."""


def calls_of_a_run(runs: Runs, field: Field, output: Path) -> dict[str, int]:
    """How often a run that nobody disturbs does each of them, in the thread that publishes."""
    pid = runs.start(field.trial(), field.documents, stopped=True)
    with traced(pid, "-e", f"trace={','.join(CALLS)}", output=output):
        assert runs.end() == 0
    counted: dict[str, int] = {}
    for line in output.read_text(errors="replace").splitlines():
        found = re.match(r"(\w+)\(", line)
        if found:
            counted[found[1]] = counted.get(found[1], 0) + 1
    return counted
