"""Outcomes of questions, made by hand, and the settings of a service over a published corpus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from app.answering.types import Answer, Grounding
from app.llm.backend import Usage
from app.llm.settings import LlmSettings
from app.settings import HistorySettings, PromptSettings, ServerSettings, ServiceSettings
from corpus.settings import EmbedderSettings, LabelSettings, SearchSettings
from evaluation.golden import Question
from evaluation.report import About, Report, report_of
from evaluation.run import Cited, Found, Outcome, Run

PROMPTS = Path(__file__).parents[2] / "config" / "prompts"


def settings_over(data_dir: Path, **sections: Any) -> ServiceSettings:
    """The service's settings over a published corpus: the defaults, but for some sections."""
    values = {
        "server": ServerSettings(), "labels": LabelSettings(), "embedder": EmbedderSettings(), "search": SearchSettings(),
        "history": HistorySettings(), "prompt": PromptSettings(folder=PROMPTS), "llm": LlmSettings(), **sections,
    }  # fmt: skip
    return ServiceSettings(data_dir=data_dir, **values)


def answer(
    text: str, *, abstained: bool = False, supported: float = 1.0, usage: Usage | None = None, answerability: float = 0.5
) -> Answer:
    """An answer that says this."""
    return Answer(
        text, abstained, (), None, None, "", "extractive", "extractive", "", "000001-00000000", usage or Usage(),
        Grounding(supported), {"total": 10.0}, answerability=answerability,
    )  # fmt: skip


def outcome(
    question: Question,
    *found: str,
    given: Answer | None = None,
    cited: Sequence[Cited] = (),
    nearness: float = 0.5,
    timings_ms: Mapping[str, float] | None = None,
    collection: str = "",
    failure: str = "",
) -> Outcome:
    """What came of a question: documents by name, best first, and an answer."""
    times = timings_ms or ({"total": 10.0} if given is not None else {"search": 10.0})
    return Outcome(
        question, tuple(Found(name, name) for name in found), nearness, times, "en", collection, given, tuple(cited), failure
    )


def report(
    outcomes: Sequence[Outcome],
    *,
    has_answers: bool = True,
    missing: Mapping[str, tuple[str, ...]] | None = None,
    name: str = "a",
) -> Report:
    """The report over outcomes."""
    run = Run(tuple(outcomes), "000001-00000000", 3, "all-MiniLM-L6-v2", has_answers, missing or {})
    return report_of(run, About("golden.jsonl", name, 0, (5,), "2026-11-23T12:00:00+00:00"))


def forty(right: int, *, follow_ups: int = 0) -> list[Outcome]:
    """Forty answerable questions of which the first so many find their document; the last `follow_ups` have a conversation."""
    made = []
    for number in range(40):
        question = Question(f"q{number:02d}", f"Question {number}?", gold={"a.md": 1}, answers=("in the yard",))
        if number >= 40 - follow_ups:
            question = replace(question, conversation=f"c{number % 2}")
        found = ("a.md",) if number < right else ("b.md",)
        made.append(outcome(question, *found, nearness=1 - number / 40))
    return made
