"""Chat Completions: the request and its quirks, and what each event says."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from app.llm.backend import Finished, Usage
from app.llm.openai import OpenAIBackend, read_event
from app.llm.rejections import Call
from app.llm.settings import ProviderSettings
from app.llm.wire import Piece
from corpus.errors import BackendFailed, BackendMalformed, BackendRateLimited
from corpus.types import Message
from tests.app.llm.answers import CANARY, PROMPT, RemoteBackend, answer_of
from tests.servers import RunningFake

pytestmark = pytest.mark.anyio

Make = Callable[..., RemoteBackend]
CALL = Call("acme", ProviderSettings(base_url="http://127.0.0.1:9/v1", model="any"), "http://127.0.0.1:9/v1", {}, {}, ())


def read(event: dict[str, Any]) -> Piece:
    return read_event(CALL, json.dumps(event))


async def test_the_request_is_what_chat_completions_wants(fake: RunningFake, backend_for: Make) -> None:
    """Model, messages, limits and the wish for usage are in the body; the key is in one header."""
    backend = backend_for(fake.base_url, api_key=CANARY, temperature=0.5)
    assert isinstance(backend, OpenAIBackend)
    text, finished = await answer_of(backend)
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


async def test_nothing_is_made_up_that_was_not_configured(fake: RunningFake, backend_for: Make) -> None:
    """No Authorization header and no temperature."""
    await answer_of(backend_for(fake.base_url))
    assert "authorization" not in fake.requests[0].headers
    assert "temperature" not in fake.requests[0].json()


async def test_azure_is_openai_with_a_path_a_version_and_a_header(fake: RunningFake, backend_for: Make) -> None:
    """The deployment is in the address, api-version in the query, the bare key in api-key."""
    address = fake.base_url.removesuffix("/v1")
    backend = backend_for(
        f"{address}/openai/deployments/gpt-large", query={"api-version": "2026-10-21"}, key_header="api-key", api_key=CANARY
    )
    assert (await answer_of(backend))[0] == "The fake model says hello."
    (request,) = fake.requests
    assert request.path == "/openai/deployments/gpt-large/chat/completions"
    assert request.query == "api-version=2026-10-21"
    assert request.headers["api-key"] == CANARY


@pytest.mark.parametrize(
    ("role", "turns"),
    [
        ("system", [("system", "Answer from the passages."), ("user", "How many days of leave?")]),
        ("developer", [("developer", "Answer from the passages."), ("user", "How many days of leave?")]),
        ("user", [("user", "Answer from the passages.\n\nHow many days of leave?")]),
    ],
)
async def test_the_instructions_have_the_role_that_the_model_knows(
    fake: RunningFake, backend_for: Make, role: str, turns: list[tuple[str, str]]
) -> None:
    """A model without a role for them gets them before the first question."""
    await answer_of(backend_for(fake.base_url, system_role=role))
    assert [(turn["role"], turn["content"]) for turn in fake.requests[0].json()["messages"]] == turns


async def test_usage_that_is_not_asked_for_is_estimated(fake: RunningFake, backend_for: Make) -> None:
    """With stream_usage off there are no stream_options in the request and the counts are ours, marked so."""
    _, finished = await answer_of(backend_for(fake.base_url, stream_usage=False))
    assert "stream_options" not in fake.requests[0].json()
    assert finished.usage == Usage(21, 7, estimated=True)


async def test_the_limit_of_an_answer_has_the_name_that_the_provider_wants(fake: RunningFake, backend_for: Make) -> None:
    """max_completion_tokens takes the place of max_tokens."""
    await answer_of(backend_for(fake.base_url, max_tokens_field="max_completion_tokens"))
    body = fake.requests[0].json()
    assert body["max_completion_tokens"] == 64
    assert "max_tokens" not in body


async def test_a_field_of_ours_can_be_taken_out(fake: RunningFake, backend_for: Make) -> None:
    """null in the extra body removes what a provider refuses."""
    await answer_of(backend_for(fake.base_url, body={"stream_options": None, "max_tokens": None, "seed": 7}))
    assert set(fake.requests[0].json()) == {"model", "messages", "stream", "seed"}


async def test_a_question_after_a_withdrawn_answer_is_one_turn(fake: RunningFake, backend_for: Make) -> None:
    """Two questions in a row are joined by a blank line."""
    messages = (*PROMPT.messages, Message("user", "And of sick leave?"))
    await answer_of(backend_for(fake.base_url), replace(PROMPT, messages=messages))
    assert [turn["content"] for turn in fake.requests[0].json()["messages"]] == [
        "Answer from the passages.",
        "How many days of leave?\n\nAnd of sick leave?",
    ]


def choice(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"id": "1", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


@pytest.mark.parametrize(
    ("event", "piece"),
    [
        (choice({"content": "word"}), Piece("word")),
        (choice({"role": "assistant", "content": "word"}), Piece("word")),
        (choice({"role": "assistant", "content": ""}), Piece()),
        (choice({"role": "assistant", "content": None, "refusal": None}), Piece()),
        (choice({"content": "last"}, "stop"), Piece("last", reason="stop")),
        (choice({}, "content_filter"), Piece(reason="refusal")),
        (choice({}, "tool_calls"), Piece(reason="other")),
        (choice({"refusal": "I will not"}), Piece("I will not", refused=True)),
        (choice({"reasoning_content": "hm"}), Piece(thinking=True)),
        (choice({"content": "", "reasoning": "hm"}), Piece(thinking=True)),
        (choice({"tool_calls": [{"index": 0}]}), Piece(thinking=True, called_tool=True)),
        (choice({"content": "half \ud83d"}), Piece("half \ufffd")),
        (choice({"content": [{"type": "thinking", "thinking": []}]}), Piece(thinking=True)),
        (choice({"content": [{"type": "text", "text": "wo"}, {"type": "text", "text": "rd"}]}), Piece("word")),
        ({"choices": [], "prompt_filter_results": []}, Piece()),
        (
            {
                "choices": [],
                "usage": {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}},
            },
            Piece(prompt_tokens=9, completion_tokens=2, cached_tokens=4),
        ),
        (
            {**choice({}, "stop"), "usage": {"prompt_tokens": 9, "completion_tokens": 2, "prompt_cache_hit_tokens": 3}},
            Piece(reason="stop", prompt_tokens=9, completion_tokens=2, cached_tokens=3),
        ),
        (
            {"choices": [], "usage": {"prompt_tokens": -1, "completion_tokens": True, "prompt_tokens_details": None}},
            Piece(),
        ),
    ],
)
async def test_an_event_is_read(event: dict[str, Any], piece: Piece) -> None:
    """Text, thinking, tools, refusals, reasons and counts, as the many servers of this format send them."""
    assert read(event) == piece


@pytest.mark.parametrize("event", ["[DONE]", "[DONE] "])
async def test_the_mark_at_the_end_ends_the_answer(event: str) -> None:
    """It is the only event that is not JSON."""
    assert read_event(CALL, event) == Piece(last=True)


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ("{", "not JSON"),
        ("[]", "a list, not an object"),
        ('{"id": 1}', "without `choices`"),
        ('{"choices": ["x"]}', "choice is not an object"),
        ('{"choices": [{"delta": "x"}]}', "'delta' is not an object"),
        ('{"choices": [], "usage": 3}', "'usage' is not an object"),
        ('{"choices": [], "usage": {"prompt_tokens_details": 3}}', "'prompt_tokens_details' is not an object"),
    ],
)
async def test_an_event_of_another_shape_is_refused(event: str, message: str) -> None:
    """The error says what is wrong with it."""
    with pytest.raises(BackendMalformed, match=message):
        read_event(CALL, event)


async def test_an_error_in_the_stream_is_raised() -> None:
    """With the status that it names, as OpenRouter does, or 500."""
    with pytest.raises(BackendRateLimited):
        read({"error": {"code": 429, "message": "slow down"}, "choices": []})
    with pytest.raises(BackendFailed, match="HTTP 500"):
        read({"error": {"message": "The server had an error", "type": "server_error"}})
    assert read({"error": None, **choice({"content": "word"})}) == Piece("word")
