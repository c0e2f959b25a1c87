"""The configuration changes while the service runs: what is in force, what is refused, and what goes on as it was."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
import yaml
from fastapi import FastAPI

from app.llm.fake.behaviour import FakeBehaviour
from app.llm.provider import Provider
from app.llm.settings import LlmSettings
from app.main import create_app, server_config
from app.reload import SETTLE_TRIES, SETTLED_S, Current, Origin, Reloader
from app.services import Services
from app.settings import ServiceSettings
from archivist.settings import load_settings
from corpus.errors import ConfigError
from tests.app.serving import PROMPTS, composed
from tests.servers import RunningFake, free_port, running_fake_llm, wait_until

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
QUESTION = "When are expense reports due?"
IN_FORCE_S = 2.0
"""A change is in force after so long, from the write."""

FLIPS, ASKERS = 30, 20


@pytest.fixture(scope="module")
def fake_server() -> Iterator[RunningFake]:
    with running_fake_llm() as fake:
        yield fake


@pytest.fixture
def fake(fake_server: RunningFake) -> RunningFake:
    """The fake LLM, whose every word is the name of the model that was asked."""
    fake_server.behave(FakeBehaviour(reply=" ".join(["{model}"] * 12)))
    fake_server.requests.clear()
    return fake_server


@dataclass(slots=True)
class Config:
    """A configuration file of two providers at the fake, `first` the default one."""

    file: Path
    data_dir: Path
    fake: RunningFake
    values: dict[str, Any] = field(default_factory=dict)

    def write(self, llm: dict[str, Any] | None = None, provider: dict[str, Any] | None = None, **sections: Any) -> None:
        """Write it anew, as a whole; `provider` changes `first`, `llm` the section, the rest are sections."""
        both = {name: {"base_url": self.fake.base_url, "model": name, "retries": 0} for name in ("first", "second")}
        both["first"] |= provider or {}
        self.values = {
            "data_dir": str(self.data_dir),
            "llm": {"default": "first", "extractive_fallback": False, "providers": both, **(llm or {})},
            **sections,
        }
        self.write_text(yaml.safe_dump(self.values))

    def write_text(self, text: str) -> None:
        beside = self.file.with_name("being-written")
        beside.write_text(text, encoding="utf-8")
        beside.replace(self.file)

    def load(self) -> ServiceSettings:
        return load_settings(self.file).service()


@pytest.fixture
def config(site: Path, tmp_path: Path, fake: RunningFake) -> Config:
    (tmp_path / "config").mkdir()
    config = Config(tmp_path / "config" / "archivist.yaml", site / "data", fake)
    config.write()
    return config


@dataclass(frozen=True, slots=True)
class Served:
    """The service, on a port, with its files watched."""

    app: FastAPI
    address: str

    @property
    def services(self) -> Services:
        current: Current = self.app.state.current
        return current.services

    def provider(self, name: str) -> Provider:
        return self.services.gateway._providers[name]

    def ask(self, **body: Any) -> dict[str, Any]:
        response = httpx.post(f"{self.address}/v1/ask", json={"question": QUESTION, **body}, timeout=30)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def ready(self) -> dict[str, Any]:
        answer: dict[str, Any] = httpx.get(f"{self.address}/readyz", timeout=30).json()
        return answer

    def metric(self, name: str) -> float:
        lines = httpx.get(f"{self.address}/metrics", timeout=30).text.splitlines()
        return float(next(line for line in lines if line.startswith(f"{name} ")).split()[1])

    def soon(self, holds: Callable[[], object], within_s: float = IN_FORCE_S) -> bool:
        return wait_until(holds, within_s)


@contextmanager
def serving(config: Config) -> Iterator[Served]:
    """The service as `archivist serve` runs it, in a thread of this process."""
    settings = config.load()
    app = create_app(settings, composed(settings), Origin(config.file, config.load))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        server = uvicorn.Server(server_config(app, settings.server))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="service")
        thread.start()
        try:
            assert wait_until(lambda: server.started, within_s=60), "the service did not start"
            yield Served(app, f"http://127.0.0.1:{listener.getsockname()[1]}")
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture
def served(config: Config) -> Iterator[Served]:
    with serving(config) as served:
        yield served


def is_closed(provider: Provider) -> bool:
    return provider.egress is not None and provider.egress._client.is_closed


def test_another_default_provider_answers_the_next_request(served: Served, config: Config) -> None:
    """Two seconds after the write at the latest; the old one, no longer named, is closed."""
    old = served.provider("first")
    assert served.ask()["provider"] == "first"
    providers = {"second": {"base_url": config.fake.base_url, "model": "second"}}
    config.write({"default": "second", "providers": providers})
    assert served.soon(lambda: served.ask()["provider"] == "second")
    assert served.soon(lambda: is_closed(old))


def test_other_prompts_are_in_force(served: Served, config: Config, tmp_path: Path) -> None:
    """Another folder of prompts, and then one of its files written anew, are in the next prompt."""
    folder = tmp_path / "prompts"
    folder.mkdir()
    for file in PROMPTS.glob("*.txt"):
        (folder / file.name).write_bytes(file.read_bytes())

    def prompts() -> str:
        served.ask()
        return config.fake.requests[-1].body.decode()

    (folder / "system.txt").write_text("Answer like a pirate.", encoding="utf-8")
    config.write(prompt={"folder": str(folder)})
    assert served.soon(lambda: "like a pirate" in prompts())
    (folder / "system.txt").write_text("Answer like a judge.", encoding="utf-8")
    assert served.soon(lambda: "like a judge" in prompts())


def test_other_search_settings_are_in_force(served: Served, config: Config) -> None:
    """With one candidate of each index fewer passages are found."""

    def found() -> int:
        response = httpx.post(
            f"{served.address}/v1/search", json={"query": "how to work, travel and report errors", "top_k": 20}
        )
        return len(response.json()["hits"])

    before = found()
    config.write(search={"candidates": 1})
    assert served.soon(lambda: found() < before)


def stream_of(served: Served, opened: threading.Event, told: list[str]) -> None:
    """Ask for a stream, say when its first word has come, and note its lines."""
    body = {"question": QUESTION, "stream": True}
    with httpx.stream("POST", f"{served.address}/v1/ask", json=body, timeout=60) as response:
        for line in response.iter_lines():
            told.append(line)
            if line == "event: delta":
                opened.set()


@pytest.mark.parametrize("between", [False, True], ids=["one_change", "two_changes"])
def test_an_answer_on_its_way_keeps_its_configuration_whole(served: Served, config: Config, between: bool) -> None:
    """Its provider is taken out meanwhile, also by the second of two changes: the stream ends as it began."""
    config.fake.behave(FakeBehaviour(reply=" ".join(["{model}"] * 20), tokens_per_second=5))
    opened, told = threading.Event(), list[str]()
    asking = threading.Thread(target=stream_of, args=(served, opened, told))
    asking.start()
    assert opened.wait(20)
    old = served.provider("first")
    config.fake.behave(FakeBehaviour(reply="{model}"))
    if between:
        config.write(search={"candidates": 7})
        assert served.soon(lambda: served.services.settings.search.candidates == 7)
        assert served.provider("first") is old
    config.write({"default": "second", "providers": {"second": {"base_url": config.fake.base_url, "model": "second"}}})
    assert served.soon(lambda: served.ask()["provider"] == "second")
    assert asking.is_alive()
    assert not is_closed(old)
    asking.join(30)
    assert told[-3] == "event: done", told[-3:]
    done = json.loads(told[-2].removeprefix("data: "))
    assert (done["provider"], done["answer"]) == ("first", " ".join(["first"] * 20))
    assert served.soon(lambda: is_closed(old))


async def test_twenty_askers_notice_nothing_of_thirty_changes(served: Served, config: Config) -> None:
    """No question fails, no answer is of two providers, and `provider` is who wrote the text."""
    answers: list[tuple[str, str]] = []
    over = asyncio.Event()

    async def asker(client: httpx.AsyncClient, number: int) -> None:
        while not over.is_set():
            response = await client.post("/v1/ask", json={"question": QUESTION, "stream": number % 2 == 0, "messages": []})
            assert response.status_code == 200, response.text
            last = response.text.strip().rsplit("\ndata: ", 1)[-1]
            answer = json.loads(last)
            answers.append((answer["provider"], answer["answer"]))

    def is_in_force(default: str) -> bool:
        return served.services.settings.llm.default == default

    async with httpx.AsyncClient(base_url=served.address, timeout=60) as client, asyncio.TaskGroup() as tasks:
        for number in range(ASKERS):
            tasks.create_task(asker(client, number))
        for flip in range(FLIPS):
            default = ("second", "first")[flip % 2]
            config.write({"default": default}, {"temperature": flip / 100})
            assert await asyncio.to_thread(wait_until, partial(is_in_force, default), 10), f"flip {flip} was not noticed"
        over.set()
    assert {answer for answer in answers if answer[1] != " ".join([answer[0]] * 12)} == set()
    assert {provider for provider, _ in answers} == {"first", "second"}
    assert len(answers) > FLIPS


INVALID: dict[str, tuple[Callable[[Config], object], str]] = {
    "yaml": (lambda config: config.write_text("llm: {default: [first\n"), "is not valid YAML at line"),
    "unknown_key": (lambda config: config.write({"defualt": "second"}), "unknown key 'llm.defualt'; did you mean 'default'"),
    "unknown_provider": (lambda config: config.write({"default": "third"}), "llm.default 'third' is not a provider"),
    "unstated_clearance": (
        lambda config: config.write(provider={"base_url": "https://api.example.com/v1"}),
        "llm.providers.first.clearance is missing",
    ),
    "missing_prompts": (lambda config: config.write(prompt={"folder": str(config.data_dir)}), "prompt file"),
    "bad_pattern": (
        lambda config: config.write({"routes": [{"name": "r", "when": {"matches": "(?=x)"}, "providers": ["second"]}]}),
        "route 'r': matches",
    ),
    "unknown_language": (
        lambda config: config.write({"routes": [{"name": "r", "when": {"languages": ["xx"]}, "providers": ["second"]}]}),
        "language 'xx' is none that can be told",
    ),
    "name_of_fixed_answers": (
        lambda config: config.write(
            {"default": "extractive", "providers": {"fixed": {"base_url": "http://127.0.0.1:9", "model": "m"}}}
        ),
        "llm.providers may not redefine 'fixed'",
    ),
    "deleted": (lambda config: config.file.unlink(), "archivist.yaml"),
}


@pytest.mark.parametrize("change", INVALID)
def test_what_cannot_be_used_is_refused_and_the_old_serves_on(served: Served, config: Config, change: str) -> None:
    """An administrator sees why, the metric is 0, every answer is as before; the repaired file puts all of it right."""
    make, says = INVALID[change]
    make(config)
    assert served.soon(lambda: served.metric("archivist_config_valid") == 0)
    ready = served.ready()
    assert (ready["status"], ready["codes"]) == ("degraded", ["config_refused"])
    assert any(says in advice for advice in ready["advice"]), ready
    assert served.ask()["provider"] == "first"
    config.write({"default": "second"})
    assert served.soon(lambda: served.metric("archivist_config_valid") == 1)
    assert served.ready()["status"] == "ready"
    assert served.ask()["provider"] == "second"


def test_a_prompt_file_that_was_missing_is_noticed_when_it_comes(served: Served, config: Config, tmp_path: Path) -> None:
    """The folder named last is watched too, though it was refused."""
    folder = tmp_path / "prompts"
    folder.mkdir()
    for name in ("passages.txt", "rewrite.txt"):
        (folder / name).write_bytes((PROMPTS / name).read_bytes())
    config.write(prompt={"folder": str(folder)})
    assert served.soon(lambda: "config_refused" in served.ready()["codes"])
    (folder / "system.txt").write_text("Answer like a pirate.", encoding="utf-8")
    assert served.soon(lambda: served.services.prompts.system == "Answer like a pirate.")
    assert served.ready()["status"] == "ready"


def test_a_section_that_needs_a_restart_is_named_and_the_rest_is_in_force(served: Served, config: Config) -> None:
    """A changed port does not keep another default provider back."""
    config.write({"default": "second"}, server={"port": 9})
    assert served.soon(lambda: served.ask()["provider"] == "second")
    ready = served.ready()
    assert (ready["status"], ready["codes"]) == ("degraded", ["restart_needed"])
    config.write({"default": "second"})
    assert served.soon(lambda: served.ready()["status"] == "ready")


def test_a_provider_that_did_not_change_goes_on_as_it_was(served: Served, config: Config) -> None:
    """Its breaker stays open and its connections are kept; a provider that changed is another one, and the old is closed."""
    config.write(provider={"breaker_failures": 1, "breaker_open_s": 60})
    assert served.soon(
        lambda: served.provider("first").breaker.phase == "closed" and served.provider("first").settings is not None
    )
    assert served.soon(lambda: served.services.settings.llm.providers["first"].breaker_failures == 1)
    config.fake.behave(FakeBehaviour(status=500))
    httpx.post(f"{served.address}/v1/ask", json={"question": QUESTION}, timeout=30)
    first, second = served.provider("first"), served.provider("second")
    assert first.breaker.phase == "open"
    config.write({"default": "second"}, {"breaker_failures": 1, "breaker_open_s": 60})
    assert served.soon(lambda: served.services.settings.llm.default == "second")
    assert served.provider("first") is first
    assert served.provider("second") is second
    assert first.breaker.phase == "open"
    config.write({"default": "second"}, {"breaker_failures": 2, "breaker_open_s": 60})
    assert served.soon(lambda: served.provider("first") is not first)
    assert served.provider("first").breaker.phase == "closed"
    assert served.provider("second") is second
    assert served.soon(lambda: is_closed(first))
    assert not is_closed(second)


def test_a_file_that_is_named_anew_in_a_watched_folder_is_watched(served: Served, config: Config) -> None:
    """The key of a file beside the configuration is used, and its successor, once it is written there."""
    key = config.file.parent / "key"
    key.write_text("one-1111", encoding="utf-8")
    config.write(provider={"api_key_file": str(key)})

    def key_sent() -> str:
        served.ask()
        return config.fake.requests[-1].headers.get("authorization", "")

    assert served.soon(lambda: key_sent() == "Bearer one-1111")
    key.write_text("two-2222", encoding="utf-8")
    assert served.soon(lambda: key_sent() == "Bearer two-2222")


def test_a_swapped_link_is_noticed(config: Config, tmp_path: Path) -> None:
    """A mounted ConfigMap: the file is a link by way of `..data`, which is put in place anew with another folder behind it."""
    mount = tmp_path / "mount"
    config.file = mount / "archivist.yaml"

    def publish(default: str) -> None:
        folder = mount / f"..{default}"
        folder.mkdir(parents=True)
        config.write({"default": default})
        (mount / "archivist.yaml").replace(folder / "archivist.yaml")
        (mount / "..data_tmp").symlink_to(folder.name)
        (mount / "..data_tmp").replace(mount / "..data")
        config.file.symlink_to("..data/archivist.yaml")

    mount.mkdir()
    publish("first")
    with serving(config) as served:
        assert served.ask()["provider"] == "first"
        # From here on only the link behind the link changes, as the kubelet does it.
        folder = mount / "..second"
        folder.mkdir()
        config.values["llm"]["default"] = "second"
        (folder / "archivist.yaml").write_text(yaml.safe_dump(config.values), encoding="utf-8")
        (mount / "..data_tmp").symlink_to(folder.name)
        (mount / "..data_tmp").replace(mount / "..data")
        assert served.soon(lambda: served.ask()["provider"] == "second")


@pytest.mark.parametrize("linked", ["configuration", "key"])
def test_a_change_behind_a_link_is_noticed(config: Config, tmp_path: Path, linked: str) -> None:
    """The file is a link into another folder, where it is written anew under its own name."""
    behind = tmp_path / "behind"
    behind.mkdir()
    if linked == "configuration":
        real, here = behind / "real.yaml", config.file
        here.replace(real)
    else:
        real, here = behind / "real-key", config.file.with_name("key")
        real.write_text("one-1111", encoding="utf-8")
        config.write(provider={"api_key_file": str(here)})
    here.symlink_to(real)
    with serving(config) as served:
        assert served.ask()["provider"] == "first"
        if linked == "configuration":
            config.values["llm"]["default"] = "second"
            real.write_text(yaml.safe_dump(config.values), encoding="utf-8")
            assert served.soon(lambda: served.ask()["provider"] == "second")
        else:
            real.write_text("two-2222", encoding="utf-8")
            assert served.soon(
                lambda: served.ask() and config.fake.requests[-1].headers.get("authorization") == "Bearer two-2222"
            )


EMPTY = {"nothing": "", "space": " \n\n", "comments": "\ufeff# default: first\n  # or second\n"}


@pytest.mark.parametrize("text", EMPTY.values(), ids=EMPTY)
async def test_an_emptied_file_is_refused(config: Config, text: str) -> None:
    """Nothing is not the defaults: what was in force stays; `{}` is, for whoever means them."""
    current = Current(composed(config.load()))
    reloader = Reloader(current, Origin(config.file, config.load))
    before = current.services
    config.write_text(text)
    with pytest.raises(ConfigError, match=r"archivist\.yaml is empty; write \{\} in it"):
        await reloader.reload()
    assert current.services is before
    config.write_text("{}")
    await reloader.reload()
    assert current.services.settings.llm.default == LlmSettings().default
    await current.close()


async def test_a_file_that_was_empty_may_stay_so_until_it_is_not(config: Config) -> None:
    """Over variables alone an empty file is no mistake; once it said something it is."""
    full = config.file.read_text(encoding="utf-8")
    config.write_text("# all by variables\n")
    current = Current(composed(config.load()))
    reloader = Reloader(current, Origin(config.file, config.load))
    config.write_text("")
    await reloader.reload()
    config.write_text(full)
    await reloader.reload()
    assert current.services.settings.llm.default == "first"
    config.write_text("")
    with pytest.raises(ConfigError, match="is empty"):
        await reloader.reload()
    await current.close()


@pytest.mark.parametrize("half", ["", "data_dir: ", "llm: {default: [first"], ids=["emptied", "cut", "invalid"])
async def test_a_file_is_read_once_it_is_written_to_its_end(config: Config, half: str) -> None:
    """What is there between the steps of a writer is neither put in force nor refused."""
    current = Current(composed(config.load()))
    reloader = Reloader(current, Origin(config.file, config.load))
    config.write({"default": "second"})
    whole = config.file.read_text(encoding="utf-8")
    config.file.write_text(half, encoding="utf-8")
    reloading = asyncio.create_task(reloader.reload())
    await asyncio.sleep(SETTLED_S / 2)
    assert not reloading.done()
    config.file.write_text(whole, encoding="utf-8")
    await reloading
    assert current.services.settings.llm.default == "second"
    assert reloader.problem is None
    await current.close()


async def test_a_file_that_is_written_without_end_is_refused(config: Config) -> None:
    """After some tries the reading ends, and nothing has changed."""
    loads = 0

    def load() -> ServiceSettings:
        nonlocal loads
        loads += 1
        config.write({"default": "second"}, {"temperature": loads / 100})
        return config.load()

    current = Current(composed(config.load()))
    before = current.services
    with pytest.raises(ConfigError, match="being written on and on"):
        await Reloader(current, Origin(config.file, load)).reload()
    assert loads == SETTLE_TRIES
    assert current.services is before
    await current.close()


async def test_a_change_while_the_service_starts_is_not_lost(config: Config) -> None:
    """What was written after the configuration was read and before it was watched is in force soon after the start."""
    settings = config.load()
    app = create_app(settings, composed(settings), Origin(config.file, config.load))
    config.write({"default": "second"})
    async with app.router.lifespan_context(app):
        for _ in range(int(IN_FORCE_S / 0.02)):
            if app.state.current.services.settings.llm.default == "second":
                break
            await asyncio.sleep(0.02)
        assert app.state.current.services.settings.llm.default == "second"


async def test_two_reloads_at_once_leave_one_configuration_and_nothing_open(config: Config) -> None:
    """SIGHUP and the watcher may come together: of all providers that were opened only those in force are not closed."""
    settings = config.load()
    current = Current(composed(settings))
    opened: list[Provider] = list(current.services.gateway._providers.values())
    waiting = []
    for number in range(15):
        config.write(provider={"temperature": number / 100})
        waiting.append(config.load())
    last = waiting[-1]
    reloader = Reloader(current, Origin(config.file, partial(waiting.pop, 0)))
    for _ in range(5):
        await asyncio.gather(*(reloader.reload() for _ in range(3)))
        opened += current.services.gateway._providers.values()
    await asyncio.gather(*current._closing)
    in_force = list(current.services.gateway._providers.values())
    assert waiting == []
    assert current.services.settings == last
    for provider in opened:
        assert is_closed(provider) is not any(provider is each for each in in_force)
    await current.close()
    assert all(is_closed(provider) for provider in opened)


async def test_a_refused_reload_by_hand_says_why(config: Config) -> None:
    """`reload` raises what it found, and keeps it for /readyz until the file is right."""
    current = Current(composed(config.load()))
    reloader = Reloader(current, Origin(config.file, config.load))
    before = current.services
    config.write({"default": "third"})
    with pytest.raises(ConfigError, match=r"llm\.default 'third' is not a provider"):
        await reloader.reload()
    assert "'third'" in (reloader.problem or "")
    assert current.services is before
    config.write()
    await reloader.reload()
    assert (reloader.problem, current.services) == (None, before)
    await current.close()


@contextmanager
def child(config: Config, log: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """`archivist serve` in a process of its own; its address and the process."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        try:
            return httpx.get(f"{address}/livez", timeout=2).status_code == 200
        except httpx.TransportError:
            return False

    with log.open("wb") as output:
        command = [sys.executable, "-m", "archivist", "serve", "--config", str(config.file), "--port", str(port)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output, env=environment)
        try:
            assert wait_until(answers, within_s=90), log.read_text()
            yield address, process
        finally:
            process.kill()
            process.wait()


