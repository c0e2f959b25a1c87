"""Drafted golden sets: what is asked, of which passages, and who may see them."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from app.llm.fake.behaviour import FakeBehaviour
from app.llm.settings import LlmSettings
from corpus.embedders.embedder import Embedder
from corpus.errors import Invalid
from corpus.snapshot import OpenSnapshot
from corpus.types import Passage
from evaluation.draft import Drafted, draft, draw, facts_in, of_headings, of_reply, write_rows
from evaluation.golden import read_golden
from evaluation.run import ask_all, opened
from tests.evaluation.outcomes import settings_over
from tests.servers import RunningFake, running_fake_llm

REPLY = 'QUESTION: Which form is an expense report written on?\nANSWER: "TR-204".'


def passage(text: str, *heading: str, language: str | None = "en") -> Passage:
    """A passage of a travel policy."""
    return Passage(
        0, "c", "d", "v", "Travel policy", "travel.md", "documents", text, heading, None, 0, len(text), "internal",
        ("everyone",), language,
    )  # fmt: skip


async def drafted(
    data_dir: Path, embedder: Embedder, *, count: int = 50, provider: str | None = None, **sections: Any
) -> list[Drafted]:
    """A draft over a published corpus."""
    async with opened(settings_over(data_dir, **sections), embedder) as services:
        return [row async for row in draft(services, count, provider=provider, seed=1)]


def near(fake: RunningFake, clearance: str) -> LlmSettings:
    """An LLM on this machine."""
    provider = {"base_url": fake.base_url, "model": "m", "clearance": clearance}
    return LlmSettings.model_validate({"default": "near", "providers": {"near": provider}})


def test_a_heading_and_its_key_sentence_are_a_question() -> None:
    """The sentence with figures and the words of the others is the evidence, its longest figure the answer string."""
    text = (
        "This page is about what it says. Expense reports are due within 30 days of the last day of travel. "
        "Reports of expenses of a travel that took longer are to be sent to the travel desk."
    )
    found = of_headings(passage(text, "Expenses", "Deadlines"))
    assert found == (
        'What does "Travel policy" say about "Deadlines"?',
        "30 days",
        "Expense reports are due within 30 days of the last day of travel.",
    )


def test_the_question_is_in_the_passage_s_language() -> None:
    """A language that there is no wording for is asked in English; without a heading the title is enough."""
    text = "Die Abrechnung einer Reise ist innerhalb von 30 Tagen nach dem letzten Reisetag einzureichen."
    assert of_headings(passage(text, "4. Fristen", language="de")) == (
        "Was steht in „Travel policy“ zu „Fristen“?",
        "30 Tagen",
        text,
    )
    assert (of_headings(passage(text, language="fi")) or ("",))[0] == 'What does "Travel policy" say?'


def test_a_heading_that_asks_is_the_question() -> None:
    """Nothing is put before what people have written to be asked."""
    text = "Visitors park in the yard behind hall three and nowhere else on the site."
    assert of_headings(passage(text, "Where do visitors park?")) == ("Where do visitors park?", "", text)


@pytest.mark.parametrize(
    ("sentence", "facts"),
    [
        ("Use form TR-204 within 30 days.", ["TR-204", "30 days"]),
        ("Lunch is from 11:30 and costs 4,50 € or 12 %.", ["11:30", "4,50 €", "12 %"]),
        ("There are 2 and 300 of P300-0112.", ["P300-0112", "300"]),
        ("The rate of 2.5 percent holds until 17 October.", ["2.5 percent", "17 October"]),
        ("Nothing of the kind.", []),
    ],
)
def test_a_fact_is_a_code_or_an_amount_with_its_unit(sentence: str, facts: list[str]) -> None:
    """A word that says nothing is no unit, and a single digit alone is no fact."""
    assert list(facts_in(sentence, "en")) == facts


def test_a_passage_that_says_nothing_is_no_question() -> None:
    """A heading and a few words have no key sentence."""
    assert of_headings(passage("# Expenses\n\nSee below.", "Expenses")) is None


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        (REPLY, "TR-204"),
        ("Sure!\nquestion: Which form?\n\nanswer: form TR-204", "form TR-204"),
        ("QUESTION: Which form?\nANSWER: TR-205", None),
        ("QUESTION: Which form?\nANSWER: ", None),
        ("QUESTION: Name the form.\nANSWER: TR-204", None),
        ("I cannot do that.", None),
    ],
)
def test_a_reply_is_taken_where_the_passage_holds_its_answer(reply: str, answer: str | None) -> None:
    """What an LLM made up is refused."""
    found = of_reply(reply, passage("Use form TR-204 for the report. It is due within a month of the journey."))
    assert (found[1] if found else None) == answer
    assert found is None or found[2] == "Use form TR-204 for the report."


def test_every_document_comes_before_one_comes_twice(snapshot: OpenSnapshot) -> None:
    """What the groups may not see is never drawn; the seed decides the order."""
    found = [passage.source for passage in draw(snapshot, ("everyone",), random.Random(1))]
    documents = set(found)
    assert set(found[: len(documents)]) == documents
    assert "board/salaries.md" not in documents
    assert found == [passage.source for passage in draw(snapshot, ("everyone",), random.Random(1))]


@pytest.mark.anyio
async def test_without_an_llm_drafts_come_of_headings_and_can_be_asked(site: Path, embedder: Embedder, tmp_path: Path) -> None:
    """The rows are a golden set, all of them drafted, and nearly all find the document that they were made from."""
    rows = await drafted(site / "data", embedder, count=4)
    assert [row.by for row in rows] == ["headings"] * 4
    write_rows(tmp_path / "draft.jsonl", [row.row for row in rows])
    questions = read_golden(tmp_path / "draft.jsonl")
    assert all(question.drafted for question in questions)
    async with opened(settings_over(site / "data"), embedder) as services:
        run = await ask_all(services, questions, answers=False)
    assert run.missing == {}
    found = [outcome.question.best_gold & {found.name for found in outcome.found[:2]} for outcome in run.outcomes]
    assert sum(map(bool, found)) >= 3


@pytest.mark.anyio
async def test_an_llm_writes_what_it_may_see(site: Path, embedder: Embedder) -> None:
    """Where its answer is not in the passage, the row comes of headings and says why; what was spent counts."""
    with running_fake_llm(FakeBehaviour(reply=REPLY)) as fake:
        rows = await drafted(site / "data", embedder, llm=near(fake, "internal"))
        sent = len(fake.requests)
    (written,) = [row for row in rows if row.by == "llm"]
    assert (written.row["question"], written.row["answers"]) == ("Which form is an expense report written on?", ["TR-204"])
    assert (written.row["gold"], written.row["drafted"]) == ({"policies/travel.md": 2}, True)
    assert {row.problem for row in rows if row.by == "headings"} == {
        "an LLM's reply was no question, or its answer does not stand in the passage"
    }
    assert sent >= len(rows) > 1
    async with opened(settings_over(site / "data"), embedder) as services:
        spent = services.state.spending_of(datetime.now(UTC).date())
    assert sum(row.calls for row in spent) == sent


@pytest.mark.anyio
async def test_an_llm_is_not_sent_what_it_may_not_see(site: Path, embedder: Embedder) -> None:
    """A provider that is cleared for public documents alone is never called; the rows come of headings."""
    with running_fake_llm(FakeBehaviour(reply=REPLY)) as fake:
        rows = await drafted(site / "data", embedder, llm=near(fake, "public"))
        assert fake.requests == []
    assert {row.by for row in rows} == {"headings"}
    assert all("cleared for 'public'" in row.problem for row in rows)


@pytest.mark.anyio
async def test_a_provider_that_there_is_not_is_refused(site: Path, embedder: Embedder) -> None:
    """Before anything is drafted."""
    with pytest.raises(Invalid, match="no provider 'far'"):
        await drafted(site / "data", embedder, provider="far")


def test_a_file_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    """It may hold what a person has reviewed."""
    (tmp_path / "golden.jsonl").write_text("reviewed")
    with pytest.raises(FileExistsError):
        write_rows(tmp_path / "golden.jsonl", [])
    assert (tmp_path / "golden.jsonl").read_text() == "reviewed"
