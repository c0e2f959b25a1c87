"""The Chat Completions backend against a server that misbehaves on command."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from contextlib import aclosing
from datetime import UTC, datetime

import pytest

from app.llm.backend import Backend, Delta, Finished, Prompt, Usage
from app.llm.fake_server import FakeBehaviour
from app.llm.openai import OpenAIBackend
from app.llm.rejections import redacted, retry_after_s
from corpus.errors import (
    ArchivistError,
    BackendError,
    BackendFailed,
    BackendMalformed,
    BackendNotConfigured,
    BackendRateLimited,
    BackendRejected,
    BackendTimeout,
    BackendUnreachable,
    EgressRefused,
)
from corpus.types import Message
from tests.servers import RunningFake, wait_until

pytestmark = pytest.mark.anyio

CANARY = "sk-canary-0815-abcdefgh"
PROMPT = Prompt(
    messages=(Message("system", "Answer from the passages."), Message("user", "How many days of leave?")),
    label="internal",
    max_tokens=64,
)
Make = Callable[..., OpenAIBackend]


async def answer_of(backend: Backend, prompt: Prompt = PROMPT) -> tuple[str, Finished]:
    text, finished = await until_the_end(backend, prompt)
    if isinstance(finished, ArchivistError):
        raise finished
    return text, finished


async def until_the_end(backend: Backend, prompt: Prompt = PROMPT) -> tuple[str, Finished | ArchivistError]:
    """The text that arrived, and how it ended."""
    text = ""
    try:
        async with aclosing(backend.stream(prompt)) as events:
            async for event in events:
                if isinstance(event, Finished):
                    return text, event
                text += event.text
    except ArchivistError as error:
        return text, error
    raise AssertionError("the stream ended without Finished")


async def test_the_request_is_what_chat_completions_wants(fake: RunningFake, backend_for: Make) -> None:
    """Model, messages, limits and the wish for usage are in the body; the key is in one header."""
    text, finished = await answer_of(backend_for(fake.base_url, api_key=CANARY, temperature=0.5))
    assert text == "The fake model says hello."
    assert finished == Finished(Usage(prompt_tokens=9, completion_tokens=5), "stop")
    (request,) = fake.requests
    assert request.json() == {
        "model": "fake",
        "messages": [
            {"role": "system", "content": "Answer from the passages."},
            {"role": "user", "content": "How many days of leave?"},
        ],
        "max_tokens": 64,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.5,
    }
    assert [name for name, value in request.headers.items() if CANARY in value] == ["authorization"]
    assert CANARY.encode() not in request.body


async def test_a_server_without_a_key_gets_none(fake: RunningFake, backend_for: Make) -> None:
    """No Authorization header and no temperature are made up."""
    await answer_of(backend_for(fake.base_url))
    assert "authorization" not in fake.requests[0].headers
    assert "temperature" not in fake.requests[0].json()


async def test_a_connection_is_used_again(fake: RunningFake, backend_for: Make) -> None:
    """A stream that was read to its end gives its connection back: the second call is from the same port."""
    backend = backend_for(fake.base_url)
    await answer_of(backend)
    await answer_of(backend)
    assert fake.requests[0].client == fake.requests[1].client


@pytest.mark.parametrize(
    ("behaviour", "reason", "usage"),
    [
        (FakeBehaviour(reply="one two three", omit_usage=True), "stop", Usage(21, 4, estimated=True)),
        (FakeBehaviour(reply="one two three", omit_done=True), "stop", Usage(9, 3)),
        (FakeBehaviour(reply="no", refusal=True), "refusal", Usage(9, 1)),
        (FakeBehaviour(reply="no", finish_reason="content_filter"), "refusal", Usage(9, 1)),
        (FakeBehaviour(reply="no", finish_reason="eos"), "other", Usage(9, 1)),
        (FakeBehaviour(reply="word " * 100), "length", Usage(9, 64)),
    ],
    ids=["no usage", "no [DONE]", "refusal", "content filter", "unknown reason", "length"],
)
async def test_how_an_answer_ended_is_said(
    fake: RunningFake, backend_for: Make, behaviour: FakeBehaviour, reason: str, usage: Usage
) -> None:
    """Reason and usage are the provider's where it says them, counted and marked where it does not."""
    fake.behave(behaviour)
    _, finished = await answer_of(backend_for(fake.base_url))
    assert finished == Finished(usage, reason)


@pytest.mark.parametrize("tokens", [1, 2, 3, 10, 50])
@pytest.mark.parametrize("how", ["cut", "ended without a reason"])
async def test_an_answer_that_is_cut_is_an_error_that_counts_its_tokens(
    fake: RunningFake, backend_for: Make, how: str, tokens: int
) -> None:
    """All that was sent arrives, then an error and never a quiet end, however the connection was closed."""
    fake.behave(
        FakeBehaviour(reply="word " * 60, cut_after_tokens=tokens)
        if how == "cut"
        else FakeBehaviour(reply="word " * 60, end_after_tokens=tokens)
    )
    text, error = await until_the_end(backend_for(fake.base_url))
    assert text == " ".join(["word"] * tokens)
    assert isinstance(error, BackendMalformed)
    assert f"cut off after {tokens} tokens" in str(error)


