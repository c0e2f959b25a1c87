"""The official OpenAI client works against a real server of ours, and hanging up reaches the provider."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from pydantic import SecretStr

from app.llm.fake.behaviour import FakeBehaviour
from app.llm.settings import LlmSettings, PriceSettings, ProviderSettings
from tests.app.serving import listening, settings_of
from tests.making import copy_published
from tests.servers import running_fake_llm, wait_until

KEY = "canary-4711"
QUESTION: list[Any] = [{"role": "user", "content": "When are expense reports due?"}]


@pytest.fixture(scope="module")
def address(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One service with a key for all the tests here that only read."""
    data_dir = copy_published(published / "data", tmp_path_factory.mktemp("openai") / "data")
    with listening(settings_of(data_dir, api_key=SecretStr(KEY))) as address:
        yield address


@pytest.fixture
def official(address: str) -> Iterator[openai.OpenAI]:
    """The official client, pointed at us."""
    with openai.OpenAI(base_url=f"{address}/v1", api_key=KEY, max_retries=0) as client:
        yield client


def test_the_official_client_gets_a_cited_answer(official: openai.OpenAI) -> None:
    """A completion with content, finish reason, usage and citations on the message."""
    completion = official.chat.completions.create(model="archivist", messages=QUESTION, temperature=0.3, seed=7)
    message = completion.choices[0].message
    assert message.role == "assistant"
    assert message.content is not None
    assert "30 days" in message.content
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage is not None
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens
    citations = (message.model_extra or {})["citations"]
    assert citations[0]["source"] == "policies/travel.md"


def _told_path(said: Any) -> dict[str, Any]:
    return (said.model_extra or {})["archivist"]  # type: ignore[no-any-return]


@pytest.mark.parametrize("with_usage", [False, True])
def test_a_completion_says_which_path_it_took(site: Path, with_usage: bool) -> None:
    """Provider, model, route and cost are on the message and on a stream's last chunk; a fallback is named with its reason."""
    prices = {"m": PriceSettings(input_usd=2, cached_input_usd=1, output_usd=10, as_of=date(2026, 11, 23))}
    options: Any = {"stream_options": {"include_usage": True}} if with_usage else {}
    with (
        running_fake_llm(FakeBehaviour(cached_tokens=5)) as fake,
        listening(settings_of(site / "data", llm=_llm(fake.base_url, retries=0).model_copy(update={"prices": prices}))) as at,
        openai.OpenAI(base_url=f"{at}/v1", api_key="none", max_retries=0) as client,
    ):
        completion = client.chat.completions.create(model="archivist", messages=QUESTION)
        usage = completion.usage
        assert usage is not None
        cost = (2 * (usage.prompt_tokens - 5) + 1 * 5 + 10 * usage.completion_tokens) / 1_000_000
        path = _told_path(completion.choices[0].message)
        assert path == {
            "provider": "fake",
            "model": "m",
            "route": "the default provider",
            "abstained": False,
            "usage": {"cached_tokens": 5, "cost_usd": pytest.approx(cost), "estimated": False},
        }
        *chunks, last = client.chat.completions.create(model="archivist", messages=QUESTION, stream=True, **options)
        assert _told_path(last) == path
        assert not any("archivist" in (chunk.model_extra or {}) for chunk in chunks)

        fake.behave(FakeBehaviour(status=500))
        fallen = _told_path(client.chat.completions.create(model="archivist", messages=QUESTION).choices[0].message)
        assert (fallen["provider"], fallen["usage"]["cost_usd"]) == ("extractive", 0.0)
        assert "HTTP 500" in fallen["route"]


def test_the_official_client_streams_the_same_answer(official: openai.OpenAI) -> None:
    """The chunks' text is the answer; the last chunk has the citations and, asked for, the usage."""
    plain = official.chat.completions.create(model="archivist", messages=QUESTION)
    for with_usage in (False, True):
        options: Any = {"stream_options": {"include_usage": True}} if with_usage else {}
        chunks = list(official.chat.completions.create(model="archivist", messages=QUESTION, stream=True, **options))
        text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
        assert text == plain.choices[0].message.content
        assert len({chunk.id for chunk in chunks}) == 1
        assert chunks[0].choices[0].delta.role == "assistant"
        last = chunks[-1]
        assert (last.model_extra or {})["citations"][0]["source"] == "policies/travel.md"
        assert [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason] == ["stop"]
        assert (last.usage is not None, last.choices == []) == (with_usage, with_usage)


def test_content_parts_and_earlier_turns_are_understood(official: openai.OpenAI) -> None:
    """Text in parts is joined; a follow-up is understood from the turns before it; nothing is stored."""
    messages: list[Any] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "May employees work"}, {"type": "text", "text": "from home?"}]},
        {"role": "assistant", "content": "Three days a week."},
        {"role": "user", "content": "And for contractors?"},
    ]
    completion = official.chat.completions.create(model="archivist/extractive", messages=messages)
    assert "one day" in (completion.choices[0].message.content or "")
    listed = official.get("/conversations", cast_to=httpx.Response)
    assert listed.json()["conversations"] == []


