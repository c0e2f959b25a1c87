"""service.db keeps conversations, and says so when it cannot."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from app.answering.types import Answer, Citation, Grounding, Signals
from app.llm.backend import Usage
from app.state.messages import PartialAnswer, StoredPassage
from app.state.state import State
from corpus.errors import Invalid, NotFound, StateError
from corpus.types import Passage


def passage(document_id: str, label: str = "internal", start: int = 0) -> Passage:
    """A passage of a document; of it only ids, version and label are stored."""
    return Passage(
        ordinal=0,
        chunk_id=f"{document_id}.v1.{start}-{start + 9}",
        document_id=document_id,
        version="v1",
        title="Travel policy",
        source="travel.md",
        collection="handbook",
        text="canary passage text",
        heading=("Expenses",),
        page=None,
        start=start,
        end=start + 9,
        label=label,
        groups=("everyone",),
        language="en",
    )


def answer(text: str = "Within 30 days. [1]", *passages: Passage) -> Answer:
    """An answer with every field set to something that can be recognised."""
    return Answer(
        answer=text,
        abstained=False,
        citations=(Citation(1, "doc1", "doc1.v1.0-9", "v1", "Travel policy", "travel.md", 3, ("Expenses",), "30 days", 2, 9),),
        conversation_id=None,
        message_id=None,
        standalone_question="When are expense reports due?",
        provider="local",
        model="gemma",
        route="the default provider",
        snapshot="000001-abc",
        usage=Usage(120, 7, cached_tokens=60, cost_usd=0.25, estimated=True),
        grounding=Grounding(0.5, ("Not so.",), removed=2, added=1),
        timings_ms={"embed": 9.5, "total": 20.25},
        passages=passages or (passage("doc1"),),
        signals=Signals(nearness=0.75, coverage=0.5),
        answerability=0.8125,
        clarifies=True,
    )


@pytest.fixture
def state(tmp_path: Path) -> State:
    """An open, empty database."""
    return State(tmp_path / "service.db")


def test_a_turn_is_read_back_with_its_provenance_after_a_restart(tmp_path: Path) -> None:
    """Everything an answer came with survives closing and opening the file."""
    state = State(tmp_path / "service.db")
    conversation_id = state.begin_turn("anna", None, "When are expense reports due?")
    message_id = state.add_turn(
        "anna", conversation_id, "When are expense reports due?", answer(), "complete", prompt_version="p7"
    )
    state.close()

    messages, has_older = State(tmp_path / "service.db").messages("anna", conversation_id)

    assert has_older is False
    asked, answered = messages
    assert (asked.role, asked.content, asked.status) == ("user", "When are expense reports due?", "complete")
    assert asked.usage is None
    assert asked.passages == ()
    assert answered.message_id == message_id
    assert answered.content == "Within 30 days. [1]"
    assert answered.usage == Usage(120, 7, cached_tokens=60, cost_usd=0.25, estimated=True)
    assert answered.citations == answer().citations
    assert answered.grounding == Grounding(0.5, ("Not so.",), removed=2, added=1)
    assert answered.timings_ms == {"embed": 9.5, "total": 20.25}
    assert answered.passages == (StoredPassage("doc1.v1.0-9", "doc1", "v1", "internal"),)
    assert (answered.provider, answered.model, answered.route) == ("local", "gemma", "the default provider")
    assert (answered.snapshot, answered.prompt_version, answered.abstained) == ("000001-abc", "p7", False)
    assert answered.signals == asdict(Signals(nearness=0.75, coverage=0.5))
    assert (answered.answerability, answered.clarifies) == (0.8125, True)
    assert (asked.signals, asked.answerability, asked.clarifies) == (None, None, None)


def test_a_partial_answer_has_the_signals_that_were_known(state: State) -> None:
    """One that was cut off after the search has them, one from before has none, which is not the same as zeros."""
    conversation_id = state.create_conversation("anna", "x")
    state.add_turn("anna", conversation_id, "q1", PartialAnswer(), "failed")
    searched = PartialAnswer(answer="Tw", signals=Signals(nearness=0.25), answerability=0.5)
    state.add_turn("anna", conversation_id, "q2", searched, "cancelled")
    messages, _ = state.messages("anna", conversation_id)
    assert [(each.answerability, each.clarifies) for each in messages[1::2]] == [(None, None), (0.5, None)]
    assert [each.signals for each in messages[1::2]] == [None, asdict(Signals(nearness=0.25))]


@pytest.mark.parametrize(
    "usage",
    [
        Usage(9, 3, cached_tokens=4, cost_usd=0.5),
        Usage(9, 3, cost_usd=None, estimated=True),
        Usage(9, 3, cost_usd=0.0),
        Usage(),
    ],
    ids=["priced", "unknown price, estimated", "free", "nothing used"],
)
@pytest.mark.parametrize("whole", [True, False], ids=["whole answer", "partial answer"])
def test_a_usage_comes_back_as_it_was(state: State, usage: Usage, whole: bool) -> None:
    """A cost that is not known stays so and is not zero, in whole answers and in those that were cut off."""
    conversation_id = state.create_conversation("anna", "x")
    stored = replace(answer(), usage=usage) if whole else PartialAnswer(answer="Tw", usage=usage)
    state.add_turn("anna", conversation_id, "q", stored, "complete" if whole else "cancelled")
    messages, _ = state.messages("anna", conversation_id)
    assert messages[1].usage == usage
    assert messages[1].usage is not None
    assert type(messages[1].usage.estimated) is bool


def test_a_partial_answer_of_nobody_has_no_usage(state: State) -> None:
    """Where no provider had been asked there are no tokens, which is not the same as zero tokens."""
    conversation_id = state.create_conversation("anna", "x")
    state.add_turn("anna", conversation_id, "q", PartialAnswer(), "failed")
    assert state.messages("anna", conversation_id)[0][1].usage is None


def test_only_complete_turns_become_history(state: State) -> None:
    """A cancelled and a failed turn are stored, but are not history; the complete ones are, oldest first."""
    conversation_id = state.create_conversation("anna", "First")
    state.add_turn("anna", conversation_id, "First", answer("One."), "complete")
    state.add_turn("anna", conversation_id, "Second", PartialAnswer(answer="Tw"), "cancelled")
    state.add_turn("anna", conversation_id, "Third", PartialAnswer(), "failed")
    state.add_turn("anna", conversation_id, "Fourth", answer("Four.", passage("doc4", "confidential")), "complete")

    history = state.history("anna", conversation_id)

    assert [(turn.question, turn.answer) for turn in history] == [("First", "One."), ("Fourth", "Four.")]
    assert history[1].passages == (StoredPassage("doc4.v1.0-9", "doc4", "v1", "confidential"),)
    messages, _ = state.messages("anna", conversation_id)
    assert [message.status for message in messages[1::2]] == ["complete", "cancelled", "failed", "complete"]


def test_history_is_cut_to_the_newest_turns(state: State) -> None:
    """With a limit the newest turns come, still oldest first."""
    conversation_id = state.create_conversation("anna", "x")
    for number in range(5):
        state.add_turn("anna", conversation_id, f"q{number}", answer(f"a{number}"), "complete")
    assert [turn.question for turn in state.history("anna", conversation_id, limit=2)] == ["q3", "q4"]


def test_history_before_a_position_is_what_was_known_then(state: State) -> None:
    """The turns from that position on are left out; the limit takes the newest of what is left."""
    conversation_id = state.create_conversation("anna", "x")
    for number in range(4):
        state.add_turn("anna", conversation_id, f"q{number}", answer(f"a{number}"), "complete")
    assert [turn.question for turn in state.history("anna", conversation_id, before=4)] == ["q0", "q1"]
    assert [turn.question for turn in state.history("anna", conversation_id, 1, before=4)] == ["q1"]
    assert state.history("anna", conversation_id, before=0) == ()


def test_an_answer_keeps_the_passages_of_the_history_it_was_written_from(state: State) -> None:
    """Inherited passages are stored once each, after the answer's own."""
    conversation_id = state.create_conversation("anna", "x")
    state.add_turn("anna", conversation_id, "q1", answer("a1", passage("secret", "secret")), "complete")
    earlier = state.history("anna", conversation_id)[0].passages
    own = answer("a2", passage("doc2"), passage("secret", "secret"))
    state.add_turn("anna", conversation_id, "q2", own, "complete", inherited=[*earlier, *earlier])
    stored = state.history("anna", conversation_id)[1].passages
    assert [each.document_id for each in stored] == ["doc2", "secret"]


