"""Log records tell what happened and where, never what was said."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from app.logs import error_fields
from corpus.errors import BackendRejected

SCRIPT = """
import logging, structlog
from app.logs import configure_logs
configure_logs()
log = structlog.get_logger("archivist.test")
with structlog.contextvars.bound_contextvars(request_id="r1"):
    log.info("question answered", action="ask", took_ms=3)
    try:
        "\\ud800canary".encode()
    except UnicodeEncodeError:
        log.error("unexpected error", exc_info=True)
        logging.getLogger("some.library").exception("it failed")
    logging.getLogger("some.library").info("canary chatter")
"""


def test_every_record_is_one_json_line_with_the_request_id_and_no_message_of_an_error() -> None:
    """Our records and a library's are JSON with the id of the request; an exception's own text is left out."""
    root = Path(__file__).parents[2]
    ran = subprocess.run([sys.executable, "-c", SCRIPT], cwd=root, capture_output=True, text=True, check=True, timeout=60)
    records = [json.loads(line) for line in ran.stderr.splitlines()]
    assert [record["event"] for record in records] == ["question answered", "unexpected error", "it failed"]
    assert [record["request_id"] for record in records] == ["r1"] * 3
    assert records[0]["action"] == "ask"
    assert records[0]["took_ms"] == 3
    assert [record.get("error") for record in records] == [None, "UnicodeEncodeError", "UnicodeEncodeError"]
    assert "canary" not in ran.stderr
    assert ran.stdout == ""


def test_an_error_is_told_by_class_place_and_numbers() -> None:
    """Class, place in the code, provider and status are told; the upstream's words are not."""
    try:
        raise BackendRejected("local", 401, "wrong key sk-canary")
    except BackendRejected as error:
        fields = error_fields(error)
    assert (fields["error"], fields["provider"], fields["status"]) == ("BackendRejected", "local", 401)
    assert fields["at"][-1].startswith("test_logs.py:")
    assert "canary" not in json.dumps(fields)
