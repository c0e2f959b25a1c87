"""A provider's bad day, seen through the gateway: what is tried again, who is left alone, and what ends a hang."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median

import pytest

from app.llm.backend import Delta, Finished
from app.llm.budgets import Spending
from app.llm.fake.behaviour import FakeBehaviour
from app.llm.gateway import Gateway
from app.llm.plan import Asker
from app.llm.settings import LlmSettings
from app.metrics import Metrics
from corpus.errors import (
    ArchivistError,
    BackendLeftAlone,
    BackendMalformed,
    BackendRateLimited,
    BackendTimeout,
    Overloaded,
)
from corpus.settings import LabelSettings
from tests.app.llm.answers import PROMPT
from tests.app.llm.test_gateway import Quoting
from tests.servers import RunningFake, free_port, running_fake_llm, unanswering_port, unconnectable_port, wait_until

pytestmark = pytest.mark.anyio

SLACK_S = 1.0
"""By how much a deadline may be passed."""


@pytest.fixture(scope="module")
def spare_server() -> Iterator[RunningFake]:
    with running_fake_llm() as fake:
        yield fake


@pytest.fixture
def spare(spare_server: RunningFake) -> RunningFake:
    """A second fake LLM, well-behaved, which names its model."""
    spare_server.behave(FakeBehaviour(reply="{model} answers"))
    spare_server.requests.clear()
    return spare_server


Open = Callable[..., Gateway]


@pytest.fixture
async def open_gateway() -> AsyncIterator[Open]:
    """Opens a gateway whose chain is the providers given, in their order; keyword arguments are settings of llm."""
    opened: list[Gateway] = []

    def make(providers: dict[str, dict[str, object]], **changes: object) -> Gateway:
        default, *fallbacks = providers
        given = {name: {"model": name, "retries": 0, **provider} for name, provider in providers.items()}
        values = {"default": default, "fallbacks": fallbacks, "providers": given, "extractive_fallback": False, **changes}
        gateway = Gateway(LlmSettings.model_validate(values), LabelSettings(), Quoting(), Spending(), Metrics())
        opened.append(gateway)
        return gateway

    yield make
    for gateway in opened:
        await gateway.close()


@dataclass(slots=True)
class Asked:
    """What came of one question. Times are seconds from asking."""

    text: str = ""
    error: ArchivistError | None = None
    first_s: float = 0.0
    took_s: float = 0.0
    routes: list[str] = field(default_factory=list)
    reason: str = ""


async def ask(gateway: Gateway) -> Asked:
    """Ask to the end."""
    now = asyncio.get_running_loop().time
    began, asked = now(), Asked()
    try:
        async with aclosing(gateway.stream(PROMPT, Asker("me"))) as events:
            async for event in events:
                match event:
                    case Delta():
                        asked.first_s = asked.first_s or now() - began
                        asked.text += event.text
                    case Finished():
                        break
                    case _:
                        asked.routes.append(event.provider)
                        asked.reason = event.reason
    except ArchivistError as error:
        asked.error = error
    asked.took_s = now() - began
    return asked


def known(gateway: Gateway, name: str = "acme") -> dict[str, object]:
    """What the gateway says of a provider."""
    providers = gateway.status()["providers"]
    assert isinstance(providers, dict)
    status: dict[str, object] = providers[name]
    return status


@asynccontextmanager
async def resetting() -> AsyncIterator[tuple[str, list[float]]]:
    """A server that reads a request and then resets the connection; its address, and the times at which it did."""
    times: list[float] = []

    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        times.append(asyncio.get_running_loop().time())
        connection = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    server = await asyncio.start_server(reset, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", times


RETRIED = {
    "429": FakeBehaviour(status=429),
    "500": FakeBehaviour(status=500),
    "503": FakeBehaviour(status=503),
    "bad JSON": FakeBehaviour(malformed_event_after_tokens=0),
    "cut": FakeBehaviour(cut_after_tokens=0),
    "error event": FakeBehaviour(error_after_tokens=0),
}


@pytest.mark.parametrize("behaviour", RETRIED.values(), ids=RETRIED)
async def test_b3_a_failure_before_the_first_word_is_tried_again_and_then_the_next_answers(
    fake: RunningFake, spare: RunningFake, open_gateway: Open, behaviour: FakeBehaviour
) -> None:
    """So many calls as are configured, a moment apart, and then one to the fallback."""
    fake.behave(behaviour)
    gateway = open_gateway({"acme": {"base_url": fake.base_url, "retries": 2}, "spare": {"base_url": spare.base_url}})
    asked = await ask(gateway)
    assert (asked.text, asked.routes) == ("spare answers", ["acme", "spare"])
    assert asked.reason.startswith("fallback: provider 'acme' failed: ")
    times = [request.arrived_at for request in fake.requests]
    assert len(times) == 3
    assert all(0.15 < later - earlier < 1 for earlier, later in pairwise(times))
    assert len(spare.requests) == 1


async def test_b3_a_reset_connection_is_tried_again_and_then_the_next_answers(spare: RunningFake, open_gateway: Open) -> None:
    """A server that resets whatever it reads is called twice, and no more."""
    async with resetting() as (address, times):
        gateway = open_gateway({"acme": {"base_url": address, "retries": 1}, "spare": {"base_url": spare.base_url}})
        asked = await ask(gateway)
    assert (asked.text, asked.routes) == ("spare answers", ["acme", "spare"])
    assert len(times) == 2


async def test_b3_a_hang_is_not_tried_again(fake: RunningFake, spare: RunningFake, open_gateway: Open) -> None:
    """Whoever asked has waited long enough: one call, and then the fallback."""
    fake.behave(FakeBehaviour(hang="headers"))
    acme = {"base_url": fake.base_url, "retries": 5, "first_token_timeout_s": 0.3}
    asked = await ask(open_gateway({"acme": acme, "spare": {"base_url": spare.base_url}}))
    assert (asked.text, len(fake.requests)) == ("spare answers", 1)
    assert 0.3 <= asked.first_s < 0.3 + SLACK_S


async def test_b3_a_failure_that_passes_is_got_over(fake: RunningFake, open_gateway: Open) -> None:
    """The second call answers, and the provider counts as well."""
    fake.behave(FakeBehaviour(status=500, fail_first=1, reply="{model} answers"))
    gateway = open_gateway({"acme": {"base_url": fake.base_url, "retries": 1}})
    asked = await ask(gateway)
    assert (asked.text, asked.routes, len(fake.requests)) == ("acme answers", ["acme"], 2)
    assert known(gateway)["down"] is False


@pytest.mark.parametrize("fault", ["cut_after_tokens", "error_after_tokens", "malformed_event_after_tokens"])
async def test_b3_after_the_first_word_nothing_is_tried_again(
    fake: RunningFake, spare: RunningFake, open_gateway: Open, fault: str
) -> None:
    """One word and an error: neither the same provider nor the next is asked."""
    fake.behave(FakeBehaviour(reply="one two three", **{fault: 1}))  # type: ignore[arg-type]
    gateway = open_gateway({"acme": {"base_url": fake.base_url, "retries": 5}, "spare": {"base_url": spare.base_url}})
    asked = await ask(gateway)
    assert asked.text == "one"
    assert asked.error is not None
    assert (asked.routes, len(fake.requests), len(spare.requests)) == (["acme"], 1, 0)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("wait", ["0", "0.6"])
async def test_b3_a_short_retry_after_is_waited_out(fake: RunningFake, open_gateway: Open, status: int, wait: str) -> None:
    """The second call comes no sooner than it was told, and hardly later."""
    fake.behave(FakeBehaviour(status=status, retry_after=wait, fail_first=1))
    asked = await ask(open_gateway({"acme": {"base_url": fake.base_url, "retries": 1}}))
    assert asked.text == "The fake model says hello."
    first, second = fake.requests
    assert float(wait) <= second.arrived_at - first.arrived_at < float(wait) + 0.4


@pytest.mark.parametrize("status", [429, 503])
async def test_b3_a_long_retry_after_sends_to_the_next_and_leaves_the_provider_alone(
    fake: RunningFake, spare: RunningFake, open_gateway: Open, status: int
) -> None:
    """Told to come back in 30 s, the gateway asks the fallback at once, and the provider not again, however well it is."""
    fake.behave(FakeBehaviour(status=status, retry_after="30", fail_first=1))
    gateway = open_gateway({"acme": {"base_url": fake.base_url, "retries": 5}, "spare": {"base_url": spare.base_url}})
    asked = [await ask(gateway) for _ in range(3)]
    assert [each.text for each in asked] == ["spare answers"] * 3
    assert all(each.first_s < SLACK_S for each in asked)
    assert "left alone after failures" in asked[-1].reason
    assert len(fake.requests) == 1
    assert known(gateway)["breaker"] == "open"


async def test_b3_an_answer_that_began_before_does_not_end_a_long_retry_after(
    fake: RunningFake, spare: RunningFake, open_gateway: Open
) -> None:
    """Of two questions one is answered slowly, one told to come back in 30 s; that still holds when the first has ended."""
    gateway = open_gateway({"acme": {"base_url": fake.base_url}, "spare": {"base_url": spare.base_url}})
    fake.behave(FakeBehaviour(tokens=8, tokens_per_second=20))
    slow = asyncio.create_task(ask(gateway))
    assert await asyncio.to_thread(wait_until, lambda: fake.requests, 5)
    fake.behave(FakeBehaviour(status=429, retry_after="30"))
    assert (await ask(gateway)).text == "spare answers"
    assert (await slow).text.split()[-1] == "word8"
    assert known(gateway)["breaker"] == "open"
    assert (await ask(gateway)).text == "spare answers"
    assert len(fake.requests) == 2


async def test_b3_a_retry_after_beyond_the_deadline_is_not_waited_for(
    fake: RunningFake, spare: RunningFake, open_gateway: Open
) -> None:
    """With 1 s for the whole answer, a provider that asks for 3 s is passed over at once."""
    fake.behave(FakeBehaviour(status=429, retry_after="3"))
    chain = {"acme": {"base_url": fake.base_url, "retries": 5}, "spare": {"base_url": spare.base_url}}
    asked = await ask(open_gateway(chain, answer_within_s=1))
    assert (asked.text, len(fake.requests)) == ("spare answers", 1)
    assert asked.first_s < 0.5


async def test_b3_queue_retries_and_fallbacks_together_keep_the_deadline(
    fake: RunningFake, spare: RunningFake, open_gateway: Open
) -> None:
    """One provider's place is taken, one says 429 again and again, one hangs: after 1.5 s all that has ended in an error."""
    fake.behave(FakeBehaviour(hang="first_token"))
    spare.behave(FakeBehaviour(status=429, retry_after="0.4"))
    chain: dict[str, dict[str, object]] = {
        "full": {"base_url": fake.base_url, "max_concurrent": 1, "queue_timeout_s": 0.5, "total_timeout_s": 20},
        "limited": {"base_url": spare.base_url, "retries": 1},
        "hangs": {"base_url": fake.base_url},
    }
    gateway = open_gateway(chain, answer_within_s=1.5)
    holding = asyncio.create_task(ask(gateway))
    assert await asyncio.to_thread(wait_until, lambda: fake.requests, 5)
    asked = await ask(gateway)
    assert asked.routes == ["full", "limited", "hangs"]
    assert isinstance(asked.error, BackendTimeout)
    assert asked.error.stage == "total"
    assert 1.4 < asked.took_s < 1.5 + SLACK_S
    assert (await holding).took_s < 1.5 + SLACK_S
    assert len(spare.requests) >= 2


