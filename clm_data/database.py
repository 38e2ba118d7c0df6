"""What differs between databases: how one is opened, and what its text columns take."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from clm_data.errors import MissingExtraError, StoreError


class Json(sa.TypeDecorator[Any]):
    """A JSON value as ASCII text, the same in every database; SQL NULL for None.

    A database's own JSON type may turn 10**20 into a float, or refuse a lone surrogate.
    """

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> str | None:
        """As ASCII JSON, whatever characters the value holds."""
        return None if value is None else json.dumps(value, separators=(",", ":"))

    def process_result_value(self, value: str | None, dialect: sa.Dialect) -> Any:
        """The value as it was given."""
        return None if value is None else json.loads(value)


class SafeText(sa.TypeDecorator[str]):
    """Foreign words for people; what a database may refuse in text is written as an escape."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str | None:
        r"""NUL as ``\x00``, a lone surrogate as ``\udXXX``; all else unchanged."""
        if value is None:
            return None
        return value.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", r"\x00")


def open_engine(url: str) -> sa.Engine:
    """An engine for a SQLAlchemy URL; nothing is connected yet.

    Raises:
        StoreError: Not a URL, or of an unknown database.
        MissingExtraError: Its driver is not installed.
    """
    try:
        if sa.engine.make_url(url).get_backend_name() == "postgresql":
            # A server may drop what is idle, and a database may be made without an encoding.
            return sa.create_engine(url, pool_pre_ping=True, client_encoding="utf8")
        engine = sa.create_engine(url)
    except (ArgumentError, NoSuchModuleError) as error:
        raise StoreError(f"store url '{shown(url)}' is not usable: {error}") from error
    except ModuleNotFoundError as error:
        if str(error.name).startswith("psycopg"):
            raise MissingExtraError(str(error.name), "postgres") from error
        raise StoreError(
            f"store url '{shown(url)}' needs the package {error.name}; install it, or use "
            "sqlite:/// or postgresql+psycopg://"
        ) from error
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _set_pragmas)
    return engine


def shown(url: str) -> str:
    """The URL without its password."""
    try:
        return sa.engine.make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return url.rsplit("@", 1)[-1]


def _set_pragmas(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA busy_timeout=30000")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()
