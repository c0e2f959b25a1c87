"""Knowing when there is none, over HTTP: nobody is asked what the documents do not answer, whoever the provider is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.answering.extractive import NO_ANSWER
from app.llm.fake.behaviour import FakeBehaviour
from app.llm.settings import LlmSettings
from app.settings import AnswerSettings, ServiceSettings
from tests.app.serving import publish, running, settings_of
from tests.servers import RunningFake, running_fake_llm

pytestmark = pytest.mark.anyio

KNOWN = "When are expense reports due after travel?"
UNKNOWN = "Which planet has the most moons?"
REPLY = "Saturn has the most moons."
HIDDEN = "What is the salary band of directors in crowns a year?"


@pytest.fixture(scope="module")
def fake_server() -> Iterator[RunningFake]:
    with running_fake_llm() as fake:
        yield fake


@pytest.fixture
def fake(fake_server: RunningFake) -> RunningFake:
    """An LLM that answers anything."""
    fake_server.behave(FakeBehaviour(reply=REPLY))
    fake_server.requests.clear()
    return fake_server


def told(site: Path, fake: RunningFake | None = None, **answer: object) -> ServiceSettings:
    """The service with an LLM as its provider, and what it is told of answers."""
    llm = None
    if fake is not None:
        llm = LlmSettings.model_validate({"default": "fake", "providers": {"fake": {"base_url": fake.base_url, "model": "m"}}})
    return settings_of(site / "data", llm=llm).model_copy(update={"answer": AnswerSettings.model_validate(answer)})


async def test_no_llm_is_asked_what_the_documents_do_not_answer(site: Path, fake: RunningFake) -> None:
    """The answer says so in fixed words, the route names the threshold, and nothing left the service."""
    async with running(told(site, fake)) as client:
        body = (await client.post("/v1/ask", json={"question": UNKNOWN})).json()
    assert (body["answer"], body["abstained"], body["clarifies"], body["citations"]) == (NO_ANSWER, True, False, [])
    assert body["provider"] == "extractive"
    assert body["route"].endswith("is below answer.abstain_below 0.3, so no LLM was asked")
    assert 0 <= body["answerability"] < 0.3
    assert fake.requests == []


async def test_the_llm_is_asked_what_the_documents_answer(site: Path, fake: RunningFake) -> None:
    """A question that the documents answer is above the threshold, and reaches the LLM once."""
    async with running(told(site, fake)) as client:
        body = (await client.post("/v1/ask", json={"question": KNOWN})).json()
    assert (body["answer"], body["provider"], body["abstained"]) == (REPLY, "fake", False)
    assert body["answerability"] > 0.5
    assert len(fake.requests) == 1


async def test_a_threshold_of_0_asks_in_any_case(site: Path, fake: RunningFake) -> None:
    """Whoever wants the LLM to decide for itself turns the threshold off; the answerability is measured all the same."""
    async with running(told(site, fake, abstain_below=0)) as client:
        body = (await client.post("/v1/ask", json={"question": UNKNOWN})).json()
    assert (body["answer"], body["provider"]) == (REPLY, "fake")
    assert 0 <= body["answerability"] < 0.3
    assert len(fake.requests) == 1


async def test_a_provider_named_in_the_request_is_not_asked_either(site: Path, fake: RunningFake) -> None:
    """The threshold holds for every provider."""
    async with running(told(site, fake)) as client:
        body = (await client.post("/v1/ask", json={"question": UNKNOWN, "provider": "fake"})).json()
    assert body["answer"] == NO_ANSWER
    assert fake.requests == []


async def test_quotations_and_the_llm_have_the_same_answerability(site: Path, fake: RunningFake) -> None:
    """It is made before a provider is chosen."""
    async with running(told(site, fake)) as with_llm:
        one = (await with_llm.post("/v1/ask", json={"question": KNOWN})).json()
    async with running(told(site)) as without:
        other = (await without.post("/v1/ask", json={"question": KNOWN})).json()
    assert one["answerability"] == other["answerability"]
    assert (one["provider"], other["provider"]) == ("fake", "extractive")


async def test_documents_that_the_caller_may_not_see_do_not_move_it(site: Path, tmp_path: Path, models: Path) -> None:
    """What only the board may read makes no difference: without those files the number is the same, digit for digit."""
    folder = tmp_path / "without"
    for path in sorted((site / "documents").rglob("*.*")):
        name = path.relative_to(site / "documents")
        if name.parts[0] != "board":
            (folder / "documents" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "documents" / name).write_bytes(path.read_bytes())
    publish(folder / "documents", folder / "data", models)
    for question in (HIDDEN, KNOWN, UNKNOWN):
        found = []
        for root in (site, folder):
            async with running(told(root)) as client:
                found.append((await client.post("/v1/ask", json={"question": question})).json()["answerability"])
        assert found[0] == found[1], question


@pytest.fixture
def machines(tmp_path: Path, models: Path) -> Path:
    """Fourteen logs of one unit, more than a prompt has passages, and one rule on warranty."""
    folder = tmp_path / "machines"
    (folder / "documents").mkdir(parents=True)
    for number in range(14):
        text = f"# Log {number}\n\nUnit ZX-900 ran for {number + 40} hours at site {number}; nothing was noted.\n"
        (folder / "documents" / f"log{number}.md").write_text(text, encoding="utf-8")
    text = "# Warranty rules\n\nThe warranty period of a pump is two years from delivery.\n"
    (folder / "documents" / "warranty.md").write_text(text, encoding="utf-8")
    publish(folder / "documents", folder / "data", models)
    return folder


async def test_a_code_that_is_held_is_known_wherever_it_stands(machines: Path) -> None:
    """However it is written, and whether or not it stands in the passages found; one that nothing holds is not known."""
    question = "How long is the warranty period of a pump from delivery, for unit {}?"
    async with running(told(machines)) as client:
        known, other_form, unknown = [
            (await client.post("/v1/ask", json={"question": question.format(code), "top_k": 1})).json()["answerability"]
            for code in ("ZX-900", "ZX900", "ZX-901")
        ]
    assert known > 0.5
    assert other_form > 0.5
    assert unknown < min(known, other_form)


@pytest.mark.parametrize("text", ["hello", "Thanks", "Can you help me?"])
async def test_a_courtesy_is_not_answered(site: Path, text: str) -> None:
    """There is nothing to quote."""
    async with running(told(site)) as client:
        body = (await client.post("/v1/ask", json={"question": text})).json()
    assert body["abstained"] is True


async def test_an_off_topic_follow_up_is_not_answered(site: Path) -> None:
    """What was asked before is near, what is asked now is not."""
    history = [{"role": "user", "content": KNOWN}, {"role": "assistant", "content": "Within thirty days."}]
    async with running(told(site)) as client:
        body = (await client.post("/v1/ask", json={"question": "Who won the world cup?", "messages": history})).json()
    assert (body["answer"], body["abstained"]) == (NO_ANSWER, True)


@pytest.fixture
def two_offices(tmp_path: Path, models: Path) -> Path:
    """Two documents that say alike things of parking."""
    folder = tmp_path / "offices"
    for name in ("Leeds", "Munich"):
        path = folder / "documents" / f"{name.lower()}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# {name} office\n\nParking at the {name} office is behind the house.\n", encoding="utf-8")
    publish(folder / "documents", folder / "data", models)
    return folder


async def test_a_question_that_says_too_little_is_answered_by_a_question_back(two_offices: Path, fake: RunningFake) -> None:
    """The choices are the documents found, each cited, so that it can be opened; nobody is asked."""
    async with running(told(two_offices, fake)) as client:
        body = (await client.post("/v1/ask", json={"question": "parking"})).json()
        kept = (await client.get(f"/v1/conversations/{body['conversation_id']}")).json()["messages"]
    assert [message["clarifies"] for message in kept] == [None, True]
    assert (body["clarifies"], body["abstained"], body["provider"]) == (True, True, "extractive")
    assert {citation["title"] for citation in body["citations"]} == {"Leeds office", "Munich office"}
    lines = body["answer"].splitlines()
    for citation in body["citations"]:
        assert f"- {citation['title']} [{citation['marker']}]" in lines
    assert fake.requests == []


async def test_the_question_back_streams_as_any_answer_does(two_offices: Path) -> None:
    """Sources, the text, and the whole answer at the end."""
    async with running(told(two_offices)) as client:
        got = await client.post("/v1/ask", json={"question": "parking", "stream": True})
    events = [json.loads(line.removeprefix("data: ")) for line in got.text.splitlines() if line.startswith("data: {")]
    assert events[-1]["clarifies"] is True
    assert events[-1]["answer"] == "".join(event["text"] for event in events if set(event) == {"text"})


async def test_a_follow_up_is_never_answered_by_a_question_back(two_offices: Path) -> None:
    """What stands before it says what is meant."""
    async with running(told(two_offices)) as client:
        history = [
            {"role": "user", "content": "Tell me about the Leeds office."},
            {"role": "assistant", "content": "It is in Leeds."},
        ]
        body = (await client.post("/v1/ask", json={"question": "parking", "messages": history})).json()
    assert body["clarifies"] is False


async def test_no_question_back_where_it_is_turned_off(two_offices: Path) -> None:
    """`answer.clarify: false` answers as well as can be."""
    async with running(told(two_offices, clarify=False, abstain_below=0)) as client:
        body = (await client.post("/v1/ask", json={"question": "parking"})).json()
    assert (body["clarifies"], body["abstained"]) == (False, False)
    assert "behind the house" in body["answer"]