async def test_b3_a_provider_that_no_time_was_left_for_is_not_blamed(
    fake: RunningFake, spare: RunningFake, open_gateway: Open
) -> None:
    """The first hangs until the deadline, which is ours; the second was never called. Nothing is held against either."""
    fake.behave(FakeBehaviour(hang="first_token"))
    chain: dict[str, dict[str, object]] = {
        "acme": {"base_url": fake.base_url},
        "spare": {"base_url": spare.base_url, "breaker_failures": 1},
    }
    gateway = open_gateway(chain, answer_within_s=0.5)
    asked = await ask(gateway)
    assert isinstance(asked.error, BackendTimeout)
    assert spare.requests == []
    for name in ("acme", "spare"):
        assert (known(gateway, name)["breaker"], known(gateway, name)["down"]) == ("closed", False)


async def test_b5_a_refused_connection_costs_the_fallback_no_second(spare: RunningFake, open_gateway: Open) -> None:
    """With nobody at the address, the fallback's first word is there within a second, a retry included."""
    acme = {"base_url": f"http://127.0.0.1:{free_port()}/v1", "retries": 1, "breaker_failures": 100}
    gateway = open_gateway({"acme": acme, "spare": {"base_url": spare.base_url}})
    asked = [await ask(gateway) for _ in range(3)]
    assert [each.text for each in asked] == ["spare answers"] * 3
    assert max(each.first_s for each in asked) < SLACK_S


