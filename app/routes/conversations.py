"""/v1/conversations: a caller's own conversations. Access to what an answer rests on is decided again on every read."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from app.access import Caller
from app.answering.recall import may_be_used
from app.requests import StrictRoute
from app.routes.shared import Busy, CallerOf, CursorOf, LimitOf, ServicesOf, problems
from app.schemas import (
    Citation,
    ConversationList,
    ConversationMessages,
    ConversationShown,
    Grounding,
    MessageShown,
    Usage,
)
from app.services import Services
from app.state.messages import StoredMessage
from corpus.errors import Invalid
from corpus.standing import Rested

WITHDRAWN = "This answer rests on a document that is no longer available to you."

router = APIRouter(route_class=StrictRoute, tags=["conversations"])

ConversationId = Annotated[str, Path(max_length=64)]


@router.get("/v1/conversations", summary="List conversations", responses=problems(422, 503))
async def list_conversations(
    services: ServicesOf, caller: CallerOf, cursor: CursorOf = None, limit: LimitOf = 50
) -> ConversationList:
    """The caller's conversations, last used first."""
    page, following = await services.compute(services.state.conversations, caller.owner, cursor, limit)
    return ConversationList(conversations=[ConversationShown.model_validate(each) for each in page], next_cursor=following)


@router.get("/v1/conversations/{conversation_id}", summary="Show a conversation", responses=problems(404, 422, 503))
async def show_conversation(
    services: ServicesOf,
    caller: CallerOf,
    conversation_id: ConversationId,
    cursor: CursorOf = None,
    limit: LimitOf = 200,
) -> ConversationMessages:
    """A conversation with its newest messages; answers from documents that are not visible any more are withdrawn."""
    return await services.compute(_shown, services, caller, conversation_id, _position(cursor), limit)


@router.delete(
    "/v1/conversations/{conversation_id}",
    summary="Delete a conversation",
    status_code=204,
    responses=problems(403, 404, 409, 422, 503),
)
async def delete_conversation(
    request: Request, services: ServicesOf, caller: CallerOf, conversation_id: ConversationId
) -> Response:
    """Erases a conversation with all its messages."""
    busy: Busy = request.app.state.busy
    with busy.held(caller.owner, conversation_id):
        await services.compute(services.state.delete_conversation, caller.owner, conversation_id)
    return Response(status_code=204)


def _position(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    if not cursor.isascii() or not cursor.isdigit() or len(cursor) > 9:
        raise Invalid("cursor is not one that this service gave out; leave it away to begin anew", "cursor")
    return int(cursor)


def _shown(services: Services, caller: Caller, conversation_id: str, before: int | None, limit: int) -> ConversationMessages:
    conversation = services.state.conversation(caller.owner, conversation_id)
    messages, has_older = services.state.messages(caller.owner, conversation_id, before, limit)
    needed = {passage.rested for message in messages for passage in message.passages}
    visible: set[Rested] = set()
    if needed:
        with services.snapshots.lease() as leased:
            visible = set(leased.snapshot.store.standing(sorted(needed), caller.groups))
    return ConversationMessages(
        **ConversationShown.model_validate(conversation).model_dump(),
        messages=[_message(message, visible) for message in messages],
        next_cursor=str(messages[0].position) if has_older else None,
    )


def _message(message: StoredMessage, visible: set[Rested]) -> MessageShown:
    withdrawn = not may_be_used(message.passages, visible)
    # A rewritten question and the sentences that nothing supports can repeat what the documents said, so they go too.
    return MessageShown(
        message_id=message.message_id,
        role=message.role,
        content=WITHDRAWN if withdrawn else message.content,
        status=message.status,
        created_at=message.created_at,
        withdrawn=withdrawn,
        abstained=message.abstained,
        clarifies=message.clarifies,
        citations=[] if withdrawn else [Citation.model_validate(each) for each in message.citations],
        standalone_question=None if withdrawn else message.standalone_question,
        provider=message.provider,
        model=message.model,
        route=message.route,
        snapshot=message.snapshot,
        usage=None if message.usage is None else Usage.model_validate(message.usage),
        grounding=None if withdrawn or message.grounding is None else Grounding.model_validate(message.grounding),
        timings_ms=message.timings_ms,
    )
