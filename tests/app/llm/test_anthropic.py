"""Messages: the request, and what each event says."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from app.llm.anthropic import AnthropicBackend, read_event
from app.llm.backend import Finished, Usage
from app.llm.fake.behaviour import FakeBehaviour
from app.llm.rejections import Call
from app.llm.settings import ProviderSettings
from app.llm.wire import Piece
from corpus.errors import BackendFailed, BackendMalformed, BackendRateLimited
from tests.app.llm.answers import CANARY, PROMPT, RemoteBackend, answer_of
from tests.servers import RunningFake

pytestmark = pytest.mark.anyio

Make = Callable[..., RemoteBackend]
CALL = Call("acme", ProviderSettings(base_url="http://127.0.0.1:9/v1", model="any"), "http://127.0.0.1:9/v1", {}, {}, ())


def read(event: dict[str, Any]) -> Piece:
    return read_event(CALL, json.dumps(event))


async def test_the_request_is_what_messages_wants(fake: RunningFake, backend_for: Make) -> None:
    """The instructions apart, the version and the key in headers, and nothing that the format does not know."""
    backend = backend_for(fake.base_url, kind="anthropic", api_key=CANARY, temperature=0.5)
    assert isinstance(backend, AnthropicBackend)
    text, finished = await answer_of(backend)
    assert text == "The fake model says hello."
    assert finished == Finished(Usage(prompt_tokens=9, completion_tokens=5), "stop")
    (request,) = fake.requests
    assert request.path == "/v1/messages"
    assert request.json() == {
        "model": "fake",
        "max_tokens": 64,
        "system": "Answer from the passages.",
        "messages": [{"role": "user", "content": "How many days of leave?"}],
        "stream": True,
        "temperature": 0.5,
    }
    assert request.headers["anthropic-version"] == "2023-06-01"
    assert request.headers["x-api-key"] == CANARY


async def test_what_is_not_there_is_not_sent(fake: RunningFake, backend_for: Make) -> None:
    """No empty instructions, no temperature, no key."""
    await answer_of(backend_for(fake.base_url, kind="anthropic"), replace(PROMPT, messages=PROMPT.messages[1:]))
    (request,) = fake.requests
    assert set(request.json()) == {"model", "max_tokens", "messages", "stream"}
    assert "x-api-key" not in request.headers


async def test_cached_tokens_are_a_part_of_the_prompt(fake: RunningFake, backend_for: Make) -> None:
    """The format counts them apart, we count them within."""
    fake.behave(FakeBehaviour(reply="one", cached_tokens=4))
    _, finished = await answer_of(backend_for(fake.base_url, kind="anthropic"))
    assert finished.usage == Usage(prompt_tokens=9, completion_tokens=1, cached_tokens=4)


def block_delta(delta: dict[str, Any]) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": 0, "delta": delta}


def block_start(block: dict[str, Any]) -> dict[str, Any]:
    return {"type": "content_block_start", "index": 0, "content_block": block}


def message_delta(stop: str | None, **usage: int) -> dict[str, Any]:
    return {"type": "message_delta", "delta": {"stop_reason": stop, "stop_sequence": None}, "usage": usage}


STARTED = {"input_tokens": 5, "cache_creation_input_tokens": 3, "cache_read_input_tokens": 2, "output_tokens": 1}


@pytest.mark.parametrize(
    ("event", "piece"),
    [
        ({"type": "message_start", "message": {"usage": STARTED}}, Piece(prompt_tokens=10, cached_tokens=2)),
        ({"type": "message_start", "message": {"usage": {"input_tokens": 5}}}, Piece(prompt_tokens=5)),
        ({"type": "message_start", "message": {}}, Piece()),
        (block_start({"type": "text", "text": ""}), Piece()),
        (block_start({"type": "text", "text": "word"}), Piece("word")),
        (block_start({"type": "thinking", "thinking": ""}), Piece()),
        (block_start({"type": "tool_use", "id": "1", "name": "f", "input": {}}), Piece(called_tool=True)),
        (block_delta({"type": "text_delta", "text": "word"}), Piece("word")),
        (block_delta({"type": "text_delta", "text": "half \ud83d"}), Piece("half \ufffd")),
        (block_delta({"type": "thinking_delta", "thinking": "hm"}), Piece(thinking=True)),
        (block_delta({"type": "input_json_delta", "partial_json": "{"}), Piece(thinking=True, called_tool=True)),
        (block_delta({"type": "signature_delta", "signature": "x"}), Piece()),
        (block_delta({"type": "citations_delta", "citation": {}}), Piece()),
        ({"type": "content_block_stop", "index": 0}, Piece()),
        ({"type": "ping"}, Piece()),
        ({"type": "of a later version"}, Piece()),
        (message_delta("end_turn", output_tokens=7), Piece(reason="stop", completion_tokens=7)),
        (message_delta("stop_sequence", output_tokens=7), Piece(reason="stop", completion_tokens=7)),
        (message_delta("max_tokens", output_tokens=7), Piece(reason="length", completion_tokens=7)),
        (message_delta("refusal", output_tokens=7), Piece(reason="refusal", completion_tokens=7)),
        (message_delta("tool_use", output_tokens=7), Piece(reason="other", called_tool=True, completion_tokens=7)),
        (message_delta("model_context_window_exceeded", output_tokens=7), Piece(reason="other", completion_tokens=7)),
        (message_delta(None, output_tokens=7), Piece(completion_tokens=7)),
        (
            message_delta("end_turn", input_tokens=5, cache_read_input_tokens=2, output_tokens=7),
            Piece(reason="stop", completion_tokens=7, prompt_tokens=7, cached_tokens=2),
        ),
        ({"type": "message_stop"}, Piece(last=True)),
    ],
)
async def test_an_event_is_read(event: dict[str, Any], piece: Piece) -> None:
    """Each kind of event that the format has; those that it may have one day are passed over."""
    assert read(event) == piece


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ("{", "not JSON"),
        ("[]", "a list, not an object"),
        ('{"choices": []}', "without a `type`"),
        ('{"type": 3}', "without a `type`"),
        ('{"type": "content_block_delta", "delta": "x"}', "'delta' is not an object"),
        ('{"type": "content_block_start", "content_block": []}', "'content_block' is not an object"),
        ('{"type": "message_start", "message": {"usage": 3}}', "'usage' is not an object"),
    ],
)
async def test_an_event_of_another_shape_is_refused(event: str, message: str) -> None:
    """The error says what is wrong with it."""
    with pytest.raises(BackendMalformed, match=message):
        read_event(CALL, event)


@pytest.mark.parametrize(
    ("kind_of_error", "ours"),
    [("overloaded_error", BackendFailed), ("api_error", BackendFailed), ("rate_limit_error", BackendRateLimited)],
)
async def test_an_error_in_the_stream_is_raised(kind_of_error: str, ours: type[Exception]) -> None:
    """By its kind: the format gives no status there."""
    with pytest.raises(ours):
        read({"type": "error", "error": {"type": kind_of_error, "message": "Overloaded"}})


async def test_counts_that_no_prompt_has_are_not_believed() -> None:
    """Neither one above 100 million nor a sum above it."""
    usage = {"input_tokens": 60_000_000, "cache_read_input_tokens": 60_000_000}
    assert read({"type": "message_start", "message": {"usage": usage}}).prompt_tokens is None
    assert read({"type": "message_delta", "delta": {}, "usage": {"output_tokens": 10**12}}).completion_tokens is None
