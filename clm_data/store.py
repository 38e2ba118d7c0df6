"""The store: paid answers and human decisions, which cannot be recreated, and imported files.

By default a SQLite file; any database by SQLAlchemy URL. A request is recorded before it is sent,
an answer is committed before it is parsed, and decisions are append-only. Every public method is
one transaction, so a killed process leaves no partial data. Everything else is derived
(:mod:`clm_data.assemble`).
"""

from __future__ import annotations

import zlib
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
_original = sa.Table(
    "source_bytes",
    _meta,
    sa.Column("source_id", sa.ForeignKey("source.id"), primary_key=True),
    sa.Column("deflated", sa.LargeBinary, nullable=False),
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
    completion: dict[str, Any] | None
    error: str | None


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


class Store:
    """A store, which is created if it does not exist.

    Args:
        url: A SQLAlchemy URL such as ``sqlite:///clm.db`` or ``postgresql+psycopg://...``.

    Raises:
        StoreError: The store cannot be opened, or has another schema version.
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
        """Close all connections."""
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
                "wait until it has finished, then run the command again"
            ) from error
        except DatabaseError as error:
            reason = " ".join(str(error.orig).split())
            if self._engine.dialect.name == "sqlite":
                fix = "check the path, its permissions and the free space"
            else:
                fix = "check the address, the server, and that the database is UTF-8 and yours"
            raise StoreError(f"store {shown(self.url)} cannot be used: {reason}; {fix}") from error

    # --- dialogues with models

    def add_dialogues(self, dialogues: Sequence[NewDialogue]) -> None:
        """Add a batch of dialogues before any of them starts."""
        if dialogues:
            with self._transaction() as db:
                db.execute(_dialogue.insert(), [vars(dialogue) for dialogue in dialogues])

    def dialogues(self, domain: str | None = None) -> list[Dialogue]:
        """Dialogues, ordered by domain and number."""
        query = sa.select(_dialogue).order_by(_dialogue.c.domain, _dialogue.c.number)
        if domain is not None:
            query = query.where(_dialogue.c.domain == domain)
        with self._transaction() as db:
            return [Dialogue(**row) for row in db.execute(query).mappings()]

    def write(self, events: Sequence[NewRequest | RequestOutcome | DialogueEnd]) -> list[int]:
        """Store events in one transaction and return the ids of the new requests, in order."""
        ids = []
        with self._transaction() as db:
            for event in events:
                if isinstance(event, NewRequest):
                    result = db.execute(_request.insert().values(**vars(event), sent_at=_now()))
                    ids.append(_new_id(result))
                elif isinstance(event, RequestOutcome):
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
        """Requests, ordered by dialogue, turn and time of sending."""
        columns = [_request.c[name] for name in Exchange.__annotations__]
        query = sa.select(*columns).order_by(_request.c.dialogue_id, _request.c.turn, _request.c.id)
        if dialogue_id is not None:
            query = query.where(_request.c.dialogue_id == dialogue_id)
        with self._transaction() as db:
            return [Exchange(**row) for row in db.execute(query).mappings()]

    # --- imported files

    def add_source(
        self,
        name: str,
        format: str,
        sha256: str,
        license: str | None,
        rows: Sequence[Any],
        data: bytes = b"",
    ) -> bool:
        """Store the rows of a file unchanged, and its bytes if they are given.

        Returns:
            False if a file with this sha256 exists; at most its bytes are added then.
        """
        with self._transaction() as db:
            known = db.scalar(sa.select(_source.c.id).where(_source.c.sha256 == sha256))
            if known is not None:
                self._add_bytes(db, known, data)
                return False
            result = db.execute(
                _source.insert().values(
                    name=name, format=format, sha256=sha256, licence=license, imported_at=_now()
                )
            )
            source_id = _new_id(result)
            self._add_bytes(db, source_id, data)
            if rows:
                db.execute(
                    _row.insert(),
                    [
                        {"source_id": source_id, "position": position, "content": content}
                        for position, content in enumerate(rows)
                    ],
                )
            return True

    def _add_bytes(self, db: sa.Connection, source_id: int, data: bytes) -> None:
        query = sa.select(_original.c.source_id).where(_original.c.source_id == source_id)
        if data and db.scalar(query) is None:
            row = {"source_id": source_id, "deflated": zlib.compress(data)}
            db.execute(_original.insert().values(row))

    def sources(self) -> list[Source]:
        """Imported files, in order of import."""
        columns = [_source.c[name] for name in Source.__annotations__]
        with self._transaction() as db:
            rows = db.execute(sa.select(*columns).order_by(_source.c.id)).mappings()
            return [Source(**row) for row in rows]

    def source_bytes(self, sha256: str) -> bytes | None:
        """The bytes of an imported file; None if they were not stored."""
        query = sa.select(_original.c.deflated).join(_source).where(_source.c.sha256 == sha256)
        with self._transaction() as db:
            deflated = db.scalar(query)
        return None if deflated is None else zlib.decompress(deflated)

    def source_rows(self, source_id: int) -> list[Any]:
        """The rows of a file as JSON values, in file order."""
        query = (
            sa.select(_row.c.content).where(_row.c.source_id == source_id).order_by(_row.c.position)
        )
        with self._transaction() as db:
            return list(db.scalars(query))

    # --- human decisions

    def add_decisions(self, decisions: Iterable[Decision], digests: Sequence[str]) -> int:
        """Append decisions in one transaction, skipping those whose digest is already stored.

        Args:
            decisions: The decisions.
            digests: A digest for each decision that identifies its sheet row, so that importing
                the same sheet twice adds nothing.

        Returns:
            Number of decisions added.
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
        """Digests of all stored decisions."""
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
        raise StoreError("the database returned no id for a new row; use another database")
    return int(key[0])


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
