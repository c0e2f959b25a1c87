"""What is said of a document besides its text, by whom, and who wins.

Title, language and validity dates: a sidecar's word stands over the source's rules, these over the document itself (front
matter, a row of an export), and that over what is guessed. Groups and labels are in labels.py: nobody widens a rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from corpus.errors import DocumentError
from corpus.language import detect_language
from ingest.readers.extract import Extract, as_title, one_line
from ingest.settings import SourceSettings
from ingest.sources.globs import matches

DATES = ("valid_from", "valid_until")
"""Metadata that is a day, written as 2026-01-31; both days are included."""


@dataclass(frozen=True, slots=True)
class Described:
    """What rules or a sidecar say of a file. None where they say nothing; `groups` and `label` only a sidecar's."""

    title: str | None = None
    language: str | None = None
    valid_from: str | None = None
    valid_until: str | None = None
    groups: tuple[str, ...] | None = None
    label: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


def described_by_rules(source: SourceSettings, path: str) -> Described:
    """What the source's rules say of a file, but for groups and label. The last rule that matches wins, key by key."""
    found: dict[str, Any] = {}
    for rule in source.rules:
        if matches(path, rule.match):
            values = {"title": rule.title, "language": rule.language}
            days = {"valid_from": rule.valid_from, "valid_until": rule.valid_until}
            found |= {key: value for key, value in values.items() if value is not None}
            found |= {key: value.isoformat() for key, value in days.items() if value is not None}
    return Described(**found)


def over(stronger: Described | None, weaker: Described) -> Described:
    """What both say, the stronger one's word where both speak."""
    if stronger is None:
        return weaker
    return Described(
        title=stronger.title or weaker.title,
        language=stronger.language or weaker.language,
        valid_from=stronger.valid_from or weaker.valid_from,
        valid_until=stronger.valid_until or weaker.valid_until,
        groups=stronger.groups,
        label=stronger.label,
        metadata={**weaker.metadata, **stronger.metadata},
    )


def title_of(described: Described, found: Extract) -> str:
    """The document's title."""
    return as_title(described.title) or found.title


def language_of(described: Described, found: Extract) -> str | None:
    """The document's language: as declared, else as detected."""
    return described.language or found.language or detect_language(found.text)


def metadata_of(described: Described, found: Extract, where: str) -> dict[str, str]:
    """The document's metadata, its validity dates checked.

    Raises: DocumentError for a date that is none: served as valid, a document that has expired does more harm than one missing.
    """
    values = {**found.metadata, **described.metadata}
    for name, own in (("valid_from", described.valid_from), ("valid_until", described.valid_until)):
        written = own or values.get(name)
        if written is not None:
            values[name] = day_of(written, name, where)
    if all(name in values for name in DATES) and values["valid_until"] < values["valid_from"]:
        raise DocumentError(where, "valid_until is before valid_from", "mend one of the two")
    return values


def day_of(written: str, name: str, where: str) -> str:
    """A day as ISO 8601 writes it. Raises: DocumentError, which goes into reports and does not say what is written instead."""
    text = one_line(written)
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text).date().isoformat()
    except ValueError as error:
        raise DocumentError(where, f"{name} is not a day", "write it as 2026-01-31") from error
