"""Golden sets: what is read, and what is said of a row that is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from corpus.types import Message
from evaluation.golden import GoldenError, Question, read_golden

ROW: dict[str, Any] = {"id": "q1", "question": "Where do visitors park?"}


def golden(folder: Path, *rows: dict[str, Any] | str) -> Path:
    """A golden set of these rows."""
    path = folder / "golden.jsonl"
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_row_is_read_with_all_its_fields(tmp_path: Path) -> None:
    """History, gold, answers, answerability, kind and groups arrive as they were written; blank lines do not count."""
    row = ROW | {
        "history": [{"role": "user", "content": "I come by car."}, {"role": "assistant", "content": "Good."}],
        "gold": {"parking.md": 2, "map.pdf": 1},
        "answers": ["in the yard"],
        "answerability": "PARTIAL",
        "kind": "followup",
        "groups": ["everyone", "board"],
    }
    (question,) = read_golden(golden(tmp_path, "", row, "  "))
    assert question.history == (Message("user", "I come by car."), Message("assistant", "Good."))
    assert question.gold == {"parking.md": 2, "map.pdf": 1}
    assert (question.answers, question.answerability, question.kind) == (("in the yard",), "PARTIAL", "followup")
    assert question.groups == ("everyone", "board")
    assert question.is_answerable


def test_a_short_row_has_the_defaults(tmp_path: Path) -> None:
    """Without gold a question is unanswerable; without groups it is asked with the configured ones."""
    (question,) = read_golden(golden(tmp_path, ROW))
    assert (question.history, question.gold, question.answers, question.groups) == ((), {}, (), None)
    assert not question.is_answerable


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("{not json", r"not JSON \(Expecting property name.*; mend the line or remove it"),
        ('["a list"]', "not a JSON object, but '"),
        ({"id": "q2"}, "field 'question': field required; mend the row or remove it"),
        (ROW | {"question": "  "}, "field 'question': .*, not '  '"),
        (ROW | {"id": True}, "field 'id': .*, not True"),
        (ROW | {"history": [{"role": "user"}]}, "field 'history.0.content': field required"),
        (
            ROW | {"history": [{"role": "system", "content": "x"}]},
            "field 'history.0.role': input should be 'user' or 'assistant'",
        ),
        (ROW | {"gold": {"parking.md": "much"}}, "field 'gold.parking.md': .*integer, not 'much'"),
        (ROW | {"gold": {"parking.md": -1}}, "field 'gold.parking.md': .*, not -1"),
        (ROW | {"gold": ["parking.md"]}, "field 'gold': .*dictionary"),
        (ROW | {"answers": "in the yard"}, "field 'answers': .*list, not 'in the yard'"),
        (ROW | {"answerability": "MAYBE"}, "field 'answerability': .*'UNANSWERABLE', not 'MAYBE'"),
        (ROW | {"answerability": "UNANSWERABLE", "gold": {"a.md": 1}}, "field 'answerability': .*though there is gold"),
        (ROW | {"groups": []}, "field 'groups': .*at least 1 item"),
        (ROW | {"answer": ["in the yard"]}, "field 'answer': no such field; 'answers' is probably meant"),
        (ROW | {"group": ["board"]}, "field 'group': no such field; 'groups' is probably meant"),
    ],
)
def test_a_wrong_row_is_named_by_its_line_and_field(tmp_path: Path, row: dict[str, Any] | str, says: str) -> None:
    """The error has the file, the line, the field, the value and what to do."""
    path = golden(tmp_path, {"id": "first", "question": "Fine?"}, row)
    with pytest.raises(GoldenError, match=rf"golden\.jsonl line 2: {says}"):
        read_golden(path)


def test_fields_of_a_data_set_s_own_are_passed_over(tmp_path: Path) -> None:
    """What is not like a field of ours is none of our business; a type is a kind by another name."""
    row = ROW | {"turn": 3, "question_type": ["Factoid"], "rewrite": "?", "history_full": True, "type": "factoid"}
    (question,) = read_golden(golden(tmp_path, row))
    assert question.kind == "factoid"


def test_a_row_needs_no_id_and_a_number_is_one(tmp_path: Path) -> None:
    """A row without an id is called by its line."""
    found = read_golden(golden(tmp_path, {"question": "Who?"}, {"question": "When?", "id": 7}))
    assert [question.id for question in found] == ["line-1", "7"]


@pytest.mark.parametrize(
    ("fields", "answerability", "expected"),
    [
        ({"gold": {"a.md": 1}}, "ANSWERABLE", "answer"),
        ({"answers": ["yes"]}, "ANSWERABLE", "answer"),
        ({}, "UNANSWERABLE", "abstention"),
        ({"answerability": "", "gold": {"a.md": 0}}, "UNANSWERABLE", "abstention"),
        ({"answerability": "PARTIAL", "gold": {"a.md": 1}}, "PARTIAL", "answer"),
        ({"answerability": "UNDERSPECIFIED", "gold": {"a.md": 1}}, "UNDERSPECIFIED", "either"),
    ],
)
def test_what_is_expected_follows_from_the_row(
    tmp_path: Path, fields: dict[str, Any], answerability: str, expected: str
) -> None:
    """Where a row does not say, gold or an answer means that there is one; gold of relevance 0 is none."""
    (question,) = read_golden(golden(tmp_path, ROW | fields))
    assert (question.answerability, question.expected) == (answerability, expected)


def test_the_best_gold_is_that_of_the_highest_relevance() -> None:
    """Related documents are gold too, and not the best."""
    assert Question("q", "?", gold={"a": 2, "b": 1, "c": 2}).best_gold == {"a", "c"}
    assert Question("q", "?").best_gold == frozenset()


def test_turns_belong_to_their_conversation(tmp_path: Path) -> None:
    """By name, or by an id of MTRAG's form; a question of none stands for itself."""
    rows = ({"id": "c1<::>1"}, {"id": "c1<::>2"}, {"id": "x", "conversation": "c2"}, {"id": "y"})
    found = read_golden(golden(tmp_path, *({"question": "?!", **row} for row in rows)))
    assert [question.cluster for question in found] == ["c1", "c1", "c2", "y"]


def test_an_id_given_twice_is_refused(tmp_path: Path) -> None:
    """Metrics are counted by id."""
    with pytest.raises(GoldenError, match="id 'q1' stands twice"):
        read_golden(golden(tmp_path, ROW, ROW))


def test_a_file_without_questions_is_refused(tmp_path: Path) -> None:
    """An empty set would make every share a share of nothing."""
    with pytest.raises(GoldenError, match="holds no question"):
        read_golden(golden(tmp_path, "", ""))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """The path is in the error."""
    with pytest.raises(GoldenError, match=r"nowhere\.jsonl' cannot be read"):
        read_golden(tmp_path / "nowhere.jsonl")
