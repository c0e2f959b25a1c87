"""Who calls, and for which groups. Pure functions; imports only settings and errors of ours."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from hmac import compare_digest

from app.loopback import is_loopback_host
from app.settings import ServerSettings
from corpus.errors import Forbidden, Unauthorized

LOCAL_OWNER = "local"
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
"""Methods that change nothing."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls. `owner` is a stable id that conversations belong to, `groups` decide which documents are visible.

    An `administrator` may change what is served: documents, snapshots, runs of the job.
    """

    owner: str
    groups: tuple[str, ...]
    administrator: bool = False


def authenticate(server: ServerSettings, authorization: str | None, host: str | None = None) -> Caller:
    """The caller behind an `Authorization` header; without a configured key everyone is the local caller.

    Administrator is whoever has the key; where there is none, whoever calls from this machine, by the address `host`.
    Raises: Unauthorized where a key is configured and the header does not carry it.
    """
    if server.api_key is None:
        return Caller(owner_of(server), server.groups, host is not None and is_loopback_host(host))
    key = server.api_key.get_secret_value()
    scheme, _, given = (authorization or "").partition(" ")
    # Both sides as bytes: compare_digest refuses text outside ASCII, which a header may hold.
    matches = compare_digest(given.strip().encode("utf-8", "surrogatepass"), key.encode("utf-8", "surrogatepass"))
    if scheme.lower() != "bearer" or not matches:
        raise Unauthorized("this service needs its key; send the header `Authorization: Bearer <server.api_key>`")
    return Caller(owner_of(server), server.groups, administrator=True)


def check_same_site(method: str, host: str | None, origin: str | None, fetch_site: str | None) -> None:
    """Raises: Forbidden for a change that a page of another site asks a browser for.

    A browser says where a request comes from; other clients send neither header. `same-site` is another place too: any port
    of this machine is one. Source: CrossOriginProtection of Go's net/http, which decides in the same order.
    """
    if method in SAFE_METHODS:
        return
    if fetch_site is not None:
        same = fetch_site in ("same-origin", "none")
    else:
        same = origin is None or (host is not None and origin.partition("://")[2].lower() == host.lower())
    if not same:
        raise Forbidden("this comes from a page of another site, which may change nothing here; call it from the service's own")


def owner_of(server: ServerSettings) -> str:
    """The owner of the conversations of whoever this service lets in."""
    if server.api_key is None:
        return LOCAL_OWNER
    key = server.api_key.get_secret_value()
    digest = hashlib.sha256(b"archivist owner\x00" + key.encode("utf-8", "surrogatepass"))
    return f"key-{digest.hexdigest()[:16]}"
