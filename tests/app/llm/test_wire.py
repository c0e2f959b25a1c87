"""What every wire format must do with an answer, whatever its shape, against a server that misbehaves on command."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import cast

import pytest

from app.llm.backend import Delta, Finished, FinishReason, Prompt, Usage
from app.llm.fake.behaviour import FakeBehaviour
from app.llm.rejections import Call
from app.llm.settings import ProviderSettings
from app.llm.wire import Piece, converse, count_of
from corpus.egress import Answer, Egress
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
    BackendWordless,
    EgressBroken,
    EgressError,
    EgressRefused,
    EgressTimeout,
)
from tests.app.llm.answers import CANARY, PROMPT, RemoteBackend, answer_of, until_the_end
from tests.corpus.raw_servers import OK, sending, serving
from tests.servers import RunningFake, free_port, wait_until

pytestmark = pytest.mark.anyio

Make = Callable[..., RemoteBackend]

FILTERED = {"openai": "content_filter", "anthropic": "refusal", "google": "SAFETY"}
TOO_LONG = {"openai": "length", "anthropic": "max_tokens", "google": "MAX_TOKENS"}


async def test_a_connection_is_used_again(fake: RunningFake, backend_of: Make) -> None:
    """A stream that was read to its end gives its connection back: the second call is from the same port."""
    backend = backend_of()
    await answer_of(backend)
    await answer_of(backend)
    assert fake.requests[0].client == fake.requests[1].client


@pytest.mark.parametrize(
    ("behaviour", "reason", "usage"),
    [
        (FakeBehaviour(reply="one two three", omit_usage=True), "stop", Usage(21, 4, estimated=True)),
        (FakeBehaviour(reply="one two three", omit_done=True), "stop", Usage(9, 3)),
        (FakeBehaviour(reply="one two", cached_tokens=4), "stop", Usage(9, 2, cached_tokens=4)),
        (FakeBehaviour(reply="no", refusal=True), "refusal", Usage(9, 1)),
        (FakeBehaviour(reply="no", finish_reason="filtered"), "refusal", Usage(9, 1)),
        (FakeBehaviour(reply="no", finish_reason="eos"), "other", Usage(9, 1)),
        (FakeBehaviour(reply="word " * 100), "length", Usage(9, 64)),
    ],
    ids=["no usage", "no end", "cached", "refusal", "content filter", "unknown reason", "length"],
)
async def test_how_an_answer_ended_is_said(
    kind: str, fake: RunningFake, backend_of: Make, behaviour: FakeBehaviour, reason: FinishReason, usage: Usage
) -> None:
    """Reason and usage are the provider's where it says them, counted and marked where it does not."""
    fake.behave(replace(behaviour, finish_reason=FILTERED[kind]) if behaviour.finish_reason == "filtered" else behaviour)
    _, finished = await answer_of(backend_of())
    assert finished == Finished(usage, reason)


@pytest.mark.parametrize("tokens", [1, 2, 3, 10, 50])
@pytest.mark.parametrize("how", ["cut", "ended without a reason"])
async def test_an_answer_that_is_cut_is_an_error_that_counts_its_tokens(
    fake: RunningFake, backend_of: Make, how: str, tokens: int
) -> None:
    """All that was sent arrives, then an error and never a quiet end, however the connection was closed."""
    fake.behave(
        FakeBehaviour(reply="word " * 60, cut_after_tokens=tokens)
        if how == "cut"
        else FakeBehaviour(reply="word " * 60, end_after_tokens=tokens)
    )
    text, error = await until_the_end(backend_of())
    assert text == " ".join(["word"] * tokens)
    assert isinstance(error, BackendMalformed)
    assert f"cut off after {tokens} tokens" in str(error)


