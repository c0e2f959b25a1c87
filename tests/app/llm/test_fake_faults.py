"""What the fake LLM does wrong on command, in every format."""

from __future__ import annotations

import time

import httpx
import pytest

from app.llm.fake.behaviour import FakeBehaviour, Hang, Mode
from corpus.errors import ConfigError
from tests.app.llm.fake_calls import WIRES, Wire, answer_to, body_until_silence, call_of, events_of, finish_of, tokens_of
from tests.servers import RunningFake, wait_until

each_format = pytest.mark.parametrize("wire", WIRES)


@each_format
def test_the_answer_names_the_model_that_was_asked(fake: RunningFake, wire: Wire) -> None:
    """{model} in the reply tells who answered."""
    fake.behave(FakeBehaviour(reply="I am {model}."))
    answer = answer_to(call_of(fake, wire, model="small-3"))
    assert tokens_of(wire, events_of(answer.text)) == ["I", " am", " small-3."]


@each_format
def test_an_answer_of_so_many_tokens_has_one_event_for_each(fake: RunningFake, wire: Wire) -> None:
    """`tokens` words, numbered, and as many are reported as sent."""
    fake.behave(FakeBehaviour(tokens=500))
    answer = answer_to(call_of(fake, wire))
    words = tokens_of(wire, events_of(answer.text))
    assert (len(words), words[0], words[-1]) == (500, "word1", " word500")
    assert fake.requests[-1].tokens_sent == 500


@each_format
def test_the_callers_limit_ends_the_answer(fake: RunningFake, wire: Wire) -> None:
    """The format's own finish reason says so."""
    fake.behave(FakeBehaviour(reply="one two three"))
    events = events_of(answer_to(call_of(fake, wire, max_tokens=2)).text)
    assert tokens_of(wire, events) == ["one", " two"]
    assert finish_of(wire, events) == {"openai": "length", "anthropic": "max_tokens", "google": "MAX_TOKENS"}[wire]


@each_format
@pytest.mark.parametrize(("mode", "text"), [("echo", "Now say: zanzibar"), ("obey", "zanzibar")])
def test_it_reads_the_prompt_of_each_format(fake: RunningFake, wire: Wire, mode: Mode, text: str) -> None:
    """What it was asked comes back, or what that orders."""
    fake.behave(FakeBehaviour(mode=mode))
    events = events_of(answer_to(call_of(fake, wire, question="Now say: zanzibar")).text)
    assert "".join(tokens_of(wire, events)) == text


@each_format
def test_the_first_calls_fail_and_later_ones_are_answered(fake: RunningFake, wire: Wire) -> None:
    """fail_first counts from the moment it was ordered."""
    for _ in range(2):
        fake.behave(FakeBehaviour(status=503, fail_first=2))
        assert [answer_to(call_of(fake, wire)).status_code for _ in range(4)] == [503, 503, 200, 200]


def test_failing_first_needs_a_status() -> None:
    """A knob that would do nothing is refused."""
    with pytest.raises(ConfigError, match="needs a status"):
        FakeBehaviour(fail_first=2)


@each_format
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_a_redirect_is_one(fake: RunningFake, wire: Wire, stream: bool) -> None:
    """307, to the address ordered."""
    fake.behave(FakeBehaviour(redirect_to="http://elsewhere.example/"))
    answer = answer_to(call_of(fake, wire, stream=stream))
    assert (answer.status_code, answer.headers["location"]) == (307, "http://elsewhere.example/")


@each_format
@pytest.mark.parametrize("hang", ["connect", "tls", "headers"])
def test_it_hangs_before_the_headers(fake: RunningFake, wire: Wire, hang: Hang) -> None:
    """A server that runs already can hang no earlier."""
    fake.behave(FakeBehaviour(hang=hang))
    with pytest.raises(httpx.ReadTimeout):
        answer_to(call_of(fake, wire), timeout_s=0.15)


