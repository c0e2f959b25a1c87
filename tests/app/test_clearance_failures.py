"""Clearance when providers fail, conversations go on, labels change, and names or redirects lead elsewhere."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from structlog.testing import capture_logs

from app.llm import provider as provider_module
from app.llm.fake.behaviour import FakeBehaviour
from app.llm.settings import LlmSettings, ProviderSettings
from archivist.settings import load_settings
from corpus.egress import Egress
from corpus.embedders.embedder import Embedder
from corpus.errors import ConfigError
from ingest import job
from tests.app.labelled import Labelled, Providers, corpus_rules, labelled, running_providers, write
from tests.app.serving import ServiceClient, running, settings_of
from tests.conftest import Run
from tests.making import job_settings
from tests.servers import RunningFake, free_port, running_fake_llm, wait_until

pytestmark = pytest.mark.anyio

SEED = 4711
CONFIDENTIAL, HARMLESS = "What does the takeover cost?", "What does the canteen cost?"
NOT_FOR_OTHERS = (
    "the passages are labelled 'confidential', provider 'partner' is cleared for 'internal'; "
    "the passages are labelled 'confidential', provider 'commercial' is cleared for 'public'"
)
Serve = Callable[..., AbstractAsyncContextManager[ServiceClient]]


@pytest.fixture(scope="module")
def corpus() -> Labelled:
    return labelled(SEED)


@pytest.fixture(scope="module")
def published_labels(corpus: Labelled, embedder: Embedder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus, with `documents/` and `data/`. Copied by whoever changes it."""
    root = tmp_path_factory.mktemp("labelled")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ingest.model.open_embedder", lambda settings, **_: embedder)
        job.run(job_settings(root / "data", write(corpus, root / "documents"), rules=corpus_rules()))
    return root


@pytest.fixture
def root(published_labels: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(published_labels, tmp_path / "labelled"))


@pytest.fixture(scope="module")
def running_fakes() -> Iterator[Providers]:
    with running_providers() as found:
        yield found


@pytest.fixture
def providers(running_fakes: Providers) -> Providers:
    """All three in good order; each answers with its own short sentence."""
    for name, fake in running_fakes.fakes.items():
        fake.behave(FakeBehaviour(reply=f"The {name} model answers this. [1]"))
    running_fakes.clear()
    return running_fakes


@pytest.fixture
def serve_with(root: Path, providers: Providers) -> Serve:
    """Starts the service with the three providers, the local one first; `local` changes that one, the rest is of llm."""

    def start(local: dict[str, Any] | None = None, **llm: Any) -> AbstractAsyncContextManager[ServiceClient]:
        all_three = providers.settings(retries=0)
        all_three["local"] = ProviderSettings.model_validate(all_three["local"].model_dump(exclude_unset=True) | (local or {}))
        values = {"default": "local", "fallbacks": ("partner", "commercial"), "providers": all_three, **llm}
        return running(settings_of(root / "data", llm=LlmSettings.model_validate(values)))

    return start


@pytest.fixture
async def client(serve_with: Serve) -> AsyncIterator[ServiceClient]:
    async with serve_with() as client:
        yield client


async def ask(client: ServiceClient, question: str, **body: Any) -> dict[str, Any]:
    response = await client.post("/v1/ask", json={"question": question, "top_k": 1, **body})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def nobody_else_was_asked(providers: Providers) -> bool:
    return not providers.sent("partner") and not providers.sent("commercial")


FAILURES: dict[str, tuple[FakeBehaviour | None, str, int]] = {
    "down": (None, "could not connect", 502),
    "slow": (FakeBehaviour(hang="headers"), "no first token within 0.25 s", 504),
    "stops": (FakeBehaviour(cut_after_tokens=0), "its answer was cut off or is not the protocol", 502),
    "rate_limited": (FakeBehaviour(status=429), "rate limited (429)", 503),
    "failing": (FakeBehaviour(status=500), "HTTP 500", 502),
    "wrong_key": (FakeBehaviour(status=401), "HTTP 401", 502),
}


@pytest.mark.parametrize("failure", FAILURES)
async def test_f2_a_local_provider_that_fails_is_never_replaced_by_one_that_is_not_cleared(
    serve_with: Serve, providers: Providers, failure: str
) -> None:
    """Quoting answers and the route says why; without that fallback it is an error; the others get nothing either way."""
    behaviour, why, status = FAILURES[failure]
    local = {"base_url": f"http://127.0.0.1:{free_port()}/v1"} if behaviour is None else {}
    providers.fakes["local"].behave(behaviour or FakeBehaviour())
    async with serve_with(local) as client:
        answer = await ask(client, CONFIDENTIAL)
        assert answer["provider"] == "extractive"
        assert "takeover" in answer["answer"]
        assert answer["route"] == f"extractive: {NOT_FOR_OTHERS}; provider 'local' failed: {why}"
    async with serve_with(local, extractive_fallback=False) as client:
        response = await client.post("/v1/ask", json={"question": CONFIDENTIAL, "top_k": 1})
        assert response.status_code == status, response.text
    assert nobody_else_was_asked(providers)