async def test_b5_a_connection_that_hangs_costs_the_fallback_its_limit(spare: RunningFake, open_gateway: Open) -> None:
    """The fallback's first word comes within the limit of a connection and a second."""
    with unconnectable_port() as port:
        acme = {"base_url": f"http://127.0.0.1:{port}/v1", "connect_timeout_s": 0.5, "retries": 3}
        asked = await ask(open_gateway({"acme": acme, "spare": {"base_url": spare.base_url}}))
    assert asked.text == "spare answers"
    assert 0.5 <= asked.first_s < 0.5 + SLACK_S


async def test_b5_after_so_many_failures_the_provider_costs_nothing_more(
    fake: RunningFake, spare: RunningFake, open_gateway: Open
) -> None:
    """Five questions find it dead; then it is not called, and the fallback's first word is at most 50 ms later than its own."""
    fake.behave(FakeBehaviour(status=500))
    acme = {"base_url": fake.base_url, "breaker_failures": 5, "breaker_open_s": 60}
    gateway = open_gateway({"acme": acme, "spare": {"base_url": spare.base_url}})
    alone = open_gateway({"spare": {"base_url": spare.base_url}})
    for number in range(1, 6):
        assert known(gateway)["breaker"] == "closed"
        assert (await ask(gateway)).text == "spare answers"
        assert len(fake.requests) == number
    assert known(gateway)["breaker"] == "open"
    pairs = [(await ask(gateway), await ask(alone)) for _ in range(15)]
    assert len(fake.requests) == 5
    assert {each.text for pair in pairs for each in pair} == {"spare answers"}
    assert median(through.first_s - own.first_s for through, own in pairs) < 0.05


