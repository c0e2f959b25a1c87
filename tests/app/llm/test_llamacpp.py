"""A GGUF file run in a child process: the real xllamacpp with a small base model."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path

import pytest

from app.llm import llamacpp
from app.llm.backend import Delta, Finished, Prompt
from app.llm.llamacpp import LlamaCppBackend
from app.llm.settings import ProviderSettings
from corpus.egress import Egress
from corpus.errors import (
    BackendError,
    BackendNotConfigured,
    BackendRejected,
    BackendTimeout,
    BackendUnreachable,
)
from corpus.types import Message
from tests.servers import CHAT_TEMPLATE, llama_weights, wait_until

pytest.importorskip("xllamacpp", reason="xllamacpp is not installed: NOTHING of the embedded llama.cpp was tested")
pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[3]
CHILD = ROOT / "app" / "llm" / "llamacpp_child.py"
LONG = 900
CONTEXT_TOKENS = 1024


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """One event loop for the module, as long as its child."""
    return "asyncio"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("llamacpp") / "dialogue.jinja"
    path.write_text(CHAT_TEMPLATE, encoding="utf-8")
    return path


def backend_of(model_path: Path, **changes: object) -> LlamaCppBackend:
    """A backend as configured, on one thread: tests share their processors."""
    values = {"kind": "llamacpp", "model": "gemma", "model_path": model_path, "threads": 1, "temperature": 0, **changes}
    return LlamaCppBackend("embedded", ProviderSettings.model_validate(values), "secret")


@pytest.fixture(scope="module")
async def llama(template: Path) -> AsyncIterator[LlamaCppBackend]:
    """A model that has loaded; it answers one call at a time and does not stop before its limit."""
    backend = backend_of(llama_weights(), chat_template=template, context_tokens=CONTEXT_TOKENS, body={"ignore_eos": True})
    await backend.start()
    await backend.models()
    yield backend
    await backend.close()


def asking(text: str, max_tokens: int) -> Prompt:
    return Prompt(messages=(Message("user", text),), label="public", max_tokens=max_tokens)


async def all_of(backend: LlamaCppBackend, prompt: Prompt) -> list[Delta | Finished]:
    async with aclosing(backend.stream(prompt)) as events:
        return [event async for event in events]


async def rest_of(events: AsyncIterator[Delta | Finished]) -> list[Delta | Finished]:
    return [event async for event in events]


async def seconds_to_answer(backend: LlamaCppBackend) -> float:
    """How long a call of two tokens takes; one that runs already is waited for."""
    began = time.monotonic()
    finished = (await all_of(backend, asking("Count: one, two,", 2)))[-1]
    assert isinstance(finished, Finished)
    return time.monotonic() - began


def is_running(pid: int) -> bool:
    """Whether a process exists and is more than an entry that nobody has collected."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def command_line_of(pid: int) -> list[str]:
    """A process's arguments, which every user of the machine can read."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode().rstrip("\0").split("\0")


async def started(backend: LlamaCppBackend) -> int:
    """The child's process, which may still be loading."""
    await backend.start()
    while (pid := backend.pid) is None:  # noqa: ASYNC110 - there is nothing else to wait for
        await asyncio.sleep(0.01)
    return pid


def address_of(backend: LlamaCppBackend) -> tuple[str, str]:
    """Where the child listens and the key that it wants."""
    child = backend._child
    assert child is not None
    assert child.remote_settings.api_key is not None
    return child.remote_settings.base_url.removesuffix("/v1"), child.remote_settings.api_key.get_secret_value()


async def test_an_answer_streams_and_is_counted(llama: LlamaCppBackend) -> None:
    """Eight tokens come as several deltas and one Finished with the server's own counts."""
    *deltas, finished = await all_of(llama, asking("Count on: one, two, three, four,", 8))
    assert len(deltas) >= 2
    assert all(isinstance(delta, Delta) and delta.text for delta in deltas)
    assert isinstance(finished, Finished)
    assert (finished.reason, finished.usage.completion_tokens, finished.usage.estimated) == ("length", 8, False)
    assert finished.usage.prompt_tokens > 5
    assert (llama.provider, llama.model, llama.clearance) == ("embedded", "gemma", "secret")
    assert llama.problem is None


async def test_closing_the_stream_frees_the_child(llama: LlamaCppBackend) -> None:
    """After a long answer is left, the next call, for which there is one place, begins as if there had been none."""
    undisturbed_s = await seconds_to_answer(llama)
    async with aclosing(llama.stream(asking("Write a long story.", LONG))) as events:
        for _ in range(3):
            await anext(events)
    assert await seconds_to_answer(llama) < undisturbed_s + 1


