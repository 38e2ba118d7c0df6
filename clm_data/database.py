"""Differences between databases: how to open them, and types of text columns."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from clm_data.errors import MissingExtraError, StoreError


class Json(sa.TypeDecorator[Any]):
    """A JSON value stored as ASCII text in every database; None is SQL NULL.

    Native JSON types may turn 10**20 into a float, or reject a lone surrogate.
    """

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> str | None:
        """Encode a value as ASCII JSON."""
        return None if value is None else json.dumps(value, separators=(",", ":"))

    def process_result_value(self, value: str | None, dialect: sa.Dialect) -> Any:
        """Decode a value."""
        return None if value is None else json.loads(value)


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


def _set_pragmas(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA busy_timeout=30000")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()
