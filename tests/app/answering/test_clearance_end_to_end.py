"""Confidential text never reaches a provider that is not cleared, through any door of the answer path."""

from __future__ import annotations

import json
import random
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from app.access import Caller
from app.answering.answer import answer
from app.answering.types import Answer, Ask
from app.llm.fake.behaviour import FakeBehaviour
from app.llm.settings import LlmSettings, ProviderSettings
from app.services import Services
from corpus.errors import NotCleared
from corpus.types import Message
from ingest.settings import RuleSettings
from tests.app.serving import composed, settings_of
from tests.conftest import Run
from tests.making import job_settings, write_files
from tests.servers import RunningFake, running_fake_llm

pytestmark = pytest.mark.anyio

CALLER = Caller("local", ("everyone",))
SECRET = (
    "The takeover of Zephyrine Instruments by Quillbrook closes on 14 October for 88 million crowns, and the negotiators "
    "Ottoline Brandywine and Casimir Vantongeren keep the code name Marmalade until the supervisory council has agreed."
)
CANARIES = ("zephyrine", "quillbrook", "ottoline", "brandywine", "casimir", "vantongeren", "marmalade")
DOCUMENTS = {
    "travel.md": "# Travel\n\nTrips are booked through the travel desk at least seven days ahead. Use form TR-204.\n",
    "canteen.md": "# Canteen\n\nThe canteen serves lunch from noon until two. Guests pay eight crowns.\n",
    "leave.md": "# Leave\n\nEmployees get 25 days of leave a year. Contractors get none.\n",
    "deals/takeover.md": f"# Takeover\n\n{SECRET}\n",
}
HARMLESS = ("How are trips booked?", "When does the canteen serve lunch?", "How many days of leave do employees get?")
CONFIDENTIAL = ("When does the takeover close?", "Who negotiates the takeover?", "What is the code name of the takeover?")
FOLLOWING = ("And for how much?", "And what about that?", "Who says so?", "Why?")


@pytest.fixture(scope="module")
def fake_server() -> Iterator[RunningFake]:
    with running_fake_llm() as fake:
        yield fake


@pytest.fixture
def fake(fake_server: RunningFake) -> RunningFake:
    """The commercial provider: it repeats what it is asked, so that what leaks once would spread."""
    fake_server.behave(FakeBehaviour(mode="echo"))
    fake_server.requests.clear()
    return fake_server


@pytest.fixture
def data_dir(tmp_path: Path, run: Run) -> Path:
    """The corpus with one confidential document that every caller may see."""
    rules = (RuleSettings(match="deals/**", label="confidential"),)
    run(job_settings(tmp_path / "data", write_files(tmp_path / "documents", DOCUMENTS), rules=rules))
    return tmp_path / "data"


async def services_of(data_dir: Path, fake: RunningFake, strategy: str = "llm", **llm: object) -> Services:
    """The service with the provider, which may see internal documents at most."""
    provider = ProviderSettings(base_url=fake.base_url, model="commercial", clearance="internal")
    values = {"default": "commercial", "providers": {"commercial": provider}, **llm}
    settings = settings_of(data_dir, llm=LlmSettings.model_validate(values))
    history = settings.history.model_copy(update={"strategy": strategy})
    services = composed(settings.model_copy(update={"history": history}))
    await services.start()
    return services


@pytest.fixture
async def services(data_dir: Path, fake: RunningFake) -> AsyncIterator[Services]:
    """With the rewrite by the LLM switched on."""
    services = await services_of(data_dir, fake)
    yield services
    await services.close()


async def asked(services: Services, ask: Ask) -> Answer:
    """The whole answer."""
    async with aclosing(answer(services, CALLER, ask)) as events:
        *_, last = [event async for event in events]
    assert isinstance(last, Answer)
    return last


def grams(text: str) -> set[tuple[str, ...]]:
    """All runs of eight words."""
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[i : i + 8]) for i in range(len(words) - 7)}


def leaked(fake: RunningFake) -> list[str]:
    """What of the confidential text is in any byte that was sent."""
    found = []
    for request in fake.requests:
        sent = f"{request.path} {json.dumps(request.headers)} " + request.body.decode().encode().decode("unicode_escape")
        found += [canary for canary in CANARIES if canary in sent.lower()]
        found += [" ".join(gram) for gram in grams(SECRET) & grams(sent)]
    return found


def test_the_detector_finds_a_leak() -> None:
    """Eight words in a row are found, seven are not: the other tests can fail."""
    words = SECRET.split()
    assert grams(SECRET) & grams("so " + " ".join(words[3:11]))
    assert not grams(SECRET) & grams(" ".join(words[3:10]))


async def test_random_conversations_leak_nothing(services: Services, fake: RunningFake) -> None:
    """Sixty turns, stored and stateless, harmless and not, with follow-ups and a provider asked for by name."""
    chance = random.Random(20261123)
    by_commercial = by_extractive = 0
    for _ in range(12):
        is_stored, conversation_id, messages = chance.random() < 0.5, None, list[Message]()
        for turn in range(5):
            about = HARMLESS if chance.random() < 0.7 else CONFIDENTIAL
            question = chance.choice(FOLLOWING if turn and chance.random() < 0.3 else about)
            found = await asked(
                services,
                Ask(
                    question,
                    conversation_id=conversation_id,
                    messages=tuple(messages),
                    store=is_stored,
                    top_k=chance.choice((1, 1, 8)),
                    provider=chance.choice((None, "commercial", "extractive")),
                ),
            )
            conversation_id = found.conversation_id
            if not is_stored:
                messages += [Message("user", question), Message("assistant", found.answer)]
            by_commercial += found.provider == "commercial"
            by_extractive += "'confidential'" in found.route
    assert leaked(fake) == []
    # Both ways were gone often enough for the above to mean something.
    assert by_commercial >= 5
    assert by_extractive >= 15
    assert len(fake.requests) >= by_commercial


