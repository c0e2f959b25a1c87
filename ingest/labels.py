"""Who may see a document and how confidential it is: the source's defaults, its rules, and what may be said on top of them."""

from __future__ import annotations

from dataclasses import dataclass

from corpus.settings import LabelSettings
from ingest.settings import SourceSettings
from ingest.sources.globs import matches

EVERYONE = "everyone"
"""The group of all callers."""


@dataclass(frozen=True, slots=True)
class Access:
    """Groups that may see a document (never none), and its label."""

    groups: tuple[str, ...]
    label: str


def access_of_file(source: SourceSettings, path: str, labels: LabelSettings) -> Access:
    """What the source and its rules say of a file. The last rule that matches wins, groups and label each for itself."""
    groups, label = source.groups, source.label
    for rule in source.rules:
        if matches(path, rule.match):
            groups = rule.groups if rule.groups is not None else groups
            label = rule.label if rule.label is not None else label
    return Access(_clean(groups), labels.resolve(label))


def access_of_row(file: Access, groups: tuple[str, ...] | None, label: str | None, labels: LabelSettings) -> Access:
    """What holds for one row of an export: its own groups where it names some, the higher of its label and the file's."""
    own = file.groups if groups is None else _clean(groups)
    return Access(own, file.label if label is None else labels.highest([file.label, labels.resolve(label)]))


def narrowed(file: Access, groups: tuple[str, ...] | None, label: str | None, labels: LabelSettings) -> Access | None:
    """What holds where a sidecar or a document's own front matter names groups or a label: they may close, never open.

    A file that everyone may see can be given to any groups; else only those of the file's own groups remain that are named.
    None where none remains: then nobody may see it.
    """
    own = file.groups
    if groups is not None:
        named = _clean(groups)
        own = named if EVERYONE in file.groups else tuple(group for group in file.groups if group in named)
    if not own:
        return None
    return Access(own, file.label if label is None else labels.highest([file.label, labels.resolve(label)]))


def _clean(groups: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted({group.strip() for group in groups if group.strip()}))
