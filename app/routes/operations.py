"""/livez, /readyz and /metrics: what those who run the service look at. Nothing here calls a provider."""

from __future__ import annotations

import asyncio

import structlog
from fastapi import APIRouter, Request, Response

from app.access import authenticate
from app.logs import error_fields
from app.metrics import CONTENT_TYPE
from app.reload import Reloader
from app.routes.ingest import RunsOf
from app.routes.shared import CallerOf, ServicesOf, problems
from app.runs import Runs
from app.schemas import Ready
from app.services import Services
from corpus.embedders.stamped import names_another
from corpus.errors import EmbedderError, OverlayError, SnapshotError, StateError, Unauthorized
from corpus.published import held
from corpus.run_report import STATUSES

READY_WITHIN_S = 1.5

ADVICE = {
    "no_snapshot": "no documents have been published; run `archivist ingest`",
    "snapshot_damaged": "no published snapshot can be opened; run `archivist ingest`",
    "embedder_mismatch": "the snapshot's embedding model is not the one that made its vectors; put that one back, or run "
    "`archivist ingest`",
    "embedder_unavailable": "the snapshot's embedding model cannot be opened; the log says why; run `archivist ingest`",
    "embedder_pending": "the configuration names another embedding model than the snapshot; run `archivist ingest`",
    "previous_snapshot": "the newest snapshot cannot be opened, an older one is served; run `archivist ingest`",
    "state_unavailable": "conversations cannot be written; look at service.db in data_dir: its disk, its permissions",
    "overlay_unavailable": "what was deleted or withdrawn cannot be read, so nothing is shown; look at overlay.db in data_dir",
    "llm_down": "the default LLM provider's last call failed, or its key or file is missing; until it works, the next provider "
    "in llm.fallbacks answers, or quoted sentences do; look at its server, its key and its address",
    "config_refused": "the changed configuration cannot be used, the old one serves on; run `archivist config check`",
    "restart_needed": "a section of the configuration changed that takes effect at the next start",
    "busy": "the checks did not end in time; the service is busy or its disk is slow",
}

HARMLESS = {"embedder_pending"}
"""Codes of what is as it should be for now."""

_log = structlog.get_logger(__name__)

router = APIRouter(tags=["operations"])


@router.get("/livez", summary="Whether the process answers", responses=problems())
async def live() -> dict[str, str]:
    """Always the same; looks at nothing."""
    return {"status": "alive"}


@router.get(
    "/readyz",
    summary="Whether the service can answer questions",
    response_model=Ready,
    response_model_exclude_none=True,
    responses={**problems(), 503: {"description": "It cannot answer.", "model": Ready}},
)
async def ready(request: Request, response: Response, services: ServicesOf, runs: RunsOf) -> Ready:
    """200 ready, 200 degraded, 503 unavailable. Codes and advice are for an administrator only."""
    response.headers["Cache-Control"] = "no-store"
    try:
        async with asyncio.timeout(READY_WITHIN_S):
            fatal, codes, snapshot = await services.compute(_look, services)
            last_run = await services.compute(_last_run, runs)
    except TimeoutError:
        fatal, codes, snapshot, last_run = False, ["busy"], None, None
    if services.gateway.status()["down"]:
        codes.append("llm_down")
    reloader: Reloader | None = request.app.state.reloader
    if reloader is not None and reloader.problem is not None:
        codes.append("config_refused")
    if reloader is not None and reloader.needs_restart:
        codes.append("restart_needed")
    status = "unavailable" if fatal else "degraded" if set(codes) - HARMLESS else "ready"
    response.status_code = 503 if fatal else 200
    if not _is_administrator(request, services):
        return Ready(status=status)
    advice = [ADVICE[code] for code in codes if code in ADVICE]
    if reloader is not None and reloader.problem is not None:
        advice.append(reloader.problem)
    return Ready(status=status, codes=codes, advice=advice, snapshot=snapshot, last_run=last_run)


@router.get("/metrics", summary="Metrics for Prometheus", response_class=Response, responses=problems())
async def metrics(services: ServicesOf, runs: RunsOf, _caller: CallerOf) -> Response:
    """Prometheus' text format. Needs the key where there is one."""
    services.gateway.show_budgets()
    return Response(await services.compute(_exposition, services, runs), media_type=CONTENT_TYPE)


def _look(services: Services) -> tuple[bool, list[str], dict[str, str | int] | None]:
    codes = list(services.snapshots.status())
    snapshot: dict[str, str | int] | None = None
    fatal = False
    try:
        with services.snapshots.lease() as leased:
            opened, stamp = leased.snapshot, leased.snapshot.manifest.embedder
            documents, chunks = opened.store.counts()
            created_at = opened.created_at.isoformat()
            snapshot = {
                "id": opened.id, "created_at": created_at, "documents": documents, "chunks": chunks, "embedder": stamp.model,
            }  # fmt: skip
            if names_another(stamp, services.settings.embedder):
                codes.append("embedder_pending")
    except (SnapshotError, EmbedderError) as error:
        fatal = True
        if not codes:
            codes.append("no_snapshot")
        _log.warning("no snapshot can be served", action="not_ready", **error_fields(error))
    except OverlayError as error:
        fatal = True
        codes.append("overlay_unavailable")
        _log.error("deletions and overrides cannot be read", action="not_ready", **error_fields(error))
    try:
        services.state.check()
    except StateError as error:
        fatal = True
        codes.append("state_unavailable")
        _log.warning("conversations cannot be written", action="not_ready", **error_fields(error))
    return fatal, codes, snapshot


def _last_run(runs: Runs) -> dict[str, str | int] | None:
    """The last run that has ended: its id, its status, when, and how many documents it could not read."""
    last = runs.overview().last
    if last is None:
        return None
    return {
        "run_id": last["run"],
        "status": last["status"],
        "ended_at": last["ended_at"] or last["started_at"] or "",
        "failures": last["failures"],
    }


def _is_administrator(request: Request, services: Services) -> bool:
    host = request.client.host if request.client is not None else None
    try:
        return authenticate(services.settings.server, request.headers.get("authorization"), host).administrator
    except Unauthorized:
        return False


def _exposition(services: Services, runs: Runs) -> bytes:
    services.metrics.show_runs(runs.overview(), STATUSES)
    services.metrics.show_held(_is_held(services))
    try:
        with services.snapshots.lease() as leased:
            opened = leased.snapshot
            services.metrics.show_snapshot(*opened.store.counts(), opened.created_at)
    except (SnapshotError, EmbedderError, OverlayError):
        services.metrics.show_no_snapshot()
    return services.metrics.text()


def _is_held(services: Services) -> bool:
    try:
        return held(services.settings.data_dir) is not None
    except SnapshotError:
        return True  # a file that names none stops every run too