async def test_b5_one_probe_finds_the_provider_well_again(fake: RunningFake, spare: RunningFake, open_gateway: Open) -> None:
    """While 20 ask at once, one call is let through; once it has begun to answer, the provider answers all."""
    fake.behave(FakeBehaviour(status=500))
    acme = {"base_url": fake.base_url, "breaker_failures": 2, "breaker_open_s": 0.5}
    gateway = open_gateway({"acme": acme, "spare": {"base_url": spare.base_url}})
    for _ in range(2):
        await ask(gateway)
    assert known(gateway)["breaker"] == "open"
    fake.requests.clear()
    fake.behave(FakeBehaviour(reply="{model} answers", first_token_delay_s=0.4))
    await asyncio.sleep(0.55)
    asked = await asyncio.gather(*(ask(gateway) for _ in range(20)))
    assert sorted(each.text for each in asked) == ["acme answers"] + ["spare answers"] * 19
    assert len(fake.requests) == 1
    assert known(gateway)["breaker"] == "closed"
    asked = await asyncio.gather(*(ask(gateway) for _ in range(5)))
    assert [each.text for each in asked] == ["acme answers"] * 5


async def test_b5_a_probe_that_talks_long_keeps_nobody_out(fake: RunningFake, spare: RunningFake, open_gateway: Open) -> None:
    """The first word of the probe's answer closes the breaker, not its last."""
    fake.behave(FakeBehaviour(status=500))
    acme = {"base_url": fake.base_url, "breaker_failures": 1, "breaker_open_s": 0.2}
    gateway = open_gateway({"acme": acme, "spare": {"base_url": spare.base_url}})
    await ask(gateway)
    await asyncio.sleep(0.25)
    fake.behave(FakeBehaviour(tokens=30, tokens_per_second=10))
    fake.requests.clear()
    probe = asyncio.create_task(ask(gateway))
    assert await asyncio.to_thread(wait_until, lambda: fake.requests and fake.requests[0].tokens_sent > 1, 5)
    fake.behave(FakeBehaviour(reply="{model} answers"))
    assert (await ask(gateway)).text == "acme answers"
    assert not probe.done()
    probe.cancel()
    await asyncio.wait({probe})


async def test_b5_a_probe_that_fails_leaves_the_provider_alone_for_as_long_again(
    fake: RunningFake, spare: RunningFake, open_gateway: Open
) -> None:
    """Of five questions after the time is up one tries it, in vain, and the others do not."""
    fake.behave(FakeBehaviour(status=500))
    acme = {"base_url": fake.base_url, "breaker_failures": 3, "breaker_open_s": 0.4}
    gateway = open_gateway({"acme": acme, "spare": {"base_url": spare.base_url}})
    for _ in range(3):
        await ask(gateway)
    await asyncio.sleep(0.45)
    fake.requests.clear()
    for _ in range(5):
        assert (await ask(gateway)).text == "spare answers"
    assert len(fake.requests) == 1