def test_another_owners_conversation_is_not_there(state: State) -> None:
    """Every call with somebody else's id raises the same error as one with an id that does not exist."""
    conversation_id = state.create_conversation("anna", "private")
    state.add_turn("anna", conversation_id, "private", answer(), "complete")
    for asked_id in (conversation_id, "x' OR '1'='1", ""):
        for call in (
            lambda: state.conversation("ben", asked_id),  # noqa: B023 - called at once
            lambda: state.messages("ben", asked_id),  # noqa: B023
            lambda: state.history("ben", asked_id),  # noqa: B023
            lambda: state.begin_turn("ben", asked_id, "q"),  # noqa: B023
            lambda: state.add_turn("ben", asked_id, "q", answer(), "complete"),  # noqa: B023
            lambda: state.delete_conversation("ben", asked_id),  # noqa: B023
        ):
            with pytest.raises(NotFound, match="no conversation"):
                call()
    assert state.conversations("ben", None, 10) == ((), None)
    assert len(state.messages("anna", conversation_id)[0]) == 2


def test_pages_show_every_conversation_once_last_used_first(state: State) -> None:
    """Following the cursor gives all conversations, the one used last at the front."""
    made = [state.create_conversation("anna", f"conversation {number}") for number in range(5)]
    state.add_turn("anna", made[1], "again", answer(), "complete")
    seen: list[str] = []
    cursor: str | None = None
    pages = 0
    while True:
        page, cursor = state.conversations("anna", cursor, 2)
        seen += [each.conversation_id for each in page]
        pages += 1
        if cursor is None:
            break
    assert seen == [made[1], made[4], made[3], made[2], made[0]]
    assert pages == 3


