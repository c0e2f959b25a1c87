"""What a run would do, without doing it: reads the sources and the parent's records, loads no model, writes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from corpus.embedders.weights import find_model, fingerprint_of
from corpus.errors import ConfigError, DocumentError
from corpus.published import hold_of
from ingest.guard import removals
from ingest.parent import made_like_this, open_parent
from ingest.plan import Plan, plan
from ingest.scan import scan
from ingest.settings import JobSettings


@dataclass(frozen=True, slots=True)
class Preview:
    """A plan, and what is known of it beforehand.

    `remake`: model or chunking differ from the parent's, so that every file is read and embedded again. `refused` are the
    reasons for which the run would stop at once. `problems` are files that cannot be read, and pages that cannot be fetched.
    """

    parent: str | None
    todo: Plan
    remake: bool
    refused: tuple[str, ...]
    problems: tuple[DocumentError, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "snapshot": self.parent,
            **self.todo.as_json(),
            "remake": self.remake,
            "refused": list(self.refused),
            "problems": [
                {"path": problem.path, "reason": problem.reason, "advice": problem.advice} for problem in self.problems
            ],
        }


def preview(settings: JobSettings) -> Preview:
    """What `run` would do now. Raises: ConfigError where a source, or the model, is not there."""
    if not settings.sources:
        raise ConfigError("no source to read; name one under `sources` in the configuration, or with --source PATH")
    fingerprint = fingerprint_of(find_model(settings.embedder.model, allow_hub=settings.embedder.allow_hub), settings.embedder)
    found = scan(settings, keep_pages=False)
    records = [one.record for one in found]
    problems = [one.file.problem or one.file.stale for one in found]
    parent = open_parent(settings.data_dir)
    try:
        before = list(parent.store.files()) if parent is not None else []
        remake = parent is not None and not made_like_this(parent, fingerprint, settings)
        todo = plan(records, before, remake=remake)
    finally:
        if parent is not None:
            parent.close()
    return Preview(
        parent=parent.id if parent is not None else None,
        todo=todo,
        remake=remake,
        refused=(
            *([hold.reason] if (hold := hold_of(settings.data_dir)) is not None else []),
            *removals(todo, records, before, settings.ingest.max_removed_share),
        ),
        problems=tuple(problem for problem in problems if problem is not None),
    )
