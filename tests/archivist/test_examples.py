"""The files of config/examples: each is loaded, built and, but for its address, used as it is."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator
from contextlib import aclosing
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from app.llm.backend import Delta, Finished, Prompt
from app.llm.clearance import clearance_of
from app.llm.fake.behaviour import FakeBehaviour
from app.llm.provider import open_provider
from app.llm.routes import Asked, Routes, Signals
from app.llm.settings import ProviderSettings
from app.metrics import Metrics
from app.settings import ServiceSettings
from archivist.config_check import problems_of, warnings_of
from archivist.provider_check import check_providers
from archivist.settings import load_settings
from corpus.types import Message
from tests.servers import CHAT_TEMPLATE, RunningFake, llama_weights, running_fake_llm

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "config" / "examples").glob("*.yaml"))
KEY = "canary-4711-key"
MESSAGES = (Message("system", "Answer from the passages."), Message("user", "Which colour is the canary?"))
CHAT = [{"role": "system", "content": MESSAGES[0].content}, {"role": "user", "content": MESSAGES[1].content}]
STREAMED = {"stream": True, "stream_options": {"include_usage": True}, "messages": CHAT}
GPT = {"model": "gpt-6-luna", "max_completion_tokens": 64, "reasoning_effort": "none", **STREAMED}
LOCAL = {"max_tokens": 64, "temperature": 0.2, **STREAMED}

SENT: dict[str, tuple[str, str, str, str, dict[str, str], dict[str, Any]]] = {
    "openai": ("openai", "openai", "/v1/chat/completions", "", {"authorization": f"Bearer {KEY}"}, GPT),
    "azure": (
        "azure",
        "azure",
        "/openai/deployments/your-deployment/chat/completions",
        "api-version=2025-04-01-preview",
        {"api-key": KEY},
        {**GPT, "model": "your-deployment"},
    ),
    "anthropic": (
        "anthropic",
        "claude",
        "/v1/messages",
        "",
        {"x-api-key": KEY, "anthropic-version": "2023-06-01"},
        {
            "model": "claude-haiku-5-5",
            "max_tokens": 64,
            "stream": True,
            "thinking": {"type": "disabled"},
            "system": MESSAGES[0].content,
            "messages": CHAT[1:],
        },
    ),
    "gemini": (
        "gemini",
        "gemini",
        "/v1beta/models/gemini-3.5-flash-lite:streamGenerateContent",
        "alt=sse",
        {"x-goog-api-key": KEY},
        {
            "systemInstruction": {"parts": [{"text": MESSAGES[0].content}]},
            "contents": [{"role": "user", "parts": [{"text": MESSAGES[1].content}]}],
            "generationConfig": {"maxOutputTokens": 64, "thinkingConfig": {"thinkingLevel": "minimal"}},
        },
    ),
    "ollama": ("ollama", "ollama", "/v1/chat/completions", "", {}, {"model": "llama3.2", **LOCAL}),
    "vllm": (
        "vllm",
        "vllm",
        "/v1/chat/completions",
        "",
        {},
        {"model": "qwen3", "chat_template_kwargs": {"enable_thinking": False}, **LOCAL},
    ),
    "llama-server": ("llamacpp-server", "llamacpp", "/v1/chat/completions", "", {}, {"model": "local", **LOCAL}),
    "local first": ("local-first", "local", "/v1/chat/completions", "", {}, {"model": "llama3.2", **LOCAL}),
    "its fallback": (
        "local-first",
        "commercial",
        "/v1/chat/completions",
        "",
        {"authorization": f"Bearer {KEY}"},
        GPT,
    ),
    "its large model": (
        "local-first",
        "commercial_large",
        "/v1/chat/completions",
        "",
        {"authorization": f"Bearer {KEY}"},
        {**GPT, "model": "gpt-6.1-sol", "reasoning_effort": "low", "max_completion_tokens": 4000},
    ),
}
KEY_HEADERS = {"authorization", "api-key", "x-api-key", "x-goog-api-key"}


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each example's key is set, nothing else of whoever runs the tests counts; paths are those of the checkout."""
    for name in list(os.environ):
        if name.startswith("ARCHIVIST_"):
            monkeypatch.delenv(name)
    for name in ("OPENAI", "AZURE_OPENAI", "ANTHROPIC", "GEMINI"):
        monkeypatch.setenv(f"{name}_API_KEY", KEY)
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="module")
def fake() -> Iterator[RunningFake]:
    """A fake that speaks every format and asks for the key."""
    with running_fake_llm() as running:
        yield running


def example(name: str) -> ServiceSettings:
    """What the service is told by an example."""
    return load_settings(ROOT / "config" / "examples" / f"{name}.yaml").service()


def here(provider: ProviderSettings, fake: RunningFake) -> ProviderSettings:
    """The provider at the fake's host and port; its address's path, and all else, is as it was."""
    path = urlsplit(provider.base_url).path
    return provider.model_copy(update={"base_url": f"http://127.0.0.1:{fake.port}{path}"})


async def answered(provider: ProviderSettings, settings: ServiceSettings) -> tuple[str, Finished]:
    """A whole answer."""
    opened = open_provider("tried", provider, clearance_of("tried", provider, settings.labels), Metrics())
    parts: list[str] = []
    try:
        assert opened.problem is None
        async with aclosing(opened.backend.stream(Prompt(MESSAGES, "public", 64))) as events:
            async for event in events:
                if isinstance(event, Finished):
                    return "".join(parts), event
                assert isinstance(event, Delta)
                parts.append(event.text)
    finally:
        await opened.close()
    raise AssertionError("the stream ended without its end")


