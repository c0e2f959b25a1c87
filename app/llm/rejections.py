"""What a provider refuses, in our words: from a status and a body to one of our errors, without the key."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import quote

from app.llm.settings import ProviderSettings
from corpus.errors import BackendError, BackendFailed, BackendMalformed, BackendRateLimited, BackendRejected

MESSAGE_CHARS = 300


@dataclass(frozen=True, slots=True)
class Call:
    """One request to a provider, ready to go out. `secret` is redacted from everything the provider says."""

    provider: str
    settings: ProviderSettings
    url: str
    headers: Mapping[str, str]
    payload: Mapping[str, object]
    secret: str | None


def stream_error(call: Call, error: object) -> BackendError:
    """Our error for an `error` object inside a stream that began well."""
    code = error.get("code", error.get("status")) if isinstance(error, dict) else None
    status = code if isinstance(code, int) and 400 <= code < 600 else 500
    return rejection(call, status, {"error": error}, "", None)


def rejection(call: Call, status: int, parsed: object, body: str, retry_after: str | None) -> BackendError:
    """Our error for an answer that is not 200: by its status, with what the provider says about it."""
    provider, settings = call.provider, call.settings
    message, kind = _message(parsed)
    said = redacted(message or body, call.secret)
    if status == 429:
        return BackendRateLimited(provider, retry_after_s(retry_after, datetime.now(UTC)))
    if status >= 500:
        return BackendFailed(provider, status)
    if status < 400:
        return BackendMalformed(provider, f"answered with HTTP {status}, which no stream has")
    if status == 401:
        # Not quoted: some providers repeat the wrong key.
        return BackendRejected(provider, status, "refused the key (401); check its api_key, api_key_env or api_key_file")
    if kind in ("exceed_context_size_error", "context_length_exceeded") or re.search(
        r"context (length|size|window)|prompt is too long", message
    ):
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


def _message(parsed: object) -> tuple[str, str]:
    """The message and the machine-readable kind in an error body, in the forms that servers use."""
    error = parsed.get("error", parsed) if isinstance(parsed, dict) else None
    if isinstance(error, str):
        return error, ""
    if not isinstance(error, dict):
        return "", ""
    message = next((error[key] for key in ("message", "detail", "msg") if isinstance(error.get(key), str)), "")
    kinds = [error[key] for key in ("type", "code") if isinstance(error.get(key), str)]
    known = [kind for kind in kinds if kind in ("exceed_context_size_error", "context_length_exceeded")]
    return message, known[0] if known else "".join(kinds[:1])


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


def redacted(message: str, secret: str | None) -> str:
    """A provider's message on one line, shortened, without the key or the half-masked key that some providers quote."""
    if secret:
        for form in {secret, quote(secret, safe="")}:
            message = message.replace(form, "[key]")
    message = re.sub(r"\S*\*{3,}\S*", "[key]", message)
    message = " ".join("".join(letter if letter.isprintable() else " " for letter in message).split())
    return message if len(message) <= MESSAGE_CHARS else message[: MESSAGE_CHARS - 1] + "…"
