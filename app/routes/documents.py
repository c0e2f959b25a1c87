"""/v1/documents: the documents that the caller may see."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from app.access import Caller
from app.requests import StrictRoute
from app.routes.shared import AdministratorOf, CallerOf, CursorOf, LimitOf, ServicesOf, problems
from app.schemas import DocumentList, DocumentShown, DocumentText
from app.services import Services
from app.uploads import Uploads
from corpus.effects import Seen
from corpus.errors import Gone, NoSnapshot, NotFound
from corpus.snapshot import OpenSnapshot

router = APIRouter(route_class=StrictRoute, tags=["documents"])


@router.get("/v1/documents", summary="List documents", responses=problems(422, 503))
async def list_documents(services: ServicesOf, caller: CallerOf, cursor: CursorOf = None, limit: LimitOf = 50) -> DocumentList:
    """The documents of the snapshot served now, ordered by id."""
    return await services.compute(_listed, services, caller, cursor, limit)


@router.get("/v1/documents/{document_id}", summary="Show a document", responses=problems(404, 410, 422, 503))
async def show_document(
    services: ServicesOf,
    caller: CallerOf,
    document_id: Annotated[str, Path(max_length=64)],
    version: Annotated[str | None, Query(max_length=64, description="410 where this is not the current version.")] = None,
) -> DocumentText:
    """A document with its text, which citations' start and end count in."""
    return await services.compute(_shown, services, caller, document_id, version)


@router.delete(
    "/v1/documents/{document_id}", summary="Delete a document", status_code=204, responses=problems(403, 404, 422, 503)
)
async def delete_document(
    request: Request, services: ServicesOf, caller: AdministratorOf, document_id: Annotated[str, Path(max_length=64)]
) -> Response:
    """Nobody finds it from the next request on, and no run brings it back. An uploaded file is removed with it.

    It may be one that only other groups see.
    """
    await services.compute(_deleted, services, request.app.state.uploads, caller, document_id)
    return Response(status_code=204)


def _listed(services: Services, caller: Caller, cursor: str | None, limit: int) -> DocumentList:
    with services.snapshots.lease() as leased:
        found = leased.snapshot.store.document_summaries(caller.groups, after=cursor, limit=limit + 1)
    page = found[:limit]
    return DocumentList(
        documents=[DocumentShown.model_validate(each) for each in page],
        next_cursor=page[-1].document_id if len(found) > limit else None,
    )


def _shown(services: Services, caller: Caller, document_id: str, version: str | None) -> DocumentText:
    with services.snapshots.lease() as leased:
        document = leased.snapshot.store.document(document_id, caller.groups)
    if document is None:
        raise NotFound("document", document_id)
    if version is not None and version != document.version:
        raise Gone(document_id, version, document.version)
    return DocumentText.model_validate(document)


def _deleted(services: Services, uploads: Uploads, caller: Caller, document_id: str) -> None:
    """Whatever groups may see it: an administrator must be able to take back what others were given."""
    seen = None
    try:
        with services.snapshots.lease() as leased:
            seen = _seen(services, leased.snapshot, document_id)
    except NoSnapshot:
        pass  # what was uploaded before the first run can be taken back
    if seen is None and uploads.name_of(document_id) is None:
        raise NotFound("document", document_id)
    services.overlay.delete(document_id, caller.owner, seen)
    # Looked for again: an upload may have ended meanwhile.
    uploads.remove(document_id)


def _seen(services: Services, snapshot: OpenSnapshot, document_id: str) -> Seen | None:
    """What a snapshot knows of a document, also of one that nobody may see; None where it has none, or it is deleted."""
    stored, seen = snapshot.store.stored, snapshot.seen(document_id)
    if seen.version:
        deleted = document_id in stored.ids_of(snapshot.store.overlaid().deleted)
    elif any(record.document_id == document_id for record in stored.effect_records()):
        deleted = services.overlay.effects().effect(document_id).deleted
    else:
        return None
    return None if deleted else seen
