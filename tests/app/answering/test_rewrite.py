"""The standalone question by a rewrite of the LLM, and by rules where there is none."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from app.answering.history import EARLIER_WEIGHT, Standalone
from app.answering.recall import Recalled
from app.answering.rewrite import LONGEST_REWRITE, REWRITE_WEIGHT, understand_question
from app.answering.types import Ask
from app.llm.fake.behaviour import FakeBehaviour
from app.llm.plan import Asker
from app.llm.settings import LlmSettings, ProviderSettings
from app.services import Services
from corpus.types import Message
from tests.app.serving import composed, settings_of
from tests.servers import RunningFake, running_fake_llm

pytestmark = pytest.mark.anyio

EARLIER = "How many days of leave do employees in Leeds get?"
QUESTION = "and for contractors?"
FUSED = f"{EARLIER} {QUESTION}"
BY_RULES = Standalone(FUSED, ((QUESTION, 1.0), (FUSED, EARLIER_WEIGHT)))


@pytest.fixture(scope="module")
def fake_server() -> Iterator[RunningFake]:
    with running_fake_llm() as fake:
        yield fake


@pytest.fixture
def fake(fake_server: RunningFake) -> RunningFake:
    """An LLM that rewrites well."""
    fake_server.behave(FakeBehaviour(reply="How many days of leave do contractors get?"))
    fake_server.requests.clear()
    return fake_server


def services_of(site: Path, fake: RunningFake, strategy: str) -> Services:
    """The service with an LLM that may see internal documents at most."""
    provider = ProviderSettings(base_url=fake.base_url, model="fake", clearance="internal")
    settings = settings_of(site / "data", llm=LlmSettings(default="llm", providers={"llm": provider}))
    history = settings.history.model_copy(update={"strategy": strategy})
    return composed(settings.model_copy(update={"history": history}))


@pytest.fixture
async def services(site: Path, fake: RunningFake) -> AsyncIterator[Services]:
    """With the rewrite switched on."""
    services = services_of(site, fake, "llm")
    yield services
    await services.close()


def earlier(label: str = "internal") -> Recalled:
    """One earlier turn of this label."""
    return Recalled(None, (Message("user", EARLIER), Message("assistant", "Employees get {25} days.")), label, ())


@pytest.mark.parametrize("reply", ["How long?", ' "How  long?"\n', "“How long?”", "'How long?'"])
async def test_the_reply_is_the_standalone_question(services: Services, fake: RunningFake, reply: str) -> None:
    """It is searched for beside what the rules give, on one line and without the quotation marks that models like to add."""
    fake.behave(FakeBehaviour(reply=reply))
    assert await understand_question(services, Ask(QUESTION), earlier(), Asker("local")) == Standalone(
        "How long?", (*BY_RULES.searches, ("How long?", REWRITE_WEIGHT))
    )


async def test_the_llm_is_shown_the_conversation_and_the_question(services: Services, fake: RunningFake) -> None:
    """One message with the newest turns and the last question, braces and all."""
    await understand_question(services, Ask(QUESTION), earlier(), Asker("local"))
    (request,) = fake.requests
    (message,) = request.json()["messages"]
    assert f"user: {EARLIER}\nassistant: Employees get {{25}} days." in message["content"]
    assert message["content"].endswith(f"Last question: {QUESTION}")


@pytest.mark.parametrize(
    "behaviour",
    [
        FakeBehaviour(status=500),
        FakeBehaviour(status=429),
        FakeBehaviour(cut_after_tokens=0),
        FakeBehaviour(reply="How many days", cut_after_tokens=2),
        FakeBehaviour(reply=""),
        FakeBehaviour(reply=" \n "),
        FakeBehaviour(reply='""'),
        FakeBehaviour(reply="word " * LONGEST_REWRITE),
        FakeBehaviour(redirect_to="http://127.0.0.1:9/"),
    ],
    ids=["500", "429", "cut at once", "cut", "empty", "white", "quotes", "long", "redirect"],
)  # fmt: skip
async def test_a_rewrite_that_is_of_no_use_leaves_it_to_the_rules(
    services: Services, fake: RunningFake, behaviour: FakeBehaviour
) -> None:
    """Failed, blank or far too long: the question is understood as without an LLM."""
    fake.behave(behaviour)
    assert await understand_question(services, Ask(QUESTION), earlier(), Asker("local")) == BY_RULES


async def test_a_conversation_that_is_too_confidential_is_not_rewritten(services: Services, fake: RunningFake) -> None:
    """Nothing is sent, and the rules do it."""
    assert await understand_question(services, Ask(QUESTION), earlier("confidential"), Asker("local")) == BY_RULES
    assert fake.requests == []


async def test_a_first_question_is_not_rewritten(services: Services, fake: RunningFake) -> None:
    """Without a history nothing is sent, and the question is as it was."""
    nothing = Recalled(None, (), "public", ())
    assert await understand_question(services, Ask(QUESTION), nothing, Asker("local")) == Standalone(
        QUESTION, ((QUESTION, 1.0),)
    )
    assert fake.requests == []


@pytest.mark.parametrize(
    ("strategy", "expected"), [("gated", BY_RULES), ("last_turn", Standalone(QUESTION, ((QUESTION, 1.0),)))]
)
async def test_other_strategies_ask_no_llm(site: Path, fake: RunningFake, strategy: str, expected: Standalone) -> None:
    """gated goes by rules; last_turn leaves the question alone."""
    services = services_of(site, fake, strategy)
    try:
        assert await understand_question(services, Ask(QUESTION), earlier(), Asker("local")) == expected
        assert fake.requests == []
    finally:
        await services.close()
