"""Whether a file of the history is the report of a run: anybody can put or cut a file there, and readers rely on its types."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Literal

Status = Literal["starting", "running", "published", "unchanged", "refused", "failed", "killed"]
STATUSES: tuple[Status, ...] = ("starting", "running", "published", "unchanged", "refused", "failed", "killed")

LARGEST = 2**53
"""Numbers that are larger are none of ours."""

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)", re.ASCII)


def parse_report(text: str) -> dict[str, Any]:
    """A report from its JSON. Raises: ValueError."""
    try:
        report = json.loads(text)
        # Numbers that JSON does not have and halves of characters could not be passed on.
        json.dumps(report, ensure_ascii=False, allow_nan=False).encode()
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(report, dict):
        raise ValueError("it is not an object")
    for name, is_right in _FIELDS.items():
        if not is_right(report.get(name)):
            raise ValueError(f"its {name} is none")
    return report


def _is_time(value: object) -> bool:
    if not isinstance(value, str) or not _TIME.fullmatch(value):
        return False
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return False
    return True


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < LARGEST


def _is_duration(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < LARGEST


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_list_of(kind: type) -> Callable[[object], bool]:
    return lambda value: isinstance(value, list) and all(isinstance(each, kind) for each in value)


def _is_progress(value: object) -> bool:
    counts = ("done_bytes", "total_bytes", "files", "embedded")
    return isinstance(value, Mapping) and _is_text(value.get("step")) and all(_is_count(value.get(name)) for name in counts)


def _or_none(is_right: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or is_right(value)


_COUNTS = ("added", "changed", "moved", "removed", "kept", "documents", "chunks", "embedded")
_FIELDS: dict[str, Callable[[object], bool]] = {
    "status": lambda value: value in STATUSES,
    "started_at": _is_time,
    "ended_at": _or_none(_is_time),
    "took_s": _or_none(_is_duration),
    **dict.fromkeys(("snapshot", "error", "error_kind"), _or_none(_is_text)),
    **dict.fromkeys(_COUNTS, _or_none(_is_count)),
    **dict.fromkeys(("failures", "gate"), _or_none(_is_list_of(dict))),
    "reasons": _or_none(_is_list_of(str)),
    "progress": _or_none(_is_progress),
}