@pytest.mark.parametrize(
    ("behaviour", "kind_of_error", "message"),
    [
        (FakeBehaviour(status=429, retry_after="7"), BackendRateLimited, "try again in 7 s"),
        (FakeBehaviour(status=429), BackendRateLimited, "try again later"),
        (FakeBehaviour(status=500), BackendFailed, "HTTP 500"),
        (FakeBehaviour(status=503), BackendFailed, "HTTP 503"),
        (FakeBehaviour(status=529), BackendFailed, "HTTP 529"),
        (FakeBehaviour(status=400), BackendRejected, r"\(400\): the fake was told to fail"),
        (FakeBehaviour(status=403, error_message="x" * 900), BackendRejected, r"\(403\): x{299}…$"),
        (FakeBehaviour(api_key="another"), BackendRejected, r"refused the key \(401\); check"),
        (FakeBehaviour(models=("other",)), BackendRejected, "no such model or path.*fake.*; check model 'fake'"),
        (FakeBehaviour(context_tokens=3), BackendRejected, r"context \(400\):.*9.*3.*lower prompt\.budget_tokens"),
        (FakeBehaviour(error_after_tokens=0), BackendFailed, "HTTP 5"),
        (FakeBehaviour(malformed_event_after_tokens=0), BackendMalformed, "not JSON"),
        (FakeBehaviour(cut_after_tokens=0), BackendMalformed, "closed early"),
        (FakeBehaviour(reply=""), BackendWordless, "empty answer"),
        (FakeBehaviour(reply=" \n\n "), BackendWordless, "empty answer"),
        (FakeBehaviour(reply="", tool_call=True), BackendWordless, "called a tool"),
        (FakeBehaviour(content_type="text/html"), BackendMalformed, "'text/html' instead of a stream"),
        (FakeBehaviour(content_type=f"text/{CANARY}"), BackendMalformed, "with something else instead of a stream"),
        (FakeBehaviour(content_type="Look at <this>"), BackendMalformed, "with something else instead of a stream"),
        (FakeBehaviour(huge_answer_bytes=50_000_000, huge_in_one_event=True), BackendMalformed, "one event is larger"),
        (FakeBehaviour(redirect_to="http://elsewhere.example/v1"), EgressRefused, "to 'elsewhere.example'"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
async def test_a_failure_before_the_first_word_says_what_to_do(
    fake: RunningFake, backend_of: Make, behaviour: FakeBehaviour, kind_of_error: type[ArchivistError], message: str
) -> None:
    """Each failure is an error of its own kind with no text before it."""
    fake.behave(behaviour)
    text, error = await until_the_end(backend_of(api_key=CANARY))
    assert text == ""
    assert type(error) is kind_of_error
    with pytest.raises(kind_of_error, match=message):
        raise error


@pytest.mark.parametrize(
    ("reasons", "message"), [(TOO_LONG, r"raise prompt\.answer_tokens"), (FILTERED, "content filter withheld")]
)
async def test_why_a_complete_answer_holds_no_text_is_said(
    kind: str, fake: RunningFake, backend_of: Make, reasons: dict[str, str], message: str
) -> None:
    """All tokens spent unseen, or all of it withheld: each has its own next step."""
    fake.behave(FakeBehaviour(reply="", finish_reason=reasons[kind]))
    with pytest.raises(BackendMalformed, match=message):
        await answer_of(backend_of())


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        (FakeBehaviour(reply="one two three", malformed_event_after_tokens=2), "not JSON"),
        (FakeBehaviour(reply="one two three", error_after_tokens=2), "HTTP 5"),
    ],
    ids=["malformed event", "error event"],
)
async def test_a_failure_after_some_words_is_an_error_too(
    fake: RunningFake, backend_of: Make, behaviour: FakeBehaviour, message: str
) -> None:
    """What came before the failure was passed on, then the error follows."""
    fake.behave(behaviour)
    text, error = await until_the_end(backend_of())
    assert text == "one two"
    assert message in str(error)


async def test_an_answer_of_50_megabytes_is_refused(fake: RunningFake, backend_of: Make) -> None:
    """The call ends at the limit, not at the end of the answer, and the server sees that."""
    fake.behave(FakeBehaviour(huge_answer_bytes=50_000_000))
    text, error = await until_the_end(backend_of())
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
    fake: RunningFake, backend_of: Make, behaviour: FakeBehaviour, limits: dict[str, float], stage: str
) -> None:
    """The error names the stage and the limit, comes on time, and the upstream call is ended."""
    fake.behave(behaviour)
    began = time.monotonic()
    _, error = await until_the_end(backend_of(**limits))
    assert time.monotonic() - began < 1.2
    assert isinstance(error, BackendTimeout)
    assert (error.stage, error.waited_s) == (stage, 0.2)
    assert wait_until(lambda: fake.requests[0].closed_early, within_s=1)


