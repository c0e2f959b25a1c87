"""`archivist config check`: what it refuses, what it warns of, and what one tiny call to each provider shows."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from app.llm.fake.behaviour import FakeBehaviour
from app.llm.provider import Provider
from archivist import provider_check
from archivist.config_check import in_use, problems_of, warnings_of
from archivist.provider_check import ANSWER_TOKENS, QUESTION, ProviderCheck, check_providers
from archivist.settings import load_settings
from corpus.errors import ConfigError
from tests.servers import RunningFake, free_port, running_fake_llm, unanswering_port

ROOT = Path(__file__).parents[2]
KEY = "canary-4711-key"
TODAY = date(2026, 11, 23)
REMOTE = "base_url: 'https://llm.example/v1', model: m, clearance: public"
NEAR = "{base_url: 'http://127.0.0.1:1/v1', model: near}"
PRICE = "{input_usd: 1, output_usd: 2, as_of: 2026-11-01}"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Variables of whoever runs the tests do not count, and neither does a configuration lying about."""
    for name in list(os.environ):
        if name.startswith("ARCHIVIST_") or name.endswith("_API_KEY"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def fake_server() -> Iterator[RunningFake]:
    with running_fake_llm() as running:
        yield running


@pytest.fixture
def fake(fake_server: RunningFake) -> RunningFake:
    """The fake LLM, well-behaved and with nothing recorded."""
    fake_server.behave(FakeBehaviour())
    fake_server.requests.clear()
    return fake_server


def llm(remote: str = REMOTE, rest: str = "") -> str:
    """A configuration with a provider `remote`, and more keys of `llm`."""
    return f"llm: {{default: remote, providers: {{remote: {{{remote}}}}}{', ' * bool(rest)}{rest}}}\n"


def written(text: str) -> Path:
    """A configuration file."""
    path = Path("a.yaml")
    path.write_text(text, encoding="utf-8")
    return path


def refused(text: str) -> str:
    """What a configuration is refused with, the reasons on a line each; nothing where it is not."""
    try:
        return "\n".join(problems_of(load_settings(written(text))))
    except ConfigError as error:
        return str(error)


def rule(when: str, providers: str = "[remote]") -> str:
    """A configuration with one rule."""
    return llm(rest=f"routes: [{{name: r, when: {when}, providers: {providers}}}]")


BAD: dict[str, tuple[str, str]] = {
    "path twice": (
        llm("base_url: 'https://llm.example/v1/v1', model: m, clearance: public"),
        "llm.providers.remote: base_url has a part of its path twice: '/v1/v1'; write it once",
    ),
    "path twice, of two parts": (
        llm("base_url: 'https://llm.example/openai/v1/openai/v1', model: m, clearance: public"),
        "llm.providers.remote: base_url has a part of its path twice: '/openai/v1/openai/v1'; write it once",
    ),
    "the format's own path": (
        llm("base_url: 'https://llm.example/v1/chat/completions', model: m, clearance: public"),
        "llm.providers.remote: base_url must end before '/chat/completions', which is added to it",
    ),
    "the format's own path, Google's": (
        llm("kind: google, base_url: 'https://llm.example/v1beta/models', model: m, clearance: public"),
        "llm.providers.remote: base_url must end before '/models', which is added to it",
    ),
    "query in the address": (
        llm("base_url: 'https://llm.example/v1?api-version=1', model: m, clearance: public"),
        "llm.providers.remote.base_url: must not carry a user, a password, a query or a fragment (see api_key, query)",
    ),
    "key header that is none": (
        llm(f"{REMOTE}, api_key: {KEY}, key_header: 'Authorization: Bearer'"),
        "llm.providers.remote: key_header holds something that is not a header's name; give the name alone",
    ),
    "header that is none": (
        llm(f"{REMOTE}, headers: {{'x team': {KEY}}}"),
        "llm.providers.remote: headers holds something that is not a header's name; give the name alone",
    ),
    "key header without a key": (
        llm(f"{REMOTE}, key_header: api-key"),
        "llm.providers.remote: key_header has no key to carry; add api_key_env or api_key_file",
    ),
    "header of the connection": (
        llm(f"{REMOTE}, headers: {{cOnTent-Length: '3'}}"),
        "llm.providers.remote: headers may not set 'cOnTent-Length', which belongs to the connection; take it out",
    ),
    "connection that is kept": (
        llm(f"{REMOTE}, headers: {{Connection: keep-alive}}"),
        "llm.providers.remote: headers may not set 'Connection', which belongs to the connection; take it out",
    ),
    "key in the header of the connection": (
        llm(f"{REMOTE}, api_key: {KEY}, key_header: Host"),
        "llm.providers.remote: key_header may not set 'Host', which belongs to the connection; take it out",
    ),
    "date in a body": (
        llm(f"{REMOTE}, body: {{seed: 7, extra: [1, {{until: 2026-11-23}}]}}"),
        "llm.providers.remote.body: body.extra.1.until is nothing that JSON can hold; put a date in quotes",
    ),
    "number that is none in a body": (
        llm(f"{REMOTE}, body: {{top_p: .nan}}"),
        "llm.providers.remote.body: body.top_p is nothing that JSON can hold; put a date in quotes, and give numbers that are",
    ),
    "bytes in a body": (llm(f"{REMOTE}, body: {{a: !!binary aGk=}}"), "body.a is nothing that JSON can hold"),
    "set in a body": (llm(f"{REMOTE}, body: {{a: !!set {{x}}}}"), "body.a is nothing that JSON can hold"),
    "body that holds itself": (llm(f"{REMOTE}, body: {{a: &x [*x]}}"), "body.a.0.0.0"),
    "key header for a file": (
        llm("kind: llamacpp, model: m, model_path: a.gguf, api_key: x, key_header: api-key"),
        "llm.providers.remote: key_header means nothing for kind llamacpp; take it out",
    ),
    "rule with an unknown provider": (
        rule("{}", "[remot]"),
        "llm.routes 'r': providers 'remot' is not a provider; known: extractive, remote",
    ),
    "rule with an unknown label": (
        rule("{labels: [publc]}"),
        "llm.routes 'r': label 'publc' is not in labels.order; known: public, internal, confidential, secret",
    ),
    "rule with an unknown language": (rule("{languages: [german]}"), "give a code of ISO 639-1, such as de"),
    "rule with an unknown condition": (
        rule("{max_nearnes: 0.3}"),
        "unknown key 'llm.routes.0.when.max_nearnes'; did you mean 'max_nearness'?",
    ),
    "rule that never holds": (rule("{min_words: 5, max_words: 4}"), "route 'r' is never taken: min_words 5 is more than"),
    "rule that leads nowhere": (rule("{}", "[]"), "route 'r' needs either providers or a fixed answer"),
    "pattern with look-behind": (
        rule("{matches: '(?<=a)b'}"),
        "llm.routes.0: route 'r': matches '(?<=a)b' is not an RE2 pattern",
    ),
    "pattern that is not closed": (rule("{matches: '(a'}"), "matches '(a' is not an RE2 pattern (missing ): (a)"),
    "unknown fallback": (
        llm(rest="fallbacks: [nobody]"),
        "llm.fallbacks 'nobody' is not a provider; known: extractive, remote",
    ),
    "context too small": (
        llm(f"{REMOTE}, context_tokens: 2048"),
        "llm.providers.remote.context_tokens 2048 is less than prompt.budget_tokens and prompt.answer_tokens together (3512); "
        "lower those, or give the model more context",
    ),
    "context too small, of a file": (
        llm("kind: llamacpp, model: m, model_path: a.gguf") + "prompt: {budget_tokens: 4000}",
        "llm.providers.remote.context_tokens 4096 is less than prompt.budget_tokens and prompt.answer_tokens together (4512)",
    ),
    "money without a price": (
        llm(rest="budgets: [{name: b, max_usd: 5}]"),
        "llm.budgets 'b' counts money, and provider 'remote' has no price; add it to llm.prices as 'm', or count tokens",
    ),
    "budget of nothing": (llm(rest="budgets: [{name: b}]"), "budget 'b' needs either max_usd or max_tokens"),
    "budget then nobody": (
        llm(rest="budgets: [{name: b, max_tokens: 5, then: [nobody]}]"),
        "llm.budgets 'b': then 'nobody' is not a provider; known: extractive, remote",
    ),
    "price of nobody": (
        llm(rest=f"prices: {{mm: {PRICE}}}"),
        "llm.prices 'mm' is neither a provider nor the model of one; check its spelling",
    ),
    "price without a date": (llm(rest="prices: {m: {input_usd: 1, output_usd: 2}}"), "llm.prices.m.as_of: Field required"),
    "certificates not there": (
        llm(f"{REMOTE}, ca_file: nowhere.pem"),
        "llm.providers.remote: ca_file 'nowhere.pem': No such file or directory; name a file that can be read",
    ),
    "proxy for this machine": (
        llm("base_url: 'http://127.0.0.1:1/v1', model: m, proxy: 'http://proxy.example:3128'"),
        "llm.providers.remote: proxy would carry calls to this machine away from it; take it out",
    ),
    "prompts not there": (llm() + "prompt: {folder: nowhere}", "prompt file 'nowhere/system.txt' cannot be used"),
    "source not there": (llm() + "sources: [{path: gone}]", "source 'gone': no folder or file 'gone'; is it mounted?"),
    "reranker not there": (llm() + "search: {reranker: gone}", "search.reranker 'gone' is not a folder; name one with"),
}


@pytest.mark.parametrize(("text", "expected"), BAD.values(), ids=BAD)
def test_a_bad_configuration_is_refused_by_name(text: str, expected: str) -> None:
    """The message names the key, the value and the next step, and never a secret."""
    message = refused(text)
    assert expected in message
    assert KEY not in message


def test_a_good_configuration_has_no_problem() -> None:
    """What BAD is made from is itself accepted, so that each of its errors is of what was added."""
    assert refused(llm()) == ""
    assert refused(rule("{matches: '(a)', labels: [public], languages: [de], min_words: 4, max_words: 5}")) == ""
    assert refused(llm(rest=f"prices: {{m: {PRICE}}}, budgets: [{{name: b, max_usd: 5, then: [extractive]}}]")) == ""


def test_all_problems_are_told_at_once() -> None:
    """Whoever mends a configuration does not have to run the command once for each of them."""
    text = llm(f"{REMOTE}, ca_file: nowhere.pem", "routes: [{name: r, when: {languages: [german]}, providers: [remote]}]")
    text += "prompt: {folder: nowhere}\nsources: [{path: gone}]\nembedder: {model: no-such-model}\n"
    lines = refused(text).splitlines()
    for expected in ("'german'", "nowhere/system.txt", "nowhere.pem", "'gone'", "no-such-model"):
        assert sum(expected in line for line in lines) == 1, expected


WARNED: dict[str, tuple[str, list[str]]] = {
    "no price": (llm(), ["llm.providers.remote has no price, so its cost is not known; add llm.prices.remote"]),
    "priced by its model": (llm(rest=f"prices: {{m: {PRICE}}}"), []),
    "priced a year ago": (llm(rest="prices: {m: {input_usd: 1, output_usd: 2, as_of: 2025-11-23}}"), []),
    "priced longer ago": (
        llm(rest="prices: {remote: {input_usd: 1, output_usd: 2, as_of: 2025-11-22}}"),
        ["the price of llm.providers.remote is of 2025-11-22, over a year ago; look it up, and set its as_of"],
    ),
    "local and free": (llm("base_url: 'http://127.0.0.1:1/v1', model: m"), []),
    "nobody uses it": (llm(rest="caller_may_choose: false").replace("default: remote", "default: extractive"), []),
    "a caller may use it": (
        llm().replace("default: remote", "default: extractive"),
        ["llm.providers.remote has no price, so its cost is not known; add llm.prices.remote"],
    ),
    "fallback without a key": (
        f"llm: {{default: near, fallbacks: [far], providers: {{near: {NEAR}, far: {{{REMOTE}, api_key_env: NOT_SET}}}}, "
        f"prices: {{m: {PRICE}}}}}",
        ["llm.providers.far is passed over: its key is missing: the environment variable 'NOT_SET' is not set"],
    ),
    "file not there": (
        llm("kind: llamacpp, model: m, model_path: gone.gguf"),
        ["llm.providers.remote is passed over: model_path 'gone.gguf' is not a file; download a GGUF file and name it here"],
    ),
}


@pytest.mark.parametrize(("text", "expected"), WARNED.values(), ids=WARNED)
def test_what_works_but_should_be_looked_at_is_a_warning(text: str, expected: list[str]) -> None:
    """Missing and old prices, and providers in use that cannot be called; nothing of what nobody can reach."""
    settings = load_settings(written(text))
    assert list(problems_of(settings)) == []
    assert list(warnings_of(settings, TODAY)) == expected


def test_in_use_is_whom_the_configuration_itself_asks() -> None:
    """The default, fallbacks, rules and budgets; not who waits for a caller, nor the built-in backend."""
    names = ("first", "second", "ruled", "cheap", "idle")
    providers = ", ".join(f"{name}: {NEAR}" for name in names)
    rest = (
        "fallbacks: [second, extractive], routes: [{name: r, providers: [ruled]}], "
        "budgets: [{name: b, max_tokens: 5, then: [cheap]}]"
    )
    settings = load_settings(written(f"llm: {{default: first, providers: {{{providers}}}, {rest}}}"))
    assert in_use(settings.llm) == {"first", "second", "ruled", "cheap"}


def called(*providers: str, used: tuple[str, ...] = ()) -> list[ProviderCheck]:
    """The checks of some providers, each given as a name and its settings."""
    settings = load_settings(written(f"llm: {{providers: {{{', '.join(providers)}}}}}")).service()
    return asyncio.run(check_providers(settings, used))


def test_one_tiny_call_holds_nothing_of_any_document(fake: RunningFake) -> None:
    """One fixed question of at most 16 tokens to each format, and no retry; what comes back is told."""
    fake.behave(FakeBehaviour(reply="ready.", api_key=KEY, models=("m",), first_token_delay_s=0.05))
    checks = called(
        f"a: {{base_url: '{fake.base_url}', model: m, api_key: {KEY}}}",
        f"b: {{kind: anthropic, base_url: '{fake.base_url}', model: m, api_key: {KEY}}}",
        f"c: {{kind: google, base_url: '{fake.google_base_url}', model: m, api_key: {KEY}}}",
    )
    assert [check.provider for check in checks] == ["a", "b", "c"]
    for check in checks:
        assert (check.result, check.reachable, check.model_present, check.streams) == ("ok", True, True, True)
        assert (check.usage, check.reason, check.counts_as_failed) == ("yes", None, False)
        assert check.first_token_s is not None
        assert 0.05 <= check.first_token_s < 5
    posts = [request for request in fake.requests if request.method == "POST"]
    assert len(posts) == 3
    by_path = {request.path: request.json() for request in posts}
    turn = {"role": "user", "content": QUESTION}
    chat, message = by_path["/v1/chat/completions"], by_path["/v1/messages"]
    assert (chat["messages"], chat["max_tokens"]) == ([turn], ANSWER_TOKENS)
    assert (message["messages"], message["max_tokens"]) == ([turn], ANSWER_TOKENS)
    content = by_path["/v1beta/models/m:streamGenerateContent"]
    assert content["contents"] == [{"role": "user", "parts": [{"text": QUESTION}]}]
    assert content["generationConfig"] == {"maxOutputTokens": ANSWER_TOKENS}


def test_a_provider_that_counts_nothing_and_knows_another_model_says_so(fake: RunningFake) -> None:
    """Usage is estimated, and the model is not among those listed, though it answers."""
    fake.behave(FakeBehaviour(reply="ready.", omit_usage=True))
    (check,) = called(f"a: {{base_url: '{fake.base_url}', model: another, query: {{v: '1'}}}}")
    assert (check.result, check.usage) == ("ok", "estimated")
    fake.behave(FakeBehaviour(reply="ready.", models=("m",)))
    (unknown,) = called(f"a: {{base_url: '{fake.base_url}', model: another}}")
    assert (unknown.result, unknown.reachable, unknown.model_present) == ("failed", True, False)
    assert unknown.counts_as_failed


def test_an_address_without_a_list_of_models_leaves_that_unknown(fake: RunningFake) -> None:
    """Azure's deployments have none; that is no failure."""
    address = fake.base_url.removesuffix("/v1") + "/openai/deployments/d"
    (check,) = called(f"a: {{base_url: '{address}', model: d}}")
    assert (check.result, check.model_present) == ("ok", None)


def test_a_wrong_key_is_told_in_the_providers_words_without_the_key(fake: RunningFake) -> None:
    """Whoever runs the command sees what the provider said; the key is taken out."""
    fake.behave(FakeBehaviour(api_key="right"))
    (check,) = called(f"a: {{base_url: '{fake.base_url}', model: m, api_key: {KEY}}}")
    assert (check.result, check.reachable, check.streams, check.first_token_s) == ("failed", True, None, None)
    assert check.reason is not None
    assert "key" in check.reason
    assert KEY not in check.reason


def test_providers_that_are_down_or_lack_a_key_are_told_apart(fake: RunningFake) -> None:
    """No connection: not reachable. No key: nothing is sent, and it counts only where the configuration asks there."""
    missing = f"{{base_url: '{fake.base_url}', model: m, api_key_env: NOT_SET}}"
    down, used, idle = called(
        f"down: {{base_url: 'http://127.0.0.1:{free_port()}/v1', model: m}}", f"used: {missing}", f"idle: {missing}",
        used=("used",),
    )  # fmt: skip
    assert (down.result, down.reachable, down.counts_as_failed) == ("failed", False, True)
    assert down.reason is not None
    assert "could not connect" in down.reason
    assert [(check.result, check.in_use, check.counts_as_failed) for check in (used, idle)] == [
        ("no key", True, True),
        ("no key", False, False),
    ]
    assert fake.requests == []


def test_what_fails_in_the_check_of_one_provider_leaves_the_others(fake: RunningFake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is raised, and wherever: its row says failed and of what kind, and the other rows are there, in order."""
    real_open, real_answered = provider_check.open_provider, provider_check._answered

    def opened(name: str, *rest: Any) -> Provider:
        if name == "first":
            raise ZeroDivisionError("a detail that may hold anything")
        return real_open(name, *rest)

    async def answered(provider: Provider, *rest: Any) -> ProviderCheck:
        if provider.name == "third":
            raise RecursionError("a detail that may hold anything")
        return await real_answered(provider, *rest)

    monkeypatch.setattr(provider_check, "open_provider", opened)
    monkeypatch.setattr(provider_check, "_answered", answered)
    one = f"{{base_url: '{fake.base_url}', model: fake}}"
    checks = called(f"first: {one}", f"second: {one}", f"third: {one}", used=("third",))
    assert [(check.provider, check.model, check.result, check.in_use, check.reason) for check in checks] == [
        ("first", "fake", "failed", False, "the check itself failed: ZeroDivisionError"),
        ("second", "fake", "ok", False, None),
        ("third", "fake", "failed", True, "the check itself failed: RecursionError"),
    ]


def test_a_model_that_thinks_first_gets_what_an_answer_gets(fake: RunningFake) -> None:
    """Where 16 tokens bring no word, the call is made once more with prompt.answer_tokens."""
    fake.behave(FakeBehaviour(reply="", finish_reason="length"))
    (check,) = called(f"a: {{base_url: '{fake.base_url}', model: m}}")
    assert check.result == "failed"
    assert [request.json()["max_tokens"] for request in fake.requests if request.method == "POST"] == [ANSWER_TOKENS, 512]


def test_a_provider_that_hangs_is_given_up_and_does_not_hold_the_others(
    fake: RunningFake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own limits hold, and ours above them; the others are called meanwhile."""
    monkeypatch.setattr(provider_check, "ANSWER_S", 1.0)
    with unanswering_port() as port:
        own, ours, well = called(
            f"own: {{base_url: 'http://127.0.0.1:{port}/v1', model: m, first_token_timeout_s: 0.3}}",
            f"ours: {{base_url: 'http://127.0.0.1:{port}/v1', model: m}}",
            f"well: {{base_url: '{fake.base_url}', model: fake}}",
        )
    assert own.reason is not None
    assert "no first token within 0.3 s" in own.reason
    assert ours.reason == "no answer within 1 s; is it overloaded or still loading?"
    assert (own.result, ours.result, well.result) == ("failed", "failed", "ok")


def check(*arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """A run of the command in a process of its own, in the test's folder."""
    return subprocess.run(
        [sys.executable, "-m", "archivist", "config", "check", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **variables}, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip


def test_the_command_prints_a_table_and_exits_by_what_failed(fake: RunningFake) -> None:
    """A row for each provider with its price and date; exit code 1 and the reason where one failed; no data folder is made."""
    fake.behave(FakeBehaviour(reply="ready.", models=("m[b]",)))
    good = f"near: {{base_url: '{fake.base_url}', model: 'm[b]'}}"
    path = written(f"llm: {{default: near, providers: {{{good}}}, prices: {{near: {PRICE}}}}}")
    done = check("--config", path, "--call")
    assert (done.returncode, done.stderr) == (0, "")
    (row,) = (line for line in done.stdout.splitlines() if "near" in line and "│" in line)
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells[8].endswith(" ms")
    assert [*cells[:8], cells[9]] == [
        "near", "openai", "m[b]", "ok", "yes", "yes", "yes", "yes", "1 in, 2 out (2026-11-01)",
    ]  # fmt: skip
    assert not Path("data").exists()
    lacking = "far: {base_url: 'https://llm.example/v1', model: m, clearance: public, api_key_env: NOT_SET}"
    path = written(f"llm: {{default: near, fallbacks: [far], providers: {{{good}, {lacking}}}}}")
    done = check("--config", path, "--call")
    assert done.returncode == 1
    assert "far: its key is missing: the environment variable 'NOT_SET' is not set" in done.stdout
    assert "warning: llm.providers.far has no price" in done.stdout


def test_the_command_prints_json(fake: RunningFake) -> None:
    """Problems with exit code 2, or warnings and what each provider's call showed."""
    fake.behave(FakeBehaviour(reply="ready."))
    path = written(f"llm: {{default: near, providers: {{near: {{base_url: '{fake.base_url}', model: m}}}}}}")
    done = check("--config", path, "--call", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    told: dict[str, Any] = json.loads(done.stdout)
    (provider,) = told.pop("providers")
    assert told == {"config": "a.yaml", "valid": True, "default": "near", "sources": 0, "problems": [], "warnings": []}
    assert 0 < provider.pop("first_token_s") < 10
    assert provider == {
        "provider": "near", "kind": "openai", "model": "m", "in_use": True, "result": "ok", "reachable": True,
        "model_present": True, "streams": True, "usage": "yes", "reason": None, "failed": False, "price": None,
    }  # fmt: skip
    path = written("prompt: {folder: nowhere}\nsources: [{path: gone}]")
    refused_ = check("--config", path, "--json")
    assert refused_.returncode == 2
    assert [problem.split(":")[0] for problem in json.loads(refused_.stdout)["problems"]] == [
        "prompt file 'nowhere/system.txt' cannot be used",
        "source 'gone'",
    ]
    plain = check("--config", path)
    assert (plain.returncode, plain.stdout) == (2, "")
    assert plain.stderr.startswith("archivist: 2 problems:\n  prompt file 'nowhere/system.txt'")
