"""The store: what cannot be bought again (paid answers, human decisions) and imported files.

A SQLite file by default, any SQLAlchemy URL by setting. A request is recorded before it is sent, an
answer is committed before it is parsed, a decision is append-only; every public method is one
transaction, so a killed process leaves whole rows or none. Everything else is derived
(:mod:`clm_data.assemble`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DatabaseError, IntegrityError

from clm_data.database import Json, SafeText, open_engine, shown
from clm_data.errors import StoreError
from clm_data.records import Decision

SCHEMA_VERSION = "1"


_meta = sa.MetaData()
_info = sa.Table(
    "info",
    _meta,
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)
_dialogue = sa.Table(
    "dialogue",
    _meta,
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
_request = sa.Table(
    "request",
    _meta,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("dialogue_id", sa.ForeignKey("dialogue.id"), nullable=False, index=True),
    sa.Column("turn", sa.Integer, nullable=False),
    sa.Column("messages", Json, nullable=False),
    sa.Column("sent_at", sa.String(32), nullable=False),
    sa.Column("completion", Json),
    sa.Column("answered_at", sa.String(32)),
    sa.Column("error", SafeText),
)
_source = sa.Table(
    "source",
    _meta,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("format", sa.String(64), nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False, unique=True),
    sa.Column("licence", sa.Text),
    sa.Column("imported_at", sa.String(32), nullable=False),
)
_row = sa.Table(
    "source_row",
    _meta,
    sa.Column("source_id", sa.ForeignKey("source.id"), primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("content", Json, nullable=False),
)
_decision = sa.Table(
    "decision",
    _meta,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("decided_at", sa.String(32), nullable=False),
    sa.Column("digest", sa.String(64), nullable=False, unique=True),
    sa.Column("content", Json, nullable=False),
)


@dataclass(frozen=True)
class NewDialogue:
    """A conversation about to be held with a model on one domain."""

    domain: str
    number: int
    """Counts from 0 within the domain."""
    wave: int
    """Dialogues of one wave are planned together and may run at the same time."""
    provider: str
    model: str
    prompt: str
    """The rendered first prompt."""
    prompt_hash: str
    """sha256 of ``prompt``."""
    wanted: int
    """Entries to ask for in all."""


@dataclass(frozen=True)
class Dialogue(NewDialogue):
    """A planned conversation."""

    id: int = 0
    ended: str | None = None
    """Why it ended; None while it may go on."""


@dataclass(frozen=True)
class Exchange:
    """One request and what came of it. ``turn`` counts from 0.

    ``completion`` and ``error`` are both None for a request that was in flight when a run stopped.
    """

    id: int
    dialogue_id: int
    turn: int
    messages: list[dict[str, str]]
    completion: dict[str, Any] | None
    error: str | None


@dataclass(frozen=True)
class NewRequest:
    """A request about to be sent. ``turn`` counts from 0."""

    dialogue_id: int
    turn: int
    messages: list[dict[str, str]]


@dataclass(frozen=True)
class Settled:
    """What came of a request: an answer, or the reason why there is none for good."""

    request_id: int
    completion: dict[str, Any] | None = None
    error: str | None = None


@dataclass(frozen=True)
class Ended:
    """A dialogue is over, and why."""

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


class Store:
    """Opens the store, creating its tables where they are missing.

    Args:
        url: A SQLAlchemy URL: ``sqlite:///clm.db``, ``postgresql+psycopg://...``.

    Raises:
        StoreError: It cannot be opened, or was written by another schema version.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._engine = open_engine(url)
        self._open()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    def _open(self) -> None:
        with self._transaction() as db:
            _meta.create_all(db)
            stored = db.scalar(sa.select(_info.c.value).where(_info.c.key == "schema"))
            if stored is None:
                db.execute(_info.insert().values(key="schema", value=SCHEMA_VERSION))
            elif stored != SCHEMA_VERSION:
                raise StoreError(
                    f"store {shown(self.url)} has schema {stored}, this version needs "
                    f"{SCHEMA_VERSION}; use the clm-data version that wrote it"
                )

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except IntegrityError as error:
            raise StoreError(
                f"store {shown(self.url)}: another run wrote the same rows; "
                "let it end, then run the command again"
            ) from error
        except DatabaseError as error:
            reason = " ".join(str(error.orig).split())
            if self._engine.dialect.name == "sqlite":
                mend = "check the path, its permissions and the free space"
            else:
                mend = "check the address, the server, and that the database is UTF-8 and yours"
            raise StoreError(f"store {shown(self.url)} cannot be used: {reason}; {mend}") from error

    # --- what models were asked and said

    def plan(self, dialogues: Sequence[NewDialogue]) -> None:
        """Record a wave of dialogues, all or none, before any is held."""
        if dialogues:
            with self._transaction() as db:
                db.execute(_dialogue.insert(), [vars(dialogue) for dialogue in dialogues])

    def dialogues(self, domain: str | None = None) -> list[Dialogue]:
        """Planned dialogues, by domain and number."""
        query = sa.select(_dialogue).order_by(_dialogue.c.domain, _dialogue.c.number)
        if domain is not None:
            query = query.where(_dialogue.c.domain == domain)
        with self._transaction() as db:
            return [Dialogue(**row) for row in db.execute(query).mappings()]

    def write(self, events: Sequence[NewRequest | Settled | Ended]) -> list[int]:
        """Keep what happened, all or none; returns the ids of the new requests, in their order."""
        ids = []
        with self._transaction() as db:
            for event in events:
                if isinstance(event, NewRequest):
                    result = db.execute(_request.insert().values(**vars(event), sent_at=_now()))
                    ids.append(_new_id(result))
                elif isinstance(event, Settled):
                    db.execute(
                        _request.update()
                        .where(_request.c.id == event.request_id)
                        .values(answered_at=_now(), completion=event.completion, error=event.error)
                    )
                else:
                    db.execute(
                        _dialogue.update()
                        .where(_dialogue.c.id == event.dialogue_id)
                        .values(ended=event.reason)
                    )
        return ids

    def exchanges(self, dialogue_id: int | None = None) -> list[Exchange]:
        """Requests in the order of dialogue, turn and sending."""
        columns = [_request.c[name] for name in Exchange.__annotations__]
        query = sa.select(*columns).order_by(_request.c.dialogue_id, _request.c.turn, _request.c.id)
        if dialogue_id is not None:
            query = query.where(_request.c.dialogue_id == dialogue_id)
        with self._transaction() as db:
            return [Exchange(**row) for row in db.execute(query).mappings()]

    # --- imported files

    def add_source(
        self, name: str, format: str, sha256: str, licence: str | None, rows: Sequence[Any]
    ) -> bool:
        """Keep a file's rows as they are. False where this very content is already here."""
        with self._transaction() as db:
            if db.scalar(sa.select(_source.c.id).where(_source.c.sha256 == sha256)) is not None:
                return False
            result = db.execute(
                _source.insert().values(
                    name=name, format=format, sha256=sha256, licence=licence, imported_at=_now()
                )
            )
            source_id = _new_id(result)
            if rows:
                db.execute(
                    _row.insert(),
                    [
                        {"source_id": source_id, "position": position, "content": content}
                        for position, content in enumerate(rows)
                    ],
                )
            return True

    def sources(self) -> list[Source]:
        """Imported files in the order of import."""
        columns = [_source.c[name] for name in Source.__annotations__]
        with self._transaction() as db:
            rows = db.execute(sa.select(*columns).order_by(_source.c.id)).mappings()
            return [Source(**row) for row in rows]

    def source_rows(self, source_id: int) -> list[Any]:
        """A file's rows, in its order, as JSON values."""
        query = (
            sa.select(_row.c.content).where(_row.c.source_id == source_id).order_by(_row.c.position)
        )
        with self._transaction() as db:
            return list(db.scalars(query))

    # --- human decisions

    def add_decisions(self, decisions: Iterable[Decision], digests: Sequence[str]) -> int:
        """Append decisions, all or none; one whose digest is already here is not added again.

        Args:
            decisions: What was decided.
            digests: One a decision: identifies the very act (sheet row), so that importing the same
                sheet twice adds nothing.

        Returns:
            How many were new.
        """
        with self._transaction() as db:
            known = set(db.scalars(sa.select(_decision.c.digest)))
            new = {}
            for decision, key in zip(decisions, digests, strict=True):
                if key not in known and key not in new:
                    new[key] = {
                        "decided_at": _now(),
                        "digest": key,
                        "content": decision.model_dump(mode="json"),
                    }
            if new:
                db.execute(_decision.insert(), list(new.values()))
            return len(new)

    def decision_digests(self) -> set[str]:
        """The digests under which decisions are here: which acts need not be added again."""
        with self._transaction() as db:
            return set(db.scalars(sa.select(_decision.c.digest)))

    def decisions(self) -> list[Decision]:
        """All decisions, oldest first."""
        with self._transaction() as db:
            rows = db.scalars(sa.select(_decision.c.content).order_by(_decision.c.id))
            return [Decision.model_validate(row) for row in rows]


def _new_id(result: sa.CursorResult[Any]) -> int:
    key = result.inserted_primary_key
    if key is None:
        raise StoreError("the store gave no id for a new row; use another database")
    return int(key[0])


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
