"""What must hold before a snapshot is published: checks of a complete one that nobody sees yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from corpus.errors import ConfigError
from corpus.search import Query, Scope, Searcher
from corpus.snapshot import searching
from corpus.types import Vectors
from ingest.settings import CanarySettings, GateSettings, JobSettings

PASSAGES_FOR_EACH = 5
"""Passages searched for each document of a ranking: several may be of one document."""

Embed = Callable[[Sequence[str]], Vectors]
"""From questions to their vectors."""


@dataclass(frozen=True, slots=True)
class Recall:
    """What a golden set came to: recall from 0 to 1 over so many questions."""

    value: float
    questions: int


Measure = Callable[[Path, int, Searcher, Embed], Recall]
"""Measures recall on a golden set at a depth. Handed in, since the job knows nothing of golden sets."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that had to hold. `measured` and `wanted` are of the same kind: shares, recall or ranks."""

    name: str
    passed: bool
    measured: float | None
    wanted: float
    detail: str

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Counts:
    """What a snapshot holds."""

    documents: int
    chunks: int
    failures: int = 0


def check_counts(settings: GateSettings, now: Counts, before: Counts | None) -> list[Check]:
    """The share of failures, and how far the counts are from the last snapshot's."""
    checks = []
    if settings.max_failure_share is not None:
        share = now.failures / max(1, now.failures + now.documents)
        checks.append(
            Check(
                "failure_share",
                share <= settings.max_failure_share,
                round(share, 4),
                settings.max_failure_share,
                f"{now.failures:,} of {now.failures + now.documents:,} documents could not be read",
            )
        )
    if settings.max_count_drift is not None and before is not None:
        for name, value, last in (("documents", now.documents, before.documents), ("chunks", now.chunks, before.chunks)):
            drift = abs(value - last) / max(1, last)
            checks.append(
                Check(
                    f"{name}_drift",
                    drift <= settings.max_count_drift,
                    round(drift, 4),
                    settings.max_count_drift,
                    f"{value:,} {name}, the last snapshot has {last:,}",
                )
            )
    return checks


def needs_search(settings: GateSettings) -> bool:
    """Whether anything has to be searched for."""
    return bool(settings.canaries) or settings.golden is not None


def check_by_searching(folder: Path, settings: JobSettings, embed: Embed, measure: Measure | None) -> list[Check]:
    """Canary questions and the golden set, by search alone, under the service's search settings.

    Raises: ConfigError where a golden set is named and nothing was handed in to measure it with, or it cannot be read.
    """
    gate = settings.gate
    checks: list[Check] = []
    with searching(folder, settings.search) as searcher:
        if gate.canaries:
            vectors = embed([canary.question for canary in gate.canaries])
            checks += [
                _canary(canary, number, searcher, Query(canary.question, vector))
                for number, (canary, vector) in enumerate(zip(gate.canaries, vectors, strict=True), start=1)
            ]
        if gate.golden is not None:
            if measure is None:
                raise ConfigError("gate.golden is measured by `archivist ingest` only; start the run by the command")
            found = measure(gate.golden, gate.recall_at, searcher, embed)
            checks.append(
                Check(
                    f"recall@{gate.recall_at}",
                    found.value >= gate.min_recall,
                    round(found.value, 4),
                    gate.min_recall,
                    f"over {found.questions:,} questions of {gate.golden.name}",
                )
            )
    return checks


def documents_found(searcher: Searcher, queries: Sequence[Query], groups: tuple[str, ...], depth: int) -> list[tuple[str, str]]:
    """Ids and sources of the documents of a ranking, each at the place of its best passage."""
    hits = searcher.search(queries, Scope(groups), depth * PASSAGES_FOR_EACH)
    return list(dict.fromkeys((hit.passage.document_id, hit.passage.source) for hit in hits))[:depth]


def shown(check: Check) -> str:
    """A check that fell, for people."""
    return f"gate {check.name}: {check.detail} ({check.measured} instead of {check.wanted:g})"


def _canary(canary: CanarySettings, number: int, searcher: Searcher, query: Query) -> Check:
    found = documents_found(searcher, [query], canary.groups, canary.within)
    rank = next((place for place, names in enumerate(found, start=1) if canary.document in names), None)
    where = "was not found" if rank is None else f"stands at place {rank}"
    detail = f"canary question {number}: {canary.document!r} {where} among the first {canary.within}"
    return Check(f"canary_{number}", rank is not None, rank, canary.within, detail)
