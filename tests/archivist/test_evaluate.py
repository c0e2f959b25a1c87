"""`archivist evaluate`: exit codes, files, and what it says of arguments that it cannot use."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from app.answering.types import Answer, Citation, Grounding
from app.llm.backend import Usage
from app.state.state import State
from archivist import cli, evaluate
from corpus.embedders.embedder import Embedder
from corpus.published import current_id
from corpus.settings import SearchSettings
from corpus.snapshot import open_current
from tests.conftest import Run
from tests.making import job_settings, write_files

ROWS = (
    {"id": "a", "question": "Where do visitors park?", "gold": {"faq.jsonl#1": 1}, "answers": ["in the yard"]},
    {"id": "b", "question": "Which form is used for the expense report?", "gold": {"policies/travel.md": 1}, "drafted": True},
    {"id": "c", "question": "Which form is it?", "gold": {"policies/gone.md": 1}},
    {"id": "d", "question": "What does the moon weigh in kilograms?", "answerability": "UNANSWERABLE"},
)


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, embedder: Embedder) -> None:
    """A folder without a configuration, and the model that is loaded already."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(evaluate, "_embedder", lambda settings, **_: embedder)
    monkeypatch.setattr("ingest.model.open_embedder", lambda settings, **_: embedder)


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    """Four questions, two of which find their gold."""
    path = tmp_path / "golden.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return path


def archivist(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    """The exit code of a run."""
    monkeypatch.setattr(sys, "argv", ["archivist", "evaluate", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_a_run_writes_json_and_a_page(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], site: Path, golden: Path, tmp_path: Path
) -> None:
    """The same values in the table and in the JSON; the gate that was reached is in it; drafts are counted."""
    code = archivist(
        monkeypatch, golden, "--data", site / "data", "--json", "out.json", "--html", "out.html", "--min", "success@3=0.6"
    )
    told = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    shown = capsys.readouterr()
    assert code == 0, shown.err
    assert told["metrics"]["success@5"]["value"] == pytest.approx(2 / 3, abs=1e-6)
    assert told["metrics"]["key_fact"]["value"] == 1.0
    assert told["gate"] == [{"metric": "success@3", "least": 0.6, "measured": pytest.approx(2 / 3), "passed": True}]
    assert (told["k"], told["drafted"], told["gold_not_found"]) == ([5, 3], 1, {"c": ["policies/gone.md"]})
    assert "0.667" in shown.out
    assert "1 of 4 questions are drafted" in shown.out
    assert "--min success@3=0.6: 0.6667, reached" in shown.err
    assert (tmp_path / "out.html").read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize(("least", "code"), [("success@5=0.66", 0), ("success@5=0.67", 4), ("exact_match=0", 4)])
def test_a_gate_decides_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, site: Path, tmp_path: Path, golden: Path, least: str, code: int
) -> None:
    """4 where less is measured, and where nothing is: without answer strings there is no exact match."""
    rows = [{key: value for key, value in row.items() if key != "answers"} for row in ROWS]
    golden.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    only = () if least.startswith("exact") else ("--retrieval-only",)
    assert archivist(monkeypatch, golden, "--data", site / "data", *only, "--min", least) == code


def test_json_goes_to_the_output_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], site: Path, golden: Path
) -> None:
    """With `-` nothing else is printed there; --limit takes the first questions, --k the depths."""
    code = archivist(
        monkeypatch, golden, "--data", site / "data", "--retrieval-only", "--limit", "2", "--k", "1", "--k", "2", "--json", "-"
    )
    told = json.loads(capsys.readouterr().out)
    assert (code, told["questions"], told["k"], told["metrics"]["recall@1"]["value"]) == (0, 2, [1, 2], 1.0)
    assert "key_fact" not in told["metrics"]


def test_two_snapshots_are_compared(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], site: Path, golden: Path, run: Run
) -> None:
    """The question whose document came with the second snapshot is won."""
    old = current_id(site / "data")
    write_files(site / "documents", {"policies/gone.md": "# Which form is it?\n\nIt is form GO-1, says the policy.\n"})
    run(job_settings(site / "data", site / "documents"))
    new = current_id(site / "data")
    code = archivist(
        monkeypatch, golden, "--data", site / "data", "--retrieval-only", "--compare", old, new, "--json", "-",
        "--min", "success@5=0.9",
    )  # fmt: skip
    told = json.loads(capsys.readouterr().out)
    assert code == 0
    assert (told["a"]["snapshot"], told["b"]["snapshot"]) == (old, new)
    assert [(flip["question_id"], flip["won"]) for flip in told["flips"]] == [("c", True)]


