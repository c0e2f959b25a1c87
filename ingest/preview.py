"""What a run would do, without doing it: reads the sources and the parent's records, loads no model, writes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from corpus.embedders.weights import find_model, fingerprint_of
from corpus.errors import ConfigError, DocumentError
from corpus.published import hold_of
from ingest.guard import removals
from ingest.overridden import Overrides
from ingest.parent import made_like_this, open_parent
from ingest.plan import Plan, plan
from ingest.scan import scan
from ingest.settings import JobSettings


@dataclass(frozen=True, slots=True)
class Preview:
    """A plan, and what is known of it beforehand.

    `remake`: model or chunking differ from the parent's, so that every file is read and embedded again. `refused` are the
    reasons for which the run would stop at once. `problems` are files that cannot be read, and pages that cannot be fetched.
    Of `overridden` documents something else is decided now than when the parent was made: they were deleted, a group was
    revoked, a label raised, or one of it was undone.
    """

    parent: str | None
    todo: Plan
    remake: bool
    refused: tuple[str, ...]
    problems: tuple[DocumentError, ...]
    overridden: int = 0

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "snapshot": self.parent,
            **self.todo.as_json(),
            "remake": self.remake,
            "overridden": self.overridden,
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
    overrides = None
    try:
        overrides = Overrides(settings.data_dir, settings.labels, parent.store.stored if parent is not None else None)
        before = list(parent.store.stored.files()) if parent is not None else []
        remake = parent is not None and not made_like_this(parent, fingerprint, settings)
        todo = plan(records, before, remake=remake, overridden=overrides.against.files)
        guarded = overrides.guarded(todo, before)
    finally:
        if overrides is not None:
            overrides.close()
        if parent is not None:
            parent.close()
    return Preview(
        parent=parent.id if parent is not None else None,
        todo=todo,
        remake=remake,
        refused=(
            *([hold.reason] if (hold := hold_of(settings.data_dir)) is not None else []),
            *removals(guarded[0], records, guarded[1], settings.ingest.max_removed_share),
        ),
        problems=tuple(problem for problem in problems if problem is not None),
        overridden=overrides.against.documents,
    )
