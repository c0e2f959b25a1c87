"""The conversation so far: what of it may still be used, and how confidential it is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from app.access import Caller
from app.answering.given import GivenAnswers
from app.answering.recall import Recalled, recall, stored
from app.answering.types import Ask
from app.services import Services
from app.state.messages import PartialAnswer, StoredPassage
from corpus.errors import NotFound
from corpus.types import Message, Passage
from tests.app.serving import composed, settings_of

pytestmark = pytest.mark.anyio

EVERYONE = Caller("local", ("everyone",))
BOARD = Caller("local", ("everyone", "board"))


@pytest.fixture
async def services(site: Path) -> AsyncIterator[Services]:
    """The service over the small corpus, where what lies under board/ is confidential and for the board."""
    services = composed(settings_of(site / "data"))
    await services.start()
    yield services
    await services.close()


def passage_of(services: Services, source: str) -> Passage:
    """The first passage of a document."""
    with services.snapshots.lease() as leased:
        for document, passages in leased.snapshot.store.stored.documents_with_passages():
            if document.source == source:
                return passages[0]
    raise AssertionError(f"no document {source!r}")


def say(services: Services, conversation_id: str | None, question: str, passages: tuple[StoredPassage, ...]) -> str:
    """Store a complete turn that rested on these passages; the conversation's id."""
    found = services.state.begin_turn("local", conversation_id, question)
    services.state.add_turn("local", found, question, PartialAnswer(f"Answer to {question}"), "complete", inherited=passages)
    return found


async def recalled(services: Services, caller: Caller, ask: Ask) -> Recalled:
    """What is recalled on the snapshot being served."""
    with services.snapshots.lease() as leased:
        return await recall(services, caller, ask, leased.snapshot)


async def test_complete_turns_are_recalled_with_what_they_rest_on(services: Services) -> None:
    """Questions and answers in order, the passages each once, the label the highest of them."""
    travel = stored([passage_of(services, "policies/travel.md")])
    errors = stored([passage_of(services, "it/errors.txt")])
    conversation_id = say(services, None, "one", travel)
    say(services, conversation_id, "two", travel + errors)
    found = await recalled(services, EVERYONE, Ask("three", conversation_id=conversation_id))
    assert found.messages == (
        Message("user", "one"), Message("assistant", "Answer to one"),
        Message("user", "two"), Message("assistant", "Answer to two"),
    )  # fmt: skip
    assert found.label == "internal"
    assert found.inherited == travel + errors


@pytest.mark.parametrize("reason", ["not visible", "gone"])
async def test_an_answer_whose_document_may_not_be_seen_is_left_out(services: Services, reason: str) -> None:
    """Its text, passages and label do not count; the caller's own words and other answers stay."""
    hidden = stored([passage_of(services, "board/salaries.md")])
    if reason == "gone":
        hidden = (StoredPassage("gone.v1.0-9", "gone", "v1", "secret"),)
    travel = stored([passage_of(services, "policies/travel.md")])
    conversation_id = say(services, None, "salaries", travel + hidden)
    say(services, conversation_id, "travel", travel)
    found = await recalled(services, EVERYONE, Ask("and?", conversation_id=conversation_id))
    assert [message.content for message in found.messages] == ["salaries", "travel", "Answer to travel"]
    assert found.label == "internal"
    assert found.inherited == travel


@pytest.mark.parametrize(
    ("then", "source", "expected"),
    [
        ("public", "policies/travel.md", "internal"),
        ("secret", "policies/travel.md", "secret"),
        ("public", "board/salaries.md", "confidential"),
        ("no-such-label", "policies/travel.md", "secret"),
    ],
)
async def test_of_the_stored_label_and_todays_the_higher_counts(
    services: Services, then: str, source: str, expected: str
) -> None:
    """A document that was raised since, or lowered, is as confidential as it ever was; an unknown label is the highest."""
    passage = stored([passage_of(services, source)])[0]
    before = StoredPassage(passage.chunk_id, passage.document_id, passage.version, then)
    conversation_id = say(services, None, "one", (before,))
    found = await recalled(services, BOARD, Ask("two", conversation_id=conversation_id))
    assert found.label == expected
    services.given.remember("An answer.", (before,))
    given = Ask("two", messages=(Message("assistant", "An answer."),), store=False)
    assert (await recalled(services, BOARD, given)).label == expected


