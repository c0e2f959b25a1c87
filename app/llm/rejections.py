"""What a provider refuses, in our words: from a status and a body to one of our errors, without the key."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import groupby
from operator import itemgetter
from typing import Any

from app.llm.settings import ProviderSettings
from corpus.errors import BackendError, BackendFailed, BackendMalformed, BackendRateLimited, BackendRejected

MESSAGE_CHARS = 300

READ_CHARS = 4000
"""As much of what a provider says is looked at; a body may hold megabytes."""

PIECE_CHARS = 8
"""So long a piece of a secret is taken out wherever it stands."""

_ESCAPED = re.compile(r"\\u00([0-9a-fA-F]{2})|%([0-9a-fA-F]{2})|\\(.)|(.)", re.DOTALL)
"""A letter as it is, or as JSON or an address may write it."""

_LOWER = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}
"""Keeps the length of a text, which str.lower() may not."""

_SCHEME = re.compile(r"https?://")
"""No secret, though a header's value may begin with it, and messages name pages by it."""

CONTEXT_TOO_SMALL = frozenset({"exceed_context_size_error", "context_length_exceeded"})
"""What llama.cpp and OpenAI call a prompt that is too long. Others say it only in words."""

CONTEXT_WORDS = re.compile(r"context (length|size|window|limit)|prompt is too long|input token count")

STATUS_OF_KIND = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""The status that an error would have had before the stream began. Source: Anthropic's and OpenAI's error references."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request to a provider, ready to go out. `secrets` are redacted from everything the provider says."""

    provider: str
    settings: ProviderSettings
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    payload: Mapping[str, object] | None = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)


def stream_error(call: Call, error: object) -> BackendError:
    """Our error for an `error` object inside a stream that began well."""
    code = error.get("code", error.get("status")) if isinstance(error, dict) else None
    kind = error.get("type") if isinstance(error, dict) else None
    if isinstance(code, int) and 400 <= code < 600:
        status = code
    else:
        status = STATUS_OF_KIND.get(kind, 500) if isinstance(kind, str) else 500
    return rejection(call, status, {"error": error}, "", None)


def rejection(call: Call, status: int, parsed: object, body: str, retry_after: str | None) -> BackendError:
    """Our error for an answer that is not 200: by its status, with what the provider says about it."""
    provider, settings = call.provider, call.settings
    error = _error(parsed)
    message, kinds, details = _message(error), _kinds(error), _details(error)
    said = redacted(message or body, call.secrets)
    wait_s = retry_after_s(retry_after, datetime.now(UTC))
    if status == 429:
        return BackendRateLimited(provider, _retry_delay_s(details) if wait_s is None else wait_s)
    if status >= 500:
        return BackendFailed(provider, status, wait_s)
    if status < 400:
        return BackendMalformed(provider, f"answered with HTTP {status}, which no stream has")
    if status == 401 or any(detail.get("reason") == "API_KEY_INVALID" for detail in details):
        # Google says 400 of a wrong key. Not quoted: some providers repeat the wrong key.
        return BackendRejected(provider, 401, "refused the key (401); check its api_key, api_key_env or api_key_file")
    if kinds & CONTEXT_TOO_SMALL or CONTEXT_WORDS.search(message):
        return BackendRejected(
            provider,
            status,
            f"the prompt is longer than the model's context ({status}): {said}; lower prompt.budget_tokens",
        )
    if status == 404:
        return BackendRejected(
            provider,
            status,
            f"no such model or path (404): {said}; check model {settings.model!r} and {settings.base_url!r}",
        )
    return BackendRejected(provider, status, f"refused the request ({status}): {said or 'no reason given'}")


def _error(parsed: object) -> object:
    """The error in a body: an object or a text, by itself, under `error`, or in a list of one."""
    if isinstance(parsed, list) and parsed:
        parsed = parsed[0]
    return parsed.get("error", parsed) if isinstance(parsed, dict) else None


