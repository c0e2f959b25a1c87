"""The prompt: its files, its budget, what goes first when room is short."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.answering.prompt import Built, Prompts, build, shown
from app.settings import PromptSettings
from corpus.embedders.embedder import Embedder
from corpus.errors import ConfigError, Invalid
from corpus.types import Message, Passage, Role
from tests.app.answering.passages import passage
from tests.app.serving import PROMPTS as FOLDER

PROMPTS = Prompts.load(PromptSettings(folder=FOLDER))
WORDS = st.sampled_from(
    ["leave", "{question}", "{passages}", "{}", "{0}", "}", "{", "%s", "[1]", "\n", "travel desk", "x" * 30]
)
ROLES: st.SearchStrategy[Role] = st.sampled_from(("user", "assistant"))
TEXT = st.lists(WORDS, min_size=1, max_size=25).map(" ".join)


def words(text: str) -> int:
    """A token counter as simple as it can be."""
    return len(text.split()) + 1


def built(question: str, history: list[Message], passages: list[Passage], budget: int, instructions: str = "") -> Built:
    """A prompt counted in words."""
    return build(PROMPTS, question, history, passages, budget_tokens=budget, count_tokens=words, instructions=instructions)


@given(
    TEXT,
    st.lists(st.builds(Message, ROLES, TEXT), max_size=12),
    st.lists(TEXT, max_size=12),
    st.integers(260, 700),
)
@settings(max_examples=300, deadline=None)
def test_a_prompt_is_within_its_budget_and_whole_in_its_parts(
    question: str, history: list[Message], texts: list[str], budget: int
) -> None:
    """Never over the budget; the newest messages and best passages are kept, uncut; the question is there, as it is."""
    passages = [passage(text, number=number) for number, text in enumerate(texts, start=1)]
    made = built(question, history, passages, budget)
    assert sum(words(message.content) + 4 for message in made.messages) <= made.tokens <= budget
    assert list(made.history) == history[len(history) - len(made.history) :]
    assert not made.history or made.history[0].role == "user"
    assert list(made.passages) == passages[: len(made.passages)]
    system, *earlier, asked = made.messages
    assert (system.role, asked.role, tuple(earlier)) == ("system", "user", made.history)
    assert system.content == PROMPTS.system
    listed = "\n\n".join(shown(number, each) for number, each in enumerate(made.passages, start=1))
    assert asked.content == PROMPTS.passages.replace("{passages}", "\x00").replace("{question}", question).replace(
        "\x00", listed
    )


def test_everything_is_kept_where_there_is_room() -> None:
    """A budget that is large enough loses nothing."""
    history = [Message("user", "one"), Message("assistant", "two"), Message("user", "three")]
    passages = [passage("first"), passage("second", number=2)]
    made = built("question", history, passages, 2000)
    assert list(made.history) == history
    assert list(made.passages) == passages


def test_the_history_takes_a_third_at_most_and_loses_its_oldest_turns() -> None:
    """With long turns only the newest pair is kept, beginning with the user's; the passages keep their room."""
    history = [Message(role, f"{number} " + "word " * 40) for number in range(4) for role in ("user", "assistant")]
    passages = [passage("text " * 50, number=number) for number in range(1, 4)]
    made = built("question", history, passages, 500)
    assert list(made.history) == history[-2:]
    assert list(made.passages) == passages


def test_an_answer_without_its_question_is_left_out() -> None:
    """Where only the answer would fit, the history is empty."""
    made = built("question", [Message("user", "word " * 500), Message("assistant", "short")], [], 400)
    assert made.history == ()


def test_a_passage_is_shown_with_its_number_place_and_page() -> None:
    """The line above the text names title, headings and page."""
    found = passage("Text.", title="Leave", heading=("Carry over", "Until"), page=3)
    assert shown(2, found) == "[2] Leave › Carry over › Until (page 3)\nText."
    assert shown(1, passage("Text.", title="Leave")) == "[1] Leave\nText."