@pytest.mark.parametrize(
    ("behaviour", "kind", "message"),
    [
        (FakeBehaviour(status=429, retry_after="7"), BackendRateLimited, "try again in 7 s"),
        (FakeBehaviour(status=429), BackendRateLimited, "try again later"),
        (FakeBehaviour(status=500), BackendFailed, "HTTP 500"),
        (FakeBehaviour(status=503), BackendFailed, "HTTP 503"),
        (FakeBehaviour(status=400), BackendRejected, r"\(400\): the fake was told to fail"),
        (FakeBehaviour(status=403, error_message="x" * 900), BackendRejected, r"\(403\): x{299}…$"),
        (FakeBehaviour(api_key="another"), BackendRejected, r"refused the key \(401\); check"),
        (FakeBehaviour(models=("other",)), BackendRejected, "The model `fake` does not exist; check model 'fake'"),
        (FakeBehaviour(context_tokens=3), BackendRejected, r"9 tokens.*3 tokens.*lower prompt\.budget_tokens"),
        (FakeBehaviour(error_after_tokens=0), BackendFailed, "HTTP 500"),
        (FakeBehaviour(malformed_event_after_tokens=0), BackendMalformed, "not JSON"),
        (FakeBehaviour(cut_after_tokens=0), BackendMalformed, "closed early"),
        (FakeBehaviour(reply=""), BackendMalformed, "empty answer"),
        (FakeBehaviour(reply=" \n\n "), BackendMalformed, "empty answer"),
        (FakeBehaviour(reply="", finish_reason="length"), BackendMalformed, r"raise prompt\.answer_tokens"),
        (FakeBehaviour(reply="", finish_reason="content_filter"), BackendMalformed, "content filter withheld"),
        (FakeBehaviour(reply="", tool_call=True), BackendMalformed, "called a tool"),
        (FakeBehaviour(content_type="text/html"), BackendMalformed, "'text/html' instead of a stream"),
        (FakeBehaviour(huge_answer_bytes=50_000_000, huge_in_one_event=True), BackendMalformed, "one event is larger"),
        (FakeBehaviour(redirect_to="http://elsewhere.example/v1"), EgressRefused, "to 'elsewhere.example'"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
async def test_a_failure_before_the_first_word_says_what_to_do(
    fake: RunningFake, backend_for: Make, behaviour: FakeBehaviour, kind: type[ArchivistError], message: str
) -> None:
    """Each failure is an error of its own kind with no text before it."""
    fake.behave(behaviour)
    text, error = await until_the_end(backend_for(fake.base_url, api_key=CANARY))
    assert text == ""
    assert type(error) is kind
    with pytest.raises(kind, match=message):
        raise error


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        (FakeBehaviour(reply="one two three", malformed_event_after_tokens=2), "not JSON"),
        (FakeBehaviour(reply="one two three", error_after_tokens=2), "HTTP 500"),
    ],
    ids=["malformed event", "error event"],
)
async def test_a_failure_after_some_words_is_an_error_too(
    fake: RunningFake, backend_for: Make, behaviour: FakeBehaviour, message: str
) -> None:
    """What came before the failure was passed on, then the error follows."""
    fake.behave(behaviour)
    text, error = await until_the_end(backend_for(fake.base_url))
    assert text == "one two"
    assert message in str(error)


async def test_an_answer_of_50_megabytes_is_refused(fake: RunningFake, backend_for: Make) -> None:
    """The call ends at the limit, not at the end of the answer, and the server sees that."""
    fake.behave(FakeBehaviour(huge_answer_bytes=50_000_000))
    text, error = await until_the_end(backend_for(fake.base_url))
    assert "larger than 8,000,000 bytes" in str(error)
    assert len(text) < 8_000_000
    assert wait_until(lambda: fake.requests[0].closed_early, within_s=1)


@pytest.mark.parametrize(
    ("behaviour", "limits", "stage"),
    [
        (FakeBehaviour(hang="headers"), {"first_token_timeout_s": 0.2}, "first_token"),
        (FakeBehaviour(hang="first_token"), {"first_token_timeout_s": 0.2}, "first_token"),
        (FakeBehaviour(hang="between_tokens"), {"between_tokens_timeout_s": 0.2}, "between_tokens"),
        (FakeBehaviour(reply="word " * 60, tokens_per_second=20), {"total_timeout_s": 0.2}, "total"),
    ],
    ids=["headers", "first token", "between tokens", "total"],
)
async def test_a_hang_ends_after_the_limit_of_its_stage(
    fake: RunningFake, backend_for: Make, behaviour: FakeBehaviour, limits: dict[str, float], stage: str
) -> None:
    """The error names the stage and the limit, comes on time, and the upstream call is ended."""
    fake.behave(behaviour)
    began = time.monotonic()
    _, error = await until_the_end(backend_for(fake.base_url, **limits))
    assert time.monotonic() - began < 1.2
    assert isinstance(error, BackendTimeout)
    assert (error.stage, error.waited_s) == (stage, 0.2)
    assert wait_until(lambda: fake.requests[0].closed_early, within_s=1)


async def test_a_server_that_is_not_there_is_unreachable(backend_for: Make) -> None:
    """A refused connection is an error of its own, and names the address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        with pytest.raises(BackendUnreachable, match=f"127.0.0.1:{port}: could not connect"):
            await answer_of(backend_for(f"http://127.0.0.1:{port}/v1"))


async def test_a_complete_answer_is_not_lost_to_a_server_that_keeps_the_stream_open(
    fake: RunningFake, backend_for: Make
) -> None:
    """After the finish reason a missing end costs a short wait and nothing else."""
    fake.behave(FakeBehaviour(reply="one two", keep_open=True))
    began = time.monotonic()
    text, finished = await answer_of(backend_for(fake.base_url))
    assert (text, finished.usage) == ("one two", Usage(9, 2))
    assert time.monotonic() - began < 1


async def test_a_slow_reader_is_not_taken_for_a_slow_server(fake: RunningFake, backend_for: Make) -> None:
    """Time that the caller takes between two deltas does not count against the provider."""
    fake.behave(FakeBehaviour(reply="one two three", tokens_per_second=20))
    text = ""
    async with aclosing(backend_for(fake.base_url, between_tokens_timeout_s=0.2).stream(PROMPT)) as events:
        async for event in events:
            if isinstance(event, Delta):
                text += event.text
                await asyncio.sleep(0.3)
    assert text == "one two three"


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"api_key_env": "ACME_KEY"}, "'ACME_KEY' is not set"),
        ({"api_key_file": "/run/acme.key"}, "file '/run/acme.key'"),
        ({"api_key": " "}, "its key is empty"),
        ({"api_key": f"{CANARY}\n{CANARY}"}, "was it copied whole"),
        ({"api_key": f"{CANARY}é"}, "was it copied whole"),
    ],
    ids=["variable not set", "file empty", "empty", "two lines", "not ASCII"],
)
async def test_a_key_that_is_missing_or_none_is_a_matter_of_configuration(
    fake: RunningFake, backend_for: Make, settings: dict[str, str], problem: str
) -> None:
    """Nothing is sent, and the error names where the key should come from."""
    backend = backend_for(fake.base_url, **settings)
    with pytest.raises(BackendNotConfigured, match=problem) as caught:
        await answer_of(backend)
    assert backend.problem is not None
    assert fake.requests == []
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize(
    "behaviour",
    [
        FakeBehaviour(status=status, error_message=f"bad key {CANARY}, {CANARY[:6]}*****{CANARY[-4:]}")
        for status in (400, 401, 403, 404, 429, 500)
    ]
    + [
        FakeBehaviour(api_key="another"),
        FakeBehaviour(error_after_tokens=1, error_message=CANARY),
        FakeBehaviour(hang="headers"),
        FakeBehaviour(cut_after_tokens=1),
        FakeBehaviour(redirect_to=f"http://127.0.0.1:9/?key={CANARY}"),
    ],
    ids=lambda behaviour: f"{behaviour.status} {behaviour.hang or ''}",
)
async def test_the_key_is_in_no_error_no_log_and_no_repr(
    fake: RunningFake, backend_for: Make, caplog: pytest.LogCaptureFixture, behaviour: FakeBehaviour
) -> None:
    """Even a provider that repeats the key, whole or half masked, does not get it into our words."""
    caplog.set_level(logging.DEBUG)
    fake.behave(behaviour)
    backend = backend_for(fake.base_url, api_key=CANARY, first_token_timeout_s=0.2)
    _, error = await until_the_end(backend)
    assert isinstance(error, BackendError | EgressRefused)
    assert fake.requests[0].headers["authorization"] == f"Bearer {CANARY}"
    said = f"{error} {error!r} {error.__cause__!r} {backend!r} {vars(backend)} {caplog.text}"
    assert CANARY not in said
    assert CANARY[-4:] not in said


NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("2.5", 2.5),
        ("Mon, 23 Nov 2026 12:00:30 GMT", 30),
        ("Mon, 23 Nov 2026 11:00:00 GMT", 0),
        (None, None),
        ("-1", None),
        ("inf", None),
        ("soon", None),
    ],
)
async def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    """Both forms of the header are understood, and nonsense counts as absent."""
    assert retry_after_s(value, NOW) == seconds


async def test_a_message_is_one_short_line_without_the_key() -> None:
    """Line ends and control characters go, the key goes in either spelling, and 300 characters stay."""
    assert redacted("a\nb\x1b[31m k/1 k%2F1 sk-***1", "k/1") == "a b [31m [key] [key] [key]"
    assert len(redacted("word " * 500, None)) == 300