def test_sighup_reloads_where_no_change_can_be_noticed(config: Config, tmp_path: Path) -> None:
    """A folder above the file is swapped, of which no watcher hears: the signal puts what is there now in force."""
    for default in ("first", "second"):
        folder = tmp_path / "releases" / default
        folder.mkdir(parents=True)
        config.file = folder / "archivist.yaml"
        config.write({"default": default})
    link = tmp_path / "current"
    link.symlink_to(tmp_path / "releases" / "first")
    config.file = link / "archivist.yaml"
    with child(config, tmp_path / "log") as (address, process):

        def provider() -> str:
            return str(httpx.post(f"{address}/v1/ask", json={"question": QUESTION}, timeout=30).json()["provider"])

        def has_looked() -> bool:
            return 'archivist_config_reloads_total{outcome="unchanged"} 1' in httpx.get(f"{address}/metrics", timeout=30).text

        # What changes while the first look lasts is seen by it.
        assert wait_until(has_looked, 10)
        assert provider() == "first"
        (tmp_path / "next").symlink_to(tmp_path / "releases" / "second")
        (tmp_path / "next").replace(link)
        time.sleep(1)
        assert provider() == "first"
        process.send_signal(signal.SIGHUP)
        assert wait_until(lambda: provider() == "second", IN_FORCE_S)
        assert process.poll() is None


