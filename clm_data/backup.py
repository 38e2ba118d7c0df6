"""Backups of a store: a SQLite file that any store, SQLite or PostgreSQL, can be restored from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from clm_data.database import sqlite_file
from clm_data.errors import DamagedStoreError, InputFileError, StoreError
from clm_data.files import atomic_file
from clm_data.lease import holders
from clm_data.store import Store
from clm_data.store_check import check_store
from clm_data.store_tables import INFO, LEASE, META

_TABLES = [table for table in META.sorted_tables if table not in (INFO, LEASE)]
_BATCH = 500


@dataclass(frozen=True)
class StoreCopy:
    """A backup that was written or restored.

    Attributes:
        file: The backup.
        counts: Rows by table.
        set_aside: The damaged store that was moved away before restoring; None if there was none.
    """

    file: Path
    counts: Mapping[str, int]
    set_aside: Path | None = None

    def __str__(self) -> str:
        rows = ", ".join(f"{number} {name}" for name, number in self.counts.items())
        return f"{self.file}: {rows}"

    def as_json(self) -> dict[str, Any]:
        """The result as JSON values."""
        aside = None if self.set_aside is None else str(self.set_aside)
        return {"file": str(self.file), "rows": dict(self.counts), "set_aside": aside}


def back_up(store: Store, file: Path, *, overwrite: bool = False) -> StoreCopy:
    """Write one state of a store to a file, while others may write to the store.

    Args:
        store: The store.
        file: The backup, a SQLite store itself.
        overwrite: Replace an existing file.

    Raises:
        DamagedStoreError: A row is damaged; no backup is written, and an earlier one is kept.
        InputFileError: The file exists, or cannot be written.
        StoreError: The store cannot be read, or the disk is full.
    """
    if file.resolve() == _file_of(store):
        raise InputFileError(f"{file} is the store itself; choose another file")
    with atomic_file(file, overwrite=overwrite) as draft:
        try:
            with Store(_url(draft)) as copy:
                with store.snapshot() as source, copy.transaction() as target:
                    counts = _copy_rows(store, source, target)
                _check(copy, str(file))
                copy.close_log()
        finally:
            for end in ("-wal", "-shm", "-journal"):
                draft.with_name(draft.name + end).unlink(missing_ok=True)
    return StoreCopy(file, counts)


def restore(url: str, file: Path, *, replace: bool = False) -> StoreCopy:
    """Put a backup in the place of a store, in one transaction.

    A SQLite store that is too damaged to be changed is moved aside, never deleted.

    Args:
        url: URL of the store; it is created if it does not exist.
        file: A backup, or another SQLite store.
        replace: Replace the rows of a store that has some.

    Raises:
        InputFileError: There is no such file.
        DamagedStoreError: The backup is damaged; the store is unchanged.
        StoreError: The store has rows and ``replace`` is false, is in use, or cannot be written.
    """
    if not file.is_file():
        raise InputFileError(f"{file}: no such file; check the name")
    with Store(_url(file), create=False, read_only=True) as backup:
        if file.resolve() == sqlite_file(url):
            raise InputFileError(f"{file} is the store itself; name a backup")
        _check(backup, str(file))
        try:
            return StoreCopy(file, _replace_rows(url, backup, replace=replace))
        except StoreError as error:
            if not (replace and _is_corrupt(error)):
                raise
        aside = _set_aside(url)
        return StoreCopy(file, _replace_rows(url, backup, replace=False), aside)


def _replace_rows(url: str, backup: Store, *, replace: bool) -> dict[str, int]:
    with Store(url) as store:
        if busy := holders(store):
            name, holder = next(iter(busy.items()))
            raise StoreError(f"the store is in use: {name} by {holder}; wait until it has finished")
        with backup.snapshot() as source, store.transaction() as target:
            if not replace and any(_count(target, table) for table in _TABLES):
                raise StoreError("the store is not empty; add --replace to replace what is in it")
            for table in reversed(_TABLES):
                target.execute(sa.delete(table))
            counts = _copy_rows(backup, source, target)
            _move_sequences(target)
        return counts


def _copy_rows(store: Store, source: sa.Connection, target: sa.Connection) -> dict[str, int]:
    """Copy all rows unchanged, and compare their numbers."""
    counts = {}
    for table in _TABLES:
        if not store.has_table(table.name):
            continue
        # Columns without types: texts with their checksums are copied, not decoded.
        bare = sa.table(table.name, *(sa.column(column.name) for column in table.columns))
        keys = [bare.c[column.name] for column in table.primary_key.columns]
        for rows in source.execute(sa.select(bare).order_by(*keys)).mappings().partitions(_BATCH):
            target.execute(bare.insert(), [dict(row) for row in rows])
        counts[table.name] = _count(source, table)
        if _count(target, table) != counts[table.name]:
            raise StoreError(f"table {table.name} was not copied completely; try again")
    return counts


def _count(db: sa.Connection, table: sa.Table) -> int:
    return db.scalar(sa.select(sa.func.count()).select_from(table)) or 0


def _move_sequences(db: sa.Connection) -> None:
    """PostgreSQL numbers new rows after the restored ones."""
    if db.dialect.name != "postgresql":
        return
    for table in _TABLES:
        if "id" in table.columns:
            highest = db.scalar(sa.select(sa.func.max(table.c.id))) or 0
            sequence = sa.func.pg_get_serial_sequence(table.name, "id")
            db.execute(sa.select(sa.func.setval(sequence, highest + 1, False)))


def _check(store: Store, name: str) -> None:
    if damaged := check_store(store).damaged:
        raise DamagedStoreError(name, damaged)


def _is_corrupt(error: StoreError) -> bool:
    original = getattr(error.__cause__, "orig", None)
    code = str(getattr(original, "sqlite_errorname", ""))
    return code.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB"))


def _set_aside(url: str) -> Path:
    file = sqlite_file(url)
    if file is None:
        raise StoreError("the store is damaged and cannot be moved aside; move it by hand")
    aside = file.with_name(f"{file.name}.damaged-{datetime.now():%Y%m%d-%H%M%S}")
    for end in ("-wal", "-shm", ""):
        part = file.with_name(file.name + end)
        if part.exists():
            part.rename(aside.with_name(aside.name + end))
    return aside


def _file_of(store: Store) -> Path | None:
    file = sqlite_file(store.url)
    return None if file is None else file.resolve()


def _url(file: Path) -> str:
    return sa.URL.create("sqlite", database=str(file.absolute())).render_as_string()
