"""What the backends of all formats share: the request that the settings make, the turns of a prompt, the list of models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from app.llm.backend import Prompt
from app.llm.fake.behaviour import FakeBehaviour
from app.llm.remote import instructions, patched, turns
from corpus.errors import ArchivistError, BackendMalformed, BackendNotConfigured, BackendRejected, BackendUnreachable
from corpus.types import Message
from tests.app.llm.answers import CANARY, RemoteBackend, answer_of, until_the_end
from tests.servers import RunningFake, free_port

pytestmark = pytest.mark.anyio

Make = Callable[..., RemoteBackend]
TALK = (
    Message("system", "Be brief."),
    Message("user", "first"),
    Message("user", "second"),
    Message("assistant", "answer"),
    Message("user", "third"),
)


async def test_neighbours_of_one_role_become_one_turn() -> None:
    """Two questions in a row are joined by a blank line; the instructions are a turn of their own or a text apart."""
    assert turns(TALK) == [
        ("system", "Be brief."),
        ("user", "first\n\nsecond"),
        ("assistant", "answer"),
        ("user", "third"),
    ]
    assert instructions(TALK) == "Be brief."
    assert instructions(TALK[1:]) == ""


async def test_instructions_of_the_users_role_go_before_the_first_question() -> None:
    """Where the role of the system is the user's, both are one turn."""
    merged = turns(TALK, lambda role: "user" if role == "system" else role)
    assert merged[0] == ("user", "Be brief.\n\nfirst\n\nsecond")
    assert [role for role, _ in merged] == ["user", "assistant", "user"]


async def test_no_format_sends_two_turns_of_one_role(kind: str, fake: RunningFake, backend_of: Make) -> None:
    """What goes out alternates between the user and the model in every format."""
    await answer_of(backend_of(), Prompt(TALK, "public", 8))
    body = fake.requests[0].json()
    sent = [turn["role"] for turn in body["contents" if kind == "google" else "messages"]]
    expected = ["user", "model" if kind == "google" else "assistant", "user"]
    assert sent == (["system", *expected] if kind == "openai" else expected)


@pytest.mark.parametrize(
    ("ours", "theirs", "body"),
    [
        ({"a": 1, "b": 2}, {"b": 3, "c": 4}, {"a": 1, "b": 3, "c": 4}),
        ({"a": 1, "b": 2}, {"b": None}, {"a": 1}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"c": None, "d": 3}}, {"a": {"b": 1, "d": 3}}),
        ({"a": 1}, {"a": {"b": {"c": None, "d": 1}}}, {"a": {"b": {"d": 1}}}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"a": {"b": 1}}, {"a": False}, {"a": False}),
    ],
)
async def test_the_configurations_fields_win_over_ours(
    ours: dict[str, object], theirs: dict[str, object], body: dict[str, object]
) -> None:
    """Objects are merged, lists and values replaced, null takes a field out; neither side is changed."""
    before = repr((ours, theirs))
    assert patched(ours, theirs) == body
    assert repr((ours, theirs)) == before


async def test_query_headers_and_body_of_the_settings_go_out_in_every_format(
    kind: str, fake: RunningFake, backend_of: Make
) -> None:
    """Each is added to what the format itself needs, and a header of theirs replaces ours whatever its case."""
    backend = backend_of(
        query={"api-version": "2026-10-21", "a b": "&c"},
        headers={"X-Team": "quality", "User-Agent": "elsewhere"},
        body={"generationConfig": {"seed": 7}} if kind == "google" else {"top_p": 0.5},
    )
    await answer_of(backend)
    (request,) = fake.requests
    assert request.query == "api-version=2026-10-21&a+b=%26c" + ("&alt=sse" if kind == "google" else "")
    assert request.headers["x-team"] == "quality"
    assert request.headers["user-agent"] == "elsewhere"
    body = request.json()
    if kind == "google":
        assert body["generationConfig"] == {"maxOutputTokens": 64, "seed": 7}
    else:
        assert body["top_p"] == 0.5
        assert body["max_tokens"] == 64


async def test_a_key_goes_into_the_header_that_is_named(fake: RunningFake, backend_of: Make) -> None:
    """Bare, as Azure wants it, and into no other header."""
    _, _ = await until_the_end(backend_of(api_key=CANARY, key_header="Api-Key"))
    headers = fake.requests[0].headers
    assert [name for name, value in headers.items() if CANARY in value] == ["api-key"]
    assert headers["api-key"] == CANARY


async def test_the_format_has_a_header_of_its_own_for_the_key(kind: str, fake: RunningFake, backend_of: Make) -> None:
    """Authorization, x-api-key or x-goog-api-key, and none at all where there is no key."""
    fake.behave(FakeBehaviour(api_key=CANARY))
    await answer_of(backend_of(api_key=f" {CANARY}\n"))
    fake.behave(FakeBehaviour())
    await answer_of(backend_of())
    with_key, without = (request.headers for request in fake.requests)
    name = {"openai": "authorization", "anthropic": "x-api-key", "google": "x-goog-api-key"}[kind]
    assert [header for header, value in with_key.items() if CANARY in value] == [name]
    assert name not in without


