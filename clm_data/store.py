"""The store: paid answers and human decisions, which cannot be recreated, and imported files.

By default a SQLite file; any database by SQLAlchemy URL. A request is recorded before it is sent,
an answer is committed before it is parsed, and decisions are append-only. Every public method is
one transaction, so a killed process leaves no partial data. Everything else is derived
(:mod:`clm_data.assemble`).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

import sqlalchemy as sa
from pydantic import ValidationError
from sqlalchemy.exc import DatabaseError, IntegrityError

from clm_data.database import (
    advice,
    damage_of,
    is_emptied,
    open_engine,
    read_only_engine,
    shown,
    sqlite_file,
)
from clm_data.errors import DamagedStoreError, StoreError
from clm_data.records import Decision
from clm_data.store_tables import (
    DECISION,
    DIALOGUE,
    INFO,
    META,
    ORIGINAL,
    REQUEST,
    ROW,
    SCHEMA_VERSION,
    SOURCE,
    Dialogue,
    DialogueEnd,
    Exchange,
    NewDialogue,
    NewRequest,
    RequestOutcome,
    Source,
    decision_name,
    dialogue_name,
    exchange_name,
    exchange_of,
    row_name,
    source_name,
)

__all__ = [
    "Dialogue",
    "DialogueEnd",
    "Exchange",
    "Guard",
    "NewDialogue",
    "NewRequest",
    "RequestOutcome",
    "Source",
    "Store",
    "is_emptied",
]

Guard = Callable[[sa.Connection], None]
"""Called in a transaction before it writes; raises to forbid it."""
_LOST_ROW = "(this row is damaged in the store)"
_OPENING = 0x636C6D
"""Key of the advisory lock under which a PostgreSQL store gets its tables."""


class Store:
    """A store. One on a read-only medium can be read.

    Args:
        url: A SQLAlchemy URL such as ``sqlite:///clm.db`` or ``postgresql+psycopg://...``.
        create: Create it if it does not exist.
        read_only: Do not write to it, even if that is possible; only for SQLite.

    Raises:
        StoreError: The store cannot be opened, has another schema version, or does not exist and
            ``create`` is false.
    """

    def __init__(self, url: str, *, create: bool = True, read_only: bool = False) -> None:
        self.url = url
        file = sqlite_file(url)
        if file is not None and file.is_dir():
            raise StoreError(f"store {shown(url)} is a folder; set 'store' to a file")
        if file is not None and not create and not (file.exists() and file.stat().st_size):
            raise self._missing("empty" if file.exists() else "missing")
        existing = file if file is not None and file.is_file() else None
        found = read_only_engine(existing, always=read_only) if existing else None
        self._read_only = found is not None
        self._damaged: list[str] | None = None
        self._engine = found or open_engine(url)
        self._open(create)

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

    def _missing(self, how: str) -> StoreError:
        return StoreError(
            f"store {shown(self.url)} is {how}; put it back, restore a backup with "
            "clm-data store restore, or create a new one with clm-data init"
        )

    def _open(self, create: bool) -> None:
        with self.transaction() as db:
            if db.dialect.name == "postgresql":  # two processes may open a new store at once
                db.execute(sa.select(sa.func.pg_advisory_xact_lock(_OPENING)))
            self._tables = set(sa.inspect(db).get_table_names())
            if not create and INFO.name not in self._tables:
                raise self._missing("empty")
            if not self._read_only:
                META.create_all(db)
                self._tables.update(META.tables)
            stored = db.scalar(sa.select(INFO.c.value).where(INFO.c.key == "schema"))
            if stored is None:
                db.execute(INFO.insert().values(key="schema", value=SCHEMA_VERSION))
            elif stored != SCHEMA_VERSION:
                raise StoreError(
                    f"store {shown(self.url)} has schema {stored}, this version needs "
                    f"{SCHEMA_VERSION}; use the clm-data version that wrote it"
                )

    @contextmanager
    def snapshot(self) -> Iterator[sa.Connection]:
        """A transaction that reads one state of the store, whatever others write meanwhile."""
        with self.transaction() as db:
            if db.dialect.name == "sqlite":
                db.exec_driver_sql("BEGIN")
            else:
                db.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
            yield db

    def close_log(self) -> None:
        """Move everything into the file itself, which is then complete without its log."""
        self._engine.dispose()
        with self._engine.connect() as db:
            db.exec_driver_sql("PRAGMA journal_mode=DELETE")
        self._engine.dispose()

    def has_table(self, name: str) -> bool:
        """Whether the store has a table; one written by an earlier version may lack some."""
        return name in self._tables

    @contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """One transaction; errors of the database are raised as :class:`StoreError`."""
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
            fix = advice(self._engine, self.url, error)
            raise StoreError(f"store {shown(self.url)} cannot be used: {reason}; {fix}") from error

    def read_around_damage(self) -> list[str]:
        """Name damaged rows in the list that is returned, and read only what is intact of them."""
        self._damaged = []
        return self._damaged

    def report_damage(self, rows: Sequence[str]) -> None:
        """Name damaged rows in the list of :meth:`read_around_damage`, or raise without one."""
        rows = [row.encode("utf-8", "backslashreplace").decode() for row in rows]
        if self._damaged is None:
            raise DamagedStoreError(shown(self.url), rows)
        self._damaged += [row for row in rows if row not in self._damaged]

    def _intact(self, rows: Iterable[Mapping[Any, Any]], name: Callable[[Any], str]) -> list[Any]:
        """The rows that are not damaged; the others are reported."""
        found = [(row, damage_of(row)) for row in rows]
        damaged = [f"{name(row)} ({damage})" for row, damage in found if damage]
        if damaged:
            self.report_damage(damaged)
        return [row for row, damage in found if not damage]

    # --- dialogues with models

    def add_dialogues(self, dialogues: Sequence[NewDialogue], guard: Guard | None = None) -> None:
        """Add a batch of dialogues before any of them starts."""
        if dialogues:
            with self.transaction() as db:
                if guard is not None:
                    guard(db)
                db.execute(DIALOGUE.insert(), [vars(dialogue) for dialogue in dialogues])

    def dialogues(self, domain: str | None = None) -> list[Dialogue]:
        """Dialogues, ordered by domain and number."""
        query = sa.select(DIALOGUE).order_by(DIALOGUE.c.domain, DIALOGUE.c.number)
        if domain is not None:
            query = query.where(DIALOGUE.c.domain == domain)
        with self.transaction() as db:
            rows = db.execute(query).mappings()
            return [Dialogue(**row) for row in self._intact(rows, dialogue_name)]

    def write(
        self,
        events: Sequence[NewRequest | RequestOutcome | DialogueEnd],
        guard: Guard | None = None,
    ) -> list[int]:
        """Store events in one transaction and return the ids of the new requests, in order.

        ``guard`` is asked unless all events are outcomes: an answer that was paid is always stored.
        """
        ids = []
        with self.transaction() as db:
            if guard is not None and not all(isinstance(e, RequestOutcome) for e in events):
                guard(db)
            for event in events:
                if isinstance(event, NewRequest):
                    result = db.execute(REQUEST.insert().values(**vars(event), sent_at=_now()))
                    ids.append(_new_id(result))
                elif isinstance(event, RequestOutcome):
                    db.execute(
                        REQUEST.update()
                        .where(REQUEST.c.id == event.request_id)
                        .values(answered_at=_now(), completion=event.completion, error=event.error)
                    )
                else:
                    db.execute(
                        DIALOGUE.update()
                        .where(DIALOGUE.c.id == event.dialogue_id)
                        .values(ended=event.reason)
                    )
        return ids

    def exchanges(self, dialogue_id: int | None = None) -> list[Exchange]:
        """Requests, ordered by dialogue, turn and time of sending."""
        query = sa.select(REQUEST).order_by(REQUEST.c.dialogue_id, REQUEST.c.turn, REQUEST.c.id)
        if dialogue_id is not None:
            query = query.where(REQUEST.c.dialogue_id == dialogue_id)
        with self.transaction() as db:
            rows = list(db.execute(query).mappings())
            if any(map(damage_of, rows)):
                named = sa.select(DIALOGUE.c.id, DIALOGUE.c.domain, DIALOGUE.c.number)
                names = {each.id: f"{each.domain}/{each.number}" for each in db.execute(named)}
                self._intact(rows, lambda row: exchange_name(row, names))
            return [exchange_of(row) for row in rows if type(row["turn"]) is int]

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
        with self.transaction() as db:
            known = db.scalar(sa.select(SOURCE.c.id).where(SOURCE.c.sha256 == sha256))
            if known is not None:
                self._add_bytes(db, known, data)
                return False
            result = db.execute(
                SOURCE.insert().values(
                    name=name, format=format, sha256=sha256, licence=license, imported_at=_now()
                )
            )
            source_id = _new_id(result)
            self._add_bytes(db, source_id, data)
            if rows:
                db.execute(
                    ROW.insert(),
                    [
                        {"source_id": source_id, "position": position, "content": content}
                        for position, content in enumerate(rows)
                    ],
                )
            return True

    def _add_bytes(self, db: sa.Connection, source_id: int, data: bytes) -> None:
        query = sa.select(ORIGINAL.c.source_id).where(ORIGINAL.c.source_id == source_id)
        if data and db.scalar(query) is None:
            row = {"source_id": source_id, "deflated": zlib.compress(data)}
            db.execute(ORIGINAL.insert().values(row))

    def sources(self) -> list[Source]:
        """Imported files, in order of import."""
        columns = [SOURCE.c[name] for name in Source.__annotations__]
        with self.transaction() as db:
            rows = db.execute(sa.select(*columns).order_by(SOURCE.c.id)).mappings()
            return [Source(**row) for row in self._intact(rows, source_name)]

    def source_bytes(self, sha256: str) -> bytes | None:
        """The bytes of an imported file; None if they were not stored."""
        if not self.has_table(ORIGINAL.name):
            return None
        query = sa.select(ORIGINAL.c.deflated).join(SOURCE).where(SOURCE.c.sha256 == sha256)
        with self.transaction() as db:
            deflated = db.scalar(query)
        try:
            return None if deflated is None else zlib.decompress(deflated)
        except (zlib.error, TypeError) as error:
            raise DamagedStoreError(
                shown(self.url), [f"bytes of file {sha256} ({error})"]
            ) from error

    def source_rows(self, source_id: int) -> list[Any]:
        """The rows of a file as JSON values, in file order; one read around is a text."""
        query = sa.select(ROW).where(ROW.c.source_id == source_id).order_by(ROW.c.position)
        with self.transaction() as db:
            rows = list(db.execute(query).mappings())
            intact = {row["position"] for row in self._intact(rows, row_name)}
            return [row["content"] if row["position"] in intact else _LOST_ROW for row in rows]

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
        with self.transaction() as db:
            known = set(db.scalars(sa.select(DECISION.c.digest)))
            new = {}
            for decision, key in zip(decisions, digests, strict=True):
                if key not in known and key not in new:
                    new[key] = {
                        "decided_at": _now(),
                        "digest": key,
                        "content": decision.model_dump(mode="json"),
                    }
            if new:
                db.execute(DECISION.insert(), list(new.values()))
            return len(new)

    def decision_digests(self) -> set[str]:
        """Digests of all stored decisions."""
        with self.transaction() as db:
            return set(db.scalars(sa.select(DECISION.c.digest)))

    def decisions(self) -> list[Decision]:
        """All decisions, oldest first."""
        return [decision for _, decision in self.dated_decisions()]

    def dated_decisions(self) -> list[tuple[str, Decision]]:
        """All decisions with the times at which they were stored (UTC), oldest first."""
        columns = (DECISION.c.id, DECISION.c.decided_at, DECISION.c.content)
        with self.transaction() as db:
            rows = db.execute(sa.select(*columns).order_by(DECISION.c.id)).mappings()
            intact = self._intact(rows, decision_name)
        found = []
        for row in intact:
            try:
                decision = Decision.model_validate(row["content"])
            except ValidationError:
                self.report_damage([f"{decision_name(row)} (it is not a decision)"])
            else:
                found.append((row["decided_at"], decision))
        return found


def _new_id(result: sa.CursorResult[Any]) -> int:
    key = result.inserted_primary_key
    if key is None:
        raise StoreError("the database returned no id for a new row; use another database")
    return int(key[0])


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
