"""POST /v1/documents: a document is uploaded, and found after the next run of the job. For administrators."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import ConfigDict, Field
from starlette.exceptions import HTTPException

from app import examples
from app.access import Caller
from app.requests import StrictRoute
from app.routes.ingest import RunsOf
from app.routes.shared import AdministratorOf, ServicesOf, problems
from app.runs import Runs
from app.schemas import Shown
from app.services import Services
from app.uploads import UPLOADS, Said, Uploads, checked_name, document_of, kinds_read
from corpus.errors import Conflict, Invalid
from corpus.formats import format_of

router = APIRouter(route_class=StrictRoute, tags=["documents"])

FORM_TYPES = ("multipart/form-data", "application/x-www-form-urlencoded")
MAX_GROUPS = 100
AFTER_RUN = "found once a run of the job that begins from now on has published"

BODY = {
    "required": True,
    "description": "The file itself.",
    "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary", "minLength": 1}}},
}


class Uploaded(Shown):
    """What was stored. `document_id` is null for an export (.jsonl), whose rows have ids of their own."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.UPLOADED]})

    document_id: str | None
    source: str
    collection: str
    size_bytes: int
    groups: list[str]
    label: str
    replaced: bool = Field(description="Whether it took the place of an earlier file of that name.")
    run_id: str | None = Field(description="The run that was started for it.")
    detail: str = Field(description="When it can be found.")


@router.post(
    "/v1/documents",
    summary="Upload a document",
    status_code=201,
    responses={**problems(403, 409, 415, 422, 503), 200: {"description": "It took another's place.", "model": Uploaded}},
    openapi_extra={"requestBody": BODY},
)
async def upload_document(
    request: Request,
    response: Response,
    services: ServicesOf,
    runs: RunsOf,
    caller: AdministratorOf,
    name: Annotated[str, Query(min_length=1, max_length=300, description="The file's name; its ending says how it is read.")],
    title: Annotated[str | None, Query(max_length=300, description="Its title; else the document's own.")] = None,
    label: Annotated[str | None, Query(max_length=100, description="Its label; else labels.default.")] = None,
    groups: Annotated[
        str | None, Query(max_length=2000, description="Who may see it, separated by commas; else the caller's groups.")
    ] = None,
    ingest: Annotated[bool, Query(description="Whether a run of the job is started for it.")] = False,
) -> Uploaded:
    """Stores a file, sent as it is; one of the same name takes its place. It is found after the next run of the job."""
    _require_file(request)
    stored = checked_name(name)
    if format_of(stored) is None:
        raise HTTPException(415, f"{stored[:80]!r} is of no kind that is read; known: {kinds_read()}")
    said = _said(services, caller, title, label, groups)
    await services.compute(_refuse_deleted, services, stored)
    size_bytes, replaced = await _store(request, services, stored, said)
    run_id, detail = await services.compute(_started, runs, ingest)
    document_id = document_of(stored)
    response.status_code = 200 if replaced else 201
    if document_id is not None:
        response.headers["Location"] = f"/v1/documents/{document_id}"
    return Uploaded(
        document_id=document_id, source=stored, collection=UPLOADS, size_bytes=size_bytes, groups=list(said.groups),
        label=said.label, replaced=replaced, run_id=run_id, detail=detail,
    )  # fmt: skip


def _require_file(request: Request) -> None:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type in FORM_TYPES:
        raise HTTPException(415, "send the file itself, with the header Content-Type: application/octet-stream; not a form")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise HTTPException(415, "a compressed body is not taken; send it without Content-Encoding")


def _said(services: Services, caller: Caller, title: str | None, label: str | None, groups: str | None) -> Said:
    order = services.settings.labels.order
    if label is not None and label not in order:
        raise Invalid(f"label {label!r} is not in labels.order; known: {', '.join(order)}", "label")
    given = caller.groups if groups is None else tuple(sorted({group.strip() for group in groups.split(",")} - {""}))
    if not given or len(given) > MAX_GROUPS or not all(group.isprintable() for group in given):
        raise Invalid(f"groups must name 1 to {MAX_GROUPS} groups, separated by commas: those who may see it", "groups")
    return Said(given, label or services.settings.labels.default, " ".join((title or "").split()) or None)


def _refuse_deleted(services: Services, name: str) -> None:
    document_id = document_of(name)
    if document_id is None or not services.overlay.effects().effect(document_id).deleted:
        return
    numbers = [
        entry.number
        for entry in services.overlay.entries()
        if (entry.kind, entry.document_id, entry.undone_at) == ("delete", document_id, None)
    ]
    entry = f"override {numbers[-1]}" if numbers else "an override of the document that was moved here"
    undo = f"archivist documents undo {numbers[-1]}" if numbers else "archivist documents overrides"
    raise Conflict(f"{name!r} was deleted ({entry}) and would not come back; run `{undo}` first, or give it another name")


async def _store(request: Request, services: Services, name: str, said: Said) -> tuple[int, bool]:
    """Receive the body and put it in place; its size, and whether it took another's place."""
    uploads: Uploads = request.app.state.uploads
    received = await services.compute(uploads.receive)
    size_bytes = 0
    try:
        async for data in request.stream():
            if data:
                size_bytes += len(data)
                await services.compute(uploads.add, received, data)
        if not size_bytes:
            raise Invalid("the body is empty; send the file itself", "body")
        # Again: it may have been deleted meanwhile.
        check = partial(_refuse_deleted, services, name)
        return size_bytes, await services.compute(uploads.put, received, name, said, check)
    finally:
        await services.compute(uploads.discard, received)


def _started(runs: Runs, wanted: bool) -> tuple[str | None, str]:
    if not wanted:
        return None, f"{AFTER_RUN}; POST /v1/ingest starts one"
    try:
        return runs.start(), AFTER_RUN
    except Conflict as error:
        return None, f"{AFTER_RUN}; none was started: {error}"
