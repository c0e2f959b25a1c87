"""service.db: conversations and messages with their provenance. The only module of the service that imports SQLAlchemy.

Synchronous; the service calls it off the event loop. Every call names the owner: what is somebody else's is not there.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import secrets
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, cast

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from app.answering.types import Answer, Citation, Grounding
from app.llm.backend import Usage
from corpus.errors import Invalid, NotFound, StateError
from corpus.types import Passage

SCHEMA_VERSION = 1
APPLICATION_ID = 0x41524356  # "ARCV", so that another program's database is not taken for ours

TITLE_CHARS = 80

Status = Literal["complete", "cancelled", "failed"]

_metadata = sa.MetaData()

_conversations = sa.Table(
    "conversations",
    _metadata,
    sa.Column("conversation_id", sa.Text, primary_key=True),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("title", sa.Text, nullable=False),
    sa.Column("created_at", sa.Text, nullable=False),
    sa.Column("updated_at", sa.Text, nullable=False),
    sa.Index("conversations_by_owner", "owner", "updated_at", "conversation_id"),
)

_messages = sa.Table(
    "messages",
    _metadata,
    sa.Column("message_id", sa.Text, primary_key=True),
    sa.Column(
        "conversation_id",
        sa.Text,
        sa.ForeignKey("conversations.conversation_id", ondelete="CASCADE"),
        nullable=False,
    ),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("role", sa.Text, nullable=False),
    sa.Column("content", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("created_at", sa.Text, nullable=False),
    sa.Column("standalone_question", sa.Text),
    sa.Column("provider", sa.Text),
    sa.Column("model", sa.Text),
    sa.Column("route", sa.Text),
    sa.Column("snapshot", sa.Text),
    sa.Column("prompt_version", sa.Text),
    sa.Column("prompt_tokens", sa.Integer),
    sa.Column("completion_tokens", sa.Integer),
    sa.Column("cost_usd", sa.Float),
    sa.Column("estimated", sa.Boolean),
    sa.Column("timings", sa.Text),
    sa.Column("citations", sa.Text),
    sa.Column("grounding", sa.Text),
    sa.Column("abstained", sa.Boolean),
    sa.UniqueConstraint("conversation_id", "position"),
)

_message_passages = sa.Table(
    "message_passages",
    _metadata,
    sa.Column("message_id", sa.Text, sa.ForeignKey("messages.message_id", ondelete="CASCADE"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("chunk_id", sa.Text, nullable=False),
    sa.Column("document_id", sa.Text, nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("label", sa.Text, nullable=False),
)


@dataclass(frozen=True, slots=True)
class StoredPassage:
    """A passage that an answer was written from: enough to decide access and clearance again."""

    chunk_id: str
    document_id: str
    version: str
    label: str


@dataclass(frozen=True, slots=True)
class StoredTurn:
    """One complete question and answer. `passages` are all that the answer rests on, those of its history included."""

    message_id: str
    question: str
    answer: str
    passages: tuple[StoredPassage, ...]


@dataclass(frozen=True, slots=True)
class PartialAnswer:
    """What is known of an answer that was cancelled or failed."""

    answer: str = ""
    standalone_question: str = ""
    provider: str = ""
    model: str = ""
    route: str = ""
    snapshot: str = ""
    passages: tuple[Passage, ...] = ()


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation without its messages. `title` is its first question, shortened."""

    conversation_id: str
    title: str
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """One message as it was stored; from `standalone_question` on only an assistant message has values."""

    message_id: str
    position: int
    role: Literal["user", "assistant"]
    content: str
    status: Status
    created_at: datetime
    standalone_question: str | None = None
    provider: str | None = None
    model: str | None = None
    route: str | None = None
    snapshot: str | None = None
    prompt_version: str | None = None
    usage: Usage | None = None
    timings_ms: dict[str, float] = field(default_factory=dict)
    citations: tuple[Citation, ...] = ()
    grounding: Grounding | None = None
    abstained: bool | None = None
    passages: tuple[StoredPassage, ...] = ()


def new_id() -> str:
    """A random, URL-safe id that nobody can guess: 22 characters."""
    return secrets.token_urlsafe(16)


