"""The fake LLM in Google's format: what its publisher describes, event by event."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from app.llm.fake.behaviour import FakeBehaviour
from tests.app.llm.fake_calls import answer_to, call_of, events_of
from tests.servers import RunningFake


def part(text: str, **more: object) -> dict[str, object]:
    """The candidates of an event."""
    return {"candidates": [{"content": {"parts": [{"text": text}], "role": "model"}, "index": 0, **more}]}


def test_a_stream_is_the_published_sequence_of_events(fake: RunningFake) -> None:
    """Each is a GenerateContentResponse without a name; the last carries the finish reason and counts the answer."""
    fake.behave(FakeBehaviour(reply="Hi there.", cached_tokens=1))
    answer = answer_to(call_of(fake, "google", question="Say something."))
    assert answer.headers["content-type"] == "text/event-stream"
    events = events_of(answer.text)
    assert [name for name, _ in events] == [None] * 3
    assert {(value.pop("modelVersion"), value.pop("responseId")) for _, value in events} == {
        ("m", f"fake-{fake.requests[-1].number}")
    }
    asked = {"promptTokenCount": 2, "cachedContentTokenCount": 1}
    assert [value for _, value in events] == [
        {**part("Hi"), "usageMetadata": {**asked, "totalTokenCount": 2}},
        {**part(" there."), "usageMetadata": {**asked, "totalTokenCount": 2}},
        {**part("", finishReason="STOP"), "usageMetadata": {**asked, "candidatesTokenCount": 2, "totalTokenCount": 4}},
    ]


def test_an_answer_in_one_piece_is_a_response(fake: RunningFake) -> None:
    """With its candidate, finish reason and usage."""
    fake.behave(FakeBehaviour(reply="Hi there."))
    response = answer_to(call_of(fake, "google", stream=False)).json()
    assert response["candidates"] == part("Hi there.", finishReason="STOP")["candidates"]
    assert response["usageMetadata"] == {"promptTokenCount": 2, "candidatesTokenCount": 2, "totalTokenCount": 4}


def test_a_tool_call_is_a_part_of_the_last_event(fake: RunningFake) -> None:
    """The finish reason is STOP all the same, as Google's is."""
    fake.behave(FakeBehaviour(reply="Hi", tool_call=True))
    candidate = events_of(answer_to(call_of(fake, "google")).text)[-1][1]["candidates"][0]
    assert candidate["content"]["parts"][1] == {"functionCall": {"name": "search", "args": {}}}
    assert candidate["finishReason"] == "STOP"


def test_a_refusal_is_a_finish_reason(fake: RunningFake) -> None:
    """The text before it has been sent by then."""
    fake.behave(FakeBehaviour(reply="No.", refusal=True))
    events = events_of(answer_to(call_of(fake, "google")).text)
    assert events[-1][1]["candidates"][0]["finishReason"] == "SAFETY"


def test_a_blocked_prompt_has_feedback_and_no_candidate(fake: RunningFake) -> None:
    """A refusal that says nothing."""
    fake.behave(FakeBehaviour(reply="", refusal=True))
    for value in (
        events_of(answer_to(call_of(fake, "google")).text)[0][1],
        answer_to(call_of(fake, "google", stream=False)).json(),
    ):
        assert value["promptFeedback"] == {"blockReason": "SAFETY"}
        assert "candidates" not in value


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "INVALID_ARGUMENT"),
        (403, "PERMISSION_DENIED"),
        (404, "NOT_FOUND"),
        (429, "RESOURCE_EXHAUSTED"),
        (500, "INTERNAL"),
        (503, "UNAVAILABLE"),
    ],
)
def test_an_error_is_the_published_object(fake: RunningFake, status: int, code: str) -> None:
    """With Google's name of the status."""
    fake.behave(FakeBehaviour(status=status, error_message="it broke"))
    answer = answer_to(call_of(fake, "google"))
    assert (answer.status_code, answer.json()) == (status, {"error": {"code": status, "message": "it broke", "status": code}})


