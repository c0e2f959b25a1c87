"""One JSON line a record on standard error. No question, prompt, passage or key: of an error only class and place.

Only `serve` sets this up; imported as a library the service leaves logging alone.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import MutableMapping
from typing import Any

import structlog


def error_fields(error: BaseException) -> dict[str, Any]:
    """What a log record may say of an error: its class, its places in the code and its attributes that hold no text.

    The message stays out: a library may have put into it whatever it was working on.
    """
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    fields: dict[str, Any] = {
        "error": type(error).__name__,
        "at": [f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno} {frame.name}" for frame in frames],
    }
    for name in ("provider", "status", "stage", "waited_s", "retry_after_s", "snapshot", "path"):
        value = getattr(error, name, None)
        if isinstance(value, str | int | float):
            fields[name] = value
    return fields


def _safe_exception(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    found = event.pop("exc_info", None)
    if found is True:
        found = sys.exc_info()
    if isinstance(found, tuple) and isinstance(found[1], BaseException):
        event.update(error_fields(found[1]))
    elif isinstance(found, BaseException):
        event.update(error_fields(found))
    return event


def configure_logs(level: int = logging.INFO) -> None:
    """Send our records and those of libraries to standard error, one JSON object a line."""
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        _safe_exception,
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("uvicorn.error").setLevel(level)
