"""What a run did, and the events by which it says how far it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from corpus.records import Failure

Step = Literal["scan", "load_model", "ingest", "publish", "done"]


@dataclass(frozen=True, slots=True)
class Event:
    """A step of the run. `done_bytes` of `total_bytes` of the sources are through; `embedded` chunks so far."""

    step: Step
    message: str
    done_bytes: int = 0
    total_bytes: int = 0
    files: int = 0
    embedded: int = 0


Listener = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of a run. `published` is False where nothing had changed. Units: seconds.

    `failures` are the files and rows that could not be read, and the pages that could not be fetched; of those, `stale` stand
    as an earlier run fetched them. `moves` are the first of the files whose content lay elsewhere before. `isolation` says what
    the kernel withheld from the processes that read files; empty where none was read.
    `withheld` are documents of the sources that are not in the snapshot because they were deleted, or nobody is left who may
    see them.
    `engine` is what embedded, None where nothing was published; `notes` are sentences of it that a person should read.
    """

    snapshot: str | None
    published: bool
    added: int
    changed: int
    kept: int
    removed: int
    documents: int
    chunks: int
    embedded: int
    reused: int
    failures: tuple[Failure, ...]
    took_s: float
    purged: tuple[str, ...] = field(default=())
    moved: int = 0
    moves: tuple[Mapping[str, str], ...] = ()
    stale: int = 0
    gate: tuple[Mapping[str, Any], ...] = ()
    run: str = ""
    isolation: Mapping[str, str] = field(default_factory=dict)
    engine: str | None = None
    notes: tuple[str, ...] = ()
    withheld: int = 0

    def as_json(self) -> dict[str, Any]:
        """The report as plain values."""
        return asdict(self)
