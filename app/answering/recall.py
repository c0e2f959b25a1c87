"""The conversation so far, with access and labels decided again from where each earlier answer came from."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from app.access import Caller
from app.answering.types import Ask
from app.state.messages import StoredPassage, StoredTurn
from corpus.snapshot import OpenSnapshot
from corpus.standing import Rested
from corpus.types import Message, Passage

if TYPE_CHECKING:
    from app.services import Services


@dataclass(frozen=True, slots=True)
class Recalled:
    """The earlier turns that may be used, oldest first, the highest label of what they rest on, and those passages."""

    conversation_id: str | None
    messages: tuple[Message, ...]
    label: str
    inherited: tuple[StoredPassage, ...]


def stored(passages: Iterable[Passage]) -> tuple[StoredPassage, ...]:
    """Passages as provenance."""
    return tuple(StoredPassage(p.chunk_id, p.document_id, p.version, p.label) for p in passages)


async def recall(services: Services, caller: Caller, ask: Ask, snapshot: OpenSnapshot) -> Recalled:
    """The earlier turns of a stored conversation, or those that a stateless caller sent.

    Raises: NotFound for a conversation that is not the caller's.
    """
    if ask.conversation_id is not None:
        turns = await services.compute(services.state.history, caller.owner, ask.conversation_id)
        return await services.compute(_of_turns, services, caller, ask.conversation_id, turns, snapshot)
    return await services.compute(_of_messages, services, caller, ask.messages, snapshot)


async def recall_before(
    services: Services, caller: Caller, conversation_id: str, position: int, snapshot: OpenSnapshot
) -> Recalled:
    """The turns of a stored conversation before a position, as they may be used today: to ask again what stands there.

    Raises: NotFound for a conversation that is not the caller's.
    """

    def turns() -> tuple[StoredTurn, ...]:
        return services.state.history(caller.owner, conversation_id, before=position)

    return await services.compute(_of_turns, services, caller, conversation_id, await services.compute(turns), snapshot)


def may_be_used(passages: Iterable[StoredPassage], visible: Container[Rested]) -> bool:
    """Whether an answer may be used that rests on these passages, where those versions are visible to whoever asks."""
    return all(passage.rested in visible for passage in passages)


def _of_turns(
    services: Services, caller: Caller, conversation_id: str, turns: Sequence[StoredTurn], snapshot: OpenSnapshot
) -> Recalled:
    """An answer that rests on a document the caller may not see any more is left out; the caller's own words stay."""
    messages: list[Message] = []
    used: list[StoredPassage] = []
    today = snapshot.store.standing([p.rested for turn in turns for p in turn.passages], caller.groups)
    for turn in turns:
        messages.append(Message("user", turn.question))
        if may_be_used(turn.passages, today):
            messages.append(Message("assistant", turn.answer))
            used += turn.passages
    labels = [p.label for p in used] + [today[p.rested] for p in used]
    return Recalled(conversation_id, tuple(messages), services.settings.labels.highest(labels), tuple(dict.fromkeys(used)))


def _of_messages(services: Services, caller: Caller, messages: Sequence[Message], snapshot: OpenSnapshot) -> Recalled:
    """The same for the turns that a stateless caller sent: an answer of ours is known by its words.

    One that is not known could rest on anything, also on what its caller could see then and cannot now: it counts with the
    highest label of any document there is.
    """
    kept: list[Message] = []
    used: list[StoredPassage] = []
    for message in messages:
        passages: tuple[StoredPassage, ...] | None = ()
        if message.role == "assistant":
            passages = services.given.recall(message.content)
        if passages is None:
            highest = services.settings.labels.highest(snapshot.store.labels_in_use())
            passages = (StoredPassage("", "", "", highest),)
        today = snapshot.store.standing([p.rested for p in passages if p.document_id], caller.groups)
        if any(p.document_id and p.rested not in today for p in passages):
            continue
        kept.append(message)
        # What an answer was labelled when it was given counts as well as what its documents are labelled today.
        used += [*passages, *(replace(p, label=today[p.rested]) for p in passages if p.document_id)]
    inherited = tuple(dict.fromkeys(used))
    return Recalled(None, tuple(kept), services.settings.labels.highest([p.label for p in inherited]), inherited)
