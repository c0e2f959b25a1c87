"""The tables of service.db. A change to them is a new SCHEMA_VERSION."""

from __future__ import annotations

import sqlalchemy as sa

SCHEMA_VERSION = 3
APPLICATION_ID = 0x41524356  # "ARCV", so that another program's database is not taken for ours

metadata = sa.MetaData()

conversations = sa.Table(
    "conversations",
    metadata,
    sa.Column("conversation_id", sa.Text, primary_key=True),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("title", sa.Text, nullable=False),
    sa.Column("created_at", sa.Text, nullable=False),
    sa.Column("updated_at", sa.Text, nullable=False),
    sa.Index("conversations_by_owner", "owner", "updated_at", "conversation_id"),
)

# Of the tokens prompt_tokens says whether there is a usage at all; a cost_usd of NULL beside it is a price not known.
messages = sa.Table(
    "messages",
    metadata,
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
    sa.Column("cached_tokens", sa.Integer),
    sa.Column("completion_tokens", sa.Integer),
    sa.Column("cost_usd", sa.Float),
    sa.Column("estimated", sa.Boolean),
    sa.Column("timings", sa.Text),
    sa.Column("citations", sa.Text),
    sa.Column("grounding", sa.Text),
    sa.Column("abstained", sa.Boolean),
    sa.Column("clarifies", sa.Boolean),
    sa.Column("signals", sa.Text),
    sa.Column("answerability", sa.Float),
    sa.UniqueConstraint("conversation_id", "position"),
)

message_passages = sa.Table(
    "message_passages",
    metadata,
    sa.Column("message_id", sa.Text, sa.ForeignKey("messages.message_id", ondelete="CASCADE"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("chunk_id", sa.Text, nullable=False),
    sa.Column("document_id", sa.Text, nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("label", sa.Text, nullable=False),
)

# One row for what one owner had from one model in one day (UTC, ISO 8601).
spending = sa.Table(
    "spending",
    metadata,
    sa.Column("day", sa.Text, primary_key=True),
    sa.Column("owner", sa.Text, primary_key=True),
    sa.Column("provider", sa.Text, primary_key=True),
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("calls", sa.Integer, nullable=False),
    sa.Column("prompt_tokens", sa.Integer, nullable=False),
    sa.Column("cached_tokens", sa.Integer, nullable=False),
    sa.Column("completion_tokens", sa.Integer, nullable=False),
    sa.Column("cost_usd", sa.Float, nullable=False),
    sa.Column("unpriced_calls", sa.Integer, nullable=False),
)
