"""`archivist ingest` and `archivist runs`: plans, exit codes and the history, in a process of their own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.archivist.test_cli import archivist
from tests.making import link_models, write_files


@pytest.fixture
def configured(tmp_path: Path) -> Path:
    """A folder with six documents, a golden set about them, and a configuration whose gate measures it."""
    texts = {
        "parking": "Visitors park in the yard.",
        "lunch": "The canteen opens at noon.",
        "keys": "Keys are handed out at the gate.",
        "bikes": "Bicycles stand behind hall three.",
        "post": "The mail leaves at four.",
        "waste": "Paper goes into the blue bin.",
    }
    write_files(tmp_path / "documents", {f"{name}.md": f"# {name.title()}\n\n{text}\n" for name, text in texts.items()})
    golden = [
        {"id": "1", "question": "Where do visitors park?", "gold": {"parking.md": 1}},
        {"id": "2", "question": "When does the canteen open?", "gold": {"lunch.md": 1}},
        {"id": "3", "question": "Who is the king?", "gold": {}},
    ]
    write_files(tmp_path, {"golden.jsonl": "".join(json.dumps(row) + "\n" for row in golden)})
    settings = {
        "sources": [{"path": "documents"}],
        "gate": {"golden": "golden.jsonl", "min_recall": 1.0, "recall_at": 2},
    }
    (tmp_path / "archivist.yaml").write_text(yaml.safe_dump(settings))
    return tmp_path


def test_a_night_from_plan_to_refusal(configured: Path, models: Path) -> None:
    """A plan that writes nothing; a run that its golden set lets pass; a plan that foresees the guard; exit code 4 of the
    guard and of the gate, with the report as JSON; and the history of it."""
    config = ("--config", configured / "archivist.yaml")
    planned = archivist("ingest", "--plan", "--json", *config, cwd=configured)
    assert planned.returncode == 0, planned.stderr
    plan = json.loads(planned.stdout)
    assert (plan["added"]["files"], plan["kept"]["files"], plan["snapshot"], plan["refused"]) == (6, 0, None, [])
    assert not (configured / "data").exists()

    link_models(models, configured / "data")
    done = archivist("ingest", "--json", *config, cwd=configured)
    assert done.returncode == 0, done.stderr
    published = json.loads(done.stdout)
    assert [(check["name"], check["measured"], check["wanted"]) for check in published["gate"]] == [("recall@2", 1.0, 1.0)]
    assert published["gate"][0]["detail"] == "over 2 questions of golden.jsonl"

    for name in ("keys", "bikes"):
        (configured / "documents" / f"{name}.md").unlink()
    foreseen = archivist("ingest", "--plan", *config, cwd=configured)
    assert foreseen.returncode == 0
    assert "removed        2 files" in foreseen.stdout
    assert "The run would stop: 2 of 6 files (33%) would be removed" in foreseen.stdout
    guarded = archivist("ingest", "--json", *config, cwd=configured)
    assert guarded.returncode == 4
    assert guarded.stderr.splitlines()[-1].startswith("archivist: 2 of 6 files (33%) would be removed")
    assert "run again with --allow-removals" in guarded.stderr
    assert (json.loads(guarded.stdout)["status"], json.loads(guarded.stdout)["removed"]) == ("refused", 2)

    write_files(
        configured / "documents", {"parking.md": "# Weather\n\nIt rains.\n", "keys.md": "# Parking\n\nVisitors park.\n"}
    )
    refused = archivist("ingest", *config, cwd=configured)
    assert refused.returncode == 4
    assert refused.stdout == ""
    assert "gate recall@2: over 2 questions of golden.jsonl (0.5 instead of 1)" in refused.stderr
    assert f"snapshot {published['snapshot']!r} stays in service" in refused.stderr

    runs = json.loads(archivist("runs", "list", "--json", *config, cwd=configured).stdout)
    assert [run["status"] for run in runs] == ["published", "refused", "refused"]
    listed = archivist("runs", "list", *config, cwd=configured).stdout.splitlines()
    assert listed[0].startswith(runs[0]["run"])
    assert listed[0].endswith("published  6 added")
    assert json.loads(archivist("runs", "show", *config, cwd=configured).stdout) == runs[-1]
    assert json.loads(archivist("runs", "show", runs[0]["run"], *config, cwd=configured).stdout)["embedded"] == 6
    missing = archivist("runs", "show", "000009-00000000", *config, cwd=configured)
    assert (missing.returncode, "no report of a run '000009-00000000'" in missing.stderr) == (2, True)


def test_removals_are_allowed_by_a_flag(tmp_path: Path, models: Path) -> None:
    """The same run with --allow-removals publishes."""
    source = write_files(tmp_path / "documents", {f"{number}.md": f"Matter {number}.\n" for number in range(4)})
    link_models(models, tmp_path / "data")
    assert archivist("ingest", "--source", source, cwd=tmp_path).returncode == 0
    for number in range(3):
        (source / f"{number}.md").unlink()
    assert archivist("ingest", "--source", source, cwd=tmp_path).returncode == 4
    done = archivist("ingest", "--source", source, "--allow-removals", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Files: 0 added, 0 changed, 3 removed, 1 unchanged." in done.stdout
