"""The topic switches over the sample handbook: turns that look like follow-ups and are none."""

from __future__ import annotations

from pathlib import Path

from app.answering.history import depends_on_history, understand
from evaluation.golden import read_golden

EXAMPLES = Path(__file__).parents[2] / "examples"
SWITCHES = read_golden(EXAMPLES / "topic-switches.jsonl")


def test_each_names_documents_that_there_are() -> None:
    """Thirty turns, each behind an earlier question, each with its document in the handbook."""
    assert len(SWITCHES) == 30
    for switch in SWITCHES:
        assert [message.role for message in switch.history] == ["user"]
        assert switch.kind == "topic_switch"
        for source in switch.gold:
            assert (EXAMPLES / "handbook" / source.split("#")[0]).is_file(), source


def test_most_are_taken_for_follow_ups() -> None:
    """The gate lets 27 of them reach back: what docs/retrieval.md reports is the harm that this does."""
    assert sum(depends_on_history(switch.question) for switch in SWITCHES) == 27


def test_the_question_alone_is_always_one_of_the_searches() -> None:
    """Whatever the gate says, the new topic is searched for by itself too, at full weight."""
    for switch in SWITCHES:
        assert understand(switch.question, switch.history, 2).searches[0] == (switch.question, 1.0)