async def test_a_confidential_passage_is_answered_by_quoting_and_the_route_says_why(
    services: Services, fake: RunningFake
) -> None:
    """Asked for by name or not, the provider gets nothing; the answer is there, and the route names label and clearance."""
    for provider in (None, "commercial"):
        found = await asked(services, Ask(CONFIDENTIAL[0], provider=provider, top_k=1))
        assert (found.provider, found.model) == ("extractive", "extractive")
        assert "14 October" in found.answer
        assert found.route == (
            "extractive: the passages are labelled 'confidential', provider 'commercial' is cleared for 'internal'"
        )
    assert fake.requests == []


async def test_a_confidential_turn_keeps_the_next_harmless_one_from_the_provider(services: Services, fake: RunningFake) -> None:
    """History carries its label: stored or sent along, a question about the canteen after the takeover is not sent out."""
    first = await asked(services, Ask(CONFIDENTIAL[0], top_k=1))
    stored = await asked(services, Ask(HARMLESS[1], conversation_id=first.conversation_id, provider="commercial", top_k=1))
    sent_along = (Message("user", CONFIDENTIAL[0]), Message("assistant", first.answer))
    stateless = await asked(services, Ask(HARMLESS[1], messages=sent_along, store=False, provider="commercial", top_k=1))
    assert [found.provider for found in (stored, stateless)] == ["extractive", "extractive"]
    assert all("noon" in found.answer for found in (stored, stateless))
    assert fake.requests == []
    fresh = await asked(services, Ask(HARMLESS[1], top_k=1))
    assert fresh.provider == "commercial"
    assert leaked(fake) == []


async def test_a_label_that_is_raised_later_holds_for_earlier_turns(
    data_dir: Path, fake: RunningFake, run: Run, services: Services
) -> None:
    """An answer that was internal yesterday is not sent out after its document became confidential today."""
    first = await asked(services, Ask(HARMLESS[0], top_k=1))
    assert first.provider == "commercial"
    rules = (RuleSettings(match="*.md", label="confidential"), RuleSettings(match="canteen.md", label="internal"))
    run(job_settings(data_dir, data_dir.parent / "documents", rules=rules))
    assert services.snapshots.refresh() is True
    sent = len(fake.requests)
    found = await asked(services, Ask(HARMLESS[1], conversation_id=first.conversation_id, top_k=1))
    assert (found.provider, len(fake.requests)) == ("extractive", sent)


async def test_what_rests_on_a_document_that_is_gone_is_not_sent_on_for_a_stateless_caller(
    data_dir: Path, fake: RunningFake, run: Run, services: Services
) -> None:
    """The answer sent back to us is left out, as it is in a stored conversation."""
    first = await asked(services, Ask(CONFIDENTIAL[0], store=False, top_k=1))
    (data_dir.parent / "documents" / "deals" / "takeover.md").unlink()
    run(job_settings(data_dir, data_dir.parent / "documents"))
    assert services.snapshots.refresh() is True
    sent_along = (Message("user", CONFIDENTIAL[0]), Message("assistant", first.answer))
    found = await asked(services, Ask(HARMLESS[1], messages=sent_along, store=False, top_k=1))
    assert found.provider == "commercial"
    assert not any(SECRET.encode() in request.body or first.answer.encode() in request.body for request in fake.requests)


async def test_without_the_fallback_a_confidential_question_is_a_clear_error(data_dir: Path, fake: RunningFake) -> None:
    """With llm.extractive_fallback off nobody answers; the error names label, clearance and key, and nothing was sent."""
    services = await services_of(data_dir, fake, extractive_fallback=False)
    try:
        with pytest.raises(NotCleared, match=r"'confidential'.*'internal'.*llm\.extractive_fallback is off"):
            await asked(services, Ask(CONFIDENTIAL[0], top_k=1))
        assert fake.requests == []
        assert (await asked(services, Ask(HARMLESS[0], top_k=1))).provider == "commercial"
    finally:
        await services.close()


@pytest.mark.parametrize("label", ["confidential", "no-such-label"])
async def test_a_label_nobody_knows_is_treated_as_the_highest(tmp_path: Path, fake: RunningFake, run: Run, label: str) -> None:
    """A mistyped label in an export never makes a document less confidential."""
    row = {"id": "1", "title": "Takeover", "text": SECRET, "label": label}
    write_files(tmp_path / "documents", {"export.jsonl": json.dumps(row)})
    run(job_settings(tmp_path / "data", tmp_path / "documents", rules=()))
    services = await services_of(tmp_path / "data", fake)
    try:
        assert (await asked(services, Ask(CONFIDENTIAL[0]))).provider == "extractive"
        assert fake.requests == []
    finally:
        await services.close()
