"""Golden sets: what is read, and what is said of a row that is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from corpus.types import Message
from evaluation.golden import GoldenError, read_golden

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
        ("{not json", "JSONDecodeError"),
        ('["a list"]', ""),
        ({"id": "q2"}, "KeyError: 'question'"),
        ({"question": "Who?"}, "KeyError: 'id'"),
        (ROW | {"history": [{"role": "user"}]}, "KeyError: 'content'"),
        (ROW | {"gold": {"parking.md": "much"}}, "invalid literal for int.*'much'"),
        (ROW | {"gold": ["parking.md"]}, ""),
        (ROW | {"answers": 7}, ""),
    ],
    ids=["no json", "a list", "no question", "no id", "turn without content", "relevance", "gold a list", "answers a number"],
)
def test_a_wrong_row_is_named_by_its_line(tmp_path: Path, row: dict[str, Any] | str, says: str) -> None:
    """The error has the file, the line and what is wrong there."""
    path = golden(tmp_path, {"id": "first", "question": "Fine?"}, row)
    with pytest.raises(GoldenError, match=rf"golden\.jsonl line 2: not a question \(.*{says}"):
        read_golden(path)


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
