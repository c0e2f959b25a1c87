"""Stored conversations asked again: their owner's alone, with access decided anew, and nothing is written."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.access import Caller
from app.answering.answer import answer
from app.answering.recall import recall_before
from app.answering.types import Answer, Ask
from app.llm.fake.behaviour import FakeBehaviour
from app.llm.settings import LlmSettings
from app.settings import ConversationSettings, ServiceSettings
from app.state.messages import PartialAnswer, StoredMessage
from app.state.state import State
from corpus.embedders.embedder import Embedder
from corpus.errors import ArchivistError, ConfigError, NotFound
from corpus.published import current_id
from evaluation.conversations import Side, check_replay, draw
from evaluation.golden import AS_ANSWERED_THEN
from evaluation.report import About, report_of
from evaluation.run import OWNER, Run, ask_all, opened
from tests.conftest import Run as RunJob
from tests.evaluation.outcomes import settings_over
from tests.making import job_settings, write_files
from tests.servers import running_fake_llm

EVERYONE, BOARD = ("everyone",), ("everyone", "board")
LUNCH, UNTIL = "When does the canteen serve lunch?", "And until when?"
SALARY = "Where does the salary band of directors begin?"
MOON = "What does the moon weigh in kilograms?"


Talk = Callable[..., Awaitable[str]]


@pytest.fixture
def talk(site: Path, embedder: Embedder) -> Talk:
    """Asks questions of the service over the site, one conversation, as somebody; returns the conversation's id."""

    async def asked(owner: str, groups: Sequence[str], *questions: str, top_k: int = 8) -> str:
        async with opened(settings_over(site / "data"), embedder) as services:
            conversation_id: str | None = None
            for question in questions:
                ask = Ask(question, conversation_id=conversation_id, top_k=top_k)
                async with aclosing(answer(services, Caller(owner, tuple(groups)), ask)) as events:
                    async for event in events:
                        if isinstance(event, Answer):
                            conversation_id = event.conversation_id
            assert conversation_id is not None
            return conversation_id

    return asked


async def again(
    settings: ServiceSettings, embedder: Embedder, owner: str, groups: Sequence[str] = EVERYONE, answers: bool = True
) -> Run:
    """The owner's conversations, drawn and asked again by somebody of these groups."""
    questions = draw(settings.data_dir, owner, [Side(None, tuple(groups))], None, None)
    settings = settings.model_copy(update={"server": settings.server.model_copy(update={"groups": tuple(groups)})})
    async with opened(settings, embedder) as services:
        return await ask_all(services, questions, answers=answers)