def _message(error: object) -> str:
    if isinstance(error, str):
        return error
    if not isinstance(error, dict):
        return ""
    return next((error[key] for key in ("message", "detail", "msg") if isinstance(error.get(key), str)), "")


def _kinds(error: object) -> set[str]:
    return {error[key] for key in ("type", "code") if isinstance(error.get(key), str)} if isinstance(error, dict) else set()


def _details(error: object) -> list[dict[str, Any]]:
    """Google's details of an error. Source: https://google.aip.dev/193."""
    details = error.get("details") if isinstance(error, dict) else None
    return [detail for detail in details if isinstance(detail, dict)] if isinstance(details, list) else []


def _retry_delay_s(details: list[dict[str, Any]]) -> float | None:
    """Seconds to wait, from a RetryInfo among the details, such as "34.07s"."""
    for detail in details:
        delay = detail.get("retryDelay")
        if isinstance(delay, str) and delay.endswith("s"):
            return retry_after_s(delay.removesuffix("s"), datetime.now(UTC))
    return None


def retry_after_s(value: str | None, now: datetime) -> float | None:
    """Seconds to wait, from a Retry-After header: a number or an HTTP date. None if it is absent or makes no sense."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            date = parsedate_to_datetime(value)
        except ValueError:
            return None
        seconds = (date.replace(tzinfo=date.tzinfo or UTC) - now).total_seconds()
        return max(0.0, seconds)
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def redacted(message: str, secrets: Iterable[str]) -> str:
    """A provider's message on one line, shortened, without the secrets or the half-masked key that some providers quote.

    A secret goes in any case and as JSON, an address or base64 write it, and so does any longer piece of one.
    """
    message = message[:READ_CHARS]
    pieces = _pieces(secrets)
    letters = [(match.start(), match.end(), match.group()) for match in re.finditer(r".", message, re.DOTALL)]
    unescaped = [(match.start(), match.end(), _unescaped(match)) for match in _ESCAPED.finditer(message)]
    is_secret = bytearray(len(message))
    for reading in (letters, unescaped):
        text = "".join(letter for _, _, letter in reading).translate(_LOWER)
        for length in {len(piece) for piece in pieces}:
            for first in range(len(text) - length + 1):
                if text[first : first + length] in pieces:
                    begin, end = reading[first][0], reading[first + length - 1][1]
                    is_secret[begin:end] = b"\1" * (end - begin)
    message = "".join(
        "[key]" if hidden else "".join(letter for letter, _ in run)
        for hidden, run in groupby(zip(message, is_secret, strict=True), key=itemgetter(1))
    )
    message = re.sub(r"\S*\*{3,}\S*", "[key]", message)
    message = " ".join("".join(letter if letter.isprintable() else " " for letter in message).split())
    return message if len(message) <= MESSAGE_CHARS else message[: MESSAGE_CHARS - 1] + "…"


def _pieces(secrets: Iterable[str]) -> set[str]:
    """The secrets, and all pieces of PIECE_CHARS letters of them and of their base64. A space is in no piece."""
    pieces: set[str] = set()
    for secret in secrets:
        bare = _SCHEME.sub("", secret)
        for form in (bare, *(encoded for encoded in _in_base64(bare) if len(encoded) >= PIECE_CHARS)):
            low = form.translate(_LOWER)
            starts = range(len(low) - PIECE_CHARS + 1)
            pieces |= {low, *(piece for first in starts if " " not in (piece := low[first : first + PIECE_CHARS]))}
    return pieces - {""}


def _in_base64(secret: str) -> Iterator[str]:
    """Both alphabets, and each of the three ways it comes out where the secret is a part of what was encoded."""
    for before in range(3):
        raw = bytes(before) + secret.encode("utf-8", "replace")
        for encode in (base64.standard_b64encode, base64.urlsafe_b64encode):
            yield encode(raw).decode("ascii").rstrip("=")[(0, 2, 3)[before] :]


def _unescaped(match: re.Match[str]) -> str:
    in_json, in_address, after_backslash, plain = match.groups()
    code = in_json or in_address
    return chr(int(code, 16)) if code else after_backslash or plain
