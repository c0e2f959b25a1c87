"""Questions asked of a real service over a small corpus: what is found, answered, cited, and how two configurations differ."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from app.llm.fake.behaviour import FakeBehaviour
from app.llm.settings import LlmSettings
from app.settings import HistorySettings
from corpus.embedders.embedder import Embedder
from corpus.errors import ArchivistError, NoSnapshot, SnapshotDamaged
from corpus.published import current_id
from corpus.types import Message
from evaluation.compare import Comparison, compare
from evaluation.golden import GoldenError, Question
from evaluation.report import About, report_of
from evaluation.run import Run, ask_all, first_failure, opened
from tests.conftest import Run as RunJob
from tests.evaluation.outcomes import settings_over
from tests.making import job_settings, write_files
from tests.servers import running_fake_llm

FORM = Question("form", "Which form is used for the expense report?", gold={"policies/travel.md": 1}, answers=("TR-204",))
PARKING = Question("parking", "Where do visitors park?", gold={"faq.jsonl#1": 1}, answers=("in the yard",))
MOON = Question("moon", "What does the moon weigh in kilograms?", answerability="UNANSWERABLE")
BOARD = Question("board", "Where does the salary band of directors begin?", gold={"board/salaries.md": 1}, answers=("190000",))


def talk(question_id: str, first: str, reply: str, question: str, source: str) -> Question:
    """A follow-up."""
    history = (Message("user", first), Message("assistant", reply))
    return Question(question_id, question, history, {source: 1})


FOLLOW_UPS = (
    talk("lunch", "When does the canteen serve lunch?", "From noon.", "And until when?", "faq.jsonl#3"),
    talk("yard", "Where do visitors park?", "In the yard.", "And where exactly is that?", "faq.jsonl#1"),
    talk("badge", "What does error E-4410 of the badge reader mean?", "No network.", "And then?", "it/errors.txt"),
    talk("trips", "Who books trips?", "The travel desk.", "And how long ahead?", "policies/travel.md"),
)


async def asked(
    data_dir: Path, embedder: Embedder, questions: Sequence[Question], answers: bool = True, **sections: Any
) -> Run:
    """The questions, asked of a service with these sections of the configuration."""
    async with opened(settings_over(data_dir, **sections), embedder) as services:
        return await ask_all(services, questions, answers=answers)


@pytest.mark.anyio
async def test_what_was_found_answered_and_cited_is_known(site: Path, embedder: Embedder) -> None:
    """The gold comes first under its own name, the quote stands in the document, and what is not there is not answered."""
    first = (await asked(site / "data", embedder, [PARKING], answers=False)).outcomes[0]
    assert (first.found[0].name, first.found[0].source, first.answer) == ("faq.jsonl#1", "faq.jsonl#1", None)
    async with opened(settings_over(site / "data"), embedder) as services:
        with services.snapshots.lease() as leased:
            (document,) = [d for d, _ in leased.snapshot.store.stored.documents_with_passages() if d.source == "faq.jsonl#1"]
        by_id = Question("id", PARKING.question, gold={document.document_id: 1}, answers=PARKING.answers)
        run = await ask_all(services, [FORM, by_id, MOON], answers=True)
    form, parking, moon = run.outcomes
    assert form.answer is not None
    assert "TR-204" in form.answer.answer
    assert form.cited
    assert all(cited.is_exact for cited in form.cited)
    assert {cited.name for cited in form.cited} & {"policies/travel.md"}
    assert parking.found[0].name == document.document_id
    assert moon.answer is not None
    assert moon.answer.abstained
    assert (run.snapshot, run.documents) == (current_id(site / "data"), 11)
    assert (form.language, form.collection, moon.collection) == ("en", "documents", "")
    assert {"embed", "search", "total"} <= set(form.timings_ms)


@pytest.mark.anyio
async def test_gold_that_is_not_there_or_not_to_be_seen_is_told(site: Path, embedder: Embedder) -> None:
    """A golden set grows stale; a question asked with other groups sees what those see."""
    gone = Question("gone", "Where?", gold={"policies/old.md": 1, "faq.jsonl#1": 1})
    run = await asked(site / "data", embedder, [gone, BOARD], answers=False)
    assert run.missing == {"gone": ("policies/old.md",), "board": ("board/salaries.md",)}
    directors = Question("directors", BOARD.question, gold=BOARD.gold, groups=("everyone", "board"))
    run = await asked(site / "data", embedder, [directors], answers=False)
    assert (run.missing, run.outcomes[0].found[0].name) == ({}, "board/salaries.md")


@pytest.mark.anyio
async def test_the_snapshot_stays_the_same_whatever_is_published(site: Path, embedder: Embedder, run: RunJob) -> None:
    """A job that publishes meanwhile changes nothing for those who ask; either snapshot can be asked by name."""
    old = current_id(site / "data")
    write_files(site / "documents", {"it/moon.md": "# The moon\n\nThe moon weighs 73 trillion tonnes, says the astronomer.\n"})
    async with opened(settings_over(site / "data"), embedder) as services:
        run(job_settings(site / "data", site / "documents"))
        before = await ask_all(services, [MOON], answers=False)
    new = current_id(site / "data")
    after = await asked(site / "data", embedder, [MOON], answers=False)
    async with opened(settings_over(site / "data"), embedder, old) as services:
        again = await ask_all(services, [MOON], answers=False)
    assert (before.snapshot, after.snapshot, again.snapshot) == (old, new, old)
    assert [r.outcomes[0].found[0].source == "it/moon.md" for r in (before, after, again)] == [False, True, False]


@pytest.mark.anyio
async def test_without_a_snapshot_there_is_an_error(tmp_path: Path, embedder: Embedder) -> None:
    """The one that says what to do; a snapshot that is not there is not replaced by another."""
    with pytest.raises(NoSnapshot):
        await asked(tmp_path, embedder, [PARKING])


@pytest.mark.anyio
async def test_a_damaged_snapshot_is_not_replaced_by_another(site: Path, embedder: Embedder) -> None:
    """What is measured is what was asked for."""
    (site / "data" / "snapshots" / current_id(site / "data") / "dense.faiss").write_bytes(b"not an index")
    with pytest.raises(SnapshotDamaged):
        await asked(site / "data", embedder, [PARKING])


@pytest.mark.anyio
async def test_a_provider_that_fails_is_noted_and_passed_over(site: Path, embedder: Embedder) -> None:
    """Each failure with its reason; where no question got an answer, that is an error."""
    with running_fake_llm(FakeBehaviour(status=400, error_message="no")) as fake:
        llm = LlmSettings.model_validate(
            {
                "default": "near", "extractive_fallback": False,
                "providers": {"near": {"base_url": fake.base_url, "model": "m"}},
            }
        )  # fmt: skip
        run = await asked(site / "data", embedder, [PARKING, FORM], llm=llm)
    assert [(outcome.answer, "near" in outcome.failure) for outcome in run.outcomes] == [(None, True), (None, True)]
    failure = first_failure(run)
    assert isinstance(failure, ArchivistError)
    assert "no question got an answer" in str(failure)
    assert first_failure(await asked(site / "data", embedder, [PARKING])) is None


async def compared(data_dir: Path, embedder: Embedder, questions: Sequence[Question], first: str, second: str) -> Comparison:
    """Two strategies of history, over the same questions."""
    reports = []
    for strategy in (first, second):
        history = HistorySettings.model_validate({"strategy": strategy})
        run = await asked(data_dir, embedder, questions, answers=False, history=history)
        reports.append(report_of(run, About("golden.jsonl", strategy, 0, (1,))))
    return compare(*reports)


@pytest.mark.anyio
async def test_two_configurations_differ_where_history_counts(site: Path, embedder: Embedder) -> None:
    """With history follow-ups find their documents; first questions find the same; and what flipped is named."""
    found = await compared(site / "data", embedder, [PARKING, FORM, *FOLLOW_UPS], "last_turn", "gated")
    change = next(change for change in found.changes if change.metric.name == "success@1")
    won = {flip.question_id for flip in found.flips if flip.won}
    assert won
    assert won <= {question.id for question in FOLLOW_UPS}
    assert {flip.question_id for flip in found.flips if not flip.won} == set()
    assert change.difference.value == pytest.approx(len(won) / 6)
    back = await compared(site / "data", embedder, [PARKING, FORM, *FOLLOW_UPS], "gated", "last_turn")
    assert {flip.question_id for flip in back.flips if not flip.won} == won


@pytest.mark.anyio
async def test_the_same_configuration_twice_is_no_change(site: Path, embedder: Embedder) -> None:
    """Every metric of quality differs by nothing."""
    found = await compared(site / "data", embedder, [PARKING, *FOLLOW_UPS], "gated", "gated")
    qualities = [change for change in found.changes if change.metric.unit == "share"]
    assert {change.difference.value for change in qualities} == {0.0}
    assert {change.verdict for change in qualities} == {"no change shown"}
    assert found.flips == ()


@pytest.mark.anyio
async def test_other_questions_are_not_compared(site: Path, embedder: Embedder) -> None:
    """A difference would be one of the questions."""
    about = About("golden.jsonl", "a", 0, (1,))
    first, second = [
        report_of(await asked(site / "data", embedder, [question], answers=False), about) for question in (PARKING, FORM)
    ]
    with pytest.raises(GoldenError, match="not over the same questions"):
        compare(first, second)
