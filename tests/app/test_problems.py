"""Every error has its status, and no response repeats what only the log may know."""

from __future__ import annotations

import json

import pytest

from app.problems import KINDS, as_details, as_openai_error, problem_of, problem_response, unexpected_problem
from corpus import errors


def _tree(root: type[errors.ArchivistError]) -> list[type[errors.ArchivistError]]:
    return [root, *(below for child in root.__subclasses__() for below in _tree(child))]


def test_every_error_of_the_tree_stands_in_the_table_and_nothing_else() -> None:
    """An error class without a status, or a row without a class, fails here."""
    ours = {kind for kind in _tree(errors.ArchivistError) if kind.__module__ == "corpus.errors"}
    assert set(KINDS) == ours


def test_only_what_the_caller_caused_shows_its_own_message() -> None:
    """An error's own words reach the caller exactly where it is a RequestError, and those are all below 500."""
    for kind, told in KINDS.items():
        assert (told.detail is None) == issubclass(kind, errors.RequestError), kind
        assert (told.status < 500) == issubclass(kind, errors.RequestError), kind


CANARY = "canary-4711"


@pytest.mark.parametrize(
    ("error", "status", "name"),
    [
        (errors.NotFound("conversation", "abc"), 404, "not-found"),
        (errors.Gone("doc", "v1", "v2"), 410, "gone"),
        (errors.Conflict("busy"), 409, "conflict"),
        (errors.Invalid("top_k is 0", "top_k"), 422, "invalid"),
        (errors.TooLarge("large"), 413, "too-large"),
        (errors.Unauthorized("key"), 401, "unauthorized"),
        (errors.NoSnapshot(CANARY), 503, "no-snapshot"),
        (errors.SnapshotDamaged(CANARY, CANARY), 503, "snapshot-damaged"),
        (errors.StateError(CANARY, CANARY), 503, "state-error"),
        (errors.BackendTimeout("local", "first_token", 60), 504, "backend-timeout"),
        (errors.BackendUnreachable("local", CANARY), 502, "backend-unreachable"),
        (errors.BackendRejected("local", 401, CANARY), 502, "backend-rejected"),
        (errors.BackendFailed("local", 500), 502, "backend-failed"),
        (errors.BackendMalformed("local", CANARY), 502, "backend-malformed"),
        (errors.NotCleared("local", CANARY), 503, "not-cleared"),
        (errors.EmbedderMismatch(CANARY), 503, "embedder-mismatch"),
        (errors.ConfigError(CANARY), 500, "config-error"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_an_error_has_its_status_and_name_and_keeps_inner_words_back(
    error: errors.ArchivistError, status: int, name: str
) -> None:
    """Status and type as in the contract; a path, an upstream's message and the like are not told."""
    details = as_details(problem_of(error), "r1")
    assert details["status"] == status
    assert details["type"] == f"urn:archivist:problem:{name}"
    assert details["instance"] == "urn:archivist:request:r1"
    assert CANARY not in json.dumps(details)


@pytest.mark.parametrize(("asked_s", "header"), [(None, "1"), (0.2, "1"), (7.1, "8")])
def test_a_rate_limit_says_when_to_come_back(asked_s: float | None, header: str) -> None:
    """Retry-After is what the provider asked for, in whole seconds and at least one."""
    response = problem_response(problem_of(errors.BackendRateLimited("local", asked_s)), "/v1/ask", "r1")
    assert (response.status_code, response.headers["retry-after"]) == (503, header)


def test_a_missing_key_says_how_to_send_it() -> None:
    """401 comes with WWW-Authenticate."""
    response = problem_response(problem_of(errors.Unauthorized("send the key")), "/v1/ask", "r1")
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.headers["content-type"] == "application/problem+json"


def test_openai_paths_get_openai_errors() -> None:
    """Under OpenAI's paths the error object is OpenAI's, and 422 is 400 as its clients expect."""
    problem = problem_of(errors.Invalid("no question", "messages"))
    response = problem_response(problem, "/v1/chat/completions", "r1")
    assert response.status_code == 400
    assert json.loads(bytes(response.body)) == {
        "error": {"message": "no question", "type": "invalid_request_error", "param": "messages", "code": "invalid"}
    }
    assert as_openai_error(unexpected_problem())["error"]["type"] == "server_error"


def test_half_a_character_in_an_error_can_be_sent() -> None:
    """A lone surrogate in a value that an error names is written as its escape."""
    response = problem_response(problem_of(errors.Conflict("\ud800")), "/v1/ask", "r1")
    assert json.loads(bytes(response.body))["detail"] == "\\ud800"
