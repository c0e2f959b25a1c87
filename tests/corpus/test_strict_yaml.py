"""YAML is read as it always was, but for a key that stands twice."""

from __future__ import annotations

import pytest
import yaml

from corpus.errors import NotYaml
from corpus.strict_yaml import parse_yaml


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a: 1\nb: [x, {a: 2, b: 3}]\n",
        "day: 2026-01-31\n~: nothing\n1: one\n'1': text\n",
        "base: &base {a: 1, b: 2}\nother: {<<: *base, b: 3}\nthird: {<<: *base, a: 4}\n",
        "top: {one: &one {<<: &two {a: 1}, a: 2}, other: {<<: *one, a: 3}}\n",
        "list: &list [1, 2]\nagain: *list\n",
    ],
)
def test_what_has_no_key_twice_is_read_as_by_the_library(text: str) -> None:
    """Merged mappings too, which repeat keys by their nature."""
    assert parse_yaml(text) == yaml.safe_load(text)


@pytest.mark.parametrize(
    ("text", "key", "place"),
    [
        ("groups: [board]\ngroups: [everyone]\n", "groups", (2, 1)),
        ("{groups: [board], 'groups': [everyone]}", "groups", (1, 19)),
        ("groups: a\n? groups\n: b\n", "groups", (2, 3)),
        ("a: {b: [{c: 1, c: 2}]}", "c", (1, 16)),
        ('x: 1\n"\\x78": 2\n', "x", (2, 1)),
        ("1: a\n0x1: b\n", "0x1", (2, 1)),
        ("a: &a {b: 1}\nc: {<<: *a, <<: *a}\n", "<<", (2, 13)),
        ("? {a: 1, a: 2}\n: b\n", "a", (1, 10)),
    ],
)
def test_a_key_that_stands_twice_is_refused(text: str, key: str, place: tuple[int, int]) -> None:
    """At any depth and however it is spelt; the error names it and where it stands for the second time."""
    with pytest.raises(NotYaml) as caught:
        parse_yaml(text)
    assert caught.value.reason == f"it has the key {key!r} twice"
    assert (caught.value.place, caught.value.repeated) == (place, True)


@pytest.mark.parametrize(
    "text",
    ["a: [", "a: 1\n---\nb: 2\n", "a: 2026-13-45", "[" * 100_000, "\x00", "!!python/object/apply:os.system [id]", "[a]: 1",
     "!!seq x: 1", "!!binary é: 1", "&a [*a]: 1"],
)  # fmt: skip
def test_what_is_not_yaml_is_one_error(text: str) -> None:
    """Whatever the library raises."""
    with pytest.raises(NotYaml, match="it is not valid YAML") as caught:
        parse_yaml(text)
    assert not caught.value.repeated
