"""On what the figures were measured: the machine, its load, the versions. Reads /proc where there is one."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from evaluation.bench.memory import memory_of

LIBRARIES = ("archivist", "torch", "sentence-transformers", "onnxruntime", "faiss-cpu", "tantivy", "fastapi", "uvicorn")


@dataclass(frozen=True, slots=True)
class Machine:
    """Where and when. Units: memory in GB of 10^9 bytes; load is the mean of the last minute."""

    date: str
    processor: str
    cores: int
    memory_gb: float
    load: float
    system: str
    python: str
    versions: dict[str, str]

    @property
    def shown(self) -> str:
        """Two lines for people."""
        versions = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        return (
            f"{self.date}, {self.processor}, {self.cores} cores, {self.memory_gb} GB, load {self.load}, {self.system}\n"
            f"Python {self.python}, {versions}"
        )


def this_machine() -> Machine:
    """The machine as it is now."""
    return Machine(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        processor=_processor(),
        cores=os.cpu_count() or 1,
        memory_gb=round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1),
        load=round(os.getloadavg()[0], 2),
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        versions={name: found for name in LIBRARIES if (found := _version(name))},
    )


def resident_mb(pid: int) -> float | None:
    """Resident memory of a process, in MB of 10^6 bytes; None where the system has no /proc."""
    memory = memory_of(pid)
    return None if memory is None else memory["VmRSS"]


def maps(pid: int, name: str) -> bool | None:
    """Whether a process has a library in its memory whose path holds this name; None where the system has no /proc."""
    try:
        return name in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def event_loop_s(pid: int) -> float | None:
    """How long the first thread of a process, the one with its event loop, has computed; None without Linux' /proc."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()[0]) / 1e9
    except (OSError, ValueError, IndexError):
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