@pytest.mark.parametrize("cursor", ["nonsense", "AAAA", "2026-11-23", "' OR 1=1 --", "é"])
def test_a_foreign_cursor_is_refused(state: State, cursor: str) -> None:
    """A cursor that is not ours is an invalid request, not an empty page."""
    with pytest.raises(Invalid, match="cursor"):
        state.conversations("anna", cursor, 10)


def test_messages_are_paged_from_the_newest(state: State) -> None:
    """The first page is the end of the conversation, `before` leads to what came earlier, without gap or overlap."""
    conversation_id = state.create_conversation("anna", "x")
    for number in range(4):
        state.add_turn("anna", conversation_id, f"q{number}", answer(f"a{number}"), "complete")
    newest, more = state.messages("anna", conversation_id, limit=3)
    assert ([each.content for each in newest], more) == (["a2", "q3", "a3"], True)
    older, more = state.messages("anna", conversation_id, before=newest[0].position, limit=5)
    assert ([each.content for each in older], more) == (["q0", "a0", "q1", "a1", "q2"], False)


def test_a_long_first_question_becomes_a_short_title(state: State) -> None:
    """The title is one line of 80 characters at most that ends in an ellipsis where it was cut."""
    conversation_id = state.create_conversation("anna", "Why\n\n" + "so " * 100)
    title = state.conversation("anna", conversation_id).title
    assert title.startswith("Why so so")
    assert len(title) <= 80
    assert title.endswith("…")


def test_a_deleted_conversation_leaves_no_byte_in_the_files(tmp_path: Path) -> None:
    """After deleting, the texts stand neither in the database nor in its write-ahead log."""
    state = State(tmp_path / "service.db")
    conversation_id = state.create_conversation("anna", "canary-title")
    state.add_turn("anna", conversation_id, "canary-question " * 500, answer("canary-answer " * 500), "complete")
    state.delete_conversation("anna", conversation_id)
    files = sorted(tmp_path.iterdir())
    assert any(b"SQLite" in file.read_bytes() for file in files)
    assert [file.name for file in files if b"canary" in file.read_bytes()] == []
    with pytest.raises(NotFound):
        state.messages("anna", conversation_id)


