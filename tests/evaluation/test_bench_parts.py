"""Parts of the bench: their counting on hand-made answers, and real runs over tiny corpora."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.answering.types import Answer, Grounding
from app.llm.backend import Usage
from app.llm.settings import LlmSettings
from app.settings import HistorySettings, PromptSettings, ServerSettings, ServiceSettings
from corpus.embedders.embedder import Embedder
from corpus.errors import ConfigError
from corpus.settings import EmbedderSettings, LabelSettings, SearchSettings
from corpus.types import Message
from evaluation.bench.dataset import dataset_figures, measure_dataset
from evaluation.bench.figures import Figure, Part
from evaluation.bench.first_token import PAIRS, measure_first_token
from evaluation.bench.handbook import GoldenRun, golden_figures, measure_handbook
from evaluation.bench.options import Options
from evaluation.golden import Question
from evaluation.quality import Answered, Ranking
from tests.making import FILES, job_settings, link_models, write_files

ROOT = Path(__file__).parents[2]
HISTORY = (Message("user", "When are expense reports due?"),)
PLAIN = Question("plain", "?", gold={"a": 1}, answers=("yes",), kind="single")
FOLLOW_UP = Question("follow-up", "?", HISTORY, gold={"b": 1}, answers=("no",), kind="followup")
SWITCH = Question("switch", "?", HISTORY, gold={"c": 1}, answers=("maybe",), kind="topic_switch")
NOWHERE = Question("nowhere", "?", kind="unanswerable")
MADE_UP = Question("made-up", "?", HISTORY, kind="unanswerable")


@pytest.fixture
def loaded(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model that is loaded already, wherever this process would load it again; children import from the checkout."""
    for name in ("ingest.model.open_embedder", "evaluation.bench.options.open_embedder", "app.embedders.open_stamped"):
        monkeypatch.setattr(name, lambda *_, **__: embedder)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def options(scratch: Path, **values: object) -> Options:
    """The default settings, and a folder to work in."""
    settings = ServiceSettings(
        data_dir=scratch / "data", server=ServerSettings(), labels=LabelSettings(), embedder=EmbedderSettings(),
        search=SearchSettings(), history=HistorySettings(), prompt=PromptSettings(folder=ROOT / "config" / "prompts"),
        llm=LlmSettings(),
    )  # fmt: skip
    given = {"config": Path("none"), "golden": Path("none"), "scratch": scratch, **values}
    return Options(settings=settings, job=job_settings(scratch / "data"), **given)  # type: ignore[arg-type]


def by_name(part: Part) -> dict[str, Figure]:
    """The figures of a part."""
    return {figure.name: figure for figure in part.figures}


def gave(question: Question, text: str, *, abstained: bool = False) -> Answered:
    """An answer to a question."""
    grounding = Grounding(1.0)
    return Answered(
        question, Answer(text, abstained, (), None, None, "", "extractive", "extractive", "", "", Usage(), grounding, {})
    )


def test_a_golden_set_is_counted_by_hand() -> None:
    """Two of three found, the follow-up only with its history, the switch not at all; one answer silent, one invented."""
    golden = GoldenRun(
        rankings=[
            Ranking(PLAIN, ("x", "a")), Ranking(FOLLOW_UP, ("b",)), Ranking(SWITCH, ("1", "2", "3", "4", "5", "c")),
            Ranking(NOWHERE, ("a",)), Ranking(MADE_UP, ("a",)),
        ],
        last_turns=[Ranking(FOLLOW_UP, ("x",)), Ranking(MADE_UP, ("a",))],
        answers=[
            gave(PLAIN, "Yes, indeed. [1]"), gave(FOLLOW_UP, "Silence.", abstained=True), gave(SWITCH, "Maybe. [1]"),
            gave(NOWHERE, "Nothing.", abstained=True), gave(MADE_UP, "Surely. [1]"),
        ],
    )  # fmt: skip
    part = golden_figures(golden, "set")
    assert {name: figure.data for name, figure in by_name(part).items()} == {
        "gold document in top 5": "set, 2 of 3",
        "follow-ups, top 5": "set, 1 of 1",
        "follow-ups by the last turn only, top 5": "set, 0 of 1",
        "topic switches, top 5": "set, 0 of 1",
        "kind followup, top 5": "set, 1 of 1",
        "kind single, top 5": "set, 1 of 1",
        "answer string in the answer": "set, 2 of 3",
        "abstains on unanswerable": "set, 1 of 2",
        "false abstention": "set, 1 of 3",
    }
    assert part.misses == {
        "gold document in top 5": ["switch"],
        "follow-ups by the last turn only, top 5": ["follow-up"],
        "answer string in the answer": ["follow-up"],
        "abstains on unanswerable": ["made-up"],
        "false abstention": ["follow-up"],
    }
    assert {name for name, figure in by_name(part).items() if figure.passed} == {"follow-ups, top 5"}