def test_b7_livez_answers_in_time_while_configurations_change(config: Config, tmp_path: Path) -> None:
    """Every 10 ms, over 20 changes, one of which loads the languages: 99 of 100 within 50 ms."""
    took: list[float] = []
    over = threading.Event()
    with child(config, tmp_path / "log") as (address, _process), httpx.Client(base_url=address, timeout=30) as client:

        def watch() -> None:
            with httpx.Client(base_url=address, timeout=30) as own:
                while not over.wait(0.01):
                    began = time.perf_counter()
                    assert own.get("/livez").status_code == 200
                    took.append(time.perf_counter() - began)

        watching = threading.Thread(target=watch)
        watching.start()
        try:
            for flip in range(20):
                default = ("second", "first")[flip % 2]
                languages = [{"name": "german", "when": {"languages": ["de"]}, "providers": [default]}] if flip >= 10 else []
                config.write({"default": default, "routes": languages}, {"temperature": flip / 100})

                def answers(default: str = default) -> bool:
                    return bool(client.post("/v1/ask", json={"question": QUESTION}).json()["provider"] == default)

                assert wait_until(answers, 5), f"flip {flip} was not noticed"
        finally:
            over.set()
            watching.join()
    took.sort()
    assert len(took) > 200
    assert took[len(took) * 99 // 100] <= 0.05, took[-20:]