async def test_f2_a_breaker_that_is_open_changes_nothing(serve_with: Serve, providers: Providers) -> None:
    """The local provider is left alone: quoting answers and says so, or 503; nobody who is not cleared is asked."""
    providers.fakes["local"].behave(FakeBehaviour(status=500))
    for fallback in (True, False):
        async with serve_with({"breaker_failures": 1, "breaker_open_s": 60}, extractive_fallback=fallback) as client:
            await client.post("/v1/ask", json={"question": CONFIDENTIAL, "top_k": 1})
            calls = len(providers.sent("local"))
            response = await client.post("/v1/ask", json={"question": CONFIDENTIAL, "top_k": 1})
            assert len(providers.sent("local")) == calls
            if fallback:
                assert (
                    response.json()["route"]
                    == f"extractive: {NOT_FOR_OTHERS}; provider 'local' failed: left alone after failures"
                )
            else:
                assert response.status_code == 503
                assert response.json()["type"].endswith("backend-left-alone")
    assert nobody_else_was_asked(providers)


@pytest.mark.parametrize("fallback", [True, False])
async def test_f2_a_full_queue_is_429_and_no_reason_to_ask_others(
    serve_with: Serve, providers: Providers, fallback: bool
) -> None:
    """The place of the local provider is taken and nobody may wait: 429 with Retry-After, not the commercial provider."""
    providers.fakes["local"].behave(FakeBehaviour(reply="Slowly it comes. [1]", first_token_delay_s=1.0))
    local = {"max_concurrent": 1, "max_queued": 0, "first_token_timeout_s": 5}
    async with serve_with(local, extractive_fallback=fallback) as client:
        first = asyncio.create_task(ask(client, CONFIDENTIAL))
        assert await asyncio.to_thread(wait_until, lambda: providers.sent("local"), 10)
        response = await client.post("/v1/ask", json={"question": CONFIDENTIAL, "top_k": 1})
        assert response.status_code == 429, response.text
        assert int(response.headers["retry-after"]) >= 1
        assert (await first)["provider"] == "local"
    assert nobody_else_was_asked(providers)


async def test_f2_waiting_too_long_for_a_place_ends_in_quoting(serve_with: Serve, providers: Providers) -> None:
    """Whoever waited for the local provider in vain is not sent to others either."""
    providers.fakes["local"].behave(FakeBehaviour(reply="Slowly it comes. [1]", first_token_delay_s=1.5))
    local = {"max_concurrent": 1, "max_queued": 4, "queue_timeout_s": 0.2, "first_token_timeout_s": 5}
    async with serve_with(local) as client:
        first = asyncio.create_task(ask(client, CONFIDENTIAL))
        assert await asyncio.to_thread(wait_until, lambda: providers.sent("local"), 10)
        second = await ask(client, CONFIDENTIAL)
        assert second["provider"] == "extractive"
        assert second["route"].startswith(f"extractive: {NOT_FOR_OTHERS}; provider 'local' failed: ")
        assert (await first)["provider"] == "local"
    assert nobody_else_was_asked(providers)


async def test_f3_a_conversation_stays_confidential_when_the_caller_picks_another_provider(
    client: ServiceClient, providers: Providers
) -> None:
    """After a confidential turn harmless ones are not sent out, whatever the caller picks; a new conversation is."""
    first = await ask(client, CONFIDENTIAL)
    assert first["provider"] == "local"
    for provider in ("commercial", "partner", "commercial"):
        later = await ask(client, HARMLESS, conversation_id=first["conversation_id"], provider=provider)
        assert later["provider"] == "extractive"
        assert later["route"].startswith("extractive: the passages are labelled 'confidential'")
    assert nobody_else_was_asked(providers)
    assert (await ask(client, HARMLESS, provider="commercial"))["provider"] == "commercial"


@pytest.mark.parametrize("edit", [str, str.upper, lambda text: text[:9], lambda text: f"{text} Thank you."])
@pytest.mark.parametrize("path", ["/v1/ask", "/v1/chat/completions"])
async def test_f3_a_stateless_conversation_stays_confidential_also_where_its_answers_were_edited(
    client: ServiceClient, providers: Providers, path: str, edit: Callable[[str], str]
) -> None:
    """What we said comes back, word for word or not; the harmless question after it is not sent out."""
    first = await ask(client, CONFIDENTIAL, messages=[])
    messages = [{"role": "user", "content": CONFIDENTIAL}, {"role": "assistant", "content": edit(first["answer"])}]
    if path == "/v1/ask":
        body: dict[str, Any] = {"question": HARMLESS, "messages": messages, "provider": "commercial", "top_k": 1}
    else:
        body = {"model": "archivist/commercial", "messages": [*messages, {"role": "user", "content": HARMLESS}]}
    response = await client.post(path, json=body)
    assert response.status_code == 200, response.text
    assert nobody_else_was_asked(providers)


