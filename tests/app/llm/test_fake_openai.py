"""The fake LLM in OpenAI's format: the events, byte for byte, and the addresses that Azure has for it."""

from __future__ import annotations

import httpx
import pytest

from app.llm.fake.behaviour import FakeBehaviour
from tests.app.llm.fake_calls import answer_to, call_of, events_of
from tests.servers import RunningFake


def test_a_stream_is_the_published_sequence_of_events(fake: RunningFake) -> None:
    """The role, one chunk a token, the finish reason, the usage, [DONE]."""
    fake.behave(FakeBehaviour(reply="Hi there.", cached_tokens=1))
    answer = answer_to(call_of(fake, "openai", question="Say something."))
    assert answer.headers["content-type"] == "text/event-stream"
    *chunks, done = [value for _, value in events_of(answer.text)]
    assert done == "[DONE]"
    assert {(chunk["object"], chunk["model"], chunk["id"]) for chunk in chunks} == {
        ("chat.completion.chunk", "m", f"chatcmpl-fake-{fake.requests[-1].number}")
    }
    assert [chunk["choices"] for chunk in chunks] == [
        [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}],
        [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": None}],
        [{"index": 0, "delta": {"content": " there."}, "finish_reason": None}],
        [{"index": 0, "delta": {}, "finish_reason": "stop"}],
        [],
    ]
    assert chunks[-1]["usage"] == {
        "prompt_tokens": 2,
        "completion_tokens": 2,
        "total_tokens": 4,
        "prompt_tokens_details": {"cached_tokens": 1},
    }


def test_usage_is_streamed_only_where_it_is_asked_for(fake: RunningFake) -> None:
    """Without stream_options there is none."""
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    answer = answer_to(httpx.Request("POST", f"{fake.base_url}/chat/completions", json=body))
    assert '"usage"' not in answer.text


def test_the_end_can_be_left_out(fake: RunningFake) -> None:
    """No [DONE]."""
    fake.behave(FakeBehaviour(omit_done=True))
    assert "usage" in events_of(answer_to(call_of(fake, "openai")).text)[-1][1]


def test_a_tool_call_and_a_refusal_have_fields_of_their_own(fake: RunningFake) -> None:
    """Streamed and whole."""
    fake.behave(FakeBehaviour(reply="No.", refusal=True))
    streamed = [value for _, value in events_of(answer_to(call_of(fake, "openai")).text)]
    assert streamed[1]["choices"][0]["delta"] == {"refusal": "No."}
    message = answer_to(call_of(fake, "openai", stream=False)).json()["choices"][0]["message"]
    assert (message["content"], message["refusal"]) == (None, "No.")
    fake.behave(FakeBehaviour(reply="", tool_call=True))
    streamed = [value for _, value in events_of(answer_to(call_of(fake, "openai")).text)]
    assert streamed[1]["choices"][0]["delta"]["tool_calls"][0]["function"] == {"name": "search", "arguments": "{}"}
    choice = answer_to(call_of(fake, "openai", stream=False)).json()["choices"][0]
    assert (choice["finish_reason"], choice["message"]["tool_calls"][0]["type"]) == ("tool_calls", "function")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (403, "permission_error"),
        (429, "rate_limit_error"),
        (500, "server_error"),
        (503, "server_error"),
    ],
)
def test_an_error_is_the_published_object(fake: RunningFake, status: int, kind: str) -> None:
    """With Retry-After where it was ordered."""
    fake.behave(FakeBehaviour(status=status, retry_after="7", error_message="it broke"))
    answer = answer_to(call_of(fake, "openai"))
    assert (answer.status_code, answer.headers["retry-after"]) == (status, "7")
    assert answer.json()["error"] == {"code": status, "message": "it broke", "type": kind, "param": None}


def test_azure_has_addresses_and_a_key_header_of_its_own(fake: RunningFake) -> None:
    """The deployment stands in the path, the key in api-key."""
    fake.behave(FakeBehaviour(reply="{model}", api_key="right"))
    host = fake.base_url.removesuffix("/v1")
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
    for path in ("/openai/deployments/small/chat/completions?api-version=2026-10-21", "/openai/v1/chat/completions"):
        answer = answer_to(httpx.Request("POST", f"{host}{path}", json=body, headers={"api-key": "right"}))
        assert answer.json()["choices"][0]["message"]["content"] == "m"


@pytest.mark.parametrize(("key", "status"), [(None, 401), ("wrong", 401), ("right", 200)])
def test_the_key_is_asked_for(fake: RunningFake, key: str | None, status: int) -> None:
    """Also where models are listed."""
    fake.behave(FakeBehaviour(api_key="right"))
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    assert answer_to(call_of(fake, "openai", key=key)).status_code == status
    assert answer_to(httpx.Request("GET", f"{fake.base_url}/models", headers=headers)).status_code == status


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/v1/chat/completions"),
        ("POST", "/v1/v1/messages"),
        ("POST", "/v1beta/v1beta/models/m:generateContent"),
        ("POST", "/v1beta/models/m:countTokens"),
        ("GET", "/v1/chat/completions"),
        ("DELETE", "/v1/models"),
    ],
)
def test_another_address_is_not_found(fake: RunningFake, method: str, path: str) -> None:
    """Such as a base_url with its path twice."""
    answer = answer_to(httpx.Request(method, fake.base_url.removesuffix("/v1") + path, json={}))
    assert (answer.status_code, answer.json()["error"]["message"]) == (404, "File Not Found")