def contents(data_dir: Path) -> list[object]:
    """All that service.db holds."""
    with sqlite3.connect(data_dir / "service.db") as connection:
        tables = ("conversations", "messages", "message_passages", "spending")
        return [connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2, 3").fetchall() for table in tables]


@pytest.mark.anyio
async def test_a_conversation_is_asked_again_with_what_went_before(site: Path, embedder: Embedder, talk: Talk) -> None:
    """Each turn has the turns before it as history and the cited documents as reference; under the same configuration the same
    is found and answered, and nothing is written.
    """
    conversation_id = await talk("local", EVERYONE, LUNCH, UNTIL)
    before = contents(site / "data")
    run = await again(settings_over(site / "data"), embedder, "local")
    first, second = run.outcomes
    assert [(len(o.question.history), o.question.conversation) for o in run.outcomes] == [
        (0, conversation_id), (2, conversation_id),
    ]  # fmt: skip
    assert second.question.history[0].content == LUNCH
    assert first.question.then is not None
    assert (first.question.then.abstained, first.question.then.cited) == (False, ("faq.jsonl#3",))
    assert (first.question.answerability, first.question.expected) == (AS_ANSWERED_THEN, "either")
    assert first.found[0].source == "faq.jsonl#3"
    assert first.found[0].name in first.question.gold
    assert first.answer is not None
    stored, _ = _messages(site / "data", "local", conversation_id)
    assert [o.answer.answer for o in run.outcomes if o.answer is not None] == [
        m.content for m in stored if m.role == "assistant"
    ]
    values = {metric.name: value.value for metric, value in report_of(run, About("x", "a", 0, (1,))).values.items()}
    assert (values["success@1"], values["newly_abstained"]) == (1.0, 0.0)
    assert contents(site / "data") == before


def _messages(data_dir: Path, owner: str, conversation_id: str) -> tuple[tuple[StoredMessage, ...], bool]:
    state = State(data_dir / "service.db")
    try:
        return state.messages(owner, conversation_id)
    finally:
        state.close()


@pytest.mark.anyio
async def test_an_answer_from_what_may_not_be_seen_any_more_is_not_used(site: Path, embedder: Embedder, talk: Talk) -> None:
    """Neither as a reference nor as history, whether the asker left the group or the document is gone; the questions stay."""
    await talk("local", BOARD, SALARY, "And of whom?", LUNCH)
    with_board = await again(settings_over(site / "data"), embedder, "local", BOARD, answers=False)
    assert with_board.outcomes[0].question.gold != {}
    assert any("190000" in message.content for message in with_board.outcomes[1].question.history)

    run = await again(settings_over(site / "data"), embedder, "local", EVERYONE)
    salary = run.outcomes[0]
    assert salary.question.then is not None
    assert (salary.question.gold, salary.question.then.abstained, salary.question.then.cited) == ({}, None, ())
    history = run.outcomes[2].question.history
    assert [message.content for message in history if message.role == "user"] == [SALARY, "And of whom?"]
    assert "190000" not in str(run)
    assert "board/salaries.md" not in str(run)


@pytest.mark.anyio
async def test_a_comparison_uses_only_what_may_be_seen_on_both_sides(
    site: Path, embedder: Embedder, talk: Talk, run: RunJob
) -> None:
    """A document that the second snapshot has lost, or the second configuration's groups may not see, is no reference."""
    await talk("local", BOARD, LUNCH, top_k=1)
    await talk("local", BOARD, SALARY, top_k=1)
    old = current_id(site / "data")
    (site / "documents" / "faq.jsonl").unlink()
    run(job_settings(site / "data", site / "documents"))
    sides = [Side(old, BOARD), Side(current_id(site / "data"), BOARD)]
    salary, lunch = draw(site / "data", "local", sides, None, None)
    assert (salary.gold != {}, lunch.gold) == (True, {})
    salary, lunch = draw(site / "data", "local", [Side(old, BOARD), Side(old, EVERYONE)], None, None)
    assert (salary.gold, lunch.gold != {}) == ({}, True)


@pytest.mark.anyio
async def test_only_the_owners_conversations_are_asked(site: Path, embedder: Embedder, talk: Talk) -> None:
    """Another owner's are neither drawn nor recalled, and an owner without any is an error that says what to do."""
    mine = await talk("local", EVERYONE, LUNCH)
    theirs = await talk("key-0123456789abcdef", EVERYONE, MOON)
    run = await again(settings_over(site / "data"), embedder, "local", answers=False)
    assert [(o.question.question, o.question.conversation) for o in run.outcomes] == [(LUNCH, mine)]
    (question,) = draw(site / "data", "key-0123456789abcdef", [Side(None, EVERYONE)], None, None)
    assert (question.question, question.conversation) == (MOON, theirs)
    with pytest.raises(ArchivistError, match=r"no answered question of 'nobody' .* check --owner and --since"):
        draw(site / "data", "nobody", [Side(None, EVERYONE)], None, None)
    assert question.then is not None
    stolen = replace(question, then=replace(question.then, owner="local"))
    async with opened(settings_over(site / "data"), embedder) as services:
        with pytest.raises(NotFound):
            await ask_all(services, [stolen], answers=True)


@pytest.mark.anyio
async def test_only_whole_answers_of_the_time_asked_for_are_drawn(site: Path, embedder: Embedder, talk: Talk) -> None:
    """A cancelled and a failed turn are left out; a limit takes the conversation last used, in the order it was asked."""
    first = await talk("local", EVERYONE, LUNCH)
    second = await talk("local", EVERYONE, "Where do visitors park?", MOON)
    state = State(site / "data" / "service.db")
    state.add_turn("local", first, "Cut off?", PartialAnswer(answer="Tw"), "cancelled")
    state.add_turn("local", first, "Failed?", PartialAnswer(), "failed")
    state.close()
    side = [Side(None, EVERYONE)]
    drawn = draw(site / "data", "local", side, None, None)
    assert [(q.question, q.conversation) for q in drawn] == [
        (LUNCH, first), ("Where do visitors park?", second), (MOON, second),
    ]  # fmt: skip
    assert [q.then.abstained for q in drawn if q.then is not None] == [False, False, True]
    assert [q.question for q in draw(site / "data", "local", side, None, 2)] == [LUNCH, "Where do visitors park?"]
    now = datetime.now(UTC)
    assert len(draw(site / "data", "local", side, now - timedelta(days=1), None)) == 3
    with pytest.raises(ArchivistError, match="since"):
        draw(site / "data", "local", side, now + timedelta(days=1), None)


@pytest.mark.anyio
async def test_labels_and_budgets_hold_as_ever(site: Path, embedder: Embedder, talk: Talk, run: RunJob) -> None:
    """Earlier turns count with their label, and a provider that is not cleared for it is not asked; what is paid counts as an
    evaluation's, not as the owner's.
    """
    parking = '{"id": "1", "title": "Parking", "text": "Visitors park in the yard behind hall three."}\n'
    run(job_settings(site / "data", write_files(site / "documents", {"faq.jsonl": parking})))
    conversation_id = await talk("local", BOARD, SALARY, "Where do visitors park?", top_k=1)
    async with opened(settings_over(site / "data"), embedder) as services:
        with services.snapshots.lease() as snapshot:
            board = Caller("local", BOARD)
            recalled = [await recall_before(services, board, conversation_id, position, snapshot) for position in (0, 2)]
    assert [each.label for each in recalled] == ["public", "confidential"]
    with running_fake_llm(FakeBehaviour(reply="In the yard. [1]")) as fake:
        llm = LlmSettings.model_validate(
            {"default": "near", "providers": {"near": {"base_url": fake.base_url, "model": "m", "clearance": "internal"}}}
        )
        before = await again(settings_over(site / "data", llm=llm), embedder, "local", BOARD)
        assert [o.answer.provider for o in before.outcomes if o.answer is not None] == ["extractive", "extractive"]
        assert fake.requests == []
        without = await again(settings_over(site / "data", llm=llm), embedder, "local", EVERYONE)
    assert [o.answer.provider for o in without.outcomes if o.answer is not None][1] == "near"
    assert "190000" not in str(fake.requests)
    state = State(site / "data" / "service.db")
    owners = {row.owner for row in state.spending_since(datetime.now(UTC).date() - timedelta(days=1))}
    state.close()
    assert owners == {OWNER}


def test_without_the_key_it_is_refused() -> None:
    """The error names the file and the key, and says why."""
    with pytest.raises(ConfigError, match=r"a\.yaml does not allow it.*what people asked.*conversations\.replay to true"):
        check_replay(ConversationSettings(), "a.yaml")
    check_replay(ConversationSettings(replay=True), "a.yaml")


def test_a_folder_without_conversations_is_an_error_and_stays_as_it_is(site: Path) -> None:
    """No empty database is made by looking for one."""
    with pytest.raises(ArchivistError, match="no conversation is stored in"):
        draw(site / "data", "local", [Side(None, EVERYONE)], None, None)
    assert not (site / "data" / "service.db").exists()
