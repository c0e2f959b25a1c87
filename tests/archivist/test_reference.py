"""The reference page and the default file are what the settings say of themselves."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from archivist.reference import as_markdown, default_yaml

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("path", "made", "command"),
    [("docs/configuration.md", as_markdown(), "reference"), ("config/archivist.yaml", default_yaml(), "defaults")],
)
def test_the_file_in_the_repository_is_up_to_date(path: str, made: str, command: str) -> None:
    """A change of a setting is a change of its documentation."""
    assert (ROOT / path).read_text(encoding="utf-8") == made, f"run `archivist config {command} > {path}`"


def test_every_key_of_the_default_file_is_explained() -> None:
    """Each line with a key carries a comment, and the file is YAML."""
    assert set(yaml.safe_load(default_yaml())) >= {"data_dir", "server", "llm", "search"}
    inside_provider = 6
    for line in default_yaml().splitlines():
        if line and not line.startswith("#") and len(line) - len(line.lstrip()) < inside_provider:
            assert "# " in line, line
