"""Who answers: clearance before everything, one clear fallback, never two texts in one answer."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from functools import partial

import pytest

from app.llm.backend import Delta, Finished, Prompt, Usage
from app.llm.budgets import Spending
from app.llm.fake.behaviour import FakeBehaviour
from app.llm.gateway import Gateway
from app.llm.plan import Asker, Route
from app.llm.settings import LlmSettings
from app.metrics import Metrics
from corpus.errors import (
    ArchivistError,
    BackendFailed,
    BackendMalformed,
    BackendNotConfigured,
    BackendRateLimited,
    BackendRejected,
    BackendTimeout,
    EgressRefused,
    Invalid,
    NotCleared,
)
from corpus.settings import LabelSettings
from corpus.types import Message
from tests.servers import RunningFake, wait_until

pytestmark = pytest.mark.anyio

LABELS = LabelSettings()
CANARY = "zanzibar-4711"


class Quoting:
    """A backend without a network that answers with one fixed sentence; stands where the extractive one will."""

    provider = model = "extractive"
    clearance = "secret"

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Delta | Finished, None]:
        yield Delta(f"quoted for {prompt.label}")
        yield Finished(Usage())

    async def close(self) -> None:
        """Nothing to close."""


def prompt_of(label: str, text: str = "How many days of leave?") -> Prompt:
    return Prompt(messages=(Message("user", text),), label=label, max_tokens=64)


Make = Callable[..., Gateway]


@pytest.fixture
async def gateway_for(fake: RunningFake) -> AsyncIterator[Make]:
    """Makes a gateway whose default provider `acme` is the fake, with any settings of the provider or of llm changed."""
    opened: list[Gateway] = []

    def make(provider: dict[str, object] | None = None, **changes: object) -> Gateway:
        acme = {"base_url": fake.base_url, "model": "fake", "clearance": "internal", "retries": 0, **(provider or {})}
        values: dict[str, object] = {"default": "acme", "providers": {"acme": acme}, **changes}
        settings = LlmSettings.model_validate(values)
        gateway = Gateway(settings, LABELS, Quoting(), Spending(), Metrics())
        opened.append(gateway)
        return gateway

    yield make
    for gateway in opened:
        await gateway.close()


async def answered(
    gateway: Gateway, prompt: Prompt, requested: str | None = None
) -> tuple[list[Route], str, Finished | ArchivistError]:
    """The routes, the text and how it ended."""
    routes: list[Route] = []
    text = ""
    try:
        async with aclosing(gateway.stream(prompt, Asker("me", requested))) as events:
            async for event in events:
                match event:
                    case Route():
                        routes.append(event)
                    case Delta():
                        text += event.text
                    case Finished():
                        return routes, text, event
    except ArchivistError as error:
        return routes, text, error
    raise AssertionError("the stream ended without Finished")


async def test_the_default_provider_answers(gateway_for: Make) -> None:
    """The route comes first and says why, then the answer."""
    routes, text, finished = await answered(gateway_for(), prompt_of("internal"))
    assert routes == [Route("acme", "fake", "the default provider")]
    assert text == "The fake model says hello."
    assert finished == Finished(Usage(5, 5))


async def test_the_caller_may_choose_a_provider(gateway_for: Make, fake: RunningFake) -> None:
    """A provider that a request names answers, the built-in one too."""
    routes, text, _ = await answered(gateway_for(default="extractive"), prompt_of("public"), "acme")
    assert routes == [Route("acme", "fake", "chosen by the caller")]
    assert text == "The fake model says hello."
    fake.requests.clear()
    routes, text, _ = await answered(gateway_for(), prompt_of("public"), "extractive")
    assert routes == [Route("extractive", "extractive", "chosen by the caller")]
    assert (text, fake.requests) == ("quoted for public", [])


async def test_an_unknown_provider_is_the_callers_mistake(gateway_for: Make) -> None:
    """The error names the field and lists what is known."""
    with pytest.raises(Invalid, match="no provider 'nobody'; known: extractive, acme") as caught:
        gateway_for().check("nobody")
    assert caught.value.field == "provider"


async def test_callers_may_be_kept_from_choosing(gateway_for: Make) -> None:
    """Where the configuration says so, a named provider is an error and not ignored."""
    with pytest.raises(Invalid, match="callers may not choose"):
        gateway_for(caller_may_choose=False).check("acme")


@pytest.mark.parametrize("requested", [None, "acme"])
async def test_a_prompt_above_the_clearance_is_answered_by_quoting(
    gateway_for: Make, fake: RunningFake, requested: str | None
) -> None:
    """Asked for or not, the provider gets nothing, and the route says why."""
    routes, text, _ = await answered(gateway_for(), prompt_of("confidential"), requested)
    reason = "extractive: the passages are labelled 'confidential', provider 'acme' is cleared for 'internal'"
    assert routes == [Route("extractive", "extractive", reason)]
    assert text == "quoted for confidential"
    assert fake.requests == []


async def test_without_fallback_a_prompt_above_the_clearance_is_refused(gateway_for: Make, fake: RunningFake) -> None:
    """NotCleared, and nothing was sent."""
    with pytest.raises(NotCleared, match=r"cleared for 'internal', and llm\.extractive_fallback is off"):
        await answered_or_raise(gateway_for(extractive_fallback=False), prompt_of("secret"))
    assert fake.requests == []


async def answered_or_raise(gateway: Gateway, prompt: Prompt, requested: str | None = None) -> None:
    _, _, end = await answered(gateway, prompt, requested)
    if isinstance(end, ArchivistError):
        raise end


async def test_no_byte_of_a_prompt_above_the_clearance_leaves(gateway_for: Make, fake: RunningFake) -> None:
    """Over 200 mixed calls, streamed and whole, healthy and failing, the canary reaches the server in none."""
    seeded = random.Random(4711)
    gateway = gateway_for({"breaker_failures": 1000})
    sent = 0
    for _ in range(200):
        fake.behave(FakeBehaviour(status=seeded.choice([200, 200, 429, 500])))
        label = seeded.choice([*LABELS.order, "no such label"])
        above = label not in ("public", "internal")
        sent += not above
        prompt = prompt_of(label, f"Tell me about {CANARY}" if above else "Tell me about leave")
        if seeded.random() < 0.3:
            await asyncio.gather(gateway.complete(prompt, Asker("me")), return_exceptions=True)
        else:
            _, text, _ = await answered(gateway, prompt, seeded.choice([None, "acme"]))
            assert not above or text == f"quoted for {label}"
    assert len(fake.requests) == sent > 50
    assert not any(CANARY.encode() in request.body for request in fake.requests)


@pytest.mark.parametrize(
    ("behaviour", "provider", "reason"),
    [
        (FakeBehaviour(status=429, retry_after="7"), {}, "rate limited (429)"),
        (FakeBehaviour(status=500), {}, "HTTP 500"),
        (FakeBehaviour(status=400, error_message=CANARY), {}, "HTTP 400"),
        (FakeBehaviour(api_key="other"), {}, "HTTP 401"),
        (FakeBehaviour(hang="headers"), {"first_token_timeout_s": 0.1}, "no first token within 0.1 s"),
        (FakeBehaviour(reply=""), {}, "its answer holds no text"),
        (FakeBehaviour(redirect_to="http://elsewhere.example/"), {}, "it could not be called"),
        (FakeBehaviour(), {"base_url": "http://127.0.0.1:1/v1"}, "could not connect"),
        (FakeBehaviour(), {"api_key_env": "ACME_KEY"}, "is not configured"),
    ],
    ids=["429", "500", "400", "401", "hang", "empty", "redirect", "refused connection", "no key"],
)
async def test_a_default_provider_that_fails_is_replaced_and_the_route_says_why(
    gateway_for: Make, fake: RunningFake, behaviour: FakeBehaviour, provider: dict[str, object], reason: str
) -> None:
    """Before the first word, quoting steps in; the last route names the provider and what went wrong."""
    fake.behave(behaviour)
    routes, text, finished = await answered(gateway_for(provider), prompt_of("internal"))
    assert routes[-1].provider == "extractive"
    assert routes[-1].reason.startswith("extractive: provider 'acme' ")
    assert reason in routes[-1].reason
    # Neither what the provider says, which may repeat the prompt, nor its address is for whoever asked.
    assert not any(hidden in routes[-1].reason for hidden in (CANARY, "127.0.0.1", "elsewhere"))
    assert text == "quoted for internal"
    assert finished == Finished(Usage())


@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [
        (FakeBehaviour(status=429), BackendRateLimited),
        (FakeBehaviour(status=500), BackendFailed),
        (FakeBehaviour(models=("other",)), BackendRejected),
        (FakeBehaviour(redirect_to="http://elsewhere.example/"), EgressRefused),
    ],
    ids=["429", "500", "404", "redirect"],
)
@pytest.mark.parametrize("how", ["asked for by name", "fallback off"])
async def test_nobody_steps_in_for_a_provider_asked_for_by_name(
    gateway_for: Make, fake: RunningFake, behaviour: FakeBehaviour, kind: type[ArchivistError], how: str
) -> None:
    """Its error is the caller's to see; so it is where the fallback is switched off."""
    fake.behave(behaviour)
    gateway = gateway_for(extractive_fallback=how != "fallback off")
    routes, text, error = await answered(gateway, prompt_of("public"), "acme" if how != "fallback off" else None)
    assert (len(routes), text) == (1, "")
    assert type(error) is kind


