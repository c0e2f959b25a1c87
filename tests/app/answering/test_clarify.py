"""A question back, where a question says too little and several documents match about equally."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.answering.clarify import ALIKE, Clarification, clarification, is_underspecified
from corpus.types import Hit, Passage
from tests.app.answering.passages import passage

LEEDS = passage("Parking in Leeds costs 40 GBP.", number=1, title="Leeds office")
MUNICH = passage("Parking in Munich is free.", number=2, title="Munich office")
CANTEEN = passage("The canteen opens at noon.", number=3, title="Canteen")


def asked(question: str, *found: tuple[Passage, float], has_history: bool = False) -> Clarification | None:
    """What comes back for a question, with passages found at scores."""
    hits = [Hit(each, score) for each, score in found]
    return clarification(question, has_history=has_history, hits=hits, passages=[each for each, _ in found])


def test_it_names_the_documents_that_match_alike_with_their_markers() -> None:
    """Each choice stands on a line with the number of its passage; what matches worse is no choice."""
    assert asked("parking", (LEEDS, 1.0), (MUNICH, 0.95), (CANTEEN, 0.5)) == Clarification(
        "Your question could be about several things. Which of these do you mean?\n"
        "- Leeds office [1]\n"
        "- Munich office [2]\n\n"
        "Please ask again and name it.",
        (1, 2),
    )


def test_nothing_is_asked_where_one_document_stands_out() -> None:
    """One that is better than the others by more than a little is what was meant."""
    assert asked("parking", (LEEDS, 1.0), (MUNICH, 1.0 - ALIKE - 0.01)) is None


def test_nothing_is_asked_where_there_is_a_history() -> None:
    """A follow-up is understood by the turns before it."""
    assert asked("parking", (LEEDS, 1.0), (MUNICH, 1.0), has_history=True) is None


def test_two_passages_of_one_document_are_no_choice() -> None:
    """What is chosen between is documents."""
    assert asked("parking", (LEEDS, 1.0), (replace(LEEDS, text="More.", chunk_id="x"), 1.0)) is None


def test_documents_of_one_title_are_told_apart_by_their_source() -> None:
    """Two of one name are shown with where they are."""
    found = asked("parking", (LEEDS, 1.0), (replace(MUNICH, title="Leeds office"), 1.0))
    assert found is not None
    assert found.text.splitlines()[1:3] == ["- Leeds office [1]", "- Leeds office (handbook/2.md) [2]"]


def test_documents_without_a_word_of_the_question_are_no_choice() -> None:
    """What is only near is not what is meant: that there is no answer is said instead."""
    assert asked("moons", (LEEDS, 1.0), (MUNICH, 1.0)) is None


def test_there_are_four_choices_at_most() -> None:
    """Of six documents that match alike the first four are named."""
    many = [(passage("Parking.", number=n, title=f"Office {chr(64 + n)}"), 1.0) for n in range(1, 7)]
    found = asked("parking", *many)
    assert found is not None
    assert found.numbers == (1, 2, 3, 4)


def test_a_bracket_in_a_title_is_no_marker() -> None:
    """A title cannot forge a citation."""
    found = asked("parking", (replace(LEEDS, title="Leeds [2]"), 1.0), (MUNICH, 1.0))
    assert found is not None
    assert found.text.splitlines()[1] == "- Leeds (2) [1]"


@pytest.mark.parametrize(
    ("question", "begins"),
    [("Wie ist das mit Parking?", "Ihre Frage"), ("¿Y el parking?", "Su pregunta"), ("parking", "Your question")],
)
def test_it_is_in_the_language_of_the_question(question: str, begins: str) -> None:
    """German and Spanish questions are answered in kind, all others in English."""
    found = asked(question, (LEEDS, 1.0), (MUNICH, 1.0))
    assert found is not None
    assert found.text.startswith(begins)


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("parking", True),
        ("And in Leeds?", True),
        ("What about it?", True),
        ("How long does that take?", True),
        ("Which planet has the most moons?", False),
        ("What does form HR-112 mean?", False),
        ("2025?", False),
        ("How much is parking in Leeds per month?", False),
        ("Who approves travel abroad for interns?", False),
    ],
)
def test_what_is_underspecified(question: str, expected: bool) -> None:
    """Next to nothing, or little that points back to nothing; a figure or a code is enough to be clear."""
    assert is_underspecified(question) is expected