def test_history_must_not_rank_worse_than_the_last_turn() -> None:
    """The aim of nDCG@5 with history is what the last turn alone reaches; scifact has a number of its own."""
    whole, last = [Ranking(FOLLOW_UP, ("x", "b"))], [Ranking(FOLLOW_UP, ("b",))]
    found = by_name(Part(tuple(dataset_figures("talks", "data", whole, last))))
    assert found["nDCG@5, with history"].shown_aim == "≥ 1.0000"
    assert found["nDCG@5, with history"].value == 0.6309
    assert found["nDCG@5, with history"].passed is False
    assert found["nDCG@5, last turn only"].value == 1.0
    alone = by_name(Part(tuple(dataset_figures("scifact", "data", [Ranking(PLAIN, ("a",))], None))))
    assert (alone["nDCG@10"].shown_aim, alone["nDCG@10"].passed) == ("≥ 0.7100", True)
    assert set(alone) == {"nDCG@10", "nDCG@5", "R@5"}


@pytest.mark.usefixtures("loaded")
def test_a_data_set_is_ingested_once_and_measured_by_its_rows(tmp_path: Path) -> None:
    """Rows are judged by their ids; with the data folder kept, the second run ingests nothing and finds the same."""
    texts = {"10": "Visitors park in the yard behind hall three.", "11": "The canteen serves lunch from noon until two."}
    rows = "".join(json.dumps({"id": key, "title": "", "text": text}) + "\n" for key, text in texts.items())
    asked = [
        {"id": "a", "question": "Where do visitors park?", "history": [], "gold": {"10": 1}},
        {"id": "b", "question": "When is lunch in the canteen?", "history": [], "gold": {"10": 1}},
        {"id": "c", "question": "Who knows?", "history": [], "gold": {}},
    ]
    queries = "".join(json.dumps(row) + "\n" for row in asked)
    folder = write_files(tmp_path / "small", {"corpus.jsonl": rows, "queries.jsonl": queries})
    given = options(tmp_path, data=folder, data_dir=tmp_path / "kept")
    first = measure_dataset(given)
    found = by_name(first)
    assert found["R@5"].value == 1.0
    assert found["nDCG@10"].value == pytest.approx((1 + 0.63093) / 2, abs=1e-4)
    assert found["nDCG@10"].data == "small, 2 documents, 2 questions"
    current = (tmp_path / "kept" / "CURRENT").read_text()
    assert measure_dataset(given) == first
    assert (tmp_path / "kept" / "CURRENT").read_text() == current


def test_a_folder_that_is_no_data_set_is_refused(tmp_path: Path) -> None:
    """What it must hold is in the error."""
    with pytest.raises(ConfigError, match=r"is not a folder with corpus\.jsonl and queries\.jsonl"):
        measure_dataset(options(tmp_path, data=tmp_path))


@pytest.mark.usefixtures("loaded")
def test_the_first_token_is_measured_through_a_real_service(tmp_path: Path) -> None:
    """The service and the fake LLM as processes of their own, over 40 generated chunks: searching costs some milliseconds."""
    found = by_name(measure_first_token(options(tmp_path, chunks=40)))
    added = found["added to the first token, median"]
    assert added.value > found["of which embed, as timings_ms says"].value > 1
    assert added.value < 5000
    assert added.data == f"40 generated chunks of 120 words, random vectors; {PAIRS} interleaved pairs, LLM without delay"
    assert 0 < found["first token of the LLM alone"].value < 1000


@pytest.mark.usefixtures("loaded")
def test_documents_are_ingested_and_asked_as_a_user_would(tmp_path: Path, models: Path) -> None:
    """The job and the service as processes of their own; then the golden set counts what they can and cannot answer."""
    folder = write_files(tmp_path / "documents", FILES)
    rules = [{"match": "board/**", "groups": ["board"]}]
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps({"sources": [{"path": str(folder), "name": "documents", "rules": rules}]}))
    rows = [
        {"id": "park", "question": "Where do visitors park?", "gold": {"faq.jsonl#1": 1}, "answers": ["behind hall three"]},
        {
            "id": "pay", "question": "Where do the salary bands of directors begin?", "gold": {"board/salaries.md": 1},
            "answers": ["190000"],
        },
        {"id": "moon", "question": "How heavy is the moon?"},
    ]  # fmt: skip
    golden = tmp_path / "golden.jsonl"
    golden.write_text("".join(json.dumps(row) + "\n" for row in rows))
    link_models(models, tmp_path / "handbook")
    part = measure_handbook(options(tmp_path, config=config, golden=golden))
    found = by_name(part)
    assert found["gold document in top 5"].data == "golden.jsonl, 1 of 2"
    assert found["answer string in the answer"].data == "golden.jsonl, 1 of 2"
    assert found["abstains on unanswerable"].data == "golden.jsonl, 1 of 1"
    assert part.misses["gold document in top 5"] == ["pay"]
    whole, ingested = found["fresh ingest to ready service"], found["of which ingest"]
    assert whole.value > ingested.value > 0
    assert whole.data == "config, 11 documents, 11 chunks"