@pytest.mark.parametrize(
    ("behaviour", "within_s"),
    [
        (FakeBehaviour(hang="headers"), 0.2),
        (FakeBehaviour(reply="word " * 60, tokens_per_second=20), 0.2),
        (FakeBehaviour(), -1),
    ],
    ids=["before the first word", "between words", "already over"],
)
async def test_the_prompts_deadline_ends_a_call_before_its_own_limits(
    fake: RunningFake, backend_of: Make, behaviour: FakeBehaviour, within_s: float
) -> None:
    """What is reported is the whole answer's time, as much of it as was left; with none left nothing is sent."""
    fake.behave(behaviour)
    backend = backend_of()
    began = asyncio.get_running_loop().time()
    _, error = await until_the_end(backend, replace(PROMPT, deadline=began + within_s))
    assert isinstance(error, BackendTimeout)
    assert error.stage == "total"
    assert error.waited_s == pytest.approx(max(within_s, 0), abs=0.05)
    assert asyncio.get_running_loop().time() - began < 1.2
    assert len(fake.requests) == (0 if within_s < 0 else 1)


async def test_a_deadline_further_away_than_the_limits_changes_nothing(fake: RunningFake, backend_of: Make) -> None:
    """The shorter of the two holds."""
    fake.behave(FakeBehaviour(reply="word " * 60, tokens_per_second=20))
    deadline = asyncio.get_running_loop().time() + 60
    _, error = await until_the_end(backend_of(total_timeout_s=0.2), replace(PROMPT, deadline=deadline))
    assert isinstance(error, BackendTimeout)
    assert (error.stage, error.waited_s) == ("total", 0.2)


async def test_a_server_that_is_not_there_is_unreachable(kind: str, backend_for: Make) -> None:
    """A refused connection is an error of its own, and names the address."""
    port = free_port()
    with pytest.raises(BackendUnreachable, match=f"127.0.0.1:{port}: could not connect"):
        await answer_of(backend_for(f"http://127.0.0.1:{port}/v1", kind=kind))


async def test_a_complete_answer_is_not_lost_to_a_server_that_keeps_the_stream_open(
    kind: str, fake: RunningFake, backend_of: Make
) -> None:
    """After the finish reason a missing end costs a short wait and nothing else; Google's format has no other end."""
    fake.behave(FakeBehaviour(reply="one two", keep_open=True))
    began = time.monotonic()
    text, finished = await answer_of(backend_of())
    assert (text, finished.usage) == ("one two", Usage(9, 2))
    assert time.monotonic() - began < (3 if kind == "google" else 1)


async def test_a_slow_reader_is_not_taken_for_a_slow_server(fake: RunningFake, backend_of: Make) -> None:
    """Time that the caller takes between two deltas does not count against the provider."""
    fake.behave(FakeBehaviour(reply="one two three", tokens_per_second=20))
    text = ""
    async with aclosing(backend_of(between_tokens_timeout_s=0.2).stream(PROMPT)) as events:
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
    fake: RunningFake, backend_of: Make, settings: dict[str, str], problem: str
) -> None:
    """Nothing is sent, and the error names where the key should come from."""
    backend = backend_of(**settings)
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
    fake: RunningFake, backend_of: Make, caplog: pytest.LogCaptureFixture, behaviour: FakeBehaviour
) -> None:
    """Even a provider that repeats the key, whole or half masked, does not get it into our words."""
    caplog.set_level(logging.DEBUG)
    fake.behave(behaviour)
    backend = backend_of(api_key=CANARY, first_token_timeout_s=0.2)
    _, error = await until_the_end(backend)
    assert isinstance(error, BackendError | EgressRefused)
    assert any(CANARY in value for value in fake.requests[0].headers.values())
    said = f"{error} {error!r} {error.__cause__!r} {backend!r} {vars(backend)} {caplog.text}"
    assert CANARY not in said
    assert CANARY[-4:] not in said