async def test_only_a_users_own_words_have_the_lowest_label(services: Services) -> None:
    """A stateless caller who sends questions alone, or nothing, sends nothing of ours."""
    messages = (Message("user", "one"), Message("user", "two"))
    found = await recalled(services, BOARD, Ask("three", messages=messages, store=False))
    assert found == Recalled(None, messages, "public", ())
    assert await recalled(services, BOARD, Ask("first")) == Recalled(None, (), "public", ())


async def test_an_answer_that_is_not_remembered_could_rest_on_any_document(services: Services) -> None:
    """Its label is the highest of all documents: what its caller may not see today could be seen when it was given."""
    ask = Ask("two", messages=(Message("user", "one"), Message("assistant", "Who knows.")), store=False)
    assert (await recalled(services, EVERYONE, ask)).label == "confidential"
    assert (await recalled(services, BOARD, ask)).label == "confidential"


async def test_a_remembered_answer_has_its_own_label_however_it_is_wrapped(services: Services) -> None:
    """A member of the board who sends an internal answer back is not held to be confidential; white space is nothing."""
    travel = stored([passage_of(services, "policies/travel.md")])
    services.given.remember("Seven days\nahead. [1]", travel)
    ask = Ask("two", messages=(Message("assistant", " Seven days ahead. [1] "),), store=False)
    found = await recalled(services, BOARD, ask)
    assert (found.label, found.inherited) == ("internal", travel)


async def test_a_remembered_answer_is_left_out_when_its_document_is_gone(services: Services) -> None:
    """As in a stored conversation, nothing of it is used any more; what the caller said stays."""
    services.given.remember("Told you.", (StoredPassage("gone.v1.0-9", "gone", "v1", "secret"),))
    asked = Message("user", "one")
    ask = Ask("two", messages=(asked, Message("assistant", "Told you.")), store=False)
    assert await recalled(services, EVERYONE, ask) == Recalled(None, (asked,), "public", ())


async def test_a_remembered_answer_has_the_label_that_its_document_has_today(services: Services) -> None:
    """A label that was raised since counts, and what is written next inherits it."""
    passage = passage_of(services, "board/salaries.md")
    was = replace(stored([passage])[0], label="public")
    services.given.remember("Told you.", (was,))
    found = await recalled(services, BOARD, Ask("two", messages=(Message("assistant", "Told you."),), store=False))
    assert (found.label, {each.label for each in found.inherited}) == ("confidential", {"public", "confidential"})


async def test_somebody_elses_conversation_is_not_there(services: Services) -> None:
    """Another owner's conversation, and one that never was, are the same error."""
    conversation_id = say(services, None, "one", ())
    for caller, wanted in ((Caller("other", ("everyone",)), conversation_id), (EVERYONE, "never")):
        with pytest.raises(NotFound, match="no conversation"):
            await recalled(services, caller, Ask("two", conversation_id=wanted))


def test_only_so_many_answers_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest is forgotten first, and no text is kept."""
    monkeypatch.setattr("app.answering.given.ANSWERS_REMEMBERED", 2)
    given = GivenAnswers()
    for name in ("one", "two", "three"):
        given.remember(name, (StoredPassage(name, name, "v1", "public"),))
    assert given.recall("one") is None
    assert given.recall("three") == (StoredPassage("three", "three", "v1", "public"),)
    assert b"three" not in b"".join(given._passages)


def test_the_same_words_rest_on_what_either_answer_rested_on() -> None:
    """A short answer given twice keeps the provenance of both, so that its label never falls."""
    given = GivenAnswers()
    internal, secret = StoredPassage("c1", "d1", "v", "internal"), StoredPassage("c2", "d2", "v", "confidential")
    given.remember("Yes. [1]", [secret])
    given.remember("Yes.  [1]", [internal])
    assert given.recall("Yes. [1]") == (secret, internal)