@pytest.mark.parametrize("status", [400, 403, 404, 422])
async def test_a_secret_header_is_in_no_error(fake: RunningFake, backend_of: Make, status: int) -> None:
    """A provider that repeats such a value, with or without the word before it, does not get it into our words."""
    fake.behave(FakeBehaviour(status=status, error_message="Bearer tok-4711-xyz or tok-4711-xyz, in test mode"))
    backend = backend_of(headers={"Proxy-Token": "Bearer tok-4711-xyz", "X-Mode": "on"})
    _, error = await until_the_end(backend)
    assert isinstance(error, BackendRejected)
    assert "[key] or [key], in test mode" in str(error)
    assert "tok-4711" not in f"{error!r} {error.__cause__!r} {backend!r} {vars(backend)}"


async def test_a_connection_may_be_closed_by_configuration(fake: RunningFake, backend_of: Make) -> None:
    """The one header of the connection that may be given, in any case."""
    await answer_of(backend_of(headers={"cOnnection": "Close"}))
    assert fake.requests[0].headers["connection"] == "Close"


async def test_the_models_of_a_provider_are_listed(fake: RunningFake, backend_of: Make) -> None:
    """By one call with the format's key and version, in the provider's spelling."""
    fake.behave(FakeBehaviour(models=("fake", "other"), api_key=CANARY))
    assert await backend_of(api_key=CANARY).models() == frozenset({"fake", "other"})
    (request,) = fake.requests
    assert (request.method, request.body) == ("GET", b"")


async def test_a_model_that_the_provider_lacks_is_not_listed(fake: RunningFake, backend_of: Make) -> None:
    """It is asked for by name too, and a 404 for that is an answer and no error."""
    fake.behave(FakeBehaviour(models=("other",)))
    assert await backend_of().models() == frozenset({"other"})
    assert [request.path.rpartition("/")[2] for request in fake.requests] == ["models", "fake"]


@pytest.mark.parametrize(
    ("behaviour", "changes", "kind_of_error", "message"),
    [
        (FakeBehaviour(api_key="another"), {"api_key": CANARY}, BackendRejected, r"refused the key \(401\)"),
        (FakeBehaviour(), {"api_key_env": "ACME_KEY"}, BackendNotConfigured, "'ACME_KEY' is not set"),
    ],
    ids=["wrong key", "missing key"],
)
async def test_a_list_that_is_refused_is_an_error(
    fake: RunningFake,
    backend_of: Make,
    behaviour: FakeBehaviour,
    changes: dict[str, str],
    kind_of_error: type[ArchivistError],
    message: str,
) -> None:
    """The same error as an answer would have been."""
    fake.behave(behaviour)
    with pytest.raises(kind_of_error, match=message) as caught:
        await backend_of(**changes).models()
    assert CANARY not in str(caught.value)


async def test_a_list_from_nobody_is_an_error(backend_for: Make) -> None:
    """A refused connection is told apart from a provider without a list."""
    with pytest.raises(BackendUnreachable, match="could not connect"):
        await backend_for(f"http://127.0.0.1:{free_port()}/v1").models()


@contextmanager
def serving(answers: dict[str, tuple[int, bytes]]) -> Iterator[str]:
    """A server that answers these paths, and 404 to any other: yields its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers.get(self.path.partition("?")[0], (404, b""))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: the answers are what counts."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("status", [404, 405, 501])
async def test_a_provider_without_a_list_has_none(backend_for: Make, status: int) -> None:
    """None, which is not the same as an empty list."""
    with serving({"/v1/models": (status, b"{}")}) as address:
        assert await backend_for(f"{address}/v1").models() is None


@pytest.mark.parametrize(
    ("listed", "named", "names"),
    [
        (b'{"data": [{"id": "fake:latest"}]}', b'{"id": "fake:latest", "object": "model"}', {"fake", "fake:latest"}),
        (b'{"data": [{"id": "large"}]}', b'{"error": "Unexpected endpoint"}', {"large"}),
        (b'{"data": [{"id": "large"}]}', b"<html>", {"large"}),
        (b'[{"id": "fake"}, {"id": 5}, "odd"]', b"", {"fake"}),
        (b'{"data": []}', b"", set()),
    ],
    ids=["an alias", "words for an unknown path", "a page", "a bare list", "nothing"],
)
async def test_lists_of_models_are_read_as_servers_send_them(
    backend_for: Make, listed: bytes, named: bytes, names: set[str]
) -> None:
    """A model counts as listed where the provider knows it by another name; nothing is made up where it does not."""
    answers = {"/v1/models": (200, listed), "/v1/models/fake": (200 if named else 404, named)}
    with serving(answers) as address:
        assert await backend_for(f"{address}/v1").models() == frozenset(names)


@pytest.mark.parametrize("listed", [b"<html>", b'{"error": "no"}', b"3"])
async def test_what_is_no_list_is_an_error(backend_for: Make, listed: bytes) -> None:
    """A page or words in the place of a list say that base_url is wrong."""
    with serving({"/v1/models": (200, listed)}) as address, pytest.raises(BackendMalformed, match="is base_url right"):
        await backend_for(f"{address}/v1").models()
