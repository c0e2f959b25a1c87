"""The conversation so far, with access and labels decided again from where each earlier answer came from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.access import Caller
from app.answering.types import Ask
from app.state.messages import StoredPassage, StoredTurn
from corpus.snapshot import OpenSnapshot
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


def _of_turns(
    services: Services, caller: Caller, conversation_id: str, turns: Sequence[StoredTurn], snapshot: OpenSnapshot
) -> Recalled:
    """An answer that rests on a document the caller may not see any more is left out; the caller's own words stay."""
    messages: list[Message] = []
    used: list[StoredPassage] = []
    today = snapshot.store.labels([p.document_id for turn in turns for p in turn.passages], caller.groups)
    for turn in turns:
        messages.append(Message("user", turn.question))
        if all(passage.document_id in today for passage in turn.passages):
            messages.append(Message("assistant", turn.answer))
            used += turn.passages
    labels = [p.label for p in used] + [today[p.document_id] for p in used]
    return Recalled(conversation_id, tuple(messages), services.settings.labels.highest(labels), tuple(dict.fromkeys(used)))


def _of_messages(services: Services, caller: Caller, messages: Sequence[Message], snapshot: OpenSnapshot) -> Recalled:
    used: list[StoredPassage] = []
    labels: list[str] = []
    for message in messages:
        if message.role != "assistant":
            continue
        passages = services.given.recall(message.content)
        if passages is None:
            # It could rest on anything that its caller may see, and so could all that is written with it in view.
            highest = services.settings.labels.highest(snapshot.store.labels_visible(caller.groups))
            passages = (StoredPassage("", "", "", highest),)
        used += passages
        # What an answer was labelled when it was given counts, also where its documents are gone.
        labels += [p.label for p in passages]
        today = snapshot.store.labels([p.document_id for p in passages], caller.groups)
        labels += today.values()
        if any(p.document_id not in today for p in passages):
            labels += snapshot.store.labels_visible(caller.groups)
    return Recalled(None, tuple(messages), services.settings.labels.highest(labels), tuple(dict.fromkeys(used)))
