"""Who calls, and what they may see."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from app.access import Caller, authenticate, check_same_site
from app.settings import ServerSettings
from corpus.errors import Forbidden, Unauthorized

KEYED = ServerSettings(api_key=SecretStr("canary-key-4711"), groups=("everyone", "finance"))


def test_without_a_key_everybody_is_the_local_caller() -> None:
    """No configured key: the owner is `local`, the groups are the configured ones, whatever the header says."""
    server = ServerSettings(groups=("everyone",))
    assert authenticate(server, None) == Caller("local", ("everyone",))
    assert authenticate(server, "Bearer anything") == Caller("local", ("everyone",))


def test_the_right_key_gives_a_stable_owner_that_is_not_the_key() -> None:
    """The owner comes from the key, stays the same and does not contain it."""
    first = authenticate(KEYED, "Bearer canary-key-4711")
    again = authenticate(KEYED, "bearer canary-key-4711")
    other = authenticate(ServerSettings(api_key=SecretStr("another")), "Bearer another")
    assert first == again
    assert first.groups == ("everyone", "finance")
    assert first.owner != other.owner
    assert "canary" not in first.owner


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer canary-key-471",
        "Bearer canary-key-47110",
        "Basic canary-key-4711",
        "canary-key-4711",
        "Bearer x' or '1'='1",
        "Bearer \xff\u00e9",
    ],
)
def test_any_other_header_is_refused_without_naming_the_key(header: str | None) -> None:
    """A missing, wrong, longer or shorter key and another scheme are refused, and the message holds neither key."""
    with pytest.raises(Unauthorized) as refused:
        authenticate(KEYED, header)
    assert "4711" not in str(refused.value)


def test_an_administrator_has_the_key_or_without_one_calls_from_this_machine() -> None:
    """With a key the address says nothing; without one it alone does, and an unknown one is another machine's."""
    open_server = ServerSettings()
    for host, administrator in (("127.0.0.1", True), ("::1", True), ("192.0.2.7", False), ("", False), (None, False)):
        assert authenticate(open_server, None, host).administrator is administrator, host
    for address in ("127.0.0.1", "192.0.2.7", None):
        assert authenticate(KEYED, "Bearer canary-key-4711", address).administrator


@pytest.mark.parametrize(
    ("method", "origin", "fetch_site", "allowed"),
    [
        ("POST", None, None, True),
        ("POST", "http://127.0.0.1:8080", None, True),
        ("POST", "HTTP://127.0.0.1:8080", "same-origin", True),
        ("POST", "https://archivist.example.com", "same-origin", True),
        ("POST", None, "none", True),
        ("POST", "http://127.0.0.1:3000", None, False),
        ("POST", "http://127.0.0.1:3000", "same-site", False),
        ("POST", "http://evil.example", None, False),
        ("POST", "http://evil.example", "cross-site", False),
        ("POST", "http://127.0.0.1:8080", "cross-site", False),
        ("POST", "http://127.0.0.1:8080.evil.example", None, False),
        ("POST", "null", None, False),
        ("POST", "", None, False),
        ("DELETE", "http://evil.example", None, False),
        ("PUT", None, "cross-site", False),
        ("GET", "http://evil.example", "cross-site", True),
        ("HEAD", "http://evil.example", None, True),
    ],
)
def test_a_change_is_refused_where_a_browser_says_it_comes_from_elsewhere(
    method: str, origin: str | None, fetch_site: str | None, allowed: bool
) -> None:
    """By Sec-Fetch-Site where it is sent, else by Origin against Host; who sends neither is no browser's page."""
    if allowed:
        check_same_site(method, "127.0.0.1:8080", origin, fetch_site)
    else:
        with pytest.raises(Forbidden, match="another site"):
            check_same_site(method, "127.0.0.1:8080", origin, fetch_site)
