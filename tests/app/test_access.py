"""Who calls, and what they may see."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from app.access import Caller, authenticate
from app.settings import ServerSettings
from corpus.errors import Unauthorized

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