def test_the_seconds_to_wait_stand_in_the_body(fake: RunningFake) -> None:
    """As RetryInfo, and in no header; a date can only be a header."""
    fake.behave(FakeBehaviour(status=429, retry_after="3.5"))
    answer = answer_to(call_of(fake, "google"))
    info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "3.5s"}
    assert answer.json()["error"]["details"] == [info]
    assert "retry-after" not in answer.headers
    fake.behave(FakeBehaviour(status=429, retry_after="Mon, 23 Nov 2026 12:00:00 GMT"))
    answer = answer_to(call_of(fake, "google"))
    assert answer.headers["retry-after"] == "Mon, 23 Nov 2026 12:00:00 GMT"
    assert "details" not in answer.json()["error"]


def test_a_wrong_key_is_an_invalid_argument(fake: RunningFake) -> None:
    """400 with the reason API_KEY_INVALID; 403 without any key; the right one may stand in the address."""
    fake.behave(FakeBehaviour(api_key="right"))
    wrong, none = answer_to(call_of(fake, "google", key="wrong")), answer_to(call_of(fake, "google", key=None))
    assert (wrong.status_code, wrong.json()["error"]["status"]) == (400, "INVALID_ARGUMENT")
    assert wrong.json()["error"]["details"][0]["reason"] == "API_KEY_INVALID"
    assert (none.status_code, none.json()["error"]["status"]) == (403, "PERMISSION_DENIED")
    asked = call_of(fake, "google", key=None)
    asked.url = asked.url.copy_add_param("key", "right")
    assert answer_to(asked).status_code == 200


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "* GenerateContentRequest.contents: contents is not specified"),
        ({"contents": [{"role": "assistant", "parts": [{"text": "x"}]}]}, "Please use a valid role: user, model."),
        ({"messages": []}, 'Invalid JSON payload received. Unknown name "messages": Cannot find field.'),
        (
            {"generationConfig": {"max_tokens": 5}},
            "Invalid JSON payload received. Unknown name \"max_tokens\" at 'generation_config': Cannot find field.",
        ),
    ],
)
def test_a_request_in_another_format_is_refused(fake: RunningFake, body: dict[str, Any], message: str) -> None:
    """What the real one would not take, this one does not."""
    answer = answer_to(httpx.Request("POST", f"{fake.google_base_url}/models/m:generateContent", json=body))
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, message)


@pytest.mark.parametrize("name", ["systemInstruction", "system_instruction"])
def test_the_system_instruction_is_part_of_the_prompt(fake: RunningFake, name: str) -> None:
    """In either of the spellings that Google takes."""
    fake.behave(FakeBehaviour(mode="echo"))
    body = {name: {"parts": [{"text": "Be brief."}]}, "contents": [{"parts": [{"text": "Hi"}, {"text": "you"}]}]}
    response = answer_to(httpx.Request("POST", f"{fake.google_base_url}/models/m:generateContent", json=body)).json()
    assert response["candidates"][0]["content"]["parts"] == [{"text": "Be brief.\nHi\nyou"}]


def test_a_stream_must_be_asked_for_as_events(fake: RunningFake) -> None:
    """Without alt=sse it is refused."""
    asked = call_of(fake, "google")
    asked.url = asked.url.copy_remove_param("alt")
    assert (answer_to(asked).status_code, "alt=sse" in answer_to(asked).text) == (400, True)


def test_it_lists_its_models(fake: RunningFake) -> None:
    """All, or one, or HTTP 404."""
    fake.behave(FakeBehaviour(models=("a", "b"), context_tokens=100))
    listed = answer_to(httpx.Request("GET", f"{fake.google_base_url}/models")).json()
    one = answer_to(httpx.Request("GET", f"{fake.google_base_url}/models/b")).json()
    none = answer_to(httpx.Request("GET", f"{fake.google_base_url}/models/c"))
    assert [model["name"] for model in listed["models"]] == ["models/a", "models/b"]
    assert (one["name"], one["inputTokenLimit"]) == ("models/b", 100)
    assert "generateContent" in one["supportedGenerationMethods"]
    assert (none.status_code, none.json()["error"]["status"]) == (404, "NOT_FOUND")
