"""The whole answer path over a published corpus: what is answered, what is stored, and what comes of trouble."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from app.access import Caller
from app.answering.answer import NO_PASSAGES, answer
from app.answering.extractive import NO_ANSWER
from app.answering.types import Answer, Ask, Sources
from app.llm.backend import Delta
from app.llm.fake.behaviour import FakeBehaviour
from app.llm.settings import LlmSettings, ProviderSettings
from app.services import Services
from app.state.messages import StoredMessage
from corpus.errors import BackendError, BackendFailed, NoSnapshot, NotFound
from tests.app.serving import composed, settings_of
from tests.conftest import Run
from tests.making import job_settings
from tests.servers import RunningFake, running_fake_llm

pytestmark = pytest.mark.anyio

CALLER = Caller("local", ("everyone",))
QUESTION = "When are expense reports due after a trip?"
Event = Sources | Delta | Answer
Begin = Callable[..., Services]


@pytest.fixture(scope="module")
def fake_server() -> Iterator[RunningFake]:
    with running_fake_llm() as fake:
        yield fake


@pytest.fixture
def fake(fake_server: RunningFake) -> RunningFake:
    """An LLM on this machine that says what the passage says."""
    fake_server.behave(FakeBehaviour(reply="Expense reports are due within 30 days [1]."))
    fake_server.requests.clear()
    return fake_server


@pytest.fixture
async def begin(site: Path) -> AsyncIterator[Begin]:
    """Composes the service over this test's corpus, with an LLM where one is given; all are closed in the end."""
    composed_services: list[Services] = []

    def make(fake: RunningFake | None = None, **llm: object) -> Services:
        settings = LlmSettings()
        if fake is not None:
            provider = ProviderSettings(base_url=fake.base_url, model="fake")
            settings = LlmSettings.model_validate({"default": "llm", "providers": {"llm": provider}, **llm})
        services = composed(settings_of(site / "data", llm=settings))
        services.snapshots.refresh()
        composed_services.append(services)
        return services

    yield make
    for services in composed_services:
        await services.close()


async def events_of(services: Services, ask: Ask, caller: Caller = CALLER) -> list[Event]:
    """All events of an answer."""
    async with aclosing(answer(services, caller, ask)) as events:
        return [event async for event in events]


async def asked(services: Services, ask: Ask, caller: Caller = CALLER) -> Answer:
    """The last event."""
    last = (await events_of(services, ask, caller))[-1]
    assert isinstance(last, Answer)
    return last


def messages_of(services: Services) -> list[StoredMessage]:
    """The messages of the one conversation there is."""
    conversations, _ = services.state.conversations("local", None, 10)
    assert len(conversations) == 1
    return list(services.state.messages("local", conversations[0].conversation_id)[0])


@pytest.mark.parametrize("has_llm", [False, True], ids=["extractive", "llm"])
async def test_an_answer_is_sources_deltas_and_the_whole(begin: Begin, fake: RunningFake, has_llm: bool) -> None:
    """First what may be cited, then text, then all of it: the deltas put together, cited, timed and named."""
    services = begin(fake if has_llm else None)
    first, *deltas, last = await events_of(services, Ask(QUESTION))
    assert isinstance(first, Sources)
    assert isinstance(last, Answer)
    assert [candidate.marker for candidate in first.candidates] == list(range(1, len(first.candidates) + 1))
    assert first.standalone_question == last.standalone_question == QUESTION
    assert "".join(delta.text for delta in deltas if isinstance(delta, Delta)) == last.answer
    assert "within 30 days" in last.answer
    assert "[1]" in last.answer
    assert set(last.timings_ms) == {"history", "embed", "search", "prompt", "first_token", "generate", "total"}
    assert last.timings_ms["total"] >= max(value for stage, value in last.timings_ms.items() if stage != "total")
    assert last.provider == ("llm" if has_llm else "extractive")
    assert (last.usage.prompt_tokens > 0) is has_llm
    assert last.grounding.supported_share == 1.0
    assert not last.abstained
    with services.snapshots.lease() as leased:
        assert last.snapshot == leased.snapshot.id
        for citation in last.citations:
            document = leased.snapshot.store.document(citation.document_id, CALLER.groups)
            assert document is not None
            assert document.text[citation.start : citation.end] == citation.quote


async def test_what_is_stored_is_what_was_answered(begin: Begin, fake: RunningFake) -> None:
    """Question, text, citations, passages, model, prompt version, usage and timings are in the conversation."""
    services = begin(fake)
    found = await asked(services, Ask(QUESTION))
    user, assistant = messages_of(services)
    assert (user.role, user.content, user.status) == ("user", QUESTION, "complete")
    assert (assistant.message_id, assistant.content, assistant.status) == (found.message_id, found.answer, "complete")
    assert assistant.citations == found.citations != ()
    assert [passage.chunk_id for passage in assistant.passages] == [passage.chunk_id for passage in found.passages]
    assert {passage.label for passage in assistant.passages} <= {"internal", "secret"}
    assert (assistant.provider, assistant.model, assistant.route) == ("llm", "fake", found.route)
    assert (assistant.snapshot, assistant.prompt_version) == (found.snapshot, services.prompts.version)
    assert (assistant.usage, assistant.timings_ms) == (found.usage, found.timings_ms)
    assert (assistant.grounding, assistant.abstained) == (found.grounding, False)