@asynccontextmanager
async def scripted(steps: list[list[Piece] | EgressError | None]) -> AsyncIterator[tuple[Egress, list[float]]]:
    """An egress whose answer arrives in these steps: events, an error, or the end; and the deadlines it was given."""
    left, deadlines = list(steps), []

    class ScriptedAnswer:
        status = 200
        requested_at = 0.0

        def header(self, name: str) -> str:
            return "text/event-stream"

        async def next_events(self, deadline: float) -> list[Piece] | None:
            deadlines.append(deadline - asyncio.get_running_loop().time())
            step = left.pop(0)
            if isinstance(step, EgressError):
                raise step
            return step

    class ScriptedEgress:
        @asynccontextmanager
        async def stream(self, url: str, **_: object) -> AsyncIterator[Answer]:
            yield cast(Answer, ScriptedAnswer())

    yield cast(Egress, ScriptedEgress()), deadlines


async def told(steps: list[list[Piece] | EgressError | None]) -> tuple[str, Finished | ArchivistError, list[float]]:
    """What `converse` makes of an answer that arrives in these steps."""
    settings = ProviderSettings(base_url="http://127.0.0.1:9/v1", model="any", between_tokens_timeout_s=20)
    call = Call("acme", settings, "http://127.0.0.1:9/v1/x", {}, {}, ())
    text = ""
    async with scripted(steps) as (egress, deadlines):

        class Scripted:
            provider, model, clearance = "acme", "any", "secret"

            def stream(self, prompt: Prompt) -> AsyncGenerator[Delta | Finished, None]:
                return converse(egress, lambda: call, prompt, lambda _, piece: cast(Piece, piece))

            async def close(self) -> None: ...

        text, ended = await until_the_end(Scripted())
    return text, ended, deadlines


SILENT = EgressTimeout("127.0.0.1:9", "response", 20.0)
BROKEN = EgressBroken("127.0.0.1:9: the connection was cut")
STOPS = Piece(reason="stop", prompt_tokens=9, completion_tokens=2)


@pytest.mark.parametrize(
    ("steps", "text"),
    [
        ([[Piece("one", reason="stop")], [Piece(" two", reason="stop")], None], "one two"),
        ([[Piece("one", reason="stop")], [Piece(" two")], [Piece(reason="stop")], None], "one two"),
        ([[Piece(reason="stop")], [Piece(thinking=True, reason="stop")], [Piece("one")], [Piece(reason="stop")], None], "one"),
        ([[Piece("one"), Piece(reason="stop"), Piece(" two", reason="stop")], None], "one two"),
        ([[Piece("one", reason="stop")], SILENT], "one"),
        ([[Piece("one")], [Piece(reason="stop")], SILENT], "one"),
        ([[Piece("one")], [Piece(reason="stop")], BROKEN], "one"),
    ],
    ids=[
        "in every event",
        "too early",
        "before the first word",
        "in one chunk",
        "with the last word, and silence",
        "after the last word, and silence",
        "after the last word, and a cut",
    ],
)
async def test_text_after_a_reason_is_not_lost(steps: list[list[Piece] | EgressError | None], text: str) -> None:
    """Whenever the reason comes, all text arrives, and an answer with a reason after its last word is complete."""
    arrived, ended, _ = await told(steps)
    assert arrived == text
    assert isinstance(ended, Finished)
    assert ended.reason == "stop"


@pytest.mark.parametrize(
    ("steps", "kind_of_error"),
    [
        ([[Piece("one", reason="stop")], [Piece(" two", reason="stop")], SILENT], BackendTimeout),
        ([[Piece("one", reason="stop")], [Piece(" two", reason="stop")], BROKEN], BackendMalformed),
        ([[Piece("one", reason="stop")], [Piece(" two")], SILENT], BackendTimeout),
        ([[Piece("one", reason="stop")], [Piece(" two")], None], BackendMalformed),
        ([[Piece("one")], None], BackendMalformed),
    ],
    ids=["in every event, and silence", "in every event, and a cut", "taken back, and silence", "taken back", "none"],
)
async def test_a_reason_that_did_not_end_the_text_once_is_not_believed(
    steps: list[list[Piece] | EgressError | None], kind_of_error: type[BackendError]
) -> None:
    """Where text went on after a reason, only the end of the body ends the answer."""
    _, ended, _ = await told(steps)
    assert type(ended) is kind_of_error


