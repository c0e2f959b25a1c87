"""What a reader of a report must know before its numbers: what the rows are, who answered, what failed."""

from __future__ import annotations

from collections.abc import Iterator

from app.llm.settings import EXTRACTIVE
from evaluation.report import Report

SHOWN = 5


def notes_of(report: Report) -> Iterator[str]:
    """Each in a sentence or two."""
    questions = len(report.outcomes)
    if report.drafted:
        yield f"{report.drafted} of {questions} questions are drafted: a machine wrote them, and nobody has looked at them yet."
    missing = report.run.missing
    if missing:
        lost = list(dict.fromkeys(name for names in missing.values() for name in names))
        yield (
            f"Gold of {len(missing)} questions is not in the snapshot, or its asker may not see it, and counts as not found: "
            f"{_some(lost)}."
        )
    failed = [outcome for outcome in report.outcomes if outcome.failure]
    if failed:
        yield f"{len(failed)} of {questions} questions got no answer; the first failure: {failed[0].failure}"
    providers = report.providers
    if len(providers) > 1:
        counts = ", ".join(f"{name} {count}" for name, count in sorted(providers.items(), key=lambda item: -item[1]))
        yield f"The answers are by several providers: {counts}." + (
            " Where extractive was not meant, a provider failed or was not cleared." if EXTRACTIVE in providers else ""
        )


def _some(names: list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
