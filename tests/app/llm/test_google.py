"""generateContent: the request, and what each event says."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from app.llm.backend import Finished, Usage
from app.llm.fake.behaviour import FakeBehaviour
from app.llm.google import GoogleBackend, read_event
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


async def test_the_request_is_what_generate_content_wants(fake: RunningFake, backend_for: Make) -> None:
    """The model in the address, the instructions apart, the limits in generationConfig, the key in its header."""
    backend = backend_for(fake.google_base_url, kind="google", api_key=CANARY, temperature=0.5)
    assert isinstance(backend, GoogleBackend)
    messages = (*PROMPT.messages, Message("assistant", "30."), Message("user", "And of sick leave?"))
    text, finished = await answer_of(backend, replace(PROMPT, messages=messages))
    assert text == "The fake model says hello."
    assert finished == Finished(Usage(prompt_tokens=14, completion_tokens=5), "stop")
    (request,) = fake.requests
    assert (request.path, request.query) == ("/v1beta/models/fake:streamGenerateContent", "alt=sse")
    assert request.json() == {
        "contents": [
            {"role": "user", "parts": [{"text": "How many days of leave?"}]},
            {"role": "model", "parts": [{"text": "30."}]},
            {"role": "user", "parts": [{"text": "And of sick leave?"}]},
        ],
        "systemInstruction": {"parts": [{"text": "Answer from the passages."}]},
        "generationConfig": {"maxOutputTokens": 64, "temperature": 0.5},
    }
    assert request.headers["x-goog-api-key"] == CANARY
    assert CANARY not in request.query


async def test_what_is_not_there_is_not_sent(fake: RunningFake, backend_for: Make) -> None:
    """No empty instructions, no temperature, no key."""
    await answer_of(backend_for(fake.google_base_url, kind="google"), replace(PROMPT, messages=PROMPT.messages[1:]))
    (request,) = fake.requests
    assert set(request.json()) == {"contents", "generationConfig"}
    assert request.json()["generationConfig"] == {"maxOutputTokens": 64}
    assert "x-goog-api-key" not in request.headers


async def test_a_model_may_be_named_with_its_folder(fake: RunningFake, backend_for: Make) -> None:
    """`models/fake`, as Google's list spells it, is the same as `fake`."""
    backend = backend_for(fake.google_base_url, kind="google", model="models/fake")
    await answer_of(backend)
    assert fake.requests[0].path == "/v1beta/models/fake:streamGenerateContent"
    assert await backend.models() == frozenset({"fake", "models/fake"})


async def test_a_prompt_that_was_blocked_is_no_answer(fake: RunningFake, backend_for: Make) -> None:
    """There is no candidate then, only word that it was withheld."""
    fake.behave(FakeBehaviour(reply="", refusal=True))
    with pytest.raises(BackendMalformed, match="content filter withheld the whole answer"):
        await answer_of(backend_for(fake.google_base_url, kind="google"))


