"""What passes between the job and a reader's process: frames of JSON. Nothing that is received can run anything."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from corpus.errors import DocumentError
from corpus.types import Section
from ingest.readers.extract import Extract


def encoded(found: Extract | DocumentError) -> bytes:
    """What a reader found, or why it did not, as one frame's payload."""
    if isinstance(found, DocumentError):
        return _json({"problem": [found.path, found.reason, found.advice]})
    return _json({
        "extract": {
            "title": found.title,
            "text": found.text,
            "sections": [[section.start, section.end, section.heading, section.page] for section in found.sections],
            "row_id": found.row_id,
            "language": found.language,
            "groups": found.groups,
            "label": found.label,
            "source": found.source,
            "metadata": dict(found.metadata),
        }
    })  # fmt: skip


def decoded(message: Mapping[str, Any]) -> Extract | DocumentError:
    """The other way round, every value checked: a process that read a hostile file may say anything.

    Raises: ValueError, KeyError, TypeError where it is not what a reader says.
    """
    if "problem" in message:
        path, reason, advice = map(_text, message["problem"])
        return DocumentError(path, reason, advice)
    values = message["extract"]
    text = _text(values["text"])
    sections, before = [], 0
    for start, end, heading, page in values["sections"]:
        if not (type(start) is type(end) is int and before <= start <= end <= len(text)):
            raise ValueError("a section does not lie in the text")
        if not (page is None or type(page) is int):
            raise TypeError("a page is not a number")
        sections.append(Section(start, end, tuple(map(_text, heading)), page))
        before = end
    return Extract(
        title=_text(values["title"]),
        text=text,
        sections=tuple(sections),
        row_id=_text_or_none(values["row_id"]),
        language=_text_or_none(values["language"]),
        groups=None if values["groups"] is None else tuple(map(_text, values["groups"])),
        label=_text_or_none(values["label"]),
        source=_text_or_none(values["source"]),
        metadata={_text(name): _text(value) for name, value in values["metadata"].items()},
    )


def message_of(payload: bytes) -> dict[str, Any]:
    """A frame's payload. Raises: ValueError, RecursionError where it is no JSON object."""
    message = json.loads(payload)
    if not isinstance(message, dict):
        raise ValueError("a frame is no object")
    return message


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value).encode("ascii")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("a value is no text")
    return value


def _text_or_none(value: Any) -> str | None:
    return None if value is None else _text(value)
