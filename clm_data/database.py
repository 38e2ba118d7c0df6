"""Differences between databases: how to open them, and types of text columns."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, DatabaseError, NoSuchModuleError

from clm_data.errors import MissingExtraError, StoreError

BUSY_MS = 30_000
"""How long to wait for a SQLite store that another process is writing to."""
_BLANKS = " \t\r\n"
"""The four blanks of JSON, as digits."""
_CHECKSUM_CHARS = 16


@dataclass(frozen=True)
class Damaged:
    """In place of a stored value that is not what was written."""

    reason: str


def damage_of(row: Mapping[Any, Any]) -> str | None:
    """What is damaged in a row; None if nothing is known to be."""
    for column, value in row.items():
        if isinstance(value, Damaged):
            return f"{column}: {value.reason}"
        if isinstance(value, str) and not value.isascii() and re.search("[\udc80-\udcff]", value):
            return f"{column}: it contains bytes that were not written"
        if column in _NUMBERS and type(value) is not int:
            return f"{column}: it is not a number"
        if value is None and column not in _OPTIONAL:
            return f"{column}: it is missing"
        if isinstance(value, bytes | float) and column not in _ANY_TYPE:
            return f"{column}: it is not a text"
    return None


_OPTIONAL = {"answered_at", "completion", "content", "ended", "error", "licence"}
_ANY_TYPE = {"completion", "content", "deflated", "messages"}
_NUMBERS = {"id", "dialogue_id", "number", "position", "source_id", "turn", "wanted", "wave"}


class Json(sa.TypeDecorator[Any]):
    """A JSON value stored as ASCII text in every database.

    None is SQL NULL; or, with ``null_is_value``, the JSON value null, and SQL NULL is damage.

    Native JSON types may turn 10**20 into a float, or reject a lone surrogate. The text ends with
    a CRC-32 in sixteen blanks, which JSON allows, so that any program can still read it. A value
    that was changed since is read as :class:`Damaged`.
    """

    impl = sa.Text
    cache_ok = True

    def __init__(self, *, null_is_value: bool = False) -> None:
        super().__init__()
        self.null_is_value = null_is_value

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> str | None:
        """Encode a value as ASCII JSON with its checksum."""
        if value is None and not self.null_is_value:
            return None
        text = json.dumps(value, separators=(",", ":"))
        return text + _checksum(text)

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> Any:
        """Decode a value; text without a checksum was written by an earlier version."""
        if value is None:
            return Damaged("it is missing") if self.null_is_value else None
        if not isinstance(value, str) or not value.isascii():
            return Damaged("it contains bytes that were not written")
        text = value.rstrip(_BLANKS)
        if len(value) != len(text) and value != text + _checksum(text):
            return Damaged("its checksum differs")
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            return Damaged(f"it is not JSON ({error})")


def _checksum(text: str) -> str:
    code = zlib.crc32(text.encode("ascii"))
    return "".join(_BLANKS[code >> 2 * place & 3] for place in range(_CHECKSUM_CHARS))


class SafeText(sa.TypeDecorator[str]):
    """Text from outside; characters that a database may reject are written as escapes."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str | None:
        r"""Write NUL as ``\x00`` and lone surrogates as ``\ud800``."""
        if value is None:
            return None
        return value.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", r"\x00")


def open_engine(url: str) -> sa.Engine:
    """Create an engine for a SQLAlchemy URL, without connecting.

    Raises:
        StoreError: The URL is malformed or names an unknown database.
        MissingExtraError: The driver is not installed.
    """
    try:
        parsed = sa.engine.make_url(url)
        if "@" in (parsed.host or ""):
            raise StoreError("the store URL has two '@'; in a password, write '@' as %40")
        if parsed.get_backend_name() == "postgresql":
            # Servers may drop idle connections, and a database may have no encoding.
            return sa.create_engine(url, pool_pre_ping=True, client_encoding="utf8")
        engine = sa.create_engine(url)
    except (ArgumentError, NoSuchModuleError) as error:
        raise StoreError(
            f"store URL '{shown(url)}' is not usable: {' '.join(str(error).split())}"
        ) from error
    except ValueError as error:
        raise StoreError(f"store URL '{shown(url)}' has no valid host and port") from error
    except ModuleNotFoundError as error:
        if str(error.name).startswith("psycopg"):
            raise MissingExtraError(str(error.name), "postgres") from error
        raise StoreError(
            f"store URL '{shown(url)}' needs the package {error.name}; install it, or use "
            "sqlite:/// or postgresql+psycopg://"
        ) from error
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _set_pragmas)
    return engine