async def test_b5_a_breaker_is_of_one_provider_and_model(fake: RunningFake, open_gateway: Open) -> None:
    """Of two models at one address, with one key, only the one that is not there is left alone."""
    fake.behave(FakeBehaviour(models=("good",), reply="{model} answers", api_key="sk-one-key"))
    at = {"base_url": fake.base_url, "api_key": "sk-one-key", "breaker_failures": 2, "breaker_open_s": 60}
    gateway = open_gateway({"bad": at, "good": at})
    for _ in range(4):
        assert (await ask(gateway)).text == "good answers"
    assert [request.json()["model"] for request in fake.requests].count("bad") == 2
    assert (known(gateway, "bad")["breaker"], known(gateway, "good")["breaker"]) == ("open", "closed")


async def test_b5_with_nobody_else_the_caller_is_told_when_to_come_back(fake: RunningFake, open_gateway: Open) -> None:
    """The error says for how long the only provider is left alone."""
    fake.behave(FakeBehaviour(status=500))
    gateway = open_gateway({"acme": {"base_url": fake.base_url, "breaker_failures": 1, "breaker_open_s": 60}})
    await ask(gateway)
    asked = await ask(gateway)
    assert isinstance(asked.error, BackendLeftAlone)
    assert 55 < asked.error.again_in_s <= 60


async def test_b6_a_hang_in_the_queue_ends(fake: RunningFake, open_gateway: Open) -> None:
    """Who waits for a place waits so long, and is told that there was none; the provider is not blamed."""
    fake.behave(FakeBehaviour(hang="first_token"))
    acme = {"base_url": fake.base_url, "max_concurrent": 1, "queue_timeout_s": 0.3, "breaker_failures": 1}
    gateway = open_gateway({"acme": acme})
    holding = asyncio.create_task(ask(gateway))
    assert await asyncio.to_thread(wait_until, lambda: fake.requests, 5)
    asked = await ask(gateway)
    assert isinstance(asked.error, BackendTimeout)
    assert (asked.error.stage, asked.error.waited_for) == ("queue", "no free place")
    assert 0.3 <= asked.took_s < 0.3 + SLACK_S
    assert (known(gateway)["breaker"], known(gateway)["running"], known(gateway)["waiting"]) == ("closed", 1, 0)
    holding.cancel()
    await asyncio.wait({holding})
    assert known(gateway)["running"] == 0


async def test_b6_a_full_queue_refuses_at_once(fake: RunningFake, open_gateway: Open) -> None:
    """Who finds the queue full is not kept waiting."""
    fake.behave(FakeBehaviour(hang="first_token"))
    gateway = open_gateway({"acme": {"base_url": fake.base_url, "max_concurrent": 1, "max_queued": 1}})
    holding = [asyncio.create_task(ask(gateway)) for _ in range(2)]
    assert await asyncio.to_thread(wait_until, lambda: known(gateway)["waiting"], 5)
    asked = await ask(gateway)
    assert isinstance(asked.error, Overloaded)
    assert asked.took_s < 0.25
    for task in holding:
        task.cancel()
    await asyncio.wait(holding)


@pytest.mark.parametrize(
    ("port", "scheme", "stage"),
    [
        (unconnectable_port, "http", "connect"),
        (unanswering_port, "https", "connect"),
        (unanswering_port, "http", "first_token"),
    ],
    ids=["connect", "TLS", "headers"],
)
async def test_b6_a_hang_before_there_is_http_ends(
    open_gateway: Open, port: Callable[[], AbstractContextManager[int]], scheme: str, stage: str
) -> None:
    """Connecting, the TLS handshake and the response's headers each end after their limit, and the error names the stage."""
    with port() as number:
        limits = {"connect_timeout_s": 0.4, "first_token_timeout_s": 0.4}
        gateway = open_gateway({"acme": {"base_url": f"{scheme}://127.0.0.1:{number}/v1", **limits}})
        asked = await ask(gateway)
    assert isinstance(asked.error, BackendTimeout)
    assert asked.error.stage == stage
    assert 0.4 <= asked.took_s < 0.4 + SLACK_S
    assert (known(gateway)["running"], known(gateway)["last_failure"]) == (0, "BackendTimeout")