def test_every_example_is_tried() -> None:
    """A file that is added is added here."""
    tried = {name for name, *_ in SENT.values()} | {"embedded", "multilingual"}  # test_multilingual_example.py
    assert tried == {path.stem for path in EXAMPLES}
    in_use = {(path.stem, name) for path in EXAMPLES for name in load_settings(path).llm.providers}
    assert in_use - {("embedded", "embedded")} == {(name, provider) for name, provider, *_ in SENT.values()}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_valid_and_opens_with_how_to_use_it(path: Path) -> None:
    """Nothing is wrong with it, every price is there, and its first lines hold the commands, with its own name in them."""
    settings = load_settings(path)
    assert list(problems_of(settings)) == []
    looked_up = max((price.as_of for price in settings.llm.prices.values()), default=date(2026, 11, 23))
    warnings = [warning.partition(";")[0] for warning in warnings_of(settings, looked_up)]
    no_file = "llm.providers.embedded is passed over: model_path 'models/model.gguf' is not a file"
    assert warnings == ([no_file] if path.stem == "embedded" else [])
    head = re.match(r"(#.*\n)+", path.read_text(encoding="utf-8"))
    assert head is not None
    for command in ("ingest", "serve", "config check --call"):
        assert f"archivist {command} --config config/examples/{path.name}" in head[0]
    keys = {provider.api_key_env for provider in settings.llm.providers.values() if provider.api_key_env}
    assert all(f"export {key}=…" in head[0] for key in keys)


@pytest.mark.parametrize(("name", "provider", "path", "query", "headers", "body"), SENT.values(), ids=SENT)
def test_an_example_gets_an_answer_in_its_own_way(
    fake: RunningFake, name: str, provider: str, path: str, query: str, headers: dict[str, str], body: dict[str, Any]
) -> None:
    """With nothing replaced but the host, the fake sees the example's path, query, key header and body, and is understood."""
    settings = example(name)
    keyed = settings.llm.providers[provider].api_key is not None
    model = settings.llm.providers[provider].model
    fake.behave(FakeBehaviour(reply="The canary is yellow.", api_key=KEY if keyed else None, models=(model,)))
    fake.requests.clear()
    text, finished = asyncio.run(answered(here(settings.llm.providers[provider], fake), settings))
    assert (text, finished.reason, finished.usage.estimated) == ("The canary is yellow.", "stop", False)
    assert (finished.usage.prompt_tokens, finished.usage.completion_tokens) == (9, 4)
    (request,) = fake.requests
    assert (request.method, request.path, request.query) == ("POST", path, query)
    assert {header: request.headers.get(header) for header in headers} == headers
    assert KEY_HEADERS & set(request.headers) == KEY_HEADERS & set(headers)
    assert request.json() == body


def test_azures_newer_address_takes_the_same_key(fake: RunningFake) -> None:
    """The address in the example's comment, without a version: the model is in the body, the key in the same header."""
    text = (ROOT / "config" / "examples" / "azure.yaml").read_text(encoding="utf-8")
    commented = re.search(r"# (base_url: \S+/openai/v1)\n +# (model: \S+)\n", text)
    assert commented is not None
    (address, model) = (line.partition(": ")[2] for line in commented.groups())
    azure = example("azure").llm.providers["azure"].model_copy(update={"base_url": address, "model": model, "query": {}})
    fake.behave(FakeBehaviour(api_key=KEY, models=(model,)))
    fake.requests.clear()
    asyncio.run(answered(here(azure, fake), example("azure")))
    (request,) = fake.requests
    assert (request.path, request.query, request.headers["api-key"]) == ("/openai/v1/chat/completions", "", KEY)
    assert request.json()["model"] == model == "your-deployment"


@pytest.mark.parametrize(
    ("asked", "signals", "rule", "providers"),
    [
        ("Good morning!", Signals("public", 0.9, 1.0), "greeting", ()),
        ("What is the warranty?", Signals("public", 0.3, 1.0), "weak retrieval", ("commercial_large", "local")),
        ("What is the warranty?", Signals("internal", 0.3, 1.0), None, ("local", "commercial")),
        ("What is the warranty?", Signals("public", 0.7, 1.0), None, ("local", "commercial")),
        ("why " * 40, Signals("public", 0.7, 1.0), "long question", ("commercial_large", "local")),
        ("why " * 40, Signals("secret", 0.7, 1.0), None, ("local", "commercial")),
    ],
)
def test_local_first_chooses_as_its_comments_say(
    asked: str, signals: Signals, rule: str | None, providers: tuple[str, ...]
) -> None:
    """A fixed answer to a greeting; a larger model where public passages are far or the question long; else local first."""
    chosen = Routes(example("local-first").llm).choose(Asked(asked), signals)
    assert (chosen.rule, chosen.providers) == (rule, providers)
    assert bool(chosen.answer) is (rule == "greeting")


def test_the_embedded_example_runs_a_real_model(tmp_path: Path) -> None:
    """With a GGUF file in its place: it is loaded, answers with tokens counted, lists its model and ends."""
    pytest.importorskip("xllamacpp", reason="xllamacpp is not installed: the embedded example was NOT tried")
    settings = example("embedded")
    template = tmp_path / "dialogue.jinja"
    template.write_text(CHAT_TEMPLATE, encoding="utf-8")
    told = {"model_path": llama_weights(), "chat_template": template, "threads": 1}
    provider = settings.llm.providers["embedded"].model_copy(update=told)
    llm = settings.llm.model_copy(update={"providers": {"embedded": provider}})
    (check,) = asyncio.run(check_providers(settings.model_copy(update={"llm": llm}), {"embedded"}))
    assert check.reason is None
    assert (check.result, check.model_present, check.usage, check.kind) == ("ok", True, "yes", "llamacpp")