def test_a_callers_instructions_come_after_ours() -> None:
    """They are part of the system message and of its cost."""
    made = built("question", [], [], 600, instructions="Speak {like} a pirate.")
    assert made.messages[0].content == f"{PROMPTS.system}\n\nSpeak {{like}} a pirate."


def test_a_question_over_the_budget_is_refused() -> None:
    """The error says by how much and names the key."""
    with pytest.raises(Invalid, match=r"\d+ tokens over prompt\.budget_tokens 300; shorten") as caught:
        built("word " * 300, [], [], 300)
    assert caught.value.field == "question"


def test_a_question_that_leaves_no_room_for_a_passage_is_refused() -> None:
    """Rather than to say that nothing was found; the error says what is left and names the key."""
    with pytest.raises(Invalid, match=r"leave \d+ of prompt\.budget_tokens 300, too few for a passage") as caught:
        built("Where?", [], [passage("word " * 300)], 300)
    assert caught.value.field == "question"


def test_counted_by_the_model_the_whole_prompt_is_within_the_budget(embedder: Embedder) -> None:
    """With the real tokenizer, the finished messages counted again are not over the budget."""
    texts = ["Überstunden müssen genehmigt werden. " * 9, "Trips are booked early. " * 20, "日本語 👩‍👩‍👧 ½ " * 15] * 4
    passages = [passage(text, number=number) for number, text in enumerate(texts, start=1)]
    history = [Message("user", "And then? " * 20), Message("assistant", "Then this. " * 30)] * 5
    made = build(PROMPTS, "When?", history, passages, budget_tokens=900, count_tokens=embedder.count_tokens)
    assert 1 <= len(made.passages) < len(passages)
    assert 700 < sum(embedder.count_tokens(message.content) + 4 for message in made.messages) <= 900


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the prompt files."""
    return Path(shutil.copytree(FOLDER, tmp_path / "prompts"))


@pytest.mark.parametrize("name", ["system.txt", "passages.txt", "rewrite.txt"])
def test_the_version_changes_with_every_file(folder: Path, name: str) -> None:
    """One more word anywhere is another version; the same files are the same one."""
    assert Prompts.load(PromptSettings(folder=folder)).version == PROMPTS.version
    (folder / name).write_text((folder / name).read_text() + "\nBe kind.")
    assert Prompts.load(PromptSettings(folder=folder)).version != PROMPTS.version


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("passages.txt", None, "No such file"),
        ("system.txt", None, "No such file"),
        ("passages.txt", b"{passages}", r"must hold \{passages\}, \{question\}"),
        ("passages.txt", b"{passages} {question} {more}", "no other field"),
        ("passages.txt", b"{passages} {question} {}", "no other field"),
        ("passages.txt", b"{passages} {question.__class__}", "no other field"),
        ("passages.txt", b"{passages} {question", "cannot be used"),
        ("rewrite.txt", b"{question}", r"must hold \{conversation\}, \{question\}"),
        ("rewrite.txt", b"\xff\xfe", "cannot be used"),
    ],
)
def test_a_wrong_prompt_file_is_a_config_error(folder: Path, name: str, content: bytes | None, says: str) -> None:
    """A file that is missing, not text or without its fields is named with its path."""
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(ConfigError, match=says) as caught:
        Prompts.load(PromptSettings(folder=folder))
    assert str(folder / name) in str(caught.value)


def test_without_a_folder_there_are_no_prompts() -> None:
    """The error names the key."""
    with pytest.raises(ConfigError, match=r"prompt\.folder"):
        Prompts.load(PromptSettings())


def test_braces_in_the_system_prompt_mean_nothing(folder: Path) -> None:
    """It has no fields, so it is used as it is."""
    (folder / "system.txt").write_text("Answer as {json}. {")
    assert Prompts.load(PromptSettings(folder=folder)).system == "Answer as {json}. {"
