"""How much memory a process and the processes it starts take at most. Reads /proc; elsewhere it knows nothing."""

from __future__ import annotations

import threading
from collections import defaultdict
from pathlib import Path
from types import TracebackType
from typing import Self

LOOK_EVERY_S = 0.2
KIB = 1024
MB = 1e6


class PeakMemory:
    """Watches a process and its descendants between enter and exit.

    Units: MB of 10^6 bytes. `resident_mb` is the highest sum of each one's own peak, so that nothing falls between two looks;
    it counts pages of mapped files, which the kernel takes back when it needs them. `anonymous_mb`, without them, is the
    highest that was seen. None where the system has no /proc.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.resident_mb: float | None = None
        self.anonymous_mb: float | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(LOOK_EVERY_S):
            self._look()

    def _look(self) -> None:
        found = [memory for pid in family(self._pid) if (memory := memory_of(pid)) is not None]
        if found:
            self.resident_mb = max(self.resident_mb or 0.0, sum(memory["VmHWM"] for memory in found))
            self.anonymous_mb = max(self.anonymous_mb or 0.0, sum(memory["RssAnon"] for memory in found))


def family(pid: int) -> list[int]:
    """A process and its descendants, but for those that have not begun to be something else than a copy of their parent."""
    children: dict[int, list[int]] = defaultdict(list)
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            continue  # ended meanwhile
        children[parent].append(int(folder.name))
    found = [pid]
    for each in found:
        found += [child for child in children[each] if _command(child) != _command(each)]
    return found


def memory_of(pid: int | str = "self") -> dict[str, float] | None:
    """What /proc/PID/status says of memory, in MB of 10^6 bytes, by its names there; None where it says nothing."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    named = [line.split() for line in lines if line.startswith(("Vm", "Rss"))]
    return {name.rstrip(":"): int(kib) * KIB / MB for name, kib, *_ in named} or None


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