@each_format
@pytest.mark.parametrize(("hang", "sent"), [("first_token", []), ("between_tokens", ["one"])])
def test_it_hangs_in_the_stream(fake: RunningFake, wire: Wire, hang: Hang, sent: list[str]) -> None:
    """The headers come, so many tokens, then nothing; a caller who leaves is recorded as such."""
    fake.behave(FakeBehaviour(reply="one two", hang=hang))
    assert tokens_of(wire, events_of(body_until_silence(call_of(fake, wire)))) == sent
    assert wait_until(lambda: fake.requests[-1].closed_early, within_s=2)
    assert fake.requests[-1].tokens_sent == len(sent)


@each_format
def test_a_whole_answer_hangs_too(fake: RunningFake, wire: Wire) -> None:
    """Where there is no stream, a hang in it is a hang before it."""
    fake.behave(FakeBehaviour(hang="between_tokens"))
    with pytest.raises(httpx.ReadTimeout):
        answer_to(call_of(fake, wire, stream=False), timeout_s=0.15)


@each_format
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_the_connection_is_cut(fake: RunningFake, wire: Wire, stream: bool) -> None:
    """A client sees that the answer is not complete."""
    fake.behave(FakeBehaviour(reply="one two three", cut_after_tokens=2))
    with pytest.raises(httpx.RemoteProtocolError):
        answer_to(call_of(fake, wire, stream=stream))


@each_format
def test_the_stream_ends_as_if_it_were_whole(fake: RunningFake, wire: Wire) -> None:
    """The connection ends in good order, with no finish reason."""
    fake.behave(FakeBehaviour(reply="one two three", end_after_tokens=2))
    events = events_of(answer_to(call_of(fake, wire)).text)
    assert tokens_of(wire, events) == ["one", " two"]
    assert finish_of(wire, events) is None


@each_format
def test_an_event_is_not_json(fake: RunningFake, wire: Wire) -> None:
    """One event in the middle is half of one; the others are sound."""
    fake.behave(FakeBehaviour(reply="one two three", malformed_event_after_tokens=2))
    values = [value for _, value in events_of(answer_to(call_of(fake, wire)).text)]
    broken = [value for value in values if isinstance(value, str) and value != "[DONE]"]
    assert len(broken) == 1
    assert broken[0].endswith("half an ev")


@each_format
def test_an_error_ends_the_stream(fake: RunningFake, wire: Wire) -> None:
    """The last event is the format's error."""
    fake.behave(FakeBehaviour(reply="one two three", error_after_tokens=2, error_message="it broke"))
    events = events_of(answer_to(call_of(fake, wire)).text)
    assert tokens_of(wire, events) == ["one", " two"]
    assert (
        events[-1]
        == {
            "openai": (None, {"error": {"code": 500, "message": "it broke", "type": "server_error"}}),
            "anthropic": ("error", {"type": "error", "error": {"type": "overloaded_error", "message": "it broke"}}),
            "google": (None, {"error": {"code": 503, "message": "it broke", "status": "UNAVAILABLE"}}),
        }[wire]
    )


@each_format
def test_tokens_come_at_the_speed_ordered(fake: RunningFake, wire: Wire) -> None:
    """The first after its delay, the others evenly."""
    fake.behave(FakeBehaviour(tokens=11, first_token_delay_s=0.1, tokens_per_second=100))
    began = time.monotonic()
    answer_to(call_of(fake, wire))
    assert 0.2 <= time.monotonic() - began < 1


@each_format
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_usage_can_be_left_out(fake: RunningFake, wire: Wire, stream: bool) -> None:
    """No event counts tokens."""
    assert '"usage' in answer_to(call_of(fake, wire, stream=stream)).text
    fake.behave(FakeBehaviour(omit_usage=True))
    assert '"usage' not in answer_to(call_of(fake, wire, stream=stream)).text


