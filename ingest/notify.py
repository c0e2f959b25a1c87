"""Tells a webhook how a run ended: numbers and codes, never a file's name, a reason or a text."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from corpus.egress import Egress, Timeouts
from corpus.errors import EgressError

TOLD = (
    "run", "status", "started_at", "ended_at", "took_s", "snapshot", "added", "changed", "moved", "removed", "kept",
    "documents", "chunks", "embedded",
)  # fmt: skip
"""What of a report goes out."""

TIMEOUTS = Timeouts(connect_s=5.0, response_s=10.0, total_s=15.0)


def message(report: Mapping[str, Any]) -> dict[str, Any]:
    """What is sent for a report."""
    checks = [{key: check.get(key) for key in ("name", "passed", "measured", "wanted")} for check in report.get("gate") or ()]
    return {
        **{key: report[key] for key in TOLD if key in report},
        "failures": len(report.get("failures") or ()),
        "error_kind": report.get("error_kind"),
        "gate": checks,
    }


def notify(url: str, report: Mapping[str, Any]) -> str:
    """Send it. Returns what came of it; a webhook that fails is no reason for a run to fail."""
    try:
        status = asyncio.run(_post(url, message(report)))
    except EgressError as error:
        return f"failed: {type(error).__name__}"  # the address may hold a secret
    return "sent" if 200 <= status < 300 else f"failed: status {status}"


async def _post(url: str, body: Mapping[str, Any]) -> int:
    egress = Egress([url], max_connections=1)
    try:
        async with egress.stream(url, json=body, timeouts=TIMEOUTS) as answer:
            return answer.status
    finally:
        await egress.close()