def test_two_configurations_are_compared(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], site: Path, tmp_path: Path
) -> None:
    """A follow-up that only history explains is won by the configuration that looks at it."""
    history = [{"role": "user", "content": "When does the canteen serve lunch?"}, {"role": "assistant", "content": "At noon."}]
    row = {"id": "later", "question": "And until when?", "history": history, "gold": {"faq.jsonl#3": 1}}
    (tmp_path / "talk.jsonl").write_text(json.dumps(row), encoding="utf-8")
    for strategy in ("last_turn", "gated"):
        (tmp_path / f"{strategy}.yaml").write_text(f"history: {{strategy: {strategy}}}\n", encoding="utf-8")
    arguments = ("talk.jsonl", "--data", site / "data", "--retrieval-only", "--k", "1", "--html", "out.html")
    assert archivist(monkeypatch, *arguments, "--compare", "last_turn.yaml", "gated.yaml") == 0
    assert "Changed sides: 1 won by B, 0 lost" in capsys.readouterr().out
    assert "last_turn.yaml against gated.yaml" in (tmp_path / "out.html").read_text(encoding="utf-8")


def test_a_data_set_is_ingested_into_a_folder_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Below --data, beside whatever is there; without --data nothing is touched."""
    folder = tmp_path / "set"
    write_files(
        folder,
        {
            "corpus.jsonl": '{"id": "p", "title": "Parking", "text": "Visitors park in the yard behind hall three."}\n',
            "queries.jsonl": '{"id": "1", "question": "Where do visitors park?", "gold": {"p": 1}}\n',
        },
    )
    assert archivist(monkeypatch, folder) == 2
    assert "name a folder for its snapshots with --data" in capsys.readouterr().err
    assert archivist(monkeypatch, folder, "--data", "kept", "--retrieval-only", "--json", "-") == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["mrr@5"]["value"] == 1.0
    (made,) = (tmp_path / "kept").iterdir()
    assert made.name.startswith("set-")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ((), 2, "name a golden set (.jsonl) or a data set, or give --from-conversations"),
        (("nowhere.jsonl",), 1, "golden set 'nowhere.jsonl' cannot be read"),
        (("bad.jsonl",), 1, "bad.jsonl line 1: field 'gold': input should be a valid dictionary"),
        (("golden.jsonl",), 1, "no snapshot in"),
        (("golden.jsonl", "--min", "recal@5=0.9"), 2, "--min 'recal@5' is not a metric"),
        (("golden.jsonl", "--min", "recall@5"), 2, "write it as recall@5=0.9"),
        (("golden.jsonl", "--min", "key_fact=0.9", "--retrieval-only"), 2, "leave --retrieval-only out"),
        (("golden.jsonl", "--provider", "x", "--retrieval-only"), 2, "leave one of them out"),
        (("golden.jsonl", "--compare", "a.yaml", "b.yaml"), 2, "no configuration file 'a.yaml'"),
        (("golden.jsonl", "--compare", "000001-01234567", "b.yaml"), 2, "give two configuration files, or two snapshots' ids"),
        (("golden.jsonl", "--compare", "000001-01234567", "000002-01234567"), 2, "no snapshot '000001-01234567' in 'data'"),
        (("generate", "--out", "golden.jsonl"), 2, "--out 'golden.jsonl' is there already"),
        (("generate", "--out", "nowhere/golden.jsonl"), 2, "'nowhere/golden.jsonl' cannot be written: no folder 'nowhere'"),
        (("golden.jsonl", "--html", "nowhere/report.html"), 2, "'nowhere/report.html' cannot be written: no folder 'nowhere'"),
        (("generate",), 2, "Missing option"),
    ],
)
def test_a_mistake_is_one_line_and_an_exit_code(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    golden: Path,
    arguments: tuple[str, ...],
    code: int,
    says: str,
) -> None:
    """2 is for usage, 1 for a golden set or a data folder that cannot be used."""
    (golden.parent / "bad.jsonl").write_text('{"question": "Where?", "gold": ["a.md"]}\n', encoding="utf-8")
    assert archivist(monkeypatch, *arguments) == code
    shown = capsys.readouterr()
    assert says in shown.err
    assert "Traceback" not in shown.err


def test_a_draft_is_written_and_says_what_to_do_with_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], site: Path, tmp_path: Path
) -> None:
    """As many rows as were asked for, each marked; then it can be measured."""
    assert archivist(monkeypatch, "generate", "--out", "draft.jsonl", "--count", "3", "--data", site / "data") == 0
    rows = [json.loads(line) for line in (tmp_path / "draft.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["drafted"] for row in rows] == [True, True, True]
    assert "Wrote 3 rows to draft.jsonl: 0 by an LLM, 3 from headings" in capsys.readouterr().out
    assert archivist(monkeypatch, "draft.jsonl", "--data", site / "data", "--retrieval-only") == 0
    assert "3 of 3 questions are drafted" in capsys.readouterr().out


@pytest.fixture
def stored(site: Path) -> str:
    """A conversation of the local owner about parking, in the site's database; its id."""
    snapshot, _ = open_current(site / "data", SearchSettings())
    (passages,) = [p for d, p in snapshot.store.stored.documents_with_passages() if d.source == "faq.jsonl#1"]
    passage = passages[0]
    snapshot.close()
    citation = Citation(
        1,
        passage.document_id,
        passage.chunk_id,
        passage.version,
        passage.title,
        passage.source,
        None,
        (),
        "in the yard",
        14,
        25,
    )
    given = Answer(
        "In the yard behind hall three. [1]", False, (citation,), None, None, "", "extractive", "extractive", "", "", Usage(),
        Grounding(1.0), {}, (passage,),
    )  # fmt: skip
    state = State(site / "data" / "service.db")
    conversation_id = state.create_conversation("local", "Where do visitors park?")
    state.add_turn("local", conversation_id, "Where do visitors park?", given, "complete")
    state.close()
    return conversation_id


