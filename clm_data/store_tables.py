"""Tables of the store. Schema version 1; tables that a store lacks are added when it is opened."""

from __future__ import annotations

import sqlalchemy as sa

from clm_data.database import Json, SafeText

SCHEMA_VERSION = "1"


META = sa.MetaData()
INFO = sa.Table(
    "info",
    META,
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)
DIALOGUE = sa.Table(
    "dialogue",
    META,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("domain", sa.String(64), nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("provider", sa.String(64), nullable=False),
    sa.Column("model", sa.String(255), nullable=False),
    sa.Column("prompt", sa.Text, nullable=False),
    sa.Column("prompt_hash", sa.String(64), nullable=False),
    sa.Column("wanted", sa.Integer, nullable=False),
    sa.Column("wave", sa.Integer, nullable=False),
    sa.Column("ended", SafeText),
    sa.UniqueConstraint("domain", "number"),
)
REQUEST = sa.Table(
    "request",
    META,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("dialogue_id", sa.ForeignKey("dialogue.id"), nullable=False, index=True),
    sa.Column("turn", sa.Integer, nullable=False),
    sa.Column("messages", Json, nullable=False),
    sa.Column("sent_at", sa.String(32), nullable=False),
    sa.Column("completion", Json),
    sa.Column("answered_at", sa.String(32)),
    sa.Column("error", SafeText),
)
SOURCE = sa.Table(
    "source",
    META,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("format", sa.String(64), nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False, unique=True),
    sa.Column("licence", sa.Text),
    sa.Column("imported_at", sa.String(32), nullable=False),
)
ROW = sa.Table(
    "source_row",
    META,
    sa.Column("source_id", sa.ForeignKey("source.id"), primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("content", Json, nullable=False),
)
ORIGINAL = sa.Table(
    "source_bytes",
    META,
    sa.Column("source_id", sa.ForeignKey("source.id"), primary_key=True),
    sa.Column("deflated", sa.LargeBinary, nullable=False),
)
DECISION = sa.Table(
    "decision",
    META,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("decided_at", sa.String(32), nullable=False),
    sa.Column("digest", sa.String(64), nullable=False, unique=True),
    sa.Column("content", Json, nullable=False),
)
LEASE = sa.Table(
    "lease",
    META,
    sa.Column("name", sa.String(255), primary_key=True),
    sa.Column("owner", sa.String(255), nullable=False),
    sa.Column("host", sa.String(255), nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("since", sa.String(32), nullable=False),
    sa.Column("expires", sa.Double, nullable=False),
)
"""Who works on what, see :mod:`clm_data.lease`. Stores written before it existed get it empty."""