def test_the_models_are_listed(official: openai.OpenAI) -> None:
    """`archivist` and one for each provider."""
    assert [model.id for model in official.models.list()] == ["archivist", "archivist/extractive"]


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        ({"model": "gpt-5"}, 404, "model_not_found", "model"),
        ({"messages": []}, 400, "invalid", "messages"),
        ({"messages": [{"role": "system", "content": "x"}]}, 400, "invalid", "messages"),
        ({"messages": [{"role": "user", "content": "  "}]}, 400, "invalid", "messages"),
        ({"messages": [{"role": "user", "content": None}]}, 400, "invalid", "messages"),
        ({"messages": [{"role": "tool", "content": "canary-text"}]}, 400, "invalid", "messages.0.role"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, 400, "invalid", None),
        ({"messages": [{"role": "user", "content": "canary-text " * 1000}]}, 400, "invalid", "question"),
        ({"stream": "maybe"}, 400, "invalid", "stream"),
    ],
)
def test_errors_are_openais_error_object(address: str, body: dict[str, Any], status: int, code: str, param: str | None) -> None:
    """Status, code and parameter as OpenAI's clients read them; nothing of the messages comes back."""
    sent = {"model": "archivist", "messages": QUESTION, **body}
    headers = {"authorization": f"Bearer {KEY}"}
    response = httpx.post(f"{address}/v1/chat/completions", json=sent, headers=headers)
    assert response.status_code == status
    error = response.json()["error"]
    assert (error["code"], error["type"]) == (code, "invalid_request_error")
    assert param is None or error["param"] == param
    assert "canary" not in response.text


def test_the_official_client_knows_our_errors(address: str) -> None:
    """A wrong key and an unknown model raise the client's own exceptions."""
    wrong = openai.OpenAI(base_url=f"{address}/v1", api_key="wrong", max_retries=0)
    with wrong, pytest.raises(openai.AuthenticationError):
        wrong.models.list()
    right = openai.OpenAI(base_url=f"{address}/v1", api_key=KEY, max_retries=0)
    with right, pytest.raises(openai.NotFoundError, match="no model 'gpt-5'"):
        right.chat.completions.create(model="gpt-5", messages=QUESTION)


def _llm(base_url: str, **values: Any) -> LlmSettings:
    return LlmSettings(default="fake", providers={"fake": ProviderSettings(base_url=base_url, model="m", **values)})


def test_a_provider_cut_off_mid_stream_is_the_last_event(site: Path) -> None:
    """After the first text an error is an `error` event with a problem, OpenAI's client raises; the turn is stored failed."""
    with (
        running_fake_llm(FakeBehaviour(cut_after_tokens=3)) as fake,
        listening(settings_of(site / "data", llm=_llm(fake.base_url))) as address,
    ):
        body = {"question": QUESTION[0]["content"], "stream": True}
        response = httpx.post(f"{address}/v1/ask", json=body, timeout=30)
        assert response.status_code == 200
        name, data = response.text.strip().split("\n\n")[-1].split("\n")
        assert name == "event: error"
        problem = json.loads(data.removeprefix("data: "))
        assert (problem["status"], problem["type"]) == (502, "urn:archivist:problem:backend-malformed")
        assert problem["instance"].endswith(response.headers["x-request-id"])
        with openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:
            stream = client.chat.completions.create(model="archivist/fake", messages=QUESTION, stream=True)
            with pytest.raises(openai.APIError, match="cut off"):
                list(stream)
        (conversation,) = httpx.get(f"{address}/v1/conversations").json()["conversations"]
        shown = httpx.get(f"{address}/v1/conversations/{conversation['conversation_id']}").json()
        assert [message["status"] for message in shown["messages"]] == ["failed", "failed"]


@pytest.mark.parametrize("stream", [True, False])
def test_hanging_up_ends_the_upstream_call_and_frees_the_conversation(site: Path, stream: bool) -> None:
    """A caller that leaves is noticed: the provider's stream is closed and the conversation can be asked again."""
    with (
        running_fake_llm(FakeBehaviour()) as fake,
        listening(settings_of(site / "data", llm=_llm(fake.base_url))) as address,
    ):
        body = {"question": QUESTION[0]["content"]}
        conversation_id = httpx.post(f"{address}/v1/ask", json=body, timeout=30).json()["conversation_id"]
        fake.behave(FakeBehaviour(first_token_delay_s=20))
        before = len(fake.requests)
        sent = {**body, "conversation_id": conversation_id, "stream": stream}
        with httpx.Client(timeout=30) as client:
            caller = threading.Thread(target=_ask_and_leave, args=(client, f"{address}/v1/ask", sent))
            caller.start()
            assert wait_until(lambda: len(fake.requests) > before, within_s=10)
            assert httpx.post(f"{address}/v1/ask", json=sent, timeout=10).status_code == 409
            caller.join()
        began = time.monotonic()
        fake.behave(FakeBehaviour())
        again = {**sent, "stream": False}
        assert wait_until(lambda: httpx.post(f"{address}/v1/ask", json=again, timeout=10).status_code == 200, within_s=5)
        assert time.monotonic() - began < 5
        shown = httpx.get(f"{address}/v1/conversations/{conversation_id}").json()
        assert [message["status"] for message in shown["messages"][1::2]] == ["complete", "cancelled", "complete"]


def _ask_and_leave(client: httpx.Client, url: str, body: dict[str, Any]) -> None:
    try:
        with client.stream("POST", url, json=body, timeout=1.0) as response:
            for _ in response.iter_bytes():
                pass
    except httpx.ReadTimeout:
        pass


def test_a_megabyte_of_headers_is_refused_by_the_server(address: str) -> None:
    """The server itself refuses headers without end."""
    port = int(address.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        try:
            connection.sendall(b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"X-Filler: " + b"a" * 1_000_000 + b"\r\n\r\n")
            answer = connection.recv(4096)
        except OSError:
            answer = b""
    assert b" 200 " not in answer
    assert httpx.get(f"{address}/livez").status_code == 200
