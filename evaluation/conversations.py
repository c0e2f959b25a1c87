"""Stored conversations as questions: what was asked, and what was answered then, as far as its owner may still see it.

What a stored answer cited is a reference to compare with. Nobody has said that it was right.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from app.answering.recall import may_be_used
from app.settings import ConversationSettings
from app.state.messages import StoredMessage
from app.state.state import State
from corpus.errors import ArchivistError, ConfigError
from corpus.overlay import NAME, Overlay
from corpus.published import current_id
from corpus.settings import SearchSettings
from corpus.snapshot import OpenSnapshot, open_snapshot
from corpus.standing import Rested
from evaluation.golden import AS_ANSWERED_THEN, TURN_OF, Question, Then
from evaluation.metrics import Metric

PAGE = 200

AS_THEN = {
    "success": ("a document cited then, first {k}", "a document that the stored answer cited is among the first {k}"),
    "recall": ("recall, cited then, first {k}", "share of the documents cited then that are among the first {k}"),
    "ndcg": ("nDCG, cited then, first {k}", "how high the documents cited then stand among the first {k}"),
    "mrr": ("rank of one cited then, first {k}", "1 over the place of the first document cited then, 0 beyond {k}"),
    "precision": ("precision, cited then, first {k}", "share of the first {k} documents that were cited then"),
    "f1": ("F1, cited then, first {k}", "harmonic mean of the precision and recall against the documents cited then"),
    "citation_precision": ("cited then too", "share of the documents cited now that were cited then"),
    "citation_recall": ("still cited", "share of the documents cited then that are cited now"),
}
"""How metrics are called where the reference is what a stored answer cited, which may have been wrong: title and meaning."""


@dataclass(frozen=True, slots=True)
class Side:
    """Where questions will be asked again: over this snapshot (None = the current one), by somebody of these groups."""

    snapshot: str | None
    groups: tuple[str, ...]


def check_replay(conversations: ConversationSettings, file: str) -> None:
    """Whether a configuration lets stored conversations be asked again. Raises: ConfigError."""
    if not conversations.replay:
        raise ConfigError(
            f"--from-conversations: {file} does not allow it. It reads what people asked, shows it in its reports and sends it "
            "to the configured LLM once more; where those people agree, set conversations.replay to true"
        )


def draw(data_dir: Path, owner: str, sides: Sequence[Side], since: datetime | None, limit: int | None) -> list[Question]:
    """The questions of an owner's conversations, of those turns that have a whole answer.

    An answer that rests on a document which is not to be seen on every side is no reference. Order: conversations last used
    first, the turns of each as they were asked; of these the first `limit`.
    Raises: ArchivistError where there is none; NoSnapshot and its kin, StateError.
    """
    path = data_dir / "service.db"
    if not path.exists():
        raise ArchivistError(f"no conversation is stored in {str(data_dir)!r}; name the service's folder with --data")
    state = State(path)
    try:
        with ExitStack() as opened:
            overlay = Overlay(data_dir / NAME)
            opened.callback(overlay.close)
            snapshots = [(_opened(data_dir, side, opened, overlay), side.groups) for side in sides]
            found = list(_questions(state, owner, snapshots, since, limit))
    finally:
        state.close()
    if not found:
        after = f" since {since.date()}" if since is not None else ""
        raise ArchivistError(f"no answered question of {owner!r} is stored in {str(path)!r}{after}; check --owner and --since")
    return found


def as_then(metric: Metric) -> Metric:
    """The metric under the title that it has where the reference is what a stored answer cited: more is not better then."""
    base, _, depth = metric.name.partition("@")
    if base not in AS_THEN:
        return metric
    title, means = AS_THEN[base]
    return replace(metric, title=title.format(k=depth), means=means.format(k=depth), better="neither")


def _opened(data_dir: Path, side: Side, opened: ExitStack, overlay: Overlay) -> OpenSnapshot:
    snapshot = open_snapshot(data_dir, side.snapshot or current_id(data_dir), SearchSettings(), overlay)
    opened.callback(snapshot.close)
    return snapshot


def _questions(
    state: State,
    owner: str,
    snapshots: Sequence[tuple[OpenSnapshot, tuple[str, ...]]],
    since: datetime | None,
    limit: int | None,
) -> Iterator[Question]:
    count = 0
    for conversation_id in _conversations(state, owner, since):
        messages = _messages(state, owner, conversation_id)
        needed = [passage.rested for message in messages for passage in message.passages]
        visible = set.intersection(*(set(snapshot.store.standing(needed, groups)) for snapshot, groups in snapshots))
        for asked, answered in pairwise(messages):
            if asked.role != "user" or answered.role != "assistant" or answered.status != "complete":
                continue
            if since is not None and answered.created_at < since:
                continue
            if count == limit:
                return
            count += 1
            yield _question(owner, conversation_id, asked, answered, visible)


def _conversations(state: State, owner: str, since: datetime | None) -> Iterator[str]:
    cursor = None
    while True:
        page, cursor = state.conversations(owner, cursor, PAGE)
        for conversation in page:
            if since is not None and conversation.updated_at < since:
                return
            yield conversation.conversation_id
        if cursor is None:
            return


def _messages(state: State, owner: str, conversation_id: str) -> list[StoredMessage]:
    found: list[StoredMessage] = []
    before, has_older = None, True
    while has_older:
        page, has_older = state.messages(owner, conversation_id, before, PAGE)
        found[:0] = page
        before = page[0].position if page else 0
    return found


def _question(
    owner: str, conversation_id: str, asked: StoredMessage, answered: StoredMessage, visible: set[Rested]
) -> Question:
    usable = may_be_used(answered.passages, visible)
    # A question back cites what it could mean, which is no answer.
    citations = answered.citations if usable and not answered.abstained else ()
    return Question(
        id=f"{conversation_id}{TURN_OF}{asked.position}",
        question=asked.content,
        gold={citation.document_id: 1 for citation in citations},
        answerability=AS_ANSWERED_THEN,
        conversation=conversation_id,
        then=Then(
            owner=owner,
            conversation_id=conversation_id,
            position=asked.position,
            abstained=answered.abstained if usable else None,
            cited=tuple(dict.fromkeys(citation.source for citation in citations)),
        ),
    )