@pytest.mark.parametrize(
    ("hang", "limit", "text"),
    [
        ("headers", "first_token_timeout_s", ""),
        ("first_token", "first_token_timeout_s", ""),
        ("between_tokens", "between_tokens_timeout_s", "The"),
        ("between_tokens", "total_timeout_s", "The"),
        ("first_token", "total_timeout_s", ""),
    ],
    ids=["headers", "first token", "between tokens", "total, after a word", "total, before a word"],
)
@pytest.mark.parametrize("kind", ["openai", "anthropic", "google"])
async def test_b6_a_hang_of_the_model_ends(
    fake: RunningFake, open_gateway: Open, kind: str, hang: str, limit: str, text: str
) -> None:
    """Each stage has its own limit, the error names it, and the call ends at the provider too; in every wire format."""
    fake.behave(FakeBehaviour(hang=hang))  # type: ignore[arg-type]
    base_url = fake.google_base_url if kind == "google" else fake.base_url
    gateway = open_gateway({"acme": {"kind": kind, "base_url": base_url, limit: 0.3}})
    asked = await ask(gateway)
    assert asked.text == text
    assert isinstance(asked.error, BackendTimeout)
    assert asked.error.stage == limit.removesuffix("_timeout_s")
    assert 0.3 <= asked.took_s < 0.3 + SLACK_S
    assert await asyncio.to_thread(wait_until, lambda: fake.requests[0].closed_early, 1)
    assert known(gateway)["running"] == 0


async def test_b6_tokens_that_trickle_for_ever_end_at_the_deadline(fake: RunningFake, open_gateway: Open) -> None:
    """Every token comes in time, and the whole answer does not."""
    fake.behave(FakeBehaviour(tokens=1000, tokens_per_second=20))
    asked = await ask(open_gateway({"acme": {"base_url": fake.base_url}}, answer_within_s=0.5))
    assert isinstance(asked.error, BackendTimeout)
    assert asked.error.stage == "total"
    assert asked.text.startswith("word1 word2 word3")
    assert 0.5 <= asked.took_s < 0.5 + SLACK_S


async def test_b3_the_error_of_a_lone_provider_is_the_last_it_gave(fake: RunningFake, open_gateway: Open) -> None:
    """Without a fallback the caller sees what the provider said: its wish to wait, or that it made no sense."""
    gateway = open_gateway({"acme": {"base_url": fake.base_url}})
    fake.behave(FakeBehaviour(malformed_event_after_tokens=0))
    assert type((await ask(gateway)).error) is BackendMalformed
    fake.behave(FakeBehaviour(status=429, retry_after="17"))
    error = (await ask(gateway)).error
    assert isinstance(error, BackendRateLimited)
    assert error.retry_after_s == 17


@pytest.mark.parametrize(
    ("behaviour", "provider", "calls"),
    [
        (FakeBehaviour(), {}, 1),
        (FakeBehaviour(cut_after_tokens=2), {}, 1),
        (FakeBehaviour(hang="first_token"), {"first_token_timeout_s": 0.1}, 1),
        (FakeBehaviour(reply=""), {}, 1),
        (FakeBehaviour(status=429), {"retries": 1}, 0),
        (FakeBehaviour(status=500), {"retries": 1}, 0),
        (FakeBehaviour(models=("other",)), {}, 0),
        (FakeBehaviour(), {"base_url": "http://127.0.0.1:1/v1"}, 0),
    ],
    ids=["answered", "cut", "too slow", "wordless", "429", "500", "404", "refused connection"],
)
async def test_b2_what_a_provider_worked_on_is_counted_and_what_it_refused_is_not(
    fake: RunningFake, open_gateway: Open, behaviour: FakeBehaviour, provider: dict[str, object], calls: int
) -> None:
    """A prompt that was read costs, whatever came of it; one that was turned away does not."""
    fake.behave(behaviour)
    asker = Asker("me")
    gateway = open_gateway({"acme": {"base_url": fake.base_url, **provider}})
    async with aclosing(gateway.stream(PROMPT, asker)) as events:
        with suppress(ArchivistError):
            async for _ in events:
                pass
    assert len(asker.spent) == calls
    assert all(spent.usage.prompt_tokens > 0 for spent in asker.spent)
