"""Reads what stands beside a file: `report.pdf.meta.yaml` says of `report.pdf` what the file cannot say itself.

A sidecar that cannot be read or understood keeps its file out: it may be the one that closes it. The error goes into reports,
so it says where in it, and not what.
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import NoReturn

from corpus.errors import DocumentError, NotYaml
from corpus.strict_yaml import parse_yaml
from ingest.described import DATES, Described, day_of
from ingest.readers.extract import clean, one_line

SUFFIXES = (".meta.yaml", ".meta.yml")
MAX_BYTES = 65_536
KEYS = ("title", "groups", "label", "language", *DATES, "metadata")


def described_file(path: str) -> str | None:
    """The file that a sidecar of this name stands beside; None for a name that is no sidecar's."""
    for suffix in SUFFIXES:
        if path.casefold().endswith(suffix):
            return path[: -len(suffix)]
    return None


def read_sidecar(location: Path, root: Path, path: str) -> Described:
    """What a sidecar says of the file `path`. Raises: DocumentError that names the file, since that is what stays out."""
    name = location.name
    try:
        if location.is_symlink() and not location.resolve().is_relative_to(root.resolve()):
            _broken(path, name, "it is a link that leads out of the source")
        if not location.is_file():
            _broken(path, name, "it is not a regular file")
        with location.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        _broken(path, name, f"it cannot be read ({error.strerror})")
    if len(data) > MAX_BYTES:
        _broken(path, name, f"it has more than {MAX_BYTES:,} bytes")
    return parse_sidecar(data, name, path)


def parse_sidecar(data: bytes, name: str, path: str) -> Described:
    """The same, from its bytes."""
    try:
        values = parse_yaml(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        _broken(path, name, "it is not valid YAML in UTF-8")
    except NotYaml as error:
        _broken(path, name, error.reason if error.repeated else "it is not valid YAML in UTF-8")
    if not isinstance(values, dict) or not values:
        _broken(path, name, "it is not a mapping of keys")
    for number, key in enumerate(values, start=1):
        if key not in KEYS:
            _broken(path, name, f"its key number {number} is unknown; known: {', '.join(KEYS)}")
    days = {day: _day(values.get(day), day, path, name) for day in DATES}
    return Described(
        title=_text(values.get("title"), "title", path, name),
        language=_text(values.get("language"), "language", path, name),
        valid_from=days["valid_from"],
        valid_until=days["valid_until"],
        groups=_groups(values, path, name),
        label=_label(values, path, name),
        metadata=_metadata(values.get("metadata"), path, name),
    )


def _groups(values: dict[str, object], path: str, name: str) -> tuple[str, ...] | None:
    if "groups" not in values:
        return None
    value = values["groups"]
    written = value if isinstance(value, list) else [value]
    groups = tuple(clean(group).strip() if isinstance(group, str) else "" for group in written)
    if not groups or not all(groups):
        _broken(path, name, "groups is not a list of at least one group")
    return groups


def _label(values: dict[str, object], path: str, name: str) -> str | None:
    if "label" not in values:
        return None
    label = _text(values["label"], "label", path, name)
    if label is None:
        _broken(path, name, "label is empty")
    return label


def _text(value: object, key: str, path: str, name: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not one_line(value):
        _broken(path, name, f"{key} is not a text")
    return one_line(value)


def _day(value: object, key: str, path: str, name: str) -> str | None:
    match value:
        case None:
            return None
        case datetime.datetime():
            return value.date().isoformat()
        case datetime.date():
            return value.isoformat()
        case str():
            try:
                return day_of(value, key, path)
            except DocumentError as error:
                _broken(path, name, error.reason)
        case _:
            _broken(path, name, f"{key} is not a day such as 2026-01-31")


def _metadata(value: object, path: str, name: str) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        _broken(path, name, "metadata is not a mapping")
    found: dict[str, str] = {}
    for number, (key, inner) in enumerate(value.items(), start=1):
        if isinstance(inner, datetime.date):
            inner = inner.isoformat()
        if not isinstance(key, str) or not isinstance(inner, str | int | float):
            _broken(path, name, f"value {number} of metadata is not a text, a number or a boolean")
        found[one_line(key)] = one_line(inner) if isinstance(inner, str) else str(inner).lower()
    return found


def _broken(path: str, name: str, reason: str) -> NoReturn:
    raise DocumentError(path, f"its sidecar {name!r} is broken: {reason}", "mend the sidecar; until then the file is left out")
