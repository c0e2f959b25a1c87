"""Reads files ahead in several processes and hands out what is in them in the order they were named."""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Iterator, Sequence

from corpus.errors import DocumentError
from ingest.isolation.kernel import weakest
from ingest.isolation.process import Disturbed, ReaderProcess
from ingest.isolation.settings import IsolationSettings
from ingest.readers.extract import Extract
from ingest.sources.folder import SourceFile

AHEAD_BYTES = 64_000_000
"""Files that have been begun and not been asked for come to this at most; the one that is next is always begun."""

AHEAD_ITEMS = 64
"""Documents of one file that wait to be taken."""

_Found = Extract | DocumentError | None
"""None stands behind the last one of a file."""


class Readers:
    """Processes that read `files`, begun when the first is asked for: by one thread, in their order."""

    def __init__(self, settings: IsolationSettings, files: Sequence[SourceFile]) -> None:
        self._settings, self._files = settings, files
        self._found: dict[int, queue.Queue[_Found]] = {}
        self._changed = threading.Condition()
        self._begun = self._wanted = self._ahead_bytes = 0
        self._stopped = False
        self._failed: BaseException | None = None
        self._threads: list[threading.Thread] = []
        self._processes: list[ReaderProcess] = []
        self._reports: list[dict[str, str]] = []

    def _begin(self) -> None:
        for _ in range(min(self._settings.processes(), len(self._files))):
            process = ReaderProcess(self._settings)
            thread = threading.Thread(target=self._work, args=(process,), name="reader", daemon=True)
            self._processes.append(process)
            self._threads.append(thread)
            thread.start()

    def close(self) -> None:
        """End the processes, whatever they are doing."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        for process in self._processes:
            process.stop()
        for thread in self._threads:
            while thread.is_alive():
                # One that waits for a place in a full queue finds it now, sees that all has ended, and ends.
                for found in list(self._found.values()):
                    _empty(found)
                thread.join(0.02)

    @property
    def isolation(self) -> dict[str, str]:
        """What the kernel withheld from every process there was; empty where none was needed."""
        with self._changed:
            return weakest(self._reports)

    def extracts(self, file: SourceFile) -> Iterator[Extract | DocumentError]:
        """What is in the next file, in order. What cannot be read is an error in its place.

        Raises: ArchivistError where no process can be started.
        """
        if not self._threads:
            self._begin()
        number = self._wanted
        if self._files[number] is not file:
            raise ValueError(f"{file.path!r} is asked for, {self._files[number].path!r} is next")
        with self._changed:
            self._changed.wait_for(lambda: number in self._found or self._failed is not None)
            waiting = self._found.get(number)
        while True:
            try:
                if waiting is None:
                    raise queue.Empty
                found = waiting.get(timeout=0.5)
            except queue.Empty:
                if self._failed is not None:
                    raise self._failed from None
                continue
            if found is None:
                break
            yield found
        with self._changed:
            del self._found[number]
            self._wanted += 1
            self._ahead_bytes -= file.size_bytes
            self._changed.notify_all()

    def _work(self, process: ReaderProcess) -> None:
        try:
            while (begun := self._next()) is not None:
                file, waiting = begun
                for found in self._read(process, file):
                    if self._stopped:
                        return
                    waiting.put(found)
                waiting.put(None)
        except Exception as error:  # noqa: BLE001 - a thread's top: whoever waits for it is told
            with self._changed:
                self._failed = error
                self._changed.notify_all()
        finally:
            process.close()

    def _next(self) -> tuple[SourceFile, queue.Queue[_Found]] | None:
        with self._changed:
            while not self._stopped and self._begun < len(self._files):
                file = self._files[self._begun]
                if self._begun == self._wanted or self._ahead_bytes + file.size_bytes <= AHEAD_BYTES:
                    self._ahead_bytes += file.size_bytes
                    waiting = self._found[self._begun] = queue.Queue(AHEAD_ITEMS)
                    self._begun += 1
                    self._changed.notify_all()
                    return file, waiting
                self._changed.wait()
        return None

    def _read(self, process: ReaderProcess, file: SourceFile) -> Iterator[Extract | DocumentError]:
        if file.problem is not None:
            yield file.problem
            return
        try:
            data = file.location.read_bytes()
        except OSError as error:
            yield Disturbed(file.path, f"cannot be read ({error.strerror})", "check the disk or the mount")
            return
        if hashlib.sha256(data).hexdigest() != file.content_hash:
            yield Disturbed(file.path, "it changed while the job was reading it", "the next run will read it again")
            return
        yield from process.read(file.name, data)
        if process.holds:
            with self._changed:
                if process.holds not in self._reports:
                    self._reports.append(dict(process.holds))


def _empty(found: queue.Queue[_Found]) -> None:
    while True:
        try:
            found.get_nowait()
        except queue.Empty:
            return
