"""Conversations and their messages. Every call names the owner: what is somebody else's is not there."""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from app.answering.types import Answer
from app.state import tables
from app.state.database import Database
from app.state.messages import (
    PartialAnswer,
    Status,
    StoredMessage,
    StoredPassage,
    StoredTurn,
    columns_of,
    message_of,
    passage_rows,
)
from corpus.errors import Invalid, NotFound

TITLE_CHARS = 80


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation without its messages. `title` is its first question, shortened."""

    conversation_id: str
    title: str
    created_at: datetime
    updated_at: datetime


def new_id() -> str:
    """A random, URL-safe id that nobody can guess: 22 characters."""
    return secrets.token_urlsafe(16)


class Conversations(Database):
    """What is kept of conversations."""

    def create_conversation(self, owner: str, title: str) -> str:
        """A new, empty conversation; `title` is its first question. Returns its id."""
        now, conversation_id = _now(), new_id()
        with self._write() as connection:
            connection.execute(
                tables.conversations.insert().values(
                    conversation_id=conversation_id,
                    owner=owner,
                    title=_shortened(title),
                    created_at=now,
                    updated_at=now,
                )
            )
        return conversation_id

    def begin_turn(self, owner: str, conversation_id: str | None, question: str) -> str:
        """The id of the conversation that a question goes to: the given one, or a new one named after the question.

        Raises: NotFound where the given one does not exist or is another owner's.
        """
        if conversation_id is None:
            return self.create_conversation(owner, question)
        return self.conversation(owner, conversation_id).conversation_id

    def conversation(self, owner: str, conversation_id: str) -> Conversation:
        """One conversation. Raises: NotFound where it does not exist or is another owner's."""
        with self._read() as connection:
            return _conversation(_owned(connection, owner, conversation_id))

    def conversations(self, owner: str, after: str | None, limit: int) -> tuple[tuple[Conversation, ...], str | None]:
        """A page of the owner's conversations and the cursor of the next page, None on the last.

        Order: last used first. Raises: Invalid where `after` is not a cursor of ours.
        """
        table = tables.conversations
        query = sa.select(table).where(table.c.owner == owner)
        if after is not None:
            query = query.where(sa.tuple_(table.c.updated_at, table.c.conversation_id) < sa.tuple_(*_decoded(after)))
        query = query.order_by(table.c.updated_at.desc(), table.c.conversation_id.desc()).limit(limit + 1)
        with self._read() as connection:
            rows = connection.execute(query).all()
        page = rows[:limit]
        more = len(rows) > limit
        cursor = _encoded(page[-1].updated_at, page[-1].conversation_id) if more else None
        return tuple(_conversation(row) for row in page), cursor

    def messages(
        self, owner: str, conversation_id: str, before: int | None = None, limit: int = 200
    ) -> tuple[tuple[StoredMessage, ...], bool]:
        """The newest messages of a conversation (before position `before`, if given), and whether there are older ones.

        Order: as they were written. Raises: NotFound where the conversation is not the owner's.
        """
        query = sa.select(tables.messages).where(tables.messages.c.conversation_id == conversation_id)
        if before is not None:
            query = query.where(tables.messages.c.position < before)
        with self._read() as connection:
            _owned(connection, owner, conversation_id)
            rows = connection.execute(query.order_by(tables.messages.c.position.desc()).limit(limit + 1)).all()
            page = rows[limit - 1 :: -1] if len(rows) > limit else rows[::-1]
            passages = _passages(connection, [row.message_id for row in page])
        return tuple(message_of(row, passages.get(row.message_id, ())) for row in page), len(rows) > limit

    def history(
        self, owner: str, conversation_id: str, limit: int = 100, *, before: int | None = None
    ) -> tuple[StoredTurn, ...]:
        """The newest complete turns of a conversation (before position `before`, if given), `limit` at most.

        Order: oldest first. Raises: NotFound where the conversation is not the owner's.
        """
        question, answer = tables.messages.alias("question"), tables.messages.alias("answer")
        turns = (
            sa.select(answer.c.message_id, question.c.content.label("question"), answer.c.content.label("answer"))
            .join_from(
                answer,
                question,
                sa.and_(
                    question.c.conversation_id == answer.c.conversation_id,
                    question.c.position == answer.c.position - 1,
                ),
            )
            .where(answer.c.conversation_id == conversation_id, answer.c.role == "assistant", answer.c.status == "complete")
            .order_by(answer.c.position.desc())
            .limit(limit)
        )
        if before is not None:
            turns = turns.where(answer.c.position < before)
        with self._read() as connection:
            _owned(connection, owner, conversation_id)
            rows = connection.execute(turns).all()
            passages = _passages(connection, [row.message_id for row in rows])
        return tuple(
            StoredTurn(row.message_id, row.question, row.answer, passages.get(row.message_id, ())) for row in reversed(rows)
        )

    def add_turn(
        self,
        owner: str,
        conversation_id: str,
        question: str,
        answer: Answer | PartialAnswer,
        status: Status,
        *,
        prompt_version: str | None = None,
        inherited: Iterable[StoredPassage] = (),
    ) -> str:
        """Store a question and what came of it in one transaction. Returns the id of the assistant's message.

        `inherited` are the passages of the earlier turns that were in the prompt: the answer may repeat them, so it is
        withdrawn with them. An `Answer` with a `message_id` keeps it.
        Raises: NotFound where the conversation is not the owner's (any more).
        """
        now = _now()
        message_id = (answer.message_id if isinstance(answer, Answer) else None) or new_id()
        with self._write() as connection:
            _owned(connection, owner, conversation_id)
            last = connection.execute(
                sa.select(sa.func.max(tables.messages.c.position)).where(tables.messages.c.conversation_id == conversation_id)
            ).scalar_one()
            position = 0 if last is None else last + 1
            common = {"conversation_id": conversation_id, "status": status, "created_at": now}
            asked = {"message_id": new_id(), "position": position, "role": "user", "content": question}
            connection.execute(tables.messages.insert().values(**common, **asked))
            connection.execute(
                tables.messages.insert().values(
                    **common,
                    **columns_of(answer),
                    message_id=message_id,
                    position=position + 1,
                    role="assistant",
                    prompt_version=prompt_version,
                )
            )
            rows = passage_rows(message_id, answer.passages, inherited)
            if rows:
                connection.execute(tables.message_passages.insert(), rows)
            connection.execute(
                tables.conversations.update()
                .where(tables.conversations.c.conversation_id == conversation_id)
                .values(updated_at=now)
            )
        return message_id

    def delete_conversation(self, owner: str, conversation_id: str) -> None:
        """Erase a conversation with its messages, from the file too.

        Raises: NotFound where it does not exist or is another owner's.
        """
        with self._write() as connection:
            _owned(connection, owner, conversation_id)
            connection.execute(tables.conversations.delete().where(tables.conversations.c.conversation_id == conversation_id))
        # secure_delete blanks the pages; the write-ahead log still holds the old ones until it is emptied.
        with self._translated(), self._driver_connection() as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _shortened(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= TITLE_CHARS else words[: TITLE_CHARS - 1].rstrip() + "…"


def _encoded(updated_at: str, conversation_id: str) -> str:
    return base64.urlsafe_b64encode(f"{updated_at} {conversation_id}".encode()).decode("ascii").rstrip("=")


def _decoded(cursor: str) -> tuple[str, str]:
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        updated_at, conversation_id = base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii").split(" ")
        datetime.fromisoformat(updated_at)
    except (ValueError, binascii.Error) as error:
        raise Invalid("cursor is not one that this service gave out; leave it away to begin anew", "cursor") from error
    return updated_at, conversation_id


def _owned(connection: sa.Connection, owner: str, conversation_id: str) -> sa.Row[Any]:
    row = connection.execute(
        sa.select(tables.conversations).where(
            tables.conversations.c.conversation_id == conversation_id, tables.conversations.c.owner == owner
        )
    ).one_or_none()
    if row is None:
        raise NotFound("conversation", conversation_id)
    return row


def _conversation(row: sa.Row[Any]) -> Conversation:
    return Conversation(
        row.conversation_id,
        row.title,
        datetime.fromisoformat(row.created_at),
        datetime.fromisoformat(row.updated_at),
    )


def _passages(connection: sa.Connection, message_ids: Sequence[str]) -> dict[str, tuple[StoredPassage, ...]]:
    rows = connection.execute(
        sa.select(tables.message_passages)
        .where(tables.message_passages.c.message_id.in_(message_ids))
        .order_by(tables.message_passages.c.message_id, tables.message_passages.c.number)
    )
    found: dict[str, list[StoredPassage]] = {}
    for row in rows:
        passage = StoredPassage(row.chunk_id, row.document_id, row.version, row.label)
        found.setdefault(row.message_id, []).append(passage)
    return {message_id: tuple(passages) for message_id, passages in found.items()}
