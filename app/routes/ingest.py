"""/v1/ingest: start the job and follow it. For administrators."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from app.requests import StrictRoute
from app.routes.shared import AdministratorOf, CursorOf, ServicesOf, problems
from app.runs import Runs
from app.schemas import Body, Shown
from corpus.run_report import Status

router = APIRouter(route_class=StrictRoute, tags=["ingest"])

RUN: JsonDict = {
    "run_id": "000007-9f86d081",
    "status": "running",
    "started_at": "2026-11-24T02:15:04Z",
    "ended_at": None,
    "took_s": None,
    "snapshot": None,
    "added": None,
    "changed": None,
    "moved": None,
    "removed": None,
    "kept": None,
    "documents": None,
    "chunks": None,
    "embedded": None,
    "failures": 0,
    "error": None,
    "progress": {"step": "ingest", "done_bytes": 20480, "total_bytes": 81920, "files": 11, "embedded": 64},
}
COUNTS = ("added", "changed", "moved", "removed", "kept", "documents", "chunks", "embedded")


class IngestRequest(Body):
    """A run to start."""

    model_config = ConfigDict(json_schema_extra={"examples": [{}, {"allow_removals": True}]})

    allow_removals: bool = Field(
        default=False, description="Whether the run goes on although a source is empty or many documents are gone."
    )


class RunProgress(Shown):
    """How far a run is that is at work: bytes of the sources, files, chunks embedded."""

    step: str
    done_bytes: int
    total_bytes: int
    files: int
    embedded: int


class RunShown(Shown):
    """A run. Counts are null until it has ended; `failures` are the documents that could not be read."""

    model_config = ConfigDict(json_schema_extra={"examples": [RUN]})

    run_id: str
    status: Status
    started_at: datetime | None
    ended_at: datetime | None
    took_s: float | None
    snapshot: str | None
    added: int | None
    changed: int | None
    moved: int | None
    removed: int | None
    kept: int | None
    documents: int | None
    chunks: int | None
    embedded: int | None
    failures: int
    error: str | None
    progress: RunProgress | None


class RunWithReport(RunShown):
    """A run with its report, as `archivist runs show` prints it."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{**RUN, "report": {"run": "000007-9f86d081", "status": "running", "pid": 4711}}]}
    )

    report: dict[str, Any]


class RunList(Shown):
    """Runs, the newest first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"runs": [RUN], "next_cursor": None}]})

    runs: list[RunShown]
    next_cursor: str | None


def _runs(request: Request) -> Runs:
    runs: Runs = request.app.state.runs
    return runs


RunsOf = Annotated[Runs, Depends(_runs)]


@router.post("/v1/ingest", summary="Start the job", status_code=202, responses=problems(403, 409, 415, 422, 503))
async def start_run(
    services: ServicesOf, runs: RunsOf, _caller: AdministratorOf, body: IngestRequest, response: Response
) -> RunShown:
    """Starts `archivist ingest` as a process of its own, under the service's configuration. One runs at a time."""
    run_id = await services.compute(lambda: runs.start(allow_removals=body.allow_removals))
    response.headers["Location"] = f"/v1/ingest/{run_id}"
    return RunShown(**_fields(await services.compute(runs.report, run_id)))


@router.get("/v1/ingest", summary="List runs of the job", responses=problems(403, 422))
async def list_runs(
    services: ServicesOf,
    runs: RunsOf,
    _caller: AdministratorOf,
    cursor: CursorOf = None,
    limit: Annotated[int, Query(ge=1, le=200, description="Runs of a page, at most.")] = 20,
) -> RunList:
    """The runs whose reports are kept, whoever started them, the newest first."""
    found, more = await services.compute(runs.reports, cursor, limit)
    return RunList(
        runs=[RunShown(**_fields(report)) for report in found],
        next_cursor=found[-1]["run"] if more and found else None,
    )


@router.get("/v1/ingest/{run_id}", summary="Follow a run of the job", responses=problems(403, 404, 422))
async def show_run(
    services: ServicesOf, runs: RunsOf, _caller: AdministratorOf, run_id: Annotated[str, Path(max_length=64)]
) -> RunWithReport:
    """How far a run is, or how it ended, with its report. A run whose process has died is `killed`."""
    report = await services.compute(runs.report, run_id)
    return RunWithReport(**_fields(report), report=report)


def _fields(report: dict[str, Any]) -> dict[str, Any]:
    reasons = "; ".join(report.get("reasons") or ())
    return {
        "run_id": report["run"],
        **{name: report.get(name) for name in ("status", "started_at", "ended_at", "took_s", "snapshot", "progress")},
        **{name: report.get(name) for name in COUNTS},
        "failures": len(report.get("failures") or ()),
        "error": report.get("error") or reasons or None,
    }
