"""`archivist documents`: what is decided on the command line, what it refuses, and that it holds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from archivist.cli import app as cli
from corpus.types import document_id_of

TRAVEL = document_id_of("documents", "policies/travel.md")
SALARIES = document_id_of("documents", "board/salaries.md")


def invoke(data: Path, *arguments: str) -> Result:
    """The command over a data folder."""
    return CliRunner().invoke(cli, ["documents", *arguments, "--data", str(data)])


def told(data: Path, *arguments: str) -> Any:
    """What it prints as JSON."""
    result = invoke(data, *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture
def data(organisation: Path, tmp_path: Path) -> Path:
    """This test's own copy of the small organisation's data folder."""
    return Path(shutil.copytree(organisation / "data", tmp_path / "data"))


def test_documents_are_listed_as_they_may_be_seen_now(data: Path) -> None:
    """A deleted one is gone, one that was relabelled or lost a group shows it, whoever may see it; an undo brings it back."""
    before = {each["document_id"]: each for each in told(data, "list")}
    assert {"policies/travel.md", "board/salaries.md", "faq.jsonl#2"} <= {each["source"] for each in before.values()}
    assert told(data, "delete", TRAVEL)["number"] == 1
    assert told(data, "relabel", SALARIES, "secret")["value"] == "secret"
    after = {each["document_id"]: each for each in told(data, "list")}
    assert before.keys() - after.keys() == {TRAVEL}
    assert (before[SALARIES]["label"], after[SALARIES]["label"]) == ("confidential", "secret")
    assert told(data, "revoke", SALARIES, "board")["kind"] == "revoke"
    assert SALARIES not in {each["document_id"] for each in told(data, "list")}
    assert invoke(data, "undo", "1").stdout == f"Undone: 1, delete {TRAVEL}.\n"
    assert TRAVEL in {each["document_id"] for each in told(data, "list")}
    shown = invoke(data, "overrides").stdout.splitlines()
    assert [line.strip().split("  ")[2] for line in shown] == [
        f"delete {TRAVEL}", f"relabel {SALARIES} secret", f"revoke {SALARIES} board",
    ]  # fmt: skip
    assert [each["undone_at"] is None for each in told(data, "overrides")] == [False, True, True]
    assert [each["seen_in"] for each in told(data, "overrides")] == [1, 1, 1]


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (["delete", "a" * 26], "NotFound", "document in any snapshot"),
        (["revoke", TRAVEL, "board"], "ConfigError", "these may: everyone"),
        (["relabel", TRAVEL, "scret"], "ConfigError", "known: public, internal"),
        (["undo", "7"], "NotFound", "'7'"),
    ],
    ids=["unknown document", "group without access", "unknown label", "unknown number"],
)
def test_what_would_have_no_effect_is_refused(data: Path, arguments: list[str], error: str, words: str) -> None:
    """Each by name, and nothing is written."""
    result = invoke(data, *arguments)
    assert type(result.exception).__name__ == error
    assert words in str(result.exception)
    assert told(data, "overrides") == []


def test_a_second_delete_is_refused(data: Path) -> None:
    """It would take two undos to bring the document back."""
    told(data, "delete", TRAVEL)
    assert type(invoke(data, "delete", TRAVEL).exception).__name__ == "Conflict"


def test_a_folder_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    """A misspelt folder gets no database."""
    assert type(invoke(tmp_path / "none", "overrides").exception).__name__ == "NoSnapshot"
    assert not (tmp_path / "none").exists()
