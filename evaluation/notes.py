"""What a reader of a report must know before its numbers: what the rows are, who answered, what failed."""

from __future__ import annotations

from collections.abc import Iterator

from app.llm.settings import EXTRACTIVE
from evaluation.report import Report

SHOWN = 5


def notes_of(report: Report) -> Iterator[str]:
    """Each in a sentence or two."""
    questions = len(report.outcomes)
    if report.is_replay:
        yield from _of_replay(report)
    if report.drafted:
        yield f"{report.drafted} of {questions} questions are drafted: a machine wrote them, and nobody has looked at them yet."
    missing = report.run.missing
    if missing and not report.is_replay:
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


def _of_replay(report: Report) -> Iterator[str]:
    yield (
        "As answered then: the questions are those of stored conversations, and the reference is the documents that the stored "
        "answers cited. Nobody has said that those were right, so a difference is a change and no mistake."
    )
    withdrawn = sum(o.question.then is not None and o.question.then.abstained is None for o in report.outcomes)
    if withdrawn:
        yield (
            f"{withdrawn} stored answers rest on documents that their owner may not see any more, or that are gone: they are "
            "used neither as history nor as a reference."
        )


def _some(names: list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