async def test_a_provider_without_its_key_that_is_asked_for_by_name_is_an_error(gateway_for: Make) -> None:
    """The error names the variable."""
    with pytest.raises(BackendNotConfigured, match="'ACME_KEY' is not set"):
        gateway_for({"api_key_env": "ACME_KEY"}).check("acme")


@pytest.mark.parametrize("tokens", [1, 3, 20])
async def test_after_the_first_word_nobody_steps_in(gateway_for: Make, fake: RunningFake, tokens: int) -> None:
    """A cut answer ends in an error and is never continued by another backend."""
    fake.behave(FakeBehaviour(reply="word " * 30, cut_after_tokens=tokens))
    routes, text, error = await answered(gateway_for(), prompt_of("public"))
    assert [route.provider for route in routes] == ["acme"]
    assert text == " ".join(["word"] * tokens)
    assert isinstance(error, BackendMalformed)


async def test_leaving_ends_the_upstream_call_and_is_no_failure(gateway_for: Make, fake: RunningFake) -> None:
    """A caller who leaves, before the first word or after, costs the provider nothing more, 20 times of 20."""
    gateway = gateway_for()
    for round_number in range(20):
        fake.requests.clear()
        hangs = FakeBehaviour(reply="word " * 60, hang="first_token" if round_number % 2 else "between_tokens")
        fake.behave(hangs)
        task = asyncio.create_task(answered(gateway, prompt_of("public")))
        assert await asyncio.to_thread(wait_until, partial(len, fake.requests), 2)
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(wait_until, lambda: fake.requests[-1].closed_early, 1)
    assert gateway.status()["down"] is False