class State:
    """One open service.db. Safe for use by several threads."""

    def __init__(self, path: Path) -> None:
        """Open the database at `path`, or make it where there is none.

        Raises: StateError where the file is damaged, is not ours, or was written by another version.
        """
        self.path = path
        if not path.exists():
            _create(path)
        elif path.stat().st_size == 0:
            # Ours are put in place complete, so an empty file is one that lost its content.
            raise StateError(str(path), "it is empty; restore it from a backup, or remove it to begin without conversations")
        self._engine = _engine(path)
        try:
            self._verify()
        except BaseException:
            self._engine.dispose()
            raise

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def check(self) -> None:
        """Take and give back the write lock, waiting half a second at most.

        Raises: StateError where the database cannot be written to.
        """
        with self._translated(), self._driver_connection() as connection:
            connection.execute("PRAGMA busy_timeout = 500")
            try:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("ROLLBACK")
            finally:
                connection.execute("PRAGMA busy_timeout = 5000")

    def create_conversation(self, owner: str, title: str) -> str:
        """A new, empty conversation; `title` is its first question. Returns its id."""
        now, conversation_id = _now(), new_id()
        with self._write() as connection:
            connection.execute(
                _conversations.insert().values(
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
        table = _conversations
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
        query = sa.select(_messages).where(_messages.c.conversation_id == conversation_id)
        if before is not None:
            query = query.where(_messages.c.position < before)
        with self._read() as connection:
            _owned(connection, owner, conversation_id)
            rows = connection.execute(query.order_by(_messages.c.position.desc()).limit(limit + 1)).all()
            page = rows[limit - 1 :: -1] if len(rows) > limit else rows[::-1]
            passages = _passages(connection, [row.message_id for row in page])
        return tuple(_message(row, passages.get(row.message_id, ())) for row in page), len(rows) > limit

    def history(self, owner: str, conversation_id: str, limit: int = 100) -> tuple[StoredTurn, ...]:
        """The newest complete turns of a conversation, `limit` at most.

        Order: oldest first. Raises: NotFound where the conversation is not the owner's.
        """
        question, answer = _messages.alias("question"), _messages.alias("answer")
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
                sa.select(sa.func.max(_messages.c.position)).where(_messages.c.conversation_id == conversation_id)
            ).scalar_one()
            position = 0 if last is None else last + 1
            common = {"conversation_id": conversation_id, "status": status, "created_at": now}
            asked = {"message_id": new_id(), "position": position, "role": "user", "content": question}
            connection.execute(_messages.insert().values(**common, **asked))
            connection.execute(
                _messages.insert().values(
                    **common,
                    **_provenance(answer),
                    message_id=message_id,
                    position=position + 1,
                    role="assistant",
                    prompt_version=prompt_version,
                )
            )
            rows = _passage_rows(message_id, answer.passages, inherited)
            if rows:
                connection.execute(_message_passages.insert(), rows)
            connection.execute(
                _conversations.update().where(_conversations.c.conversation_id == conversation_id).values(updated_at=now)
            )
        return message_id

    def delete_conversation(self, owner: str, conversation_id: str) -> None:
        """Erase a conversation with its messages, from the file too.

        Raises: NotFound where it does not exist or is another owner's.
        """
        with self._write() as connection:
            _owned(connection, owner, conversation_id)
            connection.execute(_conversations.delete().where(_conversations.c.conversation_id == conversation_id))
        # secure_delete blanks the pages; the write-ahead log still holds the old ones until it is emptied.
        with self._translated(), self._driver_connection() as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, sqlite3.Error) as error:
            raise StateError(str(self.path), _reason(error)) from error

    @contextmanager
    def _driver_connection(self) -> Iterator[sqlite3.Connection]:
        """A connection for what must stand outside of a transaction, which SQLAlchemy always begins."""
        pooled = self._engine.raw_connection()
        try:
            yield cast("sqlite3.Connection", pooled.driver_connection)
        finally:
            pooled.close()

    @contextmanager
    def _read(self) -> Iterator[sa.Connection]:
        with self._translated(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def _write(self) -> Iterator[sa.Connection]:
        # The write lock first: a transaction that reads before it writes could not be retried otherwise.
        engine = self._engine.execution_options(archivist_begin="BEGIN IMMEDIATE")
        with self._translated(), engine.begin() as connection:
            yield connection

    def _verify(self) -> None:
        with self._read() as connection:
            found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
            application = connection.exec_driver_sql("PRAGMA application_id").scalar_one()
            version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
        if found != "ok":
            raise StateError(str(self.path), f"it is damaged ({str(found)[:120]}); restore it from a backup")
        if application != APPLICATION_ID:
            raise StateError(str(self.path), "it is not a database of Archivist; move it away")
        if version != SCHEMA_VERSION:
            raise StateError(
                str(self.path),
                f"its schema version is {version}, this program knows {SCHEMA_VERSION}; use the program that wrote it",
            )


def _engine(path: Path) -> sa.Engine:
    engine = sa.create_engine(sa.URL.create("sqlite", database=str(path)), hide_parameters=True)

    @sa.event.listens_for(engine, "connect")
    def _on_connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # the driver begins nothing itself, _on_begin does
        for pragma in (
            "busy_timeout = 5000",
            "journal_mode = WAL",
            "synchronous = FULL",
            "foreign_keys = ON",
            "secure_delete = ON",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @sa.event.listens_for(engine, "begin")
    def _on_begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get("archivist_begin", "BEGIN"))

    return engine


def _create(path: Path) -> None:
    """Write a complete database beside `path` and put it in place, so that `path` is never half made."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.unlink(missing_ok=True)
        os.close(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        engine = sa.create_engine(sa.URL.create("sqlite", database=str(unfinished)))
        try:
            with engine.begin() as connection:
                _metadata.create_all(connection)
                connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA_VERSION}")
        finally:
            engine.dispose()
        unfinished.replace(path)
    except (OSError, SQLAlchemyError) as error:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise StateError(str(path), f"it could not be made ({_reason(error)}); check the folder's permissions") from error


def _reason(error: BaseException) -> str:
    """The driver's own words, without the statement and its values."""
    origin = getattr(error, "orig", None) or error
    return str(origin) if isinstance(origin, sqlite3.Error | OSError) else type(origin).__name__


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
        sa.select(_conversations).where(_conversations.c.conversation_id == conversation_id, _conversations.c.owner == owner)
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
        sa.select(_message_passages)
        .where(_message_passages.c.message_id.in_(message_ids))
        .order_by(_message_passages.c.message_id, _message_passages.c.number)
    )
    found: dict[str, list[StoredPassage]] = {}
    for row in rows:
        passage = StoredPassage(row.chunk_id, row.document_id, row.version, row.label)
        found.setdefault(row.message_id, []).append(passage)
    return {message_id: tuple(passages) for message_id, passages in found.items()}


