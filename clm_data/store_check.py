"""A check of every row of a store: what is damaged, and what can still be read."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from clm_data.database import damage_of
from clm_data.errors import StoreError
from clm_data.store import Store
from clm_data.store_tables import (
    DECISION,
    DIALOGUE,
    ORIGINAL,
    REQUEST,
    ROW,
    SOURCE,
    decision_name,
    dialogue_name,
    exchange_name,
    row_name,
    source_name,
)

_TABLES = {
    DIALOGUE: "dialogues",
    REQUEST: "requests",
    SOURCE: "imported files",
    ROW: "imported rows",
    ORIGINAL: "imported bytes",
    DECISION: "decisions",
}
_BATCH = 200


@dataclass(frozen=True)
class StoreCheck:
    """What a check of a store found.

    Attributes:
        counts: Intact rows by kind.
        damaged: Damaged rows and unreadable parts, each named as a person would.
    """

    counts: Mapping[str, int]
    damaged: tuple[str, ...]


def check_store(store: Store) -> StoreCheck:
    """Read every row of a store; for SQLite, also check the structure of the file."""
    counts: dict[str, int] = {}
    damaged = list(_structure(store))
    names = _dialogue_names(store)
    for table, kind in _TABLES.items():
        counts[kind] = 0
        if not store.has_table(table.name):
            continue
        try:
            for row in _rows(store, table):
                if found := _damage(table, row):
                    damaged.append(f"{_name(table, row, names)} ({found})")
                else:
                    counts[kind] += 1
        except StoreError as error:
            cause = getattr(error.__cause__, "orig", error)
            damaged.append(f"{kind} after the first {counts[kind]} cannot be read ({cause})")
    return StoreCheck(counts, tuple(damaged))


def _rows(store: Store, table: sa.Table) -> Iterator[Mapping[Any, Any]]:
    """The rows of a table in the order of its key; each row is read only once."""
    key = list(table.primary_key.columns)
    with store.transaction() as db:
        yield from (
            db.execution_options(yield_per=_BATCH)
            .execute(sa.select(table).order_by(*key))
            .mappings()
        )


def _dialogue_names(store: Store) -> dict[int, str]:
    try:
        with store.transaction() as db:
            rows = db.execute(sa.select(DIALOGUE.c.id, DIALOGUE.c.domain, DIALOGUE.c.number))
            return {row.id: f"{row.domain}/{row.number}" for row in rows}
    except StoreError:
        return {}


def _damage(table: sa.Table, row: Mapping[Any, Any]) -> str | None:
    if found := damage_of(row):
        return found
    if table is ORIGINAL:
        try:
            zlib.decompress(row["deflated"])
        except (zlib.error, TypeError) as error:
            return str(error)
    if table is DIALOGUE and len(set(row["prompt_hash"])) > 1:
        prompt = hashlib.sha256(row["prompt"].encode()).hexdigest()
        return None if prompt == row["prompt_hash"] else "prompt: its hash differs"
    return None


def _name(table: sa.Table, row: Mapping[Any, Any], dialogues: Mapping[int, str]) -> str:
    if table is REQUEST:
        return exchange_name(row, dialogues)
    if table is ORIGINAL:
        return f"bytes of imported file {row['source_id']}"
    names = {DIALOGUE: dialogue_name, SOURCE: source_name, ROW: row_name, DECISION: decision_name}
    return names[table](row)


def _structure(store: Store) -> Iterator[str]:
    with store.transaction() as db:
        if db.dialect.name != "sqlite":
            return
    try:
        with store.transaction() as db:
            found = [str(line) for line in db.scalars(sa.text("PRAGMA integrity_check(20)"))]
            lost = list(db.execute(sa.text("PRAGMA foreign_key_check")))
    except StoreError as error:
        yield f"the structure of the file ({getattr(error.__cause__, 'orig', error)})"
        return
    if found != ["ok"]:
        yield from (f"the structure of the file ({line})" for line in found)
    if lost:
        yield f"{len(lost)} rows belong to rows that are missing"
