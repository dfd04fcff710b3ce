"""Connections to the database, and its failures in words that carry no secret and nothing that was said."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from pydantic_core import from_json, to_json
from sqlalchemy import URL, Connection, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from stayline.errors import ConfigError, StaylineError

CONNECT_TIMEOUT: Final = 10.0
"""Seconds to reach PostgreSQL."""
COMMAND_TIMEOUT: Final = 30.0
"""Seconds for one PostgreSQL statement."""
SQLITE_BUSY_TIMEOUT: Final = 20.0
"""Seconds to wait for another process's SQLite transaction. One of a worker without a processor lasts seconds."""
BEGIN: Final = "sqlite_begin"
"""Execution option: how an SQLite transaction begins, e.g. "BEGIN IMMEDIATE" for one that will write."""

_ASYNC_DRIVERS: Final = {
    "sqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
}


class RecordsUnavailable(StaylineError):
    """The records database cannot be used now. `retryable`: it is away, rather than wrong."""


class NoTables(RecordsUnavailable):
    """The database is there, but nothing was ever written to it."""


def database_url(text: str) -> URL:
    """Parse a database URL; drivers are filled in (`postgresql://` becomes asyncpg's).

    Raises:
        ConfigError: it is no URL, or not of SQLite or PostgreSQL. The message never holds the URL itself.
    """
    fix = 'Write "sqlite:///path/to/calls.db" or "postgresql://user:password@host:5432/name".'
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise ConfigError("Setting 'database_url' is not a database URL.", fix=fix) from None
    url = url.set(drivername=_ASYNC_DRIVERS.get(url.drivername, url.drivername))
    if url.drivername not in _ASYNC_DRIVERS.values():
        raise ConfigError(f"Setting 'database_url': {url.drivername!r} is not supported.", fix=fix)
    if "sslmode" in url.query:  # libpq's name for it; asyncpg's is `ssl`, with the same values
        url = url.difference_update_query(["sslmode"]).update_query_dict({"ssl": url.query["sslmode"]})
    return url


def describe(url: URL) -> str:
    """Where the database is, without user and password."""
    if is_sqlite(url):
        return f"SQLite file {url.database}"
    return f"PostgreSQL {url.database!r} at {url.host or 'localhost'}:{url.port or 5432}"


def is_sqlite(url: URL) -> bool:
    return url.get_backend_name() == "sqlite"


def sqlite_path(url: URL) -> Path | None:
    """The database file; None for PostgreSQL and for SQLite in memory."""
    if not is_sqlite(url) or not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        return None
    return Path(url.database)


def create_engine(url: URL, *, busy_timeout: float = SQLITE_BUSY_TIMEOUT) -> AsyncEngine:
    """An engine. Whoever makes it disposes of it, in the event loop that used it.

    Parameters stay out of errors and logs: they hold what callers said.
    """
    options: dict[str, Any] = {
        "hide_parameters": True,
        # pydantic's JSON knows no NaN, which PostgreSQL would refuse.
        "json_serializer": lambda value: to_json(value).decode(),
        "json_deserializer": from_json,
    }
    try:
        if not is_sqlite(url):
            arguments = {"timeout": CONNECT_TIMEOUT, "command_timeout": COMMAND_TIMEOUT}
            # Pre-ping: a connection that died with the server is replaced, not handed out.
            return create_async_engine(url, pool_pre_ping=True, pool_size=5, connect_args=arguments, **options)
        engine = create_async_engine(url, connect_args={"timeout": busy_timeout}, **options)
    except (ArgumentError, NoSuchModuleError, TypeError) as error:
        raise ConfigError(f"Setting 'database_url': {type(error).__name__}.", fix="Check its options.") from None
    event.listen(engine.sync_engine, "connect", _own_transactions)
    event.listen(engine.sync_engine, "begin", _begin)
    return engine


def _own_transactions(connection: Any, _record: Any) -> None:
    # The driver's own BEGIN leaves DDL outside of transactions and cannot be IMMEDIATE.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.close()


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get(BEGIN, "BEGIN"))


@contextmanager
def readable_errors(url: URL) -> Iterator[None]:
    """Turn what the driver raises into RecordsUnavailable, without SQL parameters, user or password."""
    try:
        yield
    except DBAPIError as error:
        # asyncpg: a bad value of an option; it wraps a ValueError.
        if isinstance(getattr(error.orig, "__cause__", None), ValueError):
            raise _wrong_option(str(error.orig)) from None
        raise _translated(error, url) from None
    except TypeError as error:  # both drivers: an option that they do not have
        if "unexpected keyword argument" not in str(error):
            raise
        raise _wrong_option(str(error)) from None
    except (OSError, TimeoutError, PoolTimeoutError) as error:
        words = getattr(error, "strerror", None) or type(error).__name__
        raise _away(url, words) from None


def _wrong_option(words: str) -> ConfigError:
    return ConfigError(f"Setting 'database_url': {words}.", fix="Check what follows the question mark in it.")


# SQLSTATE classes of a server that is away, starting, stopping, full or busy rather than misused
# (PostgreSQL manual, appendix A): connection, insufficient resources, operator intervention, rollback, lock.
_PASSING_STATES: Final = ("08", "53", "57", "58", "40", "55")
_DENIED_STATES: Final = ("28", "3D", "42501")
_PASSING_SQLITE: Final = re.compile(r"locked|busy|unable to open|disk|full|readonly|read-only", re.IGNORECASE)


def _translated(error: DBAPIError, url: URL) -> RecordsUnavailable:
    original: BaseException | None = error.orig
    state = str(getattr(original, "sqlstate", None) or "")
    # These messages name files, hosts and roles. Any other message may quote a value, so it is not repeated.
    words = str(original).splitlines()[0] if str(original) else type(original).__name__
    words = re.sub(r"^<class '[^']*'>: ", "", words)
    if state == "42P01" or "no such table" in words:
        return NoTables(
            f"The call records database ({describe(url)}) has no tables.",
            fix="A worker makes them when it starts.",
            retryable=True,
        )
    if state == "42703" or "no such column" in words or "has no column" in words:
        return RecordsUnavailable(
            f"The tables of the call records database ({describe(url)}) are of another version.",
            fix="Start a worker of this version: it upgrades them.",
            retryable=True,
        )
    if state.startswith(_DENIED_STATES):
        return RecordsUnavailable(
            f"The call records database ({describe(url)}) refuses us: {words}.",
            fix="Check STAYLINE_DATABASE_URL.",
            retryable=True,
        )
    if state.startswith(_PASSING_STATES) or error.connection_invalidated:
        return _away(url, words)
    if is_sqlite(url) and _PASSING_SQLITE.search(words):
        return _away(url, words)
    if not state and not is_sqlite(url) and type(original).__name__ in ("OperationalError", "InterfaceError"):
        return _away(url, type(original).__name__)
    return RecordsUnavailable(
        f"The call records database ({describe(url)}) rejected a statement: "
        f"{type(original).__name__}{f', SQLSTATE {state}' if state else ''}.",
        retryable=False,
    )


def _away(url: URL, words: str) -> RecordsUnavailable:
    return RecordsUnavailable(
        f"The call records database ({describe(url)}) cannot be reached: {words}.",
        fix="Start it, or check STAYLINE_DATABASE_URL.",
        retryable=True,
    )