async def test_a_whole_answer_is_the_text_of_the_provider(gateway_for: Make) -> None:
    """`complete` gives the text without the events around it."""
    assert await gateway_for().complete(prompt_of("internal"), Asker("me")) == "The fake model says hello."


@pytest.mark.parametrize(
    ("label", "changes", "provider", "kind"),
    [
        ("confidential", {}, {}, NotCleared),
        ("public", {"default": "extractive"}, {}, BackendNotConfigured),
        ("public", {}, {"api_key_env": "ACME_KEY"}, BackendNotConfigured),
    ],
    ids=["not cleared", "no LLM", "no key"],
)
async def test_a_whole_answer_is_never_a_quotation(
    gateway_for: Make,
    fake: RunningFake,
    label: str,
    changes: dict[str, object],
    provider: dict[str, object],
    kind: type,
) -> None:
    """Where no LLM may answer, `complete` raises, and the provider gets nothing."""
    with pytest.raises(kind):
        await gateway_for(provider, **changes).complete(prompt_of(label), Asker("me"))
    assert fake.requests == []


async def test_a_whole_answer_has_a_time_limit_of_its_own(gateway_for: Make, fake: RunningFake) -> None:
    """The limit ends the upstream call as well."""
    fake.behave(FakeBehaviour(hang="first_token"))
    with pytest.raises(BackendTimeout, match=r"no complete answer within 0\.[45]\d* s"):
        await gateway_for().complete(prompt_of("public"), Asker("me"), timeout_s=0.5)
    assert await asyncio.to_thread(wait_until, lambda: fake.requests[0].closed_early, 1)


async def test_the_status_remembers_a_failure_until_the_next_answer(gateway_for: Make, fake: RunningFake) -> None:
    """Down after a failed call, up again after a good one; asking for it calls nobody."""
    gateway = gateway_for()
    assert gateway.status()["down"] is False
    fake.behave(FakeBehaviour(status=500))
    await answered(gateway, prompt_of("public"))
    status = gateway.status()
    assert status["down"] is True
    assert isinstance(status["providers"], dict)
    assert status["providers"]["acme"]["last_failure"] == "BackendFailed"
    fake.behave(FakeBehaviour(context_tokens=1))
    await answered(gateway, prompt_of("public"))
    fake.behave(FakeBehaviour())
    await answered(gateway, prompt_of("public"))
    assert gateway.status()["down"] is False
    assert len(fake.requests) == 3


async def test_a_prompt_that_is_too_long_does_not_mark_a_provider_as_down(gateway_for: Make, fake: RunningFake) -> None:
    """One request was at fault, not the provider."""
    gateway = gateway_for()
    fake.behave(FakeBehaviour(context_tokens=1))
    await answered(gateway, prompt_of("public"))
    assert gateway.status()["down"] is False


async def test_a_missing_key_shows_in_the_status(gateway_for: Make) -> None:
    """Not configured, and so down, before anybody asks."""
    status = gateway_for({"api_key_env": "ACME_KEY"}).status()
    assert status["down"] is True
    assert isinstance(status["providers"], dict)
    assert "'ACME_KEY' is not set" in status["providers"]["acme"]["problem"]