@pytest.mark.parametrize("change", ["nothing", "edited", "document_gone"])
async def test_f3_an_answer_stays_confidential_without_the_answers_before_it(
    client: ServiceClient, providers: Providers, root: Path, run: Run, change: str
) -> None:
    """What was written with a confidential answer in view may repeat it: sent back alone, it keeps the label, also where
    the answer before it was edited, or its document is gone.
    """
    first = await ask(client, CONFIDENTIAL, messages=[])
    before = f"{first['answer']} Thank you." if change == "edited" else first["answer"]
    said = [{"role": "user", "content": CONFIDENTIAL}, {"role": "assistant", "content": before}]
    if change == "document_gone":
        (root / "documents" / "confidential" / "takeover.md").unlink()
        run(job_settings(root / "data", root / "documents", rules=corpus_rules()))
        assert client.services.snapshots.refresh() is True
    providers.fakes["local"].behave(FakeBehaviour(reply="As was said before, so it is. [1]"))
    second = await ask(client, HARMLESS, messages=said)
    assert second["provider"] == "local"
    only_second = [{"role": "user", "content": HARMLESS}, {"role": "assistant", "content": second["answer"]}]
    third = await ask(client, "What does the parking cost?", messages=only_second, provider="commercial")
    if change == "document_gone":
        # Nothing of the first answer was in view of the second, so that may be passed on.
        sent = b"".join(request.body for fake in providers.fakes.values() for request in fake.requests[1:])
        assert str(first["answer"]).split(" [")[0].encode() not in sent
        return
    assert third["provider"] == "extractive"
    assert nobody_else_was_asked(providers)


def test_f3_no_provider_may_have_the_name_of_fixed_answers() -> None:
    """What a rule answers rests on no document, and by its name it is known; a provider of that name would be believed so."""
    with pytest.raises(ValidationError, match=r"llm\.providers may not redefine 'fixed'"):
        LlmSettings.model_validate(
            {"default": "fixed", "providers": {"fixed": {"base_url": "http://127.0.0.1:9", "model": "m"}}}
        )


async def test_f3_a_label_that_is_raised_holds_for_what_was_said_and_a_lowered_one_does_not(
    client: ServiceClient, providers: Providers, root: Path, run: Run
) -> None:
    """The higher of the label at the time and today's holds for each earlier answer."""
    about_canteen = await ask(client, HARMLESS, provider="commercial")
    about_takeover = await ask(client, CONFIDENTIAL)
    assert [about_canteen["provider"], about_takeover["provider"]] == ["commercial", "local"]
    run(job_settings(root / "data", root / "documents", rules=corpus_rules(canteen="secret", takeover="public")))
    assert client.services.snapshots.refresh() is True
    providers.clear()
    question = "What does the parking cost?"
    for earlier in (about_canteen, about_takeover):
        later = await ask(client, question, conversation_id=earlier["conversation_id"], provider="commercial")
        assert later["provider"] == "extractive"
    assert nobody_else_was_asked(providers)
    # What is said from now on goes by the new labels.
    assert (await ask(client, CONFIDENTIAL, provider="commercial"))["provider"] == "commercial"
    assert (await ask(client, HARMLESS, provider="commercial"))["provider"] == "extractive"


async def test_f5_no_label_is_the_default_one_an_unknown_label_the_highest(
    serve_with: Serve, providers: Providers, corpus: Labelled
) -> None:
    """Of an export's rows the one without a label is internal, one labelled lower than its file too, one with a foreign label
    secret, and so is what is mixed with it.
    """
    async with serve_with(fallbacks=()) as client:
        for question, provider, top_k, answers in (
            ("What does the bicycle cost?", "commercial", 1, "extractive"),
            ("What does the bicycle cost?", "partner", 1, "partner"),
            ("What does the merger cost?", "partner", 1, "extractive"),
            ("What do the weather and the merger cost?", "commercial", 20, "extractive"),
            ("What does the weather cost?", "commercial", 1, "extractive"),
            ("What does the weather cost?", "partner", 1, "partner"),
        ):
            assert (await ask(client, question, provider=provider, top_k=top_k))["provider"] == answers, question
    assert providers.leaks(corpus) == {}


