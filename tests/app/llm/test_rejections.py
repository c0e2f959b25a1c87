"""What providers say when they refuse, in our words."""

from __future__ import annotations

import base64
import time
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pytest

from app.llm.rejections import Call, redacted, rejection, retry_after_s, stream_error
from app.llm.settings import ProviderSettings
from corpus.errors import BackendError, BackendFailed, BackendMalformed, BackendRateLimited, BackendRejected

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
SETTINGS = ProviderSettings(base_url="http://127.0.0.1:9/v1", model="large")
CALL = Call("acme", SETTINGS, "http://127.0.0.1:9/v1/x", {"x-api-key": "sk-1234"}, {"model": "large"}, ("sk-1234",))


def google(code: int, status: str, message: str, *details: dict[str, Any]) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "status": status, "details": list(details)}}


def anthropic(kind: str, message: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}


INVALID_KEY = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID", "domain": "googleapis.com"}
TOO_LONG = r"longer than the model's context \(400\): .*; lower prompt\.budget_tokens"


@pytest.mark.parametrize(
    ("status", "body", "ours", "message"),
    [
        (401, anthropic("authentication_error", "invalid x-api-key"), 401, r"refused the key \(401\); check its api_key"),
        (400, google(400, "INVALID_ARGUMENT", "API key not valid.", INVALID_KEY), 401, r"refused the key \(401\)"),
        (404, anthropic("not_found_error", "model: large"), 404, r"no such model or path \(404\): model: large; check model"),
        (404, [google(404, "NOT_FOUND", "models/large is not found")], 404, "models/large is not found; check model 'large'"),
        (400, anthropic("invalid_request_error", "prompt is too long: 9 tokens > 5 maximum"), 400, TOO_LONG),
        (400, anthropic("invalid_request_error", "`max_tokens` exceed context limit: 3 + 4 > 5"), 400, TOO_LONG),
        (400, google(400, "INVALID_ARGUMENT", "The input token count (9) exceeds the maximum"), 400, TOO_LONG),
        (400, {"error": {"message": "shorten it", "code": "context_length_exceeded"}}, 400, TOO_LONG),
        (400, {"error": {"message": "too big", "type": "exceed_context_size_error", "code": 400}}, 400, TOO_LONG),
        (402, anthropic("billing_error", "credit is too low"), 402, r"refused the request \(402\): credit is too low"),
        (403, google(403, "PERMISSION_DENIED", "key sk-1234 may not"), 403, r"\(403\): key \[key\] may not"),
        (422, {"detail": "no"}, 422, r"\(422\): no$"),
        (400, {"error": "plain words"}, 400, r"\(400\): plain words$"),
        (400, {"error": {"details": "none"}}, 400, "no reason given"),
        (418, None, 418, "no reason given"),
    ],
)
def test_a_refusal_says_what_to_do_about_it(status: int, body: object, ours: int, message: str) -> None:
    """Each provider's form of an error becomes one of ours, with a status by which to tell a wrong key from a wrong prompt."""
    error = rejection(CALL, status, body, "", None)
    assert isinstance(error, BackendRejected)
    assert error.status == ours
    with pytest.raises(BackendRejected, match=message):
        raise error


@pytest.mark.parametrize("status", [500, 502, 503, 504, 529])
def test_a_failure_of_the_provider_keeps_its_status(status: int) -> None:
    """529 is Anthropic's for a service that is overloaded."""
    error = rejection(CALL, status, anthropic("overloaded_error", "Overloaded"), "", None)
    assert isinstance(error, BackendFailed)
    assert error.status == status


def test_a_status_that_is_no_error_is_not_the_protocol() -> None:
    """204 says neither an answer nor why there is none."""
    assert isinstance(rejection(CALL, 204, None, "", None), BackendMalformed)


def retry_info(delay: object) -> dict[str, Any]:
    info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}
    return google(429, "RESOURCE_EXHAUSTED", "You exceeded your current quota", {"@type": "x/QuotaFailure"}, info)


@pytest.mark.parametrize(
    ("body", "header", "wait_s"),
    [
        (anthropic("rate_limit_error", "slow down"), "7", 7.0),
        (anthropic("rate_limit_error", "slow down"), None, None),
        (retry_info("34s"), None, 34.0),
        (retry_info("34.5s"), None, 34.5),
        (retry_info("34s"), "7", 7.0),
        (retry_info("soon"), None, None),
        (retry_info("-3s"), None, None),
        (retry_info(34), None, None),
        (None, "7", 7.0),
    ],
)
def test_when_to_ask_again_is_read_from_the_header_or_from_googles_details(
    body: object, header: str | None, wait_s: float | None
) -> None:
    """The header counts first; nonsense counts as absent."""
    error = rejection(CALL, 429, body, "", header)
    assert isinstance(error, BackendRateLimited)
    assert error.retry_after_s == wait_s


