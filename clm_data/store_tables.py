"""Tables and rows of the store, schema version 1. Tables that a store lacks are added to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from clm_data.database import Json, SafeText, damage_of

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
    sa.Column("content", Json(null_is_value=True), nullable=False),
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
    sa.Column("content", Json(null_is_value=True), nullable=False),
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


@dataclass(frozen=True)
class NewDialogue:
    """A planned conversation with a model about one domain."""

    domain: str
    number: int
    """Number of the dialogue within the domain, from 0."""
    wave: int
    """Batch number. The dialogues of a batch are planned together and may run concurrently."""
    provider: str
    model: str
    prompt: str
    """The rendered first prompt."""
    prompt_hash: str
    """sha256 of ``prompt``."""
    wanted: int
    """Total number of entries to ask for."""


@dataclass(frozen=True)
class Dialogue(NewDialogue):
    """A stored conversation."""

    id: int = 0
    ended: str | None = None
    """Why it ended; None if it has not ended."""


@dataclass(frozen=True)
class Exchange:
    """A request and its outcome. ``turn`` counts from 0.

    ``completion`` and ``error`` are both None for a request that was in flight when a run was
    interrupted.
    """

    id: int
    dialogue_id: int
    turn: int
    messages: list[dict[str, str]]
    sent_at: str
    completion: dict[str, Any] | None
    answered_at: str | None
    error: str | None
    damage: str | None = field(default=None, kw_only=True)
    """What is damaged in the row, and missing here; see :meth:`Store.read_around_damage`."""


@dataclass(frozen=True)
class NewRequest:
    """A request that is about to be sent. ``turn`` counts from 0."""

    dialogue_id: int
    turn: int
    messages: list[dict[str, str]]


@dataclass(frozen=True)
class RequestOutcome:
    """Outcome of a request: an answer or a permanent error."""

    request_id: int
    completion: dict[str, Any] | None = None
    error: str | None = None


@dataclass(frozen=True)
class DialogueEnd:
    """End of a dialogue, with the reason."""

    dialogue_id: int
    reason: str


@dataclass(frozen=True)
class Source:
    """An imported file."""

    id: int
    name: str
    format: str
    sha256: str
    licence: str | None
    imported_at: str


def exchange_of(row: Mapping[Any, Any]) -> Exchange:
    """The request in a row; a damaged part is empty."""
    intact = {key: None if damage_of({key: part}) else part for key, part in row.items()}
    values: dict[str, Any] = intact
    values["messages"] = values["messages"] or []
    values["sent_at"] = values["sent_at"] or ""
    return Exchange(**values, damage=damage_of(row))


def dialogue_name(row: Mapping[Any, Any]) -> str:
    """What a message calls a dialogue."""
    return f"dialogue {row['domain']}/{row['number']}"


def exchange_name(row: Mapping[Any, Any], dialogues: Mapping[int, str]) -> str:
    """What a message calls a request and its answer, given the names of dialogues by id."""
    dialogue = dialogues.get(row["dialogue_id"], f"number {row['dialogue_id']}")
    return f"dialogue {dialogue} turn {row['turn']}"


def source_name(row: Mapping[Any, Any]) -> str:
    """What a message calls an imported file."""
    return f"imported file {row['id']} ({row['name']})"


def row_name(row: Mapping[Any, Any]) -> str:
    """What a message calls a row of an imported file."""
    position = row["position"]
    number = position + 1 if isinstance(position, int) else position
    return f"row {number} of imported file {row['source_id']}"


def decision_name(row: Mapping[Any, Any]) -> str:
    """What a message calls a reviewer's decision."""
    return f"decision {row['id']}"