def candidate(*parts: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    reason = {} if finish is None else {"finishReason": finish}
    return {"candidates": [{"content": {"parts": list(parts), "role": "model"}, "index": 0, **reason}]}


USAGE = {"promptTokenCount": 9, "candidatesTokenCount": 2, "thoughtsTokenCount": 5, "cachedContentTokenCount": 4}


@pytest.mark.parametrize(
    ("event", "piece"),
    [
        (candidate({"text": "word"}), Piece("word")),
        (candidate({"text": "wo"}, {"text": "rd"}), Piece("word")),
        (candidate({"text": "half \ud83d"}), Piece("half \ufffd")),
        (candidate({"text": "last"}, finish="STOP"), Piece("last", reason="stop")),
        (candidate({"text": "on"}, finish="FINISH_REASON_UNSPECIFIED"), Piece("on")),
        (candidate({"text": "hm", "thought": True}), Piece(thinking=True)),
        (candidate({"text": "hm", "thought": True}, {"text": "word"}), Piece("word", thinking=True)),
        (candidate({"text": "", "thoughtSignature": "x"}, finish="STOP"), Piece(reason="stop")),
        (candidate({"functionCall": {"name": "f"}}, finish="STOP"), Piece(thinking=True, called_tool=True, reason="stop")),
        (candidate(finish="MALFORMED_FUNCTION_CALL"), Piece(called_tool=True, reason="other")),
        (candidate(finish="MAX_TOKENS"), Piece(reason="length")),
        (candidate(finish="SAFETY"), Piece(reason="refusal")),
        (candidate(finish="RECITATION"), Piece(reason="refusal")),
        (candidate(finish="BLOCKLIST"), Piece(reason="refusal")),
        (candidate(finish="PROHIBITED_CONTENT"), Piece(reason="refusal")),
        (candidate(finish="SPII"), Piece(reason="refusal")),
        (candidate(finish="LANGUAGE"), Piece(reason="other")),
        ({"candidates": [{"finishReason": "STOP", "index": 0}]}, Piece(reason="stop")),
        ({"candidates": [{"content": {"role": "model"}, "finishReason": "STOP"}]}, Piece(reason="stop")),
        ({"promptFeedback": {"blockReason": "SAFETY"}}, Piece(refused=True, reason="refusal")),
        ({"promptFeedback": {"blockReason": "OTHER"}, "usageMetadata": {}}, Piece(refused=True, reason="refusal")),
        ({**candidate({"text": "word"}), "promptFeedback": {"safetyRatings": []}}, Piece("word")),
        ({"usageMetadata": USAGE}, Piece(prompt_tokens=9, completion_tokens=7, cached_tokens=4)),
        (
            {**candidate({"text": "word"}), "usageMetadata": {"promptTokenCount": 9, "totalTokenCount": 9}},
            Piece("word", prompt_tokens=9),
        ),
        ({"candidates": [], "modelVersion": "x"}, Piece()),
        ({"candidates": [{"content": {"parts": [{"text": 3}]}, "finishReason": ["odd"]}]}, Piece()),
    ],
)
async def test_an_event_is_read(event: dict[str, Any], piece: Piece) -> None:
    """Text, thoughts, calls of tools, reasons, what was blocked, and counts."""
    assert read(event) == piece


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ("{", "not JSON"),
        ("[]", "a list, not an object"),
        ('{"choices": []}', "without `candidates`"),
        ('{"candidates": {}}', "`candidates` are not a list"),
        ('{"candidates": ["x"]}', "candidate is not an object"),
        ('{"candidates": [{"content": "x"}]}', "'content' is not an object"),
        ('{"candidates": [{"content": {"parts": "x"}}]}', "`parts` are not a list"),
        ('{"candidates": [{"content": {"parts": ["x"]}}]}', "`parts` are not a list of objects"),
        ('{"usageMetadata": 3}', "'usageMetadata' is not an object"),
        ('{"promptFeedback": 3}', "'promptFeedback' is not an object"),
    ],
)
async def test_an_event_of_another_shape_is_refused(event: str, message: str) -> None:
    """The error says what is wrong with it."""
    with pytest.raises(BackendMalformed, match=message):
        read_event(CALL, event)


async def test_an_error_in_the_stream_is_raised() -> None:
    """With the status that it names."""
    with pytest.raises(BackendFailed, match="HTTP 503"):
        read({"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}})
    with pytest.raises(BackendRateLimited):
        read({"error": {"code": 429, "message": "quota", "status": "RESOURCE_EXHAUSTED"}})


async def test_counts_that_no_answer_has_are_not_believed() -> None:
    """Neither one above 100 million nor a sum above it."""
    usage = {"promptTokenCount": 10**12, "candidatesTokenCount": 60_000_000, "thoughtsTokenCount": 60_000_000}
    assert read({"candidates": [], "usageMetadata": usage}) == Piece()