@pytest.mark.parametrize("addresses", [["192.0.2.7"], ["127.0.0.1", "192.0.2.7"], ["::ffff:192.0.2.7"]])
async def test_f5_a_local_name_that_leads_elsewhere_is_sent_nothing(
    serve_with: Serve, providers: Providers, addresses: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """localhost that resolves to another machine, also among its own addresses: refused, and quoting answers."""

    async def resolve(host: str, port: int) -> list[str]:
        return addresses

    monkeypatch.setattr(provider_module, "Egress", partial(Egress, resolve=resolve))
    local = {"base_url": f"http://localhost:{providers.fakes['local'].port}/v1"}
    async with serve_with(local) as client:
        answer = await ask(client, CONFIDENTIAL)
        assert answer["provider"] == "extractive"
        assert "provider 'local' failed" in answer["route"]
        assert "192.0.2.7" not in answer["route"]
    async with serve_with(local, extractive_fallback=False) as client:
        response = await client.post("/v1/ask", json={"question": CONFIDENTIAL, "top_k": 1})
        assert (response.status_code, response.json()["title"]) == (503, "Address refused")
    assert not providers.sent("local")
    assert nobody_else_was_asked(providers)


@pytest.fixture
def elsewhere() -> Iterator[RunningFake]:
    """Another server, to which the local one would send its callers."""
    with running_fake_llm() as fake:
        yield fake


async def test_f5_a_redirect_of_the_local_provider_is_not_followed(
    client: ServiceClient, providers: Providers, elsewhere: RunningFake
) -> None:
    """A redirect to another host: that host gets nothing, quoting answers."""
    providers.fakes["local"].behave(FakeBehaviour(redirect_to=f"{elsewhere.base_url}/chat/completions"))
    answer = await ask(client, CONFIDENTIAL)
    assert answer["provider"] == "extractive"
    assert len(providers.sent("local")) == 1
    assert not elsewhere.requests
    assert nobody_else_was_asked(providers)


@pytest.mark.parametrize(
    "base_url",
    [
        "http://10.0.0.5:11434/v1",
        "https://api.example.com/v1",
        "http://localhost.example.com/v1",
        "http://127.0.0.1.nip.io/v1",
        "http://[::ffff:10.0.0.5]/v1",
        "http://0.0.0.0:8080/v1",
        "http://ollama:11434/v1",
    ],
)
def test_f5_a_provider_elsewhere_without_a_clearance_is_refused(tmp_path: Path, base_url: str) -> None:
    """The configuration is not taken, and the error names the key and the labels to choose from."""
    file = tmp_path / "archivist.yaml"
    file.write_text(f"llm: {{providers: {{acme: {{base_url: '{base_url}', model: m}}}}}}\n", encoding="utf-8")
    with pytest.raises(
        ConfigError, match=r"llm\.providers\.acme\.clearance is missing.*public, internal, confidential, secret"
    ):
        load_settings(file).service()


ROUTE = {"name": "all", "providers": ("commercial", "partner")}
BUDGET = {"name": "tokens", "max_tokens": 1, "then": ("commercial", "partner")}


@pytest.mark.parametrize("llm", [{"routes": (ROUTE,)}, {"budgets": (BUDGET,)}], ids=["route", "budget"])
async def test_f5_rules_and_budgets_cannot_widen_a_clearance(
    serve_with: Serve, providers: Providers, llm: dict[str, Any]
) -> None:
    """A rule or a spent budget that names the commercial provider: harmless goes there, confidential is cut."""
    async with serve_with(**llm) as client:
        assert (await ask(client, HARMLESS))["provider"] == "commercial"
        providers.clear()
        answer = await ask(client, CONFIDENTIAL)
        assert answer["provider"] == "extractive"
        assert "provider 'commercial' is cleared for 'public'" in answer["route"]
        assert "provider 'partner' is cleared for 'internal'" in answer["route"]
    async with serve_with(**llm, extractive_fallback=False) as client:
        response = await client.post("/v1/ask", json={"question": CONFIDENTIAL, "top_k": 1})
        assert (response.status_code, response.json()["type"]) == (503, "urn:archivist:problem:not-cleared")
    assert nobody_else_was_asked(providers)


async def test_a_decision_is_logged_without_text_and_counted(
    client: ServiceClient, providers: Providers, corpus: Labelled
) -> None:
    """One record with label, chain and who is cleared; one count for each provider looked at; no word of anybody."""
    with capture_logs() as records:
        await ask(client, CONFIDENTIAL)
    decisions = [record for record in records if record.get("action") == "route"]
    assert [(record["label"], record["chain"], record["cleared"]) for record in decisions] == [
        ("confidential", ["local", "partner", "commercial"], ["local"])
    ]
    assert corpus.derived([str(records)], "public") == []
    assert "takeover" not in str(records)
    metrics = (await client.get("/metrics")).text
    for provider, decision in (("local", "cleared"), ("partner", "not_cleared"), ("commercial", "not_cleared")):
        name = "archivist_clearance_decisions_total"
        assert f'{name}{{decision="{decision}",label="confidential",provider="{provider}"}} 1.0' in metrics
