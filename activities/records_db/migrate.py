"""Bring the database's tables up to date. Safe to run by many processes at once, and again."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine

from activities.records_db.engine import (
    BEGIN,
    RecordsUnavailable,
    create_engine,
    database_url,
    is_sqlite,
    readable_errors,
    sqlite_path,
)

if TYPE_CHECKING:
    from alembic.config import Config

MIGRATIONS: Final = Path(__file__).parent / "migrations"
UPGRADE_TIMEOUT: Final = 30.0
"""Seconds to wait for another process that is upgrading the same SQLite file."""
_LOCK_KEY: Final = 0x5374_6179_6C69_6E65
""""Stayline" in ASCII: the PostgreSQL advisory lock under which one process upgrades at a time."""


async def upgrade(url: str) -> None:
    """Create or upgrade the tables, in one transaction. For SQLite, create the folder and the file too.

    Raises:
        ConfigError: `url` is not usable.
        RecordsUnavailable: the database is away or refuses us; nothing was changed.
    """
    target = database_url(url)
    with readable_errors(target):
        path = sqlite_path(target)
        if path is not None:
            await asyncio.to_thread(path.parent.mkdir, parents=True, exist_ok=True)
        engine = create_engine(target, busy_timeout=UPGRADE_TIMEOUT)
        try:
            if path is not None:
                await _use_wal(engine)
            async with engine.execution_options(**{BEGIN: "BEGIN IMMEDIATE"}).begin() as connection:
                if not is_sqlite(target):
                    await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})
                await connection.run_sync(_run_migrations)
        finally:
            await engine.dispose()


def alembic_config() -> Config:
    """Alembic's configuration, without an ini file: the migrations travel inside the package."""
    from alembic.config import Config  # half a second, and commands that only read do without

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _run_migrations(connection: Connection) -> None:
    from alembic import command

    config = alembic_config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


async def _use_wal(engine: AsyncEngine) -> None:
    """Switch the file to write-ahead logging: readers never wait for the writer.

    The switch does not wait for other connections as statements do (sqlite.org/wal.html, section 5), so it is
    tried again. It lasts: later connections find the file switched.
    """
    deadline = asyncio.get_running_loop().time() + UPGRADE_TIMEOUT
    while True:
        try:
            with readable_errors(engine.url):
                async with engine.execution_options(**{BEGIN: "SELECT 1"}).connect() as connection:
                    await connection.exec_driver_sql("PRAGMA journal_mode=WAL")
            return
        except RecordsUnavailable as error:
            if not error.retryable or asyncio.get_running_loop().time() > deadline:
                raise
            await asyncio.sleep(0.05)