def _passage_rows(
    message_id: str, passages: Sequence[Passage], inherited: Iterable[StoredPassage]
) -> list[dict[str, str | int]]:
    own = [StoredPassage(each.chunk_id, each.document_id, each.version, each.label) for each in passages]
    return [
        {"message_id": message_id, "number": number, **asdict(passage)}
        for number, passage in enumerate(dict.fromkeys([*own, *inherited]))
    ]


def _provenance(answer: Answer | PartialAnswer) -> dict[str, Any]:
    values: dict[str, Any] = {
        "content": answer.answer,
        "standalone_question": answer.standalone_question,
        "provider": answer.provider,
        "model": answer.model,
        "route": answer.route,
        "snapshot": answer.snapshot,
    }
    if isinstance(answer, Answer):
        values |= {
            "prompt_tokens": answer.usage.prompt_tokens,
            "completion_tokens": answer.usage.completion_tokens,
            "cost_usd": answer.usage.cost_usd,
            "estimated": answer.usage.estimated,
            "timings": json.dumps(dict(answer.timings_ms)),
            "citations": json.dumps([asdict(citation) for citation in answer.citations]),
            "grounding": json.dumps(asdict(answer.grounding)),
            "abstained": answer.abstained,
        }
    return values


def _message(row: sa.Row[Any], passages: tuple[StoredPassage, ...]) -> StoredMessage:
    usage = grounding = None
    if row.prompt_tokens is not None:
        usage = Usage(row.prompt_tokens, row.completion_tokens, row.cost_usd, row.estimated)
    if row.grounding is not None:
        stored = json.loads(row.grounding)
        grounding = Grounding(stored["supported_share"], tuple(stored["unsupported"]))
    return StoredMessage(
        message_id=row.message_id,
        position=row.position,
        role=row.role,
        content=row.content,
        status=row.status,
        created_at=datetime.fromisoformat(row.created_at),
        standalone_question=row.standalone_question,
        provider=row.provider,
        model=row.model,
        route=row.route,
        snapshot=row.snapshot,
        prompt_version=row.prompt_version,
        usage=usage,
        timings_ms=json.loads(row.timings) if row.timings else {},
        citations=tuple(
            Citation(**{**citation, "heading": tuple(citation["heading"])}) for citation in json.loads(row.citations or "[]")
        ),
        grounding=grounding,
        abstained=row.abstained,
        passages=passages,
    )