def shown(url: str) -> str:
    """The URL with its password, and on servers the values of its query, hidden."""
    try:
        parsed = sa.engine.make_url(url)
    except (ArgumentError, ValueError):
        return url.partition("?")[0].rpartition("@")[2]
    if parsed.get_backend_name() != "sqlite":
        parsed = parsed.set(query=dict.fromkeys(parsed.query, "***"))
    return parsed.render_as_string(hide_password=True).replace("%2A%2A%2A", "***")


def is_emptied(url: str) -> bool:
    """Whether a store is a file of 0 bytes: it was lost, and a new one would hide that."""
    file = sqlite_file(url)
    return file is not None and file.is_file() and not file.stat().st_size


def sqlite_file(url: str) -> Path | None:
    """The file of a SQLite URL; None for other databases and for ``file:`` names."""
    try:
        made = sa.engine.make_url(url)
    except (ArgumentError, ValueError):  # reported when the engine is opened
        return None
    name = made.database or ""
    if made.get_backend_name() != "sqlite" or not name or name.startswith((":", "file:")):
        return None
    return Path(name)


def read_only_engine(file: Path, *, always: bool = False) -> sa.Engine | None:
    """An engine for a SQLite file that is only read; None if it can be written, unless ``always``.

    Raises:
        StoreError: Reading it would miss data that is only in its write-ahead log.
    """
    writable = os.access(file, os.W_OK) and os.access(file.parent, os.W_OK)
    if writable and not always:
        return None
    log = file.with_name(f"{file.name}-wal")
    options = "mode=ro" if writable else "mode=ro&immutable=1"
    if not writable and log.exists() and log.stat().st_size:
        if not log.with_name(f"{file.name}-shm").exists():
            raise StoreError(
                f"{file} is read-only and its latest rows are only in {log.name}; copy the "
                "workspace to a place that can be written, and use it there"
            )
        options = "mode=ro"
    place = quote(str(file.absolute()))
    engine = sa.create_engine(f"sqlite:///file:{place}?{options}&uri=true")
    sa.event.listen(engine, "connect", _decode_all)
    return engine


def advice(engine: sa.Engine, url: str, error: DatabaseError) -> str:
    """What to do about an error of a database."""
    if engine.dialect.name != "sqlite":
        return "check the address, the server, and that the database is UTF-8 and yours"
    code = str(getattr(error.orig, "sqlite_errorname", ""))
    if code.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return (
            "the file is damaged: clm-data doctor shows what can still be read, "
            "clm-data store restore puts a backup in its place"
        )
    if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        owner = ", ".join(lock_holders(sqlite_file(url)))
        return f"{owner or 'another program'} is using it; wait until that has finished, or end it"
    if code.startswith("SQLITE_READONLY"):
        return "it is read-only: copy the workspace to a place that can be written"
    if code.startswith(("SQLITE_FULL", "SQLITE_IOERR")):
        return "free some space on its disk and run the command again; what was stored is kept"
    return "check the path, its permissions and the free space"


def lock_holders(file: Path | None) -> list[str]:
    """The processes that hold a write lock on a SQLite file, as far as this system tells."""
    try:
        locks = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return []
    nodes = set()
    for name in (file, file and file.with_name(f"{file.name}-shm")):
        if name is not None and name.exists():
            nodes.add(name.stat().st_ino)
    return sorted(set(_holders(locks, nodes)))


def _holders(locks: list[str], nodes: set[int]) -> Iterator[str]:
    for line in locks:
        # 1: POSIX  ADVISORY  WRITE 4711 fe:00:1234 120 120
        fields = line.split()
        if "->" in fields or len(fields) < 6 or fields[3] != "WRITE":
            continue
        pid, node = fields[4], fields[5].rpartition(":")[2]
        if node.isdigit() and int(node) in nodes and pid != str(os.getpid()):
            try:
                name = Path(f"/proc/{pid}/comm").read_text().strip()
            except OSError:
                name = "name unknown"
            yield f"process {pid} ({name})"


def _decoded(data: bytes) -> str:
    """Text of SQLite; damaged bytes become lone surrogates, which no stored text contains."""
    return data.decode("utf-8", "surrogateescape")


def _decode_all(connection: Any, _record: Any) -> None:
    connection.text_factory = _decoded


def _set_pragmas(connection: Any, _record: Any) -> None:
    _decode_all(connection, _record)
    cursor = connection.cursor()
    try:
        cursor.execute(f"PRAGMA busy_timeout={BUSY_MS}")
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
    except UnicodeDecodeError as error:  # the message of sqlite quotes a damaged schema
        raise sqlite3.DatabaseError("the database schema is damaged") from error
    finally:
        cursor.close()
