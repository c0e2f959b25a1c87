"""The file in which the fake keeps what it was sent: a JSON line for each request and one for its end."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qsl, urlencode

from app.llm.fake.behaviour import Recorded

KEY_HEADERS = frozenset({"authorization", "proxy-authorization", "x-api-key", "x-goog-api-key", "api-key", "cookie"})
KEY_PARAMETERS = frozenset({"key", "api_key", "api-key", "access_token"})


class Record:
    """Appends to a file, where there is one. A key is written as a hash only."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def began(self, request: Recorded) -> None:
        """A request arrived."""
        if self._path is None:
            return
        headers = {name: _hashed(value) if name in KEY_HEADERS else value for name, value in request.headers.items()}
        query = [
            (name, _hashed(value) if name.lower() in KEY_PARAMETERS else value)
            for name, value in parse_qsl(request.query, keep_blank_values=True)
        ]
        self._append(
            {
                "number": request.number,
                "method": request.method,
                "path": request.path,
                "query": urlencode(query),
                "headers": headers,
                "body": request.body.decode("utf-8", "replace"),
            }
        )

    def ended(self, request: Recorded) -> None:
        """Its answer ended, or its caller left."""
        self._append(
            {
                "number": request.number,
                "closed_early": request.closed_early,
                "tokens_sent": request.tokens_sent,
                "took_s": round((request.ended_at or request.arrived_at) - request.arrived_at, 3),
            }
        )

    def _append(self, line: Mapping[str, object]) -> None:
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _hashed(value: str) -> str:
    return f"sha256 {hashlib.sha256(value.encode()).hexdigest()[:16]}"