async def test_a_conversation_goes_on_after_a_restart(begin: Begin, fake: RunningFake) -> None:
    """A second service over the same folder continues it: history in the prompt, the question understood."""
    first = await asked(begin(fake), Ask(QUESTION))
    fake.requests.clear()
    services = begin(fake)
    second = await asked(services, Ask("And which form is it?", conversation_id=first.conversation_id))
    assert second.conversation_id == first.conversation_id
    assert second.standalone_question == f"{QUESTION} And which form is it?"
    sent = fake.requests[-1].json()["messages"]
    assert [message["role"] for message in sent] == ["system", "user", "assistant", "user"]
    assert (sent[1]["content"], sent[2]["content"]) == (QUESTION, first.answer)
    assert sent[3]["content"].endswith("And which form is it?")
    assert [message.position for message in messages_of(services)] == [0, 1, 2, 3]


async def test_a_caller_who_leaves_is_stored_as_cancelled_and_is_not_history(begin: Begin, fake: RunningFake) -> None:
    """What was shown is kept with its passages; the next question is asked as if it had never been."""
    services = begin(fake)
    await asked(services, Ask(QUESTION))
    conversation_id = services.state.conversations("local", None, 1)[0][0].conversation_id
    fake.behave(FakeBehaviour(reply="canary " * 50, tokens_per_second=50))
    shown = ""
    async with aclosing(answer(services, CALLER, Ask("How are trips booked?", conversation_id=conversation_id))) as events:
        async for event in events:
            if isinstance(event, Delta):
                shown += event.text
            if shown.count("canary") == 2:
                break
    *_, assistant = messages_of(services)
    assert (assistant.status, assistant.content, assistant.provider) == ("cancelled", shown, "llm")
    assert assistant.passages
    fake.behave(FakeBehaviour(reply="Yes."))
    await asked(services, Ask("And then?", conversation_id=conversation_id))
    assert b"canary" not in fake.requests[-1].body
    assert b"How are trips booked?" not in fake.requests[-1].body


async def test_a_cancelled_task_is_stored_as_cancelled(begin: Begin, fake: RunningFake) -> None:
    """Hanging up cancels the task: what there is of a later turn is stored, although it has no word yet."""
    services = begin(fake)
    first = await asked(services, Ask(QUESTION))
    fake.behave(FakeBehaviour(hang="first_token"))
    fake.requests.clear()
    task = asyncio.create_task(asked(services, Ask("How are trips booked?", conversation_id=first.conversation_id)))
    async with asyncio.timeout(10):
        while not fake.requests:  # noqa: ASYNC110 - the fake runs in a thread
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [(message.status, message.content) for message in messages_of(services)][2:] == [
        ("cancelled", "How are trips booked?"),
        ("cancelled", ""),
    ]


async def test_a_provider_that_breaks_off_is_stored_as_failed(begin: Begin, fake: RunningFake) -> None:
    """The error reaches the caller, no other model continues the text, and the turn is kept as failed."""
    services = begin(fake)
    fake.behave(FakeBehaviour(reply="Expense reports are due within thirty days.", cut_after_tokens=3))
    shown: list[str] = []

    async def read() -> None:
        async with aclosing(answer(services, CALLER, Ask(QUESTION))) as events:
            async for event in events:
                shown.append(event.text if isinstance(event, Delta) else "")

    with pytest.raises(BackendError):
        await read()
    assert "".join(shown).split() == ["Expense", "reports", "are"]
    user, assistant = messages_of(services)
    assert (user.status, assistant.status, assistant.content) == ("failed", "failed", "".join(shown))
    fake.behave(FakeBehaviour(reply="Yes."))
    conversation_id = services.state.conversations("local", None, 1)[0][0].conversation_id
    await asked(services, Ask("And then?", conversation_id=conversation_id))
    assert [message["role"] for message in fake.requests[-1].json()["messages"]] == ["system", "user"]


async def test_a_first_question_that_gets_no_word_is_not_a_conversation(begin: Begin, fake: RunningFake) -> None:
    """A provider that fails at once, with nobody to fall back on, leaves nothing behind."""
    services = begin(fake, extractive_fallback=False)
    fake.behave(FakeBehaviour(status=500))
    with pytest.raises(BackendFailed):
        await asked(services, Ask(QUESTION))
    assert services.state.conversations("local", None, 10) == ((), None)


