"""What /metrics says of answers: how likely they were, by which signals, and how much of them is supported."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from app.answering.types import Answer, Grounding, Signals
from app.llm.backend import Usage
from app.metrics import Metrics
from tests.app.serving import ServiceClient

QUESTION = "When are expense reports due?"


def answered(
    *, supported: float = 1.0, answerability: float = 0.0, abstained: bool = False, clarifies: bool = False,
    provider: str = "extractive", signals: Signals | None = None,
) -> Answer:  # fmt: skip
    """An answer of these qualities."""
    return Answer(
        "Text.", abstained, (), None, None, "", provider, provider, "", "000001-00000000", Usage(), Grounding(supported),
        {"total": 10.0}, signals=signals or Signals(), answerability=answerability, clarifies=clarifies,
    )  # fmt: skip


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    """One sample."""
    return metrics.registry.get_sample_value(name, labels)


def test_answerability_is_counted_for_every_answer_that_was_searched_for() -> None:
    """Abstentions too; a rule's fixed answer was not searched for, and would look like a drift."""
    metrics = Metrics()
    metrics.count_answer(answered(answerability=0.93))
    metrics.count_answer(answered(answerability=0.12, abstained=True))
    metrics.count_answer(answered(provider="fixed"))
    assert value(metrics, "archivist_answerability_count") == 2
    assert value(metrics, "archivist_answerability_sum") == 1.05
    assert value(metrics, "archivist_answerability_bucket", le="0.15") == 1
    assert value(metrics, "archivist_answerability_bucket", le="0.1") == 0
    assert value(metrics, "archivist_answers_total", provider="fixed", abstained="false") == 1


def test_support_is_counted_where_something_was_stated() -> None:
    """An abstention states nothing that could be supported."""
    metrics = Metrics()
    metrics.count_answer(answered(supported=0.5))
    metrics.count_answer(answered(supported=1.0, abstained=True))
    assert value(metrics, "archivist_grounding_supported_share_count") == 1
    assert value(metrics, "archivist_grounding_supported_share_bucket", le="0.5") == 1


def test_each_signal_has_its_series() -> None:
    """By its name, for all that there are."""
    metrics = Metrics()
    metrics.count_answer(answered(signals=Signals(nearness=0.75, coverage=0.25)))
    others = {field.name: field.default for field in fields(Signals)}
    sums = {field.name: value(metrics, "archivist_retrieval_signal_sum", signal=field.name) for field in fields(Signals)}
    assert sums == others | {"nearness": 0.75, "coverage": 0.25}


def test_mended_markers_are_counted_by_what_was_done() -> None:
    """An LLM that cites worse than before shows here before its answers do."""
    metrics = Metrics()
    metrics.count_answer(replace(answered(), grounding=Grounding(1.0, removed=2, added=1)))
    metrics.count_answer(replace(answered(), grounding=Grounding(1.0, removed=1)))
    assert value(metrics, "archivist_citation_markers_total", change="removed") == 3
    assert value(metrics, "archivist_citation_markers_total", change="added") == 1


def test_questions_back_are_counted_apart() -> None:
    """They are abstentions too."""
    metrics = Metrics()
    metrics.count_answer(answered(abstained=True, clarifies=True))
    metrics.count_answer(answered(abstained=True))
    assert value(metrics, "archivist_clarified_total") == 1
    assert value(metrics, "archivist_answers_total", provider="extractive", abstained="true") == 2


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/ask", {"question": QUESTION}),
        ("/v1/ask", {"question": QUESTION, "stream": True}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": QUESTION}]}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": QUESTION}], "stream": True}),
    ],
    ids=["ask", "ask, streamed", "OpenAI's format", "OpenAI's format, streamed"],
)
async def test_every_way_of_asking_counts_once(client: ServiceClient, path: str, body: dict[str, Any]) -> None:
    """Answerability, each signal and the support of one answer."""
    response = await client.post(path, json=body)
    assert response.status_code == 200, response.text
    values = dict(line.rsplit(" ", 1) for line in (await client.get("/metrics")).text.splitlines() if line[0] != "#")
    assert values["archivist_answerability_count"] == "1.0"
    assert values["archivist_grounding_supported_share_sum"] == "1.0"
    assert [values[f'archivist_retrieval_signal_count{{signal="{field.name}"}}'] for field in fields(Signals)] == (
        ["1.0"] * len(fields(Signals))
    )