@pytest.mark.parametrize(
    ("error", "kind", "status"),
    [
        ({"type": "overloaded_error", "message": "Overloaded"}, BackendFailed, 529),
        ({"type": "api_error", "message": "Internal"}, BackendFailed, 500),
        ({"type": "rate_limit_error", "message": "slow down"}, BackendRateLimited, None),
        ({"type": "invalid_request_error", "message": "bad"}, BackendRejected, 400),
        ({"type": "authentication_error", "message": "bad"}, BackendRejected, 401),
        ({"code": 503, "message": "down", "status": "UNAVAILABLE"}, BackendFailed, 503),
        ({"code": 429, "message": "slow", "status": "RESOURCE_EXHAUSTED"}, BackendRateLimited, None),
        ({"code": "server_error", "message": "x", "type": ["odd"]}, BackendFailed, 500),
        ("words", BackendFailed, 500),
        (None, BackendFailed, 500),
    ],
)
def test_an_error_inside_a_stream_is_what_it_would_have_been_before(
    error: object, kind: type[BackendError], status: int | None
) -> None:
    """By its code where that is a status, by its kind otherwise."""
    ours = stream_error(CALL, error)
    assert type(ours) is kind
    assert getattr(ours, "status", None) == status


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("2.5", 2.5),
        ("Mon, 23 Nov 2026 12:00:30 GMT", 30),
        ("Mon, 23 Nov 2026 11:00:00 GMT", 0),
        (None, None),
        ("-1", None),
        ("inf", None),
        ("soon", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    """Both forms of the header are understood, and nonsense counts as absent."""
    assert retry_after_s(value, NOW) == seconds


def test_a_message_is_one_short_line_without_the_key() -> None:
    """Line ends and control characters go, the key goes in either spelling, and 300 characters stay."""
    assert redacted("a\nb\x1b[31m k/1 k%2F1 sk-***1", ["k/1"]) == "a b [31m [key] [key] [key]"
    assert len(redacted("word " * 500, [])) == 300


def test_a_secret_that_is_part_of_another_leaves_nothing_of_it() -> None:
    """The longer one is taken out first."""
    assert redacted("got Bearer abc-def and abc", ["abc", "Bearer abc-def"]) == "got [key] and [key]"


LONG_KEY = "aB3/dE5+gH7_jK9-mN1=pQ"


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (f"key {LONG_KEY} is bad", "key [key] is bad"),
        (f"key {LONG_KEY.upper()} is bad", "key [key] is bad"),
        (f"key {LONG_KEY.replace('/', chr(92) + '/')} is bad", "key [key] is bad"),
        (f"key {LONG_KEY.replace('/', chr(92) + 'u002f').replace('+', chr(92) + 'u002B')} is bad", "key [key] is bad"),
        (f"key {quote(LONG_KEY, safe='')} is bad", "key [key] is bad"),
        (f"key {base64.b64encode(LONG_KEY.encode()).decode().rstrip('=')} is bad", "key [key] is bad"),
        (f"key {base64.urlsafe_b64encode(LONG_KEY.encode()).decode().rstrip('=')} is bad", "key [key] is bad"),
        (f"begins with {LONG_KEY[:8]}", "begins with [key]"),
        (f"ends with {LONG_KEY[-8:].lower()}", "ends with [key]"),
        (f"holds {LONG_KEY[5:17]}...", "holds [key]..."),
        (f"begins with {LONG_KEY[:7]}", f"begins with {LONG_KEY[:7]}"),
    ],
    ids=["whole", "case", "slash", "code", "address", "base64", "urlsafe", "first 8", "last 8", "12 inside", "7 are few"],
)
def test_a_key_goes_in_every_form_and_every_piece_of_it(message: str, said: str) -> None:
    """As JSON, an address or base64 write it, in any case, and pieces of 8 letters."""
    assert redacted(message, [LONG_KEY]) == said


@pytest.mark.parametrize("before", ["", "a", "ab", "abc"])
def test_a_key_within_something_in_base64_goes_too(before: str) -> None:
    """Wherever it begins in what was encoded, as in Basic authorization, no 8 letters of what is its own stay."""
    encoded = base64.b64encode(f"{before}{LONG_KEY}:".encode()).decode()
    said = redacted(f"got {encoded}", [LONG_KEY])
    assert "[key]" in said
    assert len(said.removeprefix("got ").replace("[key]", "")) <= 8


def test_the_beginning_of_an_address_is_no_secret() -> None:
    """A header's value may be an address; what it begins with is left in others."""
    message = "see https://docs.acme.org, not https://desk.example/archive"
    assert redacted(message, ["https://desk.example/archive"]) == "see https://docs.acme.org, not https://[key]"


def test_a_body_of_megabytes_is_read_as_far_as_it_is_shown() -> None:
    """A long line costs no time."""
    began = time.monotonic()
    assert redacted("x" * 8_000_000, [LONG_KEY]) == "x" * 299 + "…"
    assert time.monotonic() - began < 1


def test_a_call_shows_no_header_and_no_body() -> None:
    """Its repr, which an error report may print, holds neither key nor prompt."""
    assert repr(CALL) == f"Call(provider='acme', settings={SETTINGS!r})"
    assert "sk-1234" not in repr(CALL)
