"""YAML as people write it, but for a key that stands twice in a mapping: which of the two was meant, nobody can tell.

The only place that parses what comes from outside as YAML.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml

from corpus.errors import NotYaml


def parse_yaml(text: str) -> Any:
    """The one document in a text, None where there is none; plain values only. Raises: NotYaml."""
    try:
        loader = yaml.SafeLoader(text)
        try:
            root = loader.get_single_node()
            if root is None:
                return None
            _refuse_repeated(loader, root)
            return loader.construct_document(root)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        raise NotYaml("it is not valid YAML", (mark.line + 1, mark.column + 1) if mark is not None else None) from error
    # A date such as 2026-13-45 is a ValueError, deep nesting a RecursionError.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise NotYaml("it is not valid YAML") from error


def _refuse_repeated(loader: yaml.SafeLoader, root: yaml.Node) -> None:
    """Raises: NotYaml where a mapping, at any depth, has a key twice.

    Looked for before anything is merged (`<<`), which repeats keys by its nature.
    """
    waiting, seen = [root], {id(root)}
    while waiting:
        node = waiting.pop()
        inner: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            keys: set[Hashable] = set()
            for key, value in node.value:
                inner += [key, value]
                found = _key(loader, key)
                if found is None:
                    continue
                if found in keys:
                    place = (key.start_mark.line + 1, key.start_mark.column + 1)
                    raise NotYaml(f"it has the key {str(key.value)[:40]!r} twice", place, repeated=True)
                keys.add(found)
        elif isinstance(node, yaml.SequenceNode):
            inner += node.value
        for each in inner:
            if id(each) not in seen:
                seen.add(id(each))
                waiting.append(each)


def _key(loader: yaml.SafeLoader, node: yaml.Node) -> Hashable | None:
    """The value of a key; None for what cannot be one, which is refused where the mapping is made."""
    if not isinstance(node, yaml.ScalarNode):
        return None
    if node.tag == "tag:yaml.org,2002:merge":
        return "<<"
    found = loader.construct_object(node)
    # In a tuple, so that an empty key (`~:`) is not taken for none.
    return (found,) if isinstance(found, Hashable) else None