def allow(path: Path, more: str = "") -> Path:
    """A configuration that lets conversations be asked again."""
    path.write_text(f"conversations: {{replay: true}}\n{more}", encoding="utf-8")
    return path


def test_stored_conversations_are_asked_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], site: Path, tmp_path: Path, stored: str
) -> None:
    """Every output says that the reference is what was answered then; a gate holds as for a golden set."""
    config = allow(tmp_path / "a.yaml")
    arguments = ("--from-conversations", "--config", config, "--data", site / "data", "--json", "out.json")
    assert archivist(monkeypatch, *arguments, "--html", "out.html", "--min", "success@5=1", "--since", "2026-01-01") == 0
    told = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert (told["golden"], told["reference"]) == ("stored conversations of local", "as answered then")
    assert [(row["conversation"], row["then"]) for row in told["rows"]] == [
        (stored, {"abstained": False, "cited": ["faq.jsonl#1"]})
    ]
    assert told["metrics"]["newly_abstained"]["value"] == 0.0
    assert "As answered then" in capsys.readouterr().out
    assert "The stored conversations of local, asked again" in (tmp_path / "out.html").read_text(encoding="utf-8")
    assert archivist(monkeypatch, *arguments, "--retrieval-only", "--min", "precision@5=1") == 4


def test_two_configurations_are_compared_over_stored_conversations(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], site: Path, tmp_path: Path, stored: str
) -> None:
    """Both must allow it and have one data folder; then it is as over a golden set."""
    allow(tmp_path / "a.yaml")
    allow(tmp_path / "b.yaml", "history: {strategy: last_turn}\n")
    (tmp_path / "no.yaml").write_text("history: {turns: 1}\n", encoding="utf-8")
    arguments = ("--from-conversations", "--retrieval-only", "--compare")
    assert archivist(monkeypatch, *arguments, "a.yaml", "b.yaml", "--data", site / "data") == 0
    assert "A = a.yaml, B = b.yaml, 1 questions of stored conversations of local" in capsys.readouterr().out
    assert archivist(monkeypatch, *arguments, "a.yaml", "no.yaml", "--data", site / "data") == 2
    assert "no.yaml does not allow it" in capsys.readouterr().err
    allow(tmp_path / "b.yaml", "data_dir: elsewhere\n")
    assert archivist(monkeypatch, *arguments, "a.yaml", "b.yaml") == 2
    assert "different data folders" in capsys.readouterr().err
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--from-conversations",), 2, "does not allow it"),
        (("golden.jsonl", "--from-conversations"), 2, "a golden set, 'golden.jsonl', and --from-conversations; leave one"),
        (("golden.jsonl", "--owner", "local"), 2, "--owner chooses among stored conversations"),
        (("golden.jsonl", "--since", "2026-01-01"), 2, "--since chooses among stored conversations"),
        (("--from-conversations", "--config", "a.yaml", "--since", "soon"), 2, "does not match"),
        (("--from-conversations", "--config", "a.yaml", "--data", "empty"), 1, "no conversation is stored in"),
        (("--from-conversations", "--config", "a.yaml", "--data", "site/data", "--owner", "x"), 1, "question of 'x' is stored"),
    ],
)
def test_a_mistake_with_stored_conversations_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    golden: Path,
    stored: str,
    arguments: tuple[str, ...],
    code: int,
    says: str,
) -> None:
    """Two sources, none, one that is not allowed, and one that is empty."""
    allow(golden.parent / "a.yaml")
    assert archivist(monkeypatch, *arguments) == code
    assert says in " ".join(capsys.readouterr().err.replace("│", " ").split())
