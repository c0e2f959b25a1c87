"""Who may see a document, and how confidential it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from corpus.settings import LabelSettings
from ingest.labels import Access, access_of_file, access_of_row
from ingest.settings import RuleSettings, SourceSettings

LABELS = LabelSettings()
SOURCE = SourceSettings(
    path=Path("x"),
    groups=("staff", " everyone ", "staff"),
    rules=(
        RuleSettings(match="board/**", groups=("board",), label="secret"),
        RuleSettings(match="*.md", label="public"),
        RuleSettings(match="odd/**", label="no-such-label"),
        RuleSettings(match="closed/**", groups=()),
    ),
)


@pytest.mark.parametrize(
    ("path", "groups", "label"),
    [
        ("a.txt", ("everyone", "staff"), "internal"),
        ("board/a.txt", ("board",), "secret"),
        ("board/a.md", ("board",), "public"),
        ("odd/a.txt", ("everyone", "staff"), "secret"),
        ("closed/a.txt", (), "internal"),
        ("notboard/a.txt", ("everyone", "staff"), "internal"),
    ],
)
def test_the_last_rule_that_matches_wins(path: str, groups: tuple[str, ...], label: str) -> None:
    """Groups and label each follow the last rule that names them; an unknown label is the highest; no group is nobody."""
    assert access_of_file(SOURCE, path, LABELS) == Access(groups, label)


@pytest.mark.parametrize(
    ("groups", "label", "expected"),
    [
        (None, None, Access(("staff",), "confidential")),
        (("board", " board "), None, Access(("board",), "confidential")),
        ((), None, Access((), "confidential")),
        (("  ",), None, Access((), "confidential")),
        (None, "public", Access(("staff",), "confidential")),
        (None, "secret", Access(("staff",), "secret")),
        (None, "no-such-label", Access(("staff",), "secret")),
    ],
)
def test_a_row_may_name_its_groups_and_raise_its_label(
    groups: tuple[str, ...] | None, label: str | None, expected: Access
) -> None:
    """Threat D13: a row's groups replace the file's, blank ones are none at all, and a label only ever goes up."""
    assert access_of_row(Access(("staff",), "confidential"), groups, label, LABELS) == expected
