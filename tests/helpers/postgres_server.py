"""A PostgreSQL server on loopback for tests, with a database for each test."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import count
from pathlib import Path

import pytest
import sqlalchemy as sa

NewDatabase = Callable[[], str]
"""Creates an empty database and returns its URL."""

SECONDS = 60
"""Timeout for starting and stopping the server."""


def server_programs() -> Path | None:
    """Folder of ``initdb`` and ``pg_ctl``, which is not in PATH on Debian."""
    found = shutil.which("pg_ctl")
    if found and shutil.which("initdb"):
        return Path(found).resolve().parent
    folders = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/pg_ctl")]
    return max(folders, key=lambda folder: float(folder.parent.name), default=None)


@contextmanager
def running_postgres() -> Iterator[NewDatabase]:
    """Run a new server until the block ends. Skips the test if PostgreSQL is not installed."""
    if find_spec("psycopg") is None:
        pytest.skip("psycopg is not installed: pip install 'clm-data[postgres]'")
    programs = server_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    with tempfile.TemporaryDirectory(prefix="clm-postgres-") as folder:
        # PostgreSQL does not run as root, and only root can read pytest's tmp_path.
        other = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        if other:
            os.chown(folder, other.pw_uid, other.pw_gid)

        def call(program: str, *arguments: str) -> None:
            output = Path(folder, "output")
            with output.open("w") as log:
                status = subprocess.run(
                    [programs / program, "-D", f"{folder}/data", *arguments],
                    cwd=folder,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    user=other and other.pw_uid,
                    group=other and other.pw_gid,
                    extra_groups=[] if other else None,
                    timeout=2 * SECONDS,
                ).returncode
            assert status == 0, f"{program} ended with {status}:\n{output.read_text()}"

        port = free_port()
        flags = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
        call("initdb", "-U", "clm", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync")
        try:
            call("pg_ctl", "start", "-w", "-t", str(SECONDS), "-o", flags)
            yield databases(f"postgresql+psycopg://clm@127.0.0.1:{port}")
        finally:
            if Path(folder, "data", "postmaster.pid").exists():
                call("pg_ctl", "stop", "-w", "-t", str(SECONDS), "-m", "immediate")


def databases(server: str) -> NewDatabase:
    """A function that creates databases on a server."""
    numbers = count()

    def new() -> str:
        name = f"store{next(numbers)}"
        engine = sa.create_engine(f"{server}/postgres", isolation_level="AUTOCOMMIT")
        with engine.connect() as db:
            db.execute(sa.text(f"CREATE DATABASE {name}"))
        engine.dispose()
        return f"{server}/{name}"

    return new


def free_port() -> int:
    """A free TCP port on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
