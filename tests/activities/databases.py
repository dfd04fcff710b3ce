"""The databases that record tests run over: a SQLite file and a real PostgreSQL, with a way to take each away."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.postgres import PostgresServer


@dataclass(frozen=True)
class Database:
    """An empty database of a test's own."""

    url: str
    path: Path | None = None
    server: PostgresServer | None = None

    @property
    def kind(self) -> str:
        return "sqlite" if self.path else "postgresql"

    @contextmanager
    def outage(self) -> Iterator[None]:
        """Nobody else can write while the block runs: PostgreSQL is stopped, the SQLite file is locked."""
        if self.server is not None:
            self.server.stop()
            try:
                yield
            finally:
                self.server.start()
            return
        assert self.path is not None
        connection = sqlite3.connect(self.path, isolation_level=None)
        connection.execute("BEGIN EXCLUSIVE")
        try:
            yield
        finally:
            connection.rollback()
            connection.close()
