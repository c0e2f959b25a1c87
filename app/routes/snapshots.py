"""/v1/snapshots: what was published, which of it is served, and how to go back. For administrators."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path as FilePath
from typing import Annotated, Any

from fastapi import APIRouter, Path, Response
from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from app.requests import StrictRoute
from app.routes.shared import AdministratorOf, ServicesOf, problems
from app.schemas import Body, Shown
from app.services import Services
from corpus.errors import Conflict, EmbedderError, NotFound, SnapshotDamaged, SnapshotError
from corpus.manifest import read_manifest
from corpus.published import current_id, held, release, snapshot_ids
from corpus.snapshot import activate

router = APIRouter(route_class=StrictRoute, tags=["snapshots"])

SNAPSHOT: JsonDict = {
    "id": "000003-1f0c88aa",
    "parent": "000002-77b0e1d4",
    "created_at": "2026-11-24T02:15:31Z",
    "documents": 34,
    "chunks": 210,
    "embedder": "all-MiniLM-L6-v2",
    "gate": [],
    "current": True,
    "held": False,
    "problem": None,
}


class ActivateRequest(Body):
    """How a snapshot is activated."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"hold": True}, {}]})

    hold: bool = Field(default=False, description="Whether no run publishes another one until the hold is released.")


class SnapshotShown(Shown):
    """A snapshot. Where its manifest cannot be read, `problem` says why, and only the id is known; where it was activated and
    is not served, why that is."""

    model_config = ConfigDict(json_schema_extra={"examples": [SNAPSHOT]})

    id: str
    parent: str | None = None
    created_at: datetime | None = None
    documents: int | None = None
    chunks: int | None = None
    embedder: str | None = None
    gate: list[dict[str, Any]] = Field(default=[], description="What was checked before it was published.")
    current: bool = Field(description="Whether it is the one that is served, unless it cannot be opened.")
    held: bool = Field(description="Whether runs publish nothing until it is released.")
    problem: str | None = None


class SnapshotList(Shown):
    """The snapshots that are kept, the newest first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"snapshots": [SNAPSHOT]}]})

    snapshots: list[SnapshotShown]


@router.get("/v1/snapshots", summary="List snapshots", responses=problems(403, 503))
async def list_snapshots(services: ServicesOf, _caller: AdministratorOf) -> SnapshotList:
    """Every snapshot that is kept, the newest first."""
    return await services.compute(_listed, services)


@router.delete("/v1/snapshots/hold", summary="Release the held snapshot", status_code=204, responses=problems(403, 404, 503))
async def release_snapshot(services: ServicesOf, _caller: AdministratorOf) -> Response:
    """Runs publish again. What is served stays until one does."""
    if await services.compute(release, services.settings.data_dir) is None:
        raise NotFound("snapshot that is held among them", "hold")
    return Response(status_code=204)


@router.post(
    "/v1/snapshots/{snapshot_id}/activate", summary="Serve a snapshot", responses=problems(403, 404, 409, 415, 422, 503)
)
async def activate_snapshot(
    services: ServicesOf, _caller: AdministratorOf, snapshot_id: Annotated[str, Path(max_length=64)], body: ActivateRequest
) -> SnapshotShown:
    """Serves an older snapshot, or a newer one again, from when this answers.

    409 where it is damaged, its model cannot be opened, or another one is held.
    `problem` says why where the service could not take it up, and serves on what it did before.
    """
    return await services.compute(_activated, services, snapshot_id, body.hold)


def _activated(services: Services, snapshot_id: str, hold: bool) -> SnapshotShown:
    data_dir = services.settings.data_dir
    try:
        activate(data_dir, snapshot_id, hold=hold, embedder=services.process.embedders.configured)
    except (SnapshotDamaged, EmbedderError) as error:
        raise Conflict(f"{error}; what is served has not changed") from error
    services.snapshots.refresh()
    shown = next(each for each in _listed(services).snapshots if each.id == snapshot_id)
    return shown.model_copy(update={"problem": services.snapshots.why_not(snapshot_id)})


def _listed(services: Services) -> SnapshotList:
    data_dir = services.settings.data_dir
    current, hold = _named(current_id, data_dir), _named(held, data_dir)
    found = []
    for name in reversed(snapshot_ids(data_dir)):
        marks = {"id": name, "current": name == current, "held": name == hold}
        try:
            manifest = read_manifest(data_dir / "snapshots" / name)
        except SnapshotDamaged as error:
            found.append(SnapshotShown(**marks, problem=error.reason))
            continue
        fields = ("parent", "created_at", "documents", "chunks")
        found.append(
            SnapshotShown(
                **marks,
                **{field: getattr(manifest, field) for field in fields},
                embedder=manifest.embedder.model,
                gate=[dict(check) for check in manifest.gate],
            )
        )
    return SnapshotList(snapshots=found)


def _named(read: Callable[[FilePath], str | None], data_dir: FilePath) -> str | None:
    """What a file of the data folder names; None where it names nothing that can be read."""
    try:
        return read(data_dir)
    except SnapshotError:
        return None