async def test_a_provider_that_fails_at_once_is_stood_in_for(begin: Begin, fake: RunningFake) -> None:
    """The extractive answer is complete, and its route says what happened."""
    services = begin(fake)
    fake.behave(FakeBehaviour(status=500))
    found = await asked(services, Ask(QUESTION))
    assert found.provider == "extractive"
    assert found.route.startswith("extractive: provider 'llm' failed: HTTP 500")
    assert "within 30 days" in found.answer
    assert messages_of(services)[1].status == "complete"


async def test_a_snapshot_that_is_replaced_stays_open_until_the_answer_ends(
    begin: Begin, fake: RunningFake, site: Path, run: Run
) -> None:
    """An answer that is on its way when a new snapshot comes ends on its own; the next one has the new."""
    services = begin(fake)
    with services.snapshots.lease() as leased:
        old = leased.snapshot
    async with aclosing(answer(services, CALLER, Ask(QUESTION))) as events:
        async for event in events:
            if isinstance(event, Sources):
                (site / "documents" / "new.txt").write_text("The bicycle shed is blue.")
                await asyncio.to_thread(run, job_settings(site / "data", site / "documents"))
                assert services.snapshots.refresh() is True
            assert not old._lock.closed
            if isinstance(event, Answer):
                assert event.snapshot == old.id
                assert event.citations
    assert old._lock.closed
    assert (await asked(services, Ask(QUESTION))).snapshot != old.id


async def test_with_nothing_to_be_seen_it_abstains(begin: Begin, fake: RunningFake) -> None:
    """A caller of no known group gets a plain sentence, no citation, and no LLM is asked."""
    found = await asked(begin(fake), Ask(QUESTION), Caller("local", ("nobody",)))
    assert (found.answer, found.abstained, found.citations, found.passages) == (NO_PASSAGES, True, (), ())
    assert found.route == "no passage was found, so no LLM was asked"
    assert fake.requests == []


async def test_a_question_about_something_else_is_not_answered(begin: Begin) -> None:
    """The extractive backend says that the documents do not answer, and cites nothing."""
    found = await asked(begin(), Ask("Which planet has the most moons in the solar system?"))
    assert (found.answer, found.abstained, found.citations) == (NO_ANSWER, True, ())


async def test_a_hidden_document_is_neither_quoted_nor_cited(begin: Begin) -> None:
    """The board's salaries are found by the board and by nobody else."""
    services = begin()
    question = "At how many crowns does the salary band of directors begin?"
    found = await asked(services, Ask(question))
    assert "190000" not in found.answer
    assert {passage.source for passage in found.passages}.isdisjoint({"board/salaries.md"})
    assert "190000" in (await asked(services, Ask(question), Caller("local", ("board",)))).answer


async def test_a_stateless_question_stores_nothing(begin: Begin) -> None:
    """No conversation, no ids."""
    services = begin()
    found = await asked(services, Ask(QUESTION, store=False))
    assert (found.conversation_id, found.message_id) == (None, None)
    assert services.state.conversations("local", None, 10) == ((), None)


async def test_an_unknown_conversation_and_a_missing_snapshot_are_errors(begin: Begin, tmp_path: Path) -> None:
    """Nothing is stored for a conversation that does not exist; without a snapshot the error says what to run."""
    services = begin()
    with pytest.raises(NotFound):
        await asked(services, Ask(QUESTION, conversation_id="never"))
    assert services.state.conversations("local", None, 10) == ((), None)
    (tmp_path / "empty").mkdir()
    without = composed(settings_of(tmp_path / "empty"))
    try:
        with pytest.raises(NoSnapshot, match="archivist ingest"):
            await asked(without, Ask(QUESTION))
    finally:
        await without.close()


@pytest.mark.parametrize(
    ("reply", "shown"),
    [
        ("[1]", ""),
        ("[none]", ""),
        ("The documents do not say. [none]", "The documents do not say."),
        ("Nothing at all was said of elephants [1] [2].", "Nothing at all was said of elephants."),
    ],
)
async def test_an_odd_reply_of_the_llm_is_an_answer(begin: Begin, fake: RunningFake, reply: str, shown: str) -> None:
    """A marker alone or without support: the answer ends in good order, and what is unsupported is not shown."""
    fake.behave(FakeBehaviour(reply=reply))
    found = await asked(begin(fake), Ask(QUESTION))
    assert (found.provider, found.answer, found.abstained) == ("llm", shown, "[none]" in reply)


@pytest.mark.parametrize("reply", ["", " ", "\n\n"], ids=["empty", "space", "newlines"])
async def test_an_llm_that_says_nothing_is_stood_in_for(begin: Begin, fake: RunningFake, reply: str) -> None:
    """A reply without a word is a failed one: the passages are quoted instead."""
    fake.behave(FakeBehaviour(reply=reply))
    found = await asked(begin(fake), Ask(QUESTION))
    assert found.provider == "extractive"
    assert "within 30 days" in found.answer
