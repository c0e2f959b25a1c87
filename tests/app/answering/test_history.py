"""What a question means in the light of the conversation, by rules alone."""

from __future__ import annotations

import pytest

from app.answering.history import EARLIER_WEIGHT, Standalone, depends_on_history, understand
from corpus.types import Message
from tests.app.answering.passages import growth

FIRST = "How many days of parental leave do employees in Leeds get?"


def turns(*questions: str) -> list[Message]:
    """A conversation of these questions, each answered."""
    return [message for each in questions for message in (Message("user", each), Message("assistant", f"Answer to {each}"))]


@pytest.mark.parametrize("question", [FIRST, "and for contractors?", "¿Y eso?", "", "???", "it"])
def test_without_a_history_the_question_is_unchanged(question: str) -> None:
    """However much a first question seems to depend on something, it is searched for as it is."""
    assert understand(question, (), 2) == Standalone(question, ((question, 1.0),))


@pytest.mark.parametrize(
    "question",
    [
        "How do employees report the expenses of a journey abroad?",
        "Welches Formular benutzen Angestellte für die Reisekostenabrechnung?",
        "¿Cuántos días de vacaciones tienen los empleados de Valencia?",
    ],
    ids=["en", "de", "es"],
)
def test_a_question_that_stands_alone_is_not_changed_by_the_conversation(question: str) -> None:
    """A question with a subject of its own has the same searches with a history as without."""
    assert understand(question, turns(FIRST), 2) == Standalone(question, ((question, 1.0),))


@pytest.mark.parametrize(
    "question",
    [
        "and for contractors?",
        "What about employees in the Regensburg office building?",
        "Does it also apply to temporary employees during probation?",
        "How often do we get in touch with the customer meanwhile?",
        "How many of those may be carried over until next March?",
        "Why?",
        "Und für Leiharbeiter?",
        "Gilt das dort auch für befristet angestellte Mitarbeiter?",
        "Wie viele Tage davon können Mitarbeiter übertragen?",
        "¿Y para los contratistas externos de la oficina?",
        "¿Los empleados temporales también tienen derecho a eso?",
        "¿Qué pasa con los trabajadores temporales de Valencia?",
    ],
)
def test_a_question_that_points_back_is_fused_with_the_one_before(question: str) -> None:
    """It is searched for alone and together with the earlier question, and the latter is what people are shown."""
    together = f"{FIRST} {question}"
    assert understand(question, turns(FIRST), 2) == Standalone(together, ((question, 1.0), (together, EARLIER_WEIGHT)))


def test_it_reaches_back_through_turns_that_depend_on_each_other() -> None:
    """A follow-up of a follow-up takes both, in the order they were asked."""
    found = understand("and how long?", turns(FIRST, "And for contractors?"), 2)
    assert found.question == f"{FIRST} And for contractors? and how long?"


def test_it_stops_at_the_first_question_that_stands_alone() -> None:
    """What was asked before the question that is meant does not count."""
    history = turns("Which printer stands in the hall of the second floor?", FIRST)
    assert understand("and for contractors?", history, 5).question == f"{FIRST} and for contractors?"


@pytest.mark.parametrize(("limit", "used"), [(0, 0), (1, 1), (2, 2), (9, 4)])
def test_it_reaches_back_over_so_many_turns_at_most(limit: int, used: int) -> None:
    """With every turn dependent on the one before, `turns` of them are used."""
    earlier = ["and one?", "and two?", "and three?", "and four?"]
    expected = " ".join([*earlier[len(earlier) - used :], "and five?"])
    assert understand("and five?", turns(*earlier), limit).question == expected


def test_answers_are_not_searched_for() -> None:
    """Only what the user said is fused: an answer's words would find the answer again."""
    found = understand("and then?", [Message("user", FIRST), Message("assistant", "CANARY"), Message("system", "CANARY")], 3)
    assert all("CANARY" not in text for text, _ in found.searches)


@pytest.mark.parametrize("piece", ["!", "it ", "what about ", "a", "y o ", "\n", "💶", "qué pasa con"])
def test_understanding_takes_linear_time(piece: str) -> None:
    """Four times the question takes four times as long, whatever it is made of."""
    assert growth(lambda n: depends_on_history(piece * n), 50_000 // len(piece)) < 8


def test_a_megabyte_is_understood_in_time() -> None:
    """One question of a million letters after another of a million words takes less than two seconds."""
    assert understand("a" * 1_000_000, turns("it " * 300_000), 2).question.endswith("aaa")