async def test_cancelling_the_task_frees_the_child(llama: LlamaCppBackend) -> None:
    """The same for a task that is cancelled while it reads."""
    undisturbed_s = await seconds_to_answer(llama)
    began = asyncio.Event()

    async def read() -> None:
        async with aclosing(llama.stream(asking("Write a long story.", LONG))) as events:
            async for _ in events:
                began.set()

    task = asyncio.create_task(read())
    await asyncio.wait_for(began.wait(), 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await seconds_to_answer(llama) < undisturbed_s + 1


async def test_calls_at_the_same_time_are_all_answered(llama: LlamaCppBackend) -> None:
    """Three at once on a child with one place wait for one another."""
    answers = await asyncio.gather(*(all_of(llama, asking(f"Count from {number}:", 4)) for number in range(3)))
    assert [answer[-1].usage.completion_tokens for answer in answers if isinstance(answer[-1], Finished)] == [4, 4, 4]


@pytest.mark.parametrize("key", [None, "wrong"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/completion", "/v1/models", "/props", "/slots", "/tokenize"])
async def test_the_port_is_of_no_use_without_the_key(llama: LlamaCppBackend, path: str, key: str | None) -> None:
    """Another user of the machine who finds the port is refused."""
    address, _ = address_of(llama)
    egress = Egress([address])
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    status, body = await egress.call_json(f"{address}{path}", method="POST", headers=headers, json={"prompt": "Hello"})
    await egress.close()
    assert status == 401
    assert isinstance(body, dict)
    assert body["error"]["message"] == "Invalid API Key"


async def test_only_this_machine_reaches_the_port(llama: LlamaCppBackend) -> None:
    """It listens on 127.0.0.1 and on no other address, not even another one of this machine."""
    address, _ = address_of(llama)
    host, _, port = address.removeprefix("http://").partition(":")
    assert host == "127.0.0.1"
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.2", int(port)), 1):
        pass


async def test_nothing_of_a_prompt_is_kept_for_the_next(llama: LlamaCppBackend) -> None:
    """The same prompt again is read again from its first token, and no address shows what the slots hold."""
    address, key = address_of(llama)
    egress = Egress([address])
    headers = {"Authorization": f"Bearer {key}"}
    call = {"messages": [{"role": "user", "content": "The same words. " * 20}], "max_tokens": 1}
    for _ in range(2):
        _, answer = await egress.call_json(f"{address}/v1/chat/completions", method="POST", headers=headers, json=call)
        assert isinstance(answer, dict)
        assert answer["usage"]["prompt_tokens"] > 60
        assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
        assert answer["model"] == "gemma"
    for path in ("/slots", "/metrics"):
        status, _ = await egress.call_json(f"{address}{path}", headers=headers)
        assert status == 501
    await egress.close()


async def test_the_command_line_of_the_child_says_nothing(llama: LlamaCppBackend) -> None:
    """Neither the key nor the model's path is where any user of the machine can read it."""
    assert llama.pid is not None
    assert command_line_of(llama.pid) == [sys.executable, "-P", str(CHILD)]


async def test_a_prompt_longer_than_the_context_is_refused(llama: LlamaCppBackend) -> None:
    """The refusal names the context that was configured, and the child serves on."""
    with pytest.raises(BackendRejected, match=r"longer than the model's context.*1024 tokens"):
        await all_of(llama, asking("word " * 1200, 4))
    assert await seconds_to_answer(llama) < 10


async def test_a_context_is_for_each_place(template: Path) -> None:
    """Two places of 256 tokens each: two prompts of 160 at once are answered, one of 320 is refused."""
    backend = backend_of(llama_weights(), chat_template=template, context_tokens=256, max_concurrent=2)
    try:
        answers = await asyncio.gather(*(all_of(backend, asking("word " * 160, 4)) for _ in range(2)))
        assert all(isinstance(answer[-1], Finished) for answer in answers)
        with pytest.raises(BackendRejected, match="longer than the model's context"):
            await all_of(backend, asking("word " * 320, 4))
    finally:
        await backend.close()


def test_one_call_at_a_time_unless_more_are_configured() -> None:
    """Each place takes memory for a whole context, so the default for other kinds is not this one's."""
    common = {"kind": "llamacpp", "model": "m", "model_path": "m.gguf"}
    assert ProviderSettings.model_validate(common).concurrency == 1
    assert ProviderSettings.model_validate({**common, "max_concurrent": 3}).concurrency == 3
    assert ProviderSettings(base_url="http://127.0.0.1:1/v1", model="m").concurrency == 16


async def test_a_child_that_is_killed_is_started_again(template: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer under way fails, so does the next call with the reason; after a while the one after it is answered."""
    monkeypatch.setattr(llamacpp, "RESTART_S", 600.0)
    backend = backend_of(llama_weights(), chat_template=template, body={"ignore_eos": True})
    try:
        async with aclosing(backend.stream(asking("Write a long story.", LONG))) as events:
            await anext(events)
            first = await started(backend)
            os.kill(first, signal.SIGKILL)
            with pytest.raises(BackendError):
                await rest_of(events)
        async with asyncio.timeout(5):
            while backend.pid is not None:  # noqa: ASYNC110 - there is nothing else to wait for
                await asyncio.sleep(0.01)
        with pytest.raises(BackendUnreachable, match=r"SIGKILL; was memory short\?\); started again in \d+ s"):
            await all_of(backend, asking("Count:", 2))
        monkeypatch.setattr(llamacpp, "RESTART_S", 0.0)
        assert await seconds_to_answer(backend) < 30
        assert backend.pid not in (None, first)
    finally:
        await backend.close()


async def test_a_question_while_the_model_loads_waits_as_long_as_for_a_first_token(template: Path) -> None:
    """Then it times out, which leaves the loading alone; one whose deadline is sooner waits until that."""
    backend = backend_of(llama_weights(), chat_template=template, first_token_timeout_s=0.2)
    try:
        await backend.start()
        with pytest.raises(BackendTimeout) as timed_out:
            await all_of(backend, asking("Count:", 2))
        assert (timed_out.value.stage, timed_out.value.waited_s) == ("first_token", 0.2)
        deadline = asyncio.get_running_loop().time() + 0.1
        with pytest.raises(BackendTimeout) as timed_out:
            await all_of(backend, Prompt((Message("user", "Count:"),), "public", 2, deadline=deadline))
        assert timed_out.value.stage == "total"
        loading = backend.pid
        assert loading is not None
        for _ in range(100):
            try:
                assert await backend.models() == frozenset({"gemma"})
                break
            except BackendTimeout:
                continue
        assert backend.pid == loading
    finally:
        await backend.close()


async def test_closing_ends_the_child_for_good(template: Path) -> None:
    """Also while it loads; a call after that is told so and starts nothing."""
    backend = backend_of(llama_weights(), chat_template=template)
    pid = await started(backend)
    await backend.close()
    assert not is_running(pid)
    await backend.close()
    with pytest.raises(BackendUnreachable, match="is ending"):
        await all_of(backend, asking("Count:", 2))
    assert backend.pid is None


async def test_closing_at_once_leaves_nobody_waiting(template: Path) -> None:
    """A call that waits for a child which never came to run is told so, long before its limit."""
    backend = backend_of(llama_weights(), chat_template=template)
    waiting = asyncio.create_task(all_of(backend, asking("Count:", 2)))
    await asyncio.sleep(0)
    await backend.close()
    with pytest.raises(BackendUnreachable, match="its process was ended"):
        await asyncio.wait_for(waiting, 2)
    assert backend.pid is None


async def test_closing_ends_an_answer_under_way(template: Path) -> None:
    """Who is reading when the service ends gets an error at once, and no end that looks like one."""
    backend = backend_of(llama_weights(), chat_template=template, body={"ignore_eos": True})
    async with aclosing(backend.stream(asking("Write a long story.", LONG))) as events:
        await anext(events)
        closing = asyncio.create_task(backend.close())
        with pytest.raises(BackendError):
            await asyncio.wait_for(rest_of(events), 5)
        await closing


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"GGUF" + bytes(range(256)) * 20, "GGUF file is version"),
        (None, "not within the file bounds, model is corrupted or incomplete"),
    ],
    ids=["garbage", "half of it"],
)
async def test_a_broken_file_is_an_error_that_says_so(tmp_path: Path, content: bytes | None, reason: str) -> None:
    """Every call gets llama.cpp's own reason within seconds; only the first starts a child."""
    path = tmp_path / "broken.gguf"
    with path.open("wb") as file, llama_weights().open("rb") as whole:
        file.write(whole.read(100_000_000) if content is None else content)
    backend = backend_of(path)
    began = time.monotonic()
    with pytest.raises(BackendUnreachable, match=reason):
        await all_of(backend, asking("Count:", 2))
    assert time.monotonic() - began < 10
    with pytest.raises(BackendUnreachable, match=rf"{reason}.*started again in \d s"):
        await all_of(backend, asking("Count:", 2))
    assert backend.pid is None
    await backend.close()


async def test_a_broken_template_is_an_error_that_says_so(tmp_path: Path) -> None:
    """The reason is Jinja's, not the library's general one."""
    template = tmp_path / "broken.jinja"
    template.write_text("{% for x in %}", encoding="utf-8")
    backend = backend_of(llama_weights(), chat_template=template)
    with pytest.raises(BackendUnreachable, match="did not load: Unexpected token"):
        await all_of(backend, asking("Count:", 2))
    await backend.close()


async def test_modules_in_the_working_folder_are_not_the_childs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service started in a folder with a `json.py` or an `app` of its own runs the child that it came with."""
    (tmp_path / "json.py").write_text("raise SystemExit(7)", encoding="utf-8")
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "__init__.py").write_text("raise SystemExit(7)", encoding="utf-8")
    (tmp_path / "short.gguf").write_bytes(b"GGUF")
    monkeypatch.chdir(tmp_path)
    backend = backend_of(Path("short.gguf"))
    # What llama.cpp says of the file, or, where the child has ended before that is read, what its binding does.
    with pytest.raises(BackendUnreachable, match=r"did not load: (failed to read|RuntimeError: Failed to init server)"):
        await all_of(backend, asking("Count:", 2))
    await backend.close()


async def test_what_is_missing_is_named_before_anything_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing file, a file of another kind, a missing template and a missing library each have their own words."""
    other = tmp_path / "model.safetensors"
    other.write_bytes(b"\x08\x00\x00\x00")
    good = tmp_path / "good.gguf"
    good.write_bytes(b"GGUF")
    missing = backend_of(tmp_path / "none.gguf")
    assert missing.problem == f"model_path '{tmp_path}/none.gguf' is not a file; download a GGUF file and name it here"
    wrong = backend_of(other)
    assert wrong.problem == f"model_path '{other}' is not a GGUF file; it begins with b'\\x08\\x00\\x00\\x00'"
    assert backend_of(good).problem is None
    assert backend_of(good, chat_template=tmp_path / "t").problem == f"chat_template '{tmp_path}/t' is not a file"
    await missing.start()
    with pytest.raises(BackendNotConfigured, match="is not a file"):
        await all_of(missing, asking("Count:", 2))
    assert missing.pid is None
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    assert backend_of(good).problem == "xllamacpp is not installed; in the checkout, run `pip install '.[local]'`"


def wanted_by(parent_pid: int, template: Path) -> bytes:
    """The line that tells the child's program what to run."""
    wanted = {
        "parent_pid": parent_pid,
        "model_path": str(llama_weights()),
        "model": "gemma",
        "context_tokens": 512,
        "concurrency": 1,
        "threads": 1,
        "chat_template": str(template),
        "api_key": "key",
    }
    return json.dumps(wanted).encode() + b"\n"


@contextmanager
def child_by_itself(template: Path) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, str]]]:
    """The child's program alone, and the first thing it says."""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-P", str(CHILD)], stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(wanted_by(os.getpid(), template))
            process.stdin.flush()
            yield process, json.loads(process.stdout.readline())
        finally:
            process.kill()


def test_the_child_is_silent_once_it_listens_and_ends_with_its_stdin(template: Path) -> None:
    """It can log no prompt, because it closes what it would log to; the end of stdin is its own."""
    with child_by_itself(template) as (process, answer):
        assert answer["address"].startswith("http://127.0.0.1:")
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stderr.read()  # returns only once the other end is closed
        assert process.poll() is None
        process.stdin.close()
        assert process.wait(5) == 0
        assert process.stdout.read() == b""


STEPPARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-P", sys.argv[1]], stdin=0)
print("CHILD", child.pid, flush=True)
time.sleep(600)
"""


def test_the_child_dies_with_its_parent_even_if_its_stdin_does_not_end(template: Path) -> None:
    """The system ends it, since it cannot look at its stdin while a model loads; here the test holds that open."""
    command, pipe = [sys.executable, "-c", STEPPARENT, str(CHILD)], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        child = int(parent.stdout.readline().split()[1])
        parent.stdin.write(wanted_by(parent.pid, template))
        parent.stdin.flush()
        assert b"address" in parent.stdout.readline()
        parent.kill()
        parent.wait()
        assert wait_until(lambda: not is_running(child), within_s=5)


PARENT = """
import asyncio, sys
from pathlib import Path
from app.llm.llamacpp import LlamaCppBackend
from app.llm.settings import ProviderSettings

async def main(model_path, until):
    settings = ProviderSettings(kind="llamacpp", model="gemma", model_path=Path(model_path), threads=1)
    backend = LlamaCppBackend("embedded", settings, "secret")
    await backend.start()
    if until == "loaded":
        await backend.models()
    while backend.pid is None:
        await asyncio.sleep(0.01)
    print("CHILD", backend.pid, flush=True)
    await asyncio.sleep(600)

if sys.argv[2] == "loaded":
    import uvloop as loop  # what the service runs on
else:
    loop = asyncio
loop.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize(("until", "within_s"), [("started", 1.5), ("loaded", 5)])
def test_the_child_dies_with_its_parent(until: str, within_s: float) -> None:
    """A service that is killed with -9 leaves no model in memory; one that still loads does not finish that first."""
    command = [sys.executable, "-c", PARENT, str(llama_weights()), until]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = next(int(line.split()[1]) for line in parent.stdout if line.startswith(b"CHILD "))
        assert is_running(child)
        parent.kill()
        parent.wait()
    assert wait_until(lambda: not is_running(child), within_s=within_s)