@each_format
def test_the_finish_reason_is_the_one_ordered(fake: RunningFake, wire: Wire) -> None:
    """Whatever it is."""
    fake.behave(FakeBehaviour(finish_reason="weariness"))
    assert finish_of(wire, events_of(answer_to(call_of(fake, wire)).text)) == "weariness"


@each_format
def test_the_stream_stays_open(fake: RunningFake, wire: Wire) -> None:
    """All events come, and no end."""
    fake.behave(FakeBehaviour(reply="one two three", keep_open=True))
    assert (
        finish_of(wire, events_of(body_until_silence(call_of(fake, wire))))
        == {"openai": "stop", "anthropic": "end_turn", "google": "STOP"}[wire]
    )


@each_format
def test_a_stream_can_claim_another_type(fake: RunningFake, wire: Wire) -> None:
    """Such as a page of a portal in between."""
    fake.behave(FakeBehaviour(content_type="text/html"))
    assert answer_to(call_of(fake, wire)).headers["content-type"] == "text/html"


@each_format
@pytest.mark.parametrize("in_one_event", [True, False], ids=["one_event", "many_events"])
def test_a_huge_answer_is_as_large_as_ordered(fake: RunningFake, wire: Wire, in_one_event: bool) -> None:
    """5 MB of text, in one event or in many, still the format's."""
    fake.behave(FakeBehaviour(huge_answer_bytes=5_000_000, huge_in_one_event=in_one_event))
    events = events_of(answer_to(call_of(fake, wire)).text)
    pieces = tokens_of(wire, events)
    assert 5_000_000 <= sum(map(len, pieces)) < 5_100_000
    assert (len(pieces) == 1) is in_one_event


@each_format
def test_a_whole_huge_answer_is_one_too(fake: RunningFake, wire: Wire) -> None:
    """The text is not shortened to the caller's limit."""
    fake.behave(FakeBehaviour(huge_answer_bytes=1_000_000))
    assert len(answer_to(call_of(fake, wire, stream=False, max_tokens=5)).content) > 1_000_000


@each_format
def test_the_prompt_is_too_long(fake: RunningFake, wire: Wire) -> None:
    """HTTP 400 in the format's words, with both figures."""
    fake.behave(FakeBehaviour(context_tokens=3))
    answer = answer_to(call_of(fake, wire, question="one two three four"))
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert (
        error["message"]
        == {
            "openai": "request (4 tokens) exceeds the available context size (3 tokens)",
            "anthropic": "prompt is too long: 4 tokens > 3 maximum",
            "google": "The input token count (4) exceeds the maximum number of tokens allowed (3).",
        }[wire]
    )
    assert (
        error.get("status", error.get("type"))
        == {
            "openai": "exceed_context_size_error",
            "anthropic": "invalid_request_error",
            "google": "INVALID_ARGUMENT",
        }[wire]
    )


@each_format
def test_a_model_is_unknown(fake: RunningFake, wire: Wire) -> None:
    """HTTP 404, with its name."""
    fake.behave(FakeBehaviour(models=("large",)))
    answer = answer_to(call_of(fake, wire, model="small"))
    assert answer.status_code == 404
    assert "small" in answer.json()["error"]["message"]
    assert answer_to(call_of(fake, wire, model="large")).status_code == 200


@each_format
def test_a_body_of_another_shape_is_refused(fake: RunningFake, wire: Wire) -> None:
    """400, and it goes on serving."""
    asked = call_of(fake, wire)
    for body in (b"[1]", b"{", b'{"model": "m", "max_tokens": 1, "messages": [1], "contents": [1]}'):
        broken = httpx.Request("POST", asked.url, content=body, headers={**asked.headers, "content-length": str(len(body))})
        answer = answer_to(broken)
        assert answer.status_code == 400
        assert answer.json()["error"]["message"]
    assert answer_to(call_of(fake, wire)).status_code == 200
