"""Who calls, and for which groups. Pure functions; imports only settings and errors of ours."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from hmac import compare_digest

from app.settings import ServerSettings
from corpus.errors import Unauthorized

LOCAL_OWNER = "local"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls. `owner` is a stable id that conversations belong to, `groups` decide which documents are visible."""

    owner: str
    groups: tuple[str, ...]


def authenticate(server: ServerSettings, authorization: str | None) -> Caller:
    """The caller behind an `Authorization` header; without a configured key everyone is the local caller.

    Raises: Unauthorized where a key is configured and the header does not carry it.
    """
    if server.api_key is None:
        return Caller(owner_of(server), server.groups)
    key = server.api_key.get_secret_value()
    scheme, _, given = (authorization or "").partition(" ")
    # Both sides as bytes: compare_digest refuses text outside ASCII, which a header may hold.
    matches = compare_digest(given.strip().encode("utf-8", "surrogatepass"), key.encode("utf-8", "surrogatepass"))
    if scheme.lower() != "bearer" or not matches:
        raise Unauthorized("this service needs its key; send the header `Authorization: Bearer <server.api_key>`")
    return Caller(owner_of(server), server.groups)


def owner_of(server: ServerSettings) -> str:
    """The owner of the conversations of whoever this service lets in."""
    if server.api_key is None:
        return LOCAL_OWNER
    key = server.api_key.get_secret_value()
    digest = hashlib.sha256(b"archivist owner\x00" + key.encode("utf-8", "surrogatepass"))
    return f"key-{digest.hexdigest()[:16]}"
