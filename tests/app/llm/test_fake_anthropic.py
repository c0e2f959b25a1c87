"""The fake LLM in Anthropic's format: what its publisher describes, event by event."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from app.llm.fake.behaviour import FakeBehaviour
from tests.app.llm.fake_calls import answer_to, call_of, events_of
from tests.servers import RunningFake


def test_a_stream_is_the_published_sequence_of_events(fake: RunningFake) -> None:
    """Each event is named, each value says its type; the last but one carries the stop reason and the tokens."""
    fake.behave(FakeBehaviour(reply="Hi there.", cached_tokens=1))
    answer = answer_to(call_of(fake, "anthropic", question="Say something."))
    assert answer.headers["content-type"] == "text/event-stream"
    events = events_of(answer.text)
    assert all(name == value["type"] for name, value in events)
    message = events[0][1]["message"]
    assert message.pop("id").startswith("msg_")
    assert message == {
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {
            "input_tokens": 1,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 1,
            "output_tokens": 1,
        },
    }
    assert [value for _, value in events[1:]] == [
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": " there."}},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": 2},
        },
        {"type": "message_stop"},
    ]


def test_an_answer_in_one_piece_is_a_message(fake: RunningFake) -> None:
    """With its content, stop reason and usage."""
    fake.behave(FakeBehaviour(reply="Hi there."))
    message = answer_to(call_of(fake, "anthropic", stream=False)).json()
    assert message["content"] == [{"type": "text", "text": "Hi there."}]
    assert (message["type"], message["role"], message["stop_reason"]) == ("message", "assistant", "end_turn")
    assert (message["usage"]["input_tokens"], message["usage"]["output_tokens"]) == (2, 2)


def test_the_end_can_be_left_out(fake: RunningFake) -> None:
    """No message_stop."""
    fake.behave(FakeBehaviour(omit_done=True))
    assert events_of(answer_to(call_of(fake, "anthropic")).text)[-1][0] == "message_delta"


def test_a_tool_call_is_a_block_of_its_own(fake: RunningFake) -> None:
    """It is streamed after the text, and the stop reason says so."""
    fake.behave(FakeBehaviour(reply="Hi", tool_call=True))
    values = [value for _, value in events_of(answer_to(call_of(fake, "anthropic")).text)]
    assert [value["type"] for value in values if value.get("index") == 1] == [
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
    ]
    assert values[-2]["delta"]["stop_reason"] == "tool_use"
    whole = answer_to(call_of(fake, "anthropic", stream=False)).json()
    assert [block["type"] for block in whole["content"]] == ["text", "tool_use"]


def test_a_refusal_is_a_stop_reason(fake: RunningFake) -> None:
    """The text before it has been sent by then."""
    fake.behave(FakeBehaviour(reply="No.", refusal=True))
    assert events_of(answer_to(call_of(fake, "anthropic")).text)[-2][1]["delta"]["stop_reason"] == "refusal"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (403, "permission_error"),
        (413, "request_too_large"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (529, "overloaded_error"),
    ],
)
def test_an_error_is_the_published_object(fake: RunningFake, status: int, kind: str) -> None:
    """With its type, a request id, and Retry-After where it was ordered."""
    fake.behave(FakeBehaviour(status=status, retry_after="7", error_message="it broke"))
    answer = answer_to(call_of(fake, "anthropic"))
    assert (answer.status_code, answer.headers["retry-after"]) == (status, "7")
    body = answer.json()
    assert (body["type"], body["error"]) == ("error", {"type": kind, "message": "it broke"})
    assert body["request_id"] == answer.headers["request-id"]


@pytest.mark.parametrize(("key", "message"), [(None, "x-api-key header is required"), ("wrong", "invalid x-api-key")])
def test_the_key_is_asked_for(fake: RunningFake, key: str | None, message: str) -> None:
    """401, and not with the right key."""
    fake.behave(FakeBehaviour(api_key="right"))
    answer = answer_to(call_of(fake, "anthropic", key=key))
    assert (answer.status_code, answer.json()["error"]) == (401, {"type": "authentication_error", "message": message})
    assert answer_to(call_of(fake, "anthropic", key="right")).status_code == 200


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_tokens": None}, "max_tokens: Field required"),
        ({"messages": []}, "messages: at least one message is required"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages.0.role: Input should be 'user' or 'assistant'"),
        ({"stream_options": {}}, "stream_options: Extra inputs are not permitted"),
    ],
)
def test_a_request_in_another_format_is_refused(fake: RunningFake, change: dict[str, Any], message: str) -> None:
    """What the real one would not take, this one does not."""
    asked = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}], **change}
    body = {name: value for name, value in asked.items() if value is not None}
    headers = {"anthropic-version": "2023-06-01"}
    answer = answer_to(httpx.Request("POST", f"{fake.base_url}/messages", json=body, headers=headers))
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, message)


def test_the_version_is_required(fake: RunningFake) -> None:
    """400 without the header."""
    asked = call_of(fake, "anthropic")
    del asked.headers["anthropic-version"]
    assert answer_to(asked).json()["error"]["message"] == "anthropic-version: header is required"


def test_system_and_content_may_be_blocks(fake: RunningFake) -> None:
    """The prompt is all the text, in order."""
    fake.behave(FakeBehaviour(mode="echo"))
    body = {
        "model": "m",
        "max_tokens": 99,
        "system": [{"type": "text", "text": "Be brief."}],
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}, {"type": "text", "text": "you"}]}],
    }
    headers = {"anthropic-version": "2023-06-01"}
    message = answer_to(httpx.Request("POST", f"{fake.base_url}/messages", json=body, headers=headers)).json()
    assert message["content"][0]["text"] == "Be brief.\nHi\nyou"


def test_it_lists_its_models_to_who_speaks_its_version(fake: RunningFake) -> None:
    """The path is OpenAI's too; the header tells them apart."""
    fake.behave(FakeBehaviour(models=("a", "b"), api_key="right"))
    headers = {"anthropic-version": "2023-06-01", "x-api-key": "right"}
    listed = answer_to(httpx.Request("GET", f"{fake.base_url}/models", headers=headers)).json()
    one = answer_to(httpx.Request("GET", f"{fake.base_url}/models/b", headers=headers)).json()
    none = answer_to(httpx.Request("GET", f"{fake.base_url}/models/c", headers=headers))
    assert [(model["type"], model["id"]) for model in listed["data"]] == [("model", "a"), ("model", "b")]
    assert (listed["has_more"], listed["first_id"], listed["last_id"]) == (False, "a", "b")
    assert one["id"] == "b"
    assert (none.status_code, none.json()["error"]) == (404, {"type": "not_found_error", "message": "model: c"})
