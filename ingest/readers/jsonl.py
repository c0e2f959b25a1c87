"""JSON lines, one document a row: the format of exports. A bad row fails alone.

Its error goes into reports and logs, so it names places, types and lengths, and never what a row says.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import NoReturn

from corpus.errors import DocumentError
from ingest.readers.extract import Extract, as_title, clean, one_line, sections_of
from ingest.readers.text import decode

_FIELDS = frozenset(("id", "title", "text", "source", "groups", "label", "metadata", "language"))
# Taken for metadata, a misspelt access field would make a document visible to everyone.
_NEARLY_ACCESS = frozenset(("group", "groups", "label", "labels", "acl"))


def read_jsonl(name: str, data: bytes) -> Iterator[Extract | DocumentError]:
    """One extract, or one error that names the line, for every row that is not blank."""
    seen: dict[str, int] = {}
    for number, line in enumerate(_lines(name, data), start=1):
        if not line.strip():
            continue
        where = f"{name} line {number}"
        try:
            extract = _extract(where, line)
            if extract.row_id is not None and extract.row_id in seen:
                first = seen[extract.row_id]
                raise _bad(where, f"its id was used in line {first} already", "give every row its own id")
        except DocumentError as error:
            yield error
        else:
            seen[str(extract.row_id)] = number
            yield extract


def _lines(name: str, data: bytes) -> Sequence[bytes | str]:
    """Bytes, so that one badly encoded line fails alone; text where the whole file is in another encoding."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf")) or b"\x00" in data[:4096]:
        return decode(name, data).split("\n")
    return data.split(b"\n")


def _extract(where: str, line: bytes | str) -> Extract:
    row = _parse(where, line)
    row_id = row.get("id")
    if isinstance(row_id, bool) or not isinstance(row_id, str | int) or not str(row_id).strip():
        raise _field(where, "id", row_id, "a string that is not empty")
    text = clean(_string(where, row, "text") or "")
    if not text.strip():
        raise _field(where, "text", row.get("text"), "a string that is not empty")
    first_line = text.strip().split("\n", 1)[0]
    language = _string(where, row, "language")
    return Extract(
        title=as_title(_string(where, row, "title")) or as_title(first_line) or str(row_id),
        text=text,
        sections=sections_of((), len(text)),
        row_id=clean(str(row_id)).strip(),
        language=one_line(language) or None if language else None,
        groups=_groups(where, row),
        label=_access_label(where, row),
        source=_string(where, row, "source") or None,
        metadata=_metadata(where, row),
    )


def _parse(where: str, line: bytes | str) -> dict[str, object]:
    try:
        row = json.loads(line, object_pairs_hook=_unique, parse_constant=_no_constant)
    # RecursionError: nested too deeply. ValueError: not JSON, not UTF-8, a name given twice, a number out of bounds.
    except (ValueError, RecursionError) as error:
        raise _bad(where, f"the line is not a JSON object ({_short(error)})", "mend the line or remove it") from error
    if not isinstance(row, dict):
        raise _bad(where, f"the line holds {_show(row)}, not a JSON object", "mend the line or remove it")
    return row


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the field {_known(twice)} is given twice")
    return dict(pairs)


def _no_constant(value: str) -> NoReturn:
    raise ValueError(f"{value} is not JSON")


def _string(where: str, row: dict[str, object], name: str) -> str | None:
    value = row.get(name)
    if value is None or isinstance(value, str):
        return None if value is None else clean(value)
    raise _field(where, name, value, "a string")


def _groups(where: str, row: dict[str, object]) -> tuple[str, ...] | None:
    """Absent means the source's groups; anything else than a list of names fails, it never means everyone."""
    if "groups" not in row:
        return None
    value = row["groups"]
    if not isinstance(value, list) or not value:
        raise _field(where, "groups", value, "a list of at least one group")
    groups = tuple(clean(group).strip() if isinstance(group, str) else "" for group in value)
    if not all(groups):
        raise _field(where, "groups", value, "a list of strings that are not empty")
    return groups


def _access_label(where: str, row: dict[str, object]) -> str | None:
    label = _string(where, row, "label")
    if label is not None and not label.strip():
        raise _field(where, "label", label, "a label's name, or null")
    return label.strip() if label is not None else None


def _metadata(where: str, row: dict[str, object]) -> dict[str, str]:
    values: dict[str, str] = {}
    for name, value in row.items():
        if name in _FIELDS:
            continue
        if name.strip().casefold() in _NEARLY_ACCESS:
            raise _bad(where, f"unknown field {name!r}", "write it as `groups` or `label`")
        if isinstance(value, str | int | float | bool):
            values[one_line(name)] = _scalar(value)
    declared = row.get("metadata")
    if declared is None:
        return values
    if not isinstance(declared, dict):
        raise _field(where, "metadata", declared, "an object of strings, numbers and booleans")
    for number, (name, value) in enumerate(declared.items(), start=1):
        if not isinstance(value, str | int | float | bool | None):
            raise _field(where, f"metadata, value {number}", value, "a string, a number or a boolean")
        if value is not None:
            values[one_line(name)] = _scalar(value)
    return values


def _scalar(value: str | int | float | bool) -> str:
    return clean(value) if isinstance(value, str) else json.dumps(value)


def _field(where: str, name: str, value: object, wanted: str) -> DocumentError:
    return _bad(where, f"field {name!r} is {_show(value)}, not {wanted}", "mend the row")


def _bad(where: str, reason: str, advice: str) -> DocumentError:
    return DocumentError(where, reason, advice)


def _known(name: str) -> str:
    """A field's name, where it is one of ours: others may be anything."""
    return repr(name) if name in _FIELDS else f"with a name of {len(name):,} characters"


def _show(value: object) -> str:
    """What a value is, without a word of it."""
    match value:
        case None:
            return "missing or null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return f"a string of {len(value):,} characters"
        case list():
            return f"a list of {len(value):,}"
        case _:
            return "an object"


def _short(error: Exception) -> str:
    return (str(error) or type(error).__name__)[:120]
