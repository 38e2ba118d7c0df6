"""Leases: who works on what, so that two processes do not pay for the same work.

A lease is a row of the store with a name, such as ``generate/physics``. It expires unless it is
renewed, so a process that died does not hold it forever; on the same machine a process that no
longer exists loses it at once. Expiry is measured by the clock of the database server, or of this
machine for SQLite.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy as sa

from clm_data.errors import StoreError
from clm_data.store import Store
from clm_data.store_tables import LEASE

SECONDS = 90.0
"""A lease that was not renewed for this long is free."""


class LeaseLostError(StoreError):
    """Another process took over what this one was working on."""


@dataclass(frozen=True)
class Holder:
    """The process that holds a lease."""

    host: str
    pid: int
    since: str
    """When it claimed the lease, in UTC."""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.since}"


class Leases:
    """The leases of one task of this process.

    Args:
        store: The store that has the leases.
        seconds: Time without renewal after which others may take a lease.
    """

    def __init__(self, store: Store, seconds: float = SECONDS) -> None:
        self.seconds = seconds
        self._store = store
        self._owner = f"{_process(os.getpid())} {uuid.uuid4().hex}"
        self._names: set[str] = set()

    def claim(self, name: str) -> Holder | None:
        """Claim a lease; returns None if this object has it now, else who holds it."""
        while True:
            try:
                with self._store.transaction() as db:
                    self._remove_if_free(db, name)
                    db.execute(LEASE.insert().values(name=name, **self._values(db)))
                self._names.add(name)
                return None
            except StoreError as error:
                if not isinstance(error.__cause__, sa.exc.IntegrityError):
                    raise
            if holder := self.holder(name):
                return holder

    def holder(self, name: str) -> Holder | None:
        """Who holds a lease; None if nobody does."""
        with self._store.transaction() as db:
            row = db.execute(sa.select(LEASE).where(LEASE.c.name == name)).mappings().first()
            if row is None or row["expires"] < _now(db) or _is_dead(row["owner"], row["pid"]):
                return None
            return Holder(row["host"], row["pid"], row["since"])

    def check(self, db: sa.Connection) -> None:
        """Renew all leases within a transaction.

        Raises:
            LeaseLostError: Another process has taken one.
        """
        result = db.execute(
            LEASE.update()
            .where(LEASE.c.owner == self._owner)
            .values(expires=_now(db) + self.seconds)
        )
        if result.rowcount != len(self._names):
            raise LeaseLostError(
                "another process took over this work while this one was suspended; "
                "answers stored until then are kept"
            )

    def renew(self) -> None:
        """Renew all leases.

        Raises:
            LeaseLostError: Another process has taken one.
        """
        with self._store.transaction() as db:
            self.check(db)

    def release(self) -> None:
        """Give all leases back. Never raises: a lease that cannot be given back expires."""
        try:
            with self._store.transaction() as db:
                db.execute(LEASE.delete().where(LEASE.c.owner == self._owner))
        except StoreError:
            pass
        self._names.clear()

    def _values(self, db: sa.Connection) -> dict[str, str | int | float]:
        return {
            "owner": self._owner,
            "host": socket.gethostname()[:255],
            "pid": os.getpid(),
            "since": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
            "expires": _now(db) + self.seconds,
        }

    @staticmethod
    def _remove_if_free(db: sa.Connection, name: str) -> None:
        # A write first: SQLite then locks out others before this transaction reads.
        named = LEASE.c.name == name
        db.execute(LEASE.delete().where(named, LEASE.c.expires < _now(db)))
        row = db.execute(sa.select(LEASE.c.owner, LEASE.c.pid).where(named)).first()
        if row is not None and _is_dead(row.owner, row.pid):
            db.execute(LEASE.delete().where(named, LEASE.c.owner == row.owner))


def holders(store: Store) -> dict[str, Holder]:
    """Who holds which lease now."""
    leases = Leases(store)
    with store.transaction() as db:
        names: Iterable[str] = list(db.scalars(sa.select(LEASE.c.name).order_by(LEASE.c.name)))
    found = {name: leases.holder(name) for name in names}
    return {name: holder for name, holder in found.items() if holder is not None}


def _now(db: sa.Connection) -> float:
    """Seconds since 1970, by the server's clock if there is a server."""
    if db.dialect.name != "postgresql":
        return time.time()
    return float(db.scalar(sa.text("SELECT extract(epoch FROM clock_timestamp())")) or 0)


def _is_dead(owner: str, pid: int) -> bool:
    """Whether the owner was a process of this machine that no longer exists."""
    machine, _, process = owner.partition(" ")
    if not machine or machine != _machine():
        return False
    return _process(pid) != f"{machine} {process.partition(' ')[0]}"


def _process(pid: int) -> str:
    """Machine and process; the start time tells a process from a later one with its number."""
    return f"{_machine()} {pid}:{_start_of(pid)}"


def _start_of(pid: int) -> str:
    """When a process started, in the unit of the system; ``gone`` if there is none."""
    if Path("/proc/self/stat").exists():
        try:
            state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return "gone"
        return "gone" if state in "ZX" else rest[18]
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return "gone"
    except OSError:
        pass
    return "running"


def _machine() -> str:
    """The running system within which process numbers have a meaning; empty if unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return "" if os.name == "nt" else socket.gethostname().replace(" ", "-")