def test_a_turn_is_written_whole_or_not_at_all(state: State) -> None:
    """When the answer's message cannot be written, the question is not there either."""
    conversation_id = state.create_conversation("anna", "x")
    first = state.add_turn("anna", conversation_id, "q1", answer(), "complete")
    taken = Answer(**{name: getattr(answer(), name) for name in Answer.__slots__} | {"message_id": first})
    with pytest.raises(StateError):
        state.add_turn("anna", conversation_id, "q2", taken, "complete")
    assert [message.content for message in state.messages("anna", conversation_id)[0]] == ["q1", "Within 30 days. [1]"]


def test_turns_added_at_once_all_arrive(state: State) -> None:
    """Eight threads writing to one conversation lose nothing and share no position."""
    conversation_id = state.create_conversation("anna", "x")
    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(
                lambda number: state.add_turn("anna", conversation_id, f"q{number}", answer(f"a{number}"), "complete"),
                range(24),
            )
        )
    history = state.history("anna", conversation_id)
    assert sorted(turn.question[1:] for turn in history) == sorted(str(number) for number in range(24))
    assert all(turn.question[1:] == turn.answer[1:] for turn in history)


def test_nul_and_odd_characters_come_back_as_they_were(state: State) -> None:
    """NUL, right-to-left marks and emoji are stored exactly."""
    text = "a\x00b \u202e \U0001f468\u200d\U0001f469 e\u0301"
    conversation_id = state.create_conversation("anna", text)
    state.add_turn("anna", conversation_id, text, answer(text), "complete")
    assert state.history("anna", conversation_id)[0].question == text


def test_the_file_is_the_owners_alone(tmp_path: Path) -> None:
    """Conversations are private: nobody else on the machine may read the file."""
    State(tmp_path / "service.db")
    assert (tmp_path / "service.db").stat().st_mode & 0o077 == 0


def _damage_header(path: Path) -> None:
    path.write_bytes(b"this is not a database at all, but it is long enough" + path.read_bytes()[52:])


def _damage_page(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096:8192] = b"\xff" * 4096
    path.write_bytes(bytes(data))


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def _set_newer_version(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")


def _set_older_version(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 1")


def _set_application(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA application_id = 7")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_damage_header, "not a database"),
        (_damage_page, "damaged|malformed"),
        (_truncate, "damaged|malformed"),
        (_empty, "empty"),
        (_set_newer_version, "schema version is 99, this program knows 3; use the program that wrote it$"),
        (_set_older_version, "schema version is 1, this program knows 3; use the program .* or move the file away to begin"),
        (_set_application, "not a database of Archivist"),
    ],
)
def test_a_file_that_is_not_what_we_wrote_is_refused(tmp_path: Path, damage: object, says: str) -> None:
    """Threat A6: damage, an empty file, another version or another program's file is a clear error, and it is left alone."""
    path = tmp_path / "service.db"
    state = State(path)
    conversation_id = state.create_conversation("anna", "x")
    state.add_turn("anna", conversation_id, "q", answer(), "complete")
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    state.close()
    assert callable(damage)
    damage(path)
    before = path.read_bytes()
    with pytest.raises(StateError, match=says) as refused:
        State(path)
    assert str(path) in str(refused.value)
    assert path.read_bytes() == before


def test_a_folder_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    """Where the database cannot be made the error names its path."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StateError, match=r"service\.db.*could not be made"):
        State(tmp_path / "file" / "service.db")


def test_check_sees_a_locked_database_within_a_second(tmp_path: Path) -> None:
    """Another process that holds the write lock makes `check` fail soon, and when it lets go all is well again."""
    state = State(tmp_path / "service.db")
    state.check()
    holder = sqlite3.connect(tmp_path / "service.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(StateError, match="locked"):
        state.check()
    holder.execute("ROLLBACK")
    holder.close()
    state.check()


def test_errors_do_not_repeat_what_was_stored(state: State) -> None:
    """A failing write does not tell the question."""
    conversation_id = state.create_conversation("anna", "x")
    taken = Answer(**{name: getattr(answer(), name) for name in Answer.__slots__} | {"message_id": "same"})
    state.add_turn("anna", conversation_id, "canary-question", taken, "complete")
    with pytest.raises(StateError) as failed:
        state.add_turn("anna", conversation_id, "canary-question", taken, "complete")
    assert "canary" not in f"{failed.value} {failed.value.__cause__}"
