"""One reader's process as the job sees it: started when it is needed, killed when a file takes it too far."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import corpus
import ingest
from corpus.errors import ArchivistError, DocumentError
from ingest.isolation import wire, worker
from ingest.isolation.settings import IsolationSettings
from ingest.readers.extract import Extract

STARTS_WITHIN_S = 60.0
CHUNK_BYTES = 1 << 20
FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
LEFT_OUT = "check where the file comes from; it is left out until it changes"


class Disturbed(DocumentError):
    """The file may well be readable tomorrow: it changed while it was read, or what read it was stopped from outside."""


class _Died(Exception):
    """The process ended where it should have answered."""


class _Late(Exception):
    """There was no answer in time."""


class ReaderProcess:
    """A process that reads one file at a time. Used by one thread, which must live as long as it does."""

    def __init__(self, settings: IsolationSettings) -> None:
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self._received = bytearray()
        self._files = 0
        self.holds: dict[str, str] = {}

    def read(self, name: str, data: bytes) -> Iterator[Extract | DocumentError]:
        """What is in a file, as `ingest.readers.read.read` says it, and an error in place of what a limit cut off."""
        if self._process is None:
            self._start()
        self._files += 1
        # What the consumer of this iterator takes its time for does not count.
        left_s = self._settings.wall_s
        try:
            began = time.monotonic()
            # A name may hold a lone surrogate.
            self._send(name.encode("utf-8", "surrogatepass"), left_s)
            self._send(data, left_s)
            left_s -= time.monotonic() - began
            while True:
                began = time.monotonic()
                message = wire.message_of(self._receive(left_s))
                left_s -= time.monotonic() - began
                if "end" in message:
                    break
                yield wire.decoded(message)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            self.close()
            yield DocumentError(name, "its reader gave an answer that makes no sense", LEFT_OUT)
            return
        except _Late:
            self.close()
            yield DocumentError(name, f"reading it was not done within {self._settings.wall_s:g} s", LEFT_OUT)
            return
        except _Died:
            yield self._cause_of_death(name)
            return
        except GeneratorExit:  # what is left of the answer must not be taken for that of the next file
            self.close()
            raise
        if message["end"] == "memory":
            self.close()
            reason = f"reading it takes more than isolation.memory_bytes {self._settings.memory_bytes:,}"
            yield DocumentError(name, reason, LEFT_OUT)
        elif self._files >= self._settings.files_per_worker:
            self.close()

    def stop(self) -> None:
        """Kill what is being read; the thread that waits for it finds out. For other threads than the one that reads."""
        process = self._process
        if process is not None:
            process.kill()

    def close(self) -> int:
        """End the process, whatever it is doing. Returns its exit status, below 0 the signal that ended it."""
        process, self._process = self._process, None
        if process is None:
            return 0
        ended = process.poll()
        if ended is None:
            process.kill()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        process.stdout.close()
        status = process.wait()
        return status if ended is None else ended

    def _start(self) -> None:
        self._received.clear()
        self._files = 0
        # No environment but this one: a reader needs no key and no address that others were told. Its own session, so that
        # Ctrl-C reaches the job and not the file that is being read.
        self._process = subprocess.Popen(  # noqa: S603 - our own program, run by our own interpreter
            [sys.executable, "-I", worker.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            cwd="/",
            env={"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdin.fileno(), False)
        limits = self._settings
        told = {
            "parent_pid": os.getpid(),
            "path": [path for path in sys.path if path] + ([os.getcwd()] if "" in sys.path else []),
            "readable": _readable(),
            "memory_bytes": limits.memory_bytes,
            "cpu_s": limits.cpu_s,
            "open_files": limits.open_files,
        }
        try:
            self._send(json.dumps(told).encode(), STARTS_WITHIN_S)
            self.holds = _holds(wire.message_of(self._receive(STARTS_WITHIN_S)))
        except (_Died, _Late, ValueError, KeyError, TypeError, AttributeError) as error:
            status = self.close()
            raise ArchivistError(
                f"the process that reads files did not start (status {status}, {type(error).__name__}); "
                f"is isolation.memory_bytes {limits.memory_bytes:,} enough, and does {sys.executable} run?"
            ) from error

    def _send(self, payload: bytes, within_s: float) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        descriptor, until = self._process.stdin.fileno(), time.monotonic() + within_s
        view = memoryview(len(payload).to_bytes(worker.LENGTH_BYTES, "big") + payload)
        while view:
            _wait(descriptor, select.POLLOUT, until)
            try:
                view = view[os.write(descriptor, view[:CHUNK_BYTES]) :]
            except BlockingIOError:
                continue
            except BrokenPipeError as error:
                raise _Died from error

    def _receive(self, within_s: float) -> bytes:
        until = time.monotonic() + within_s
        length = int.from_bytes(self._take(worker.LENGTH_BYTES, until), "big")
        if length > 2 * self._settings.text_bytes:
            raise ValueError("a frame is longer than a document may be")
        return self._take(length, until)

    def _take(self, size: int, until: float) -> bytes:
        assert self._process is not None
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        while len(self._received) < size:
            _wait(descriptor, select.POLLIN, until)
            part = os.read(descriptor, CHUNK_BYTES)
            if not part:
                raise _Died
            self._received += part
        taken = bytes(self._received[:size])
        del self._received[:size]
        return taken

    def _cause_of_death(self, name: str) -> DocumentError:
        assert self._process is not None
        # Its end of the pipe is closed, so it is about to end; one that only closed the pipe is killed.
        try:
            status = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            status = 0
        self.close()
        limits = self._settings
        if status >= 0:
            return DocumentError(name, f"its reader ended by itself (exit status {status})", LEFT_OUT)
        if -status == signal.SIGXCPU:
            return DocumentError(name, f"reading it takes more than {limits.cpu_s} s of processor time", LEFT_OUT)
        name_of_signal = signal.Signals(-status).name if -status in set(signal.Signals) else str(-status)
        if -status in FROM_OUTSIDE:
            return Disturbed(name, f"its reader was stopped from outside ({name_of_signal})", "the next run will read it again")
        reason = f"its reader crashed ({name_of_signal}), or takes more than isolation.memory_bytes {limits.memory_bytes:,}"
        return DocumentError(name, reason, LEFT_OUT)


def _wait(descriptor: int, event: int, until: float) -> None:
    poll = select.poll()
    poll.register(descriptor, event)
    if not poll.poll(max(0.0, until - time.monotonic()) * 1000):
        raise _Late


def _holds(message: Mapping[str, Any]) -> dict[str, str]:
    return {str(name): str(value) for name, value in message["holds"].items()}


def _readable() -> list[str]:
    """The folders of the interpreter's and our own modules, and those that others were added by: PYTHONPATH, .pth files.

    The working folder is none of them, nor one that it lies in, though it may be on the path: documents may lie there too.
    """
    paths = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    rooms = [str(Path(folder)) for room in (corpus, ingest) for folder in room.__path__]
    here = Path.cwd()
    added = [path for path in sys.path if Path(path).is_absolute() and not here.is_relative_to(Path(path).resolve())]
    return sorted({*paths, *rooms, *added})