async def test_how_long_the_end_is_waited_for_depends_on_what_came_last() -> None:
    """A reason alone is followed by usage or nothing; one with text may be followed by more text."""
    _, _, deadlines = await told([[Piece("one")], [Piece(" two", reason="stop")], [Piece(reason="stop")], [STOPS], None])
    assert deadlines[1:] == pytest.approx([20, 20, 2, 2], abs=0.2)


@pytest.mark.parametrize(
    ("pieces", "usage"),
    [
        ([Piece("four", prompt_tokens=9, completion_tokens=2)], Usage(9, 2)),
        ([Piece("four", prompt_tokens=0, completion_tokens=0)], Usage(21, 1, estimated=True)),
        ([Piece("four", prompt_tokens=9), STOPS], Usage(9, 2)),
        ([Piece("four", prompt_tokens=12, cached_tokens=8), STOPS], Usage(12, 2, cached_tokens=8)),
        ([Piece("four", prompt_tokens=0), STOPS], Usage(9, 2)),
        ([Piece("four"), Piece(cached_tokens=50), STOPS], Usage(9, 2, cached_tokens=9)),
        ([Piece(thinking=True)] * 3 + [Piece("four")], Usage(21, 4, estimated=True)),
        ([Piece("four times four is sixteen, äöü")], Usage(21, 9, estimated=True)),
    ],
    ids=["reported", "zeros", "in two parts", "the larger", "a zero first", "cached", "thinking", "by length"],
)
async def test_usage_is_what_was_reported_and_an_estimate_otherwise(pieces: list[Piece], usage: Usage) -> None:
    """Counts are of the whole call so far, so the largest holds; no call takes 0 tokens; more is never cached than sent."""
    _, ended, _ = await told([pieces, [Piece(reason="stop", last=True)], None])
    assert isinstance(ended, Finished)
    assert ended.usage == usage


async def test_an_end_without_a_reason_is_not_called_a_stop() -> None:
    """A mark of the end makes the answer complete; why it ended nobody said, also where a reason was taken back."""
    for steps in (
        [[Piece("one"), Piece(last=True)], None],
        [[Piece("one", reason="stop"), Piece(" two"), Piece(last=True)], None],
    ):
        _, ended, _ = await told(steps)
        assert isinstance(ended, Finished)
        assert ended.reason == "other"


@pytest.mark.parametrize(
    ("value", "count"),
    [
        (0, 0),
        (100_000_000, 100_000_000),
        (100_000_001, None),
        (10**30, None),
        (-1, None),
        (True, None),
        (3.0, None),
        ("3", None),
    ],
)
async def test_a_count_of_tokens_is_a_number_that_can_be_one(value: object, count: int | None) -> None:
    """A whole number up to 100 million; anything else counts as absent."""
    assert count_of(value) == count


DEEP = b'{"choices": ' + b"[" * 200_000
WORD = b'data: {"choices": [{"delta": {"content": "one"}}]}\n\n'
STREAM = OK + b"Content-Type: text/event-stream\r\nConnection: close\r\n\r\n"
JSON_BODY = b"Content-Type: application/json\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize(("before", "text"), [(b"", ""), (WORD, "one")], ids=["before the first word", "after it"])
async def test_an_event_that_is_nested_too_deep_is_no_json(backend_for: Make, before: bytes, text: str) -> None:
    """It is the provider's failure and none of ours, and what came before it was passed on."""
    async with serving(sending(STREAM, before, b"data: " + DEEP + b"\n\n")) as address:
        arrived, error = await until_the_end(backend_for(f"{address}/v1"))
    assert arrived == text
    assert isinstance(error, BackendMalformed)
    assert "sent an event that is not JSON" in str(error)


async def test_a_body_that_is_nested_too_deep_is_no_json(backend_for: Make) -> None:
    """Neither a list of models nor a refusal; a refusal is told by its status all the same."""
    async with serving(sending(OK, JSON_BODY, DEEP)) as address:
        with pytest.raises(BackendMalformed, match="answered with something that is not JSON"):
            await backend_for(f"{address}/v1").models()
    async with serving(sending(b"HTTP/1.1 400 Bad Request\r\n", JSON_BODY, DEEP)) as address:
        _, error = await until_the_end(backend_for(f"{address}/v1"))
    assert isinstance(error, BackendRejected)
    assert error.status == 400
