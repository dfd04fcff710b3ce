"""Activity `save_call`: the record of a call goes from its workflow to the database."""

from __future__ import annotations

import asyncio
import logging
from types import TracebackType
from typing import Self

from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.records_db.engine import (
    SQLITE_BUSY_TIMEOUT,
    NoTables,
    RecordsUnavailable,
    create_engine,
    database_url,
    readable_errors,
)
from activities.records_db.migrate import upgrade
from activities.records_db.save import save
from stayline.errors import ConfigError
from stayline.messages import PackedRecord
from stayline.telemetry import metrics
from stayline.timeline import CallRecord
from workflows.packing import opened

log = logging.getLogger(__name__)


class RecordActivities:
    """Writes call records. One per worker process; close it when the worker has stopped.

    The database need not be up when the worker starts: tables are made before the first record is written.

    Args:
        url: `Settings.database`.
        busy_timeout: seconds to wait for another process's SQLite transaction.
    """

    def __init__(self, url: str, *, busy_timeout: float = SQLITE_BUSY_TIMEOUT) -> None:
        self._url = url
        self._busy_timeout = busy_timeout
        self._target = database_url(url)
        self._engine: AsyncEngine | None = None
        self._upgraded = False
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        async with self._lock:
            if self._engine is not None:
                await self._engine.dispose()
                self._engine = None

    @activity.defn(name="save_call")
    async def save_call(self, given: CallRecord | PackedRecord) -> None:
        """Write a call record; writing it again is harmless, and a final record stays.

        Raises:
            ApplicationError: of type `RecordsAway` when the database is away, `RecordsRejected` when it takes
                no such record. Both are retried, for as long as the workflow says: a record is never given up
                because of a bug that a deploy can mend. Neither holds a secret or what was said.
        """
        record = opened(given)
        call_id = record.snapshot.call.call_id
        try:
            engine = await self._ready_engine()
            with readable_errors(self._target):
                written = await save(engine, record)
        except (RecordsUnavailable, ConfigError) as error:
            if isinstance(error, NoTables):
                self._upgraded = False  # somebody emptied the database: make the tables again
            if error.retryable:
                log.warning("call record waits: %s", error, extra={"call_id": call_id})
                raise ApplicationError(str(error), type="RecordsAway") from None
            log.error("call record REJECTED: %s", error, extra={"call_id": call_id})
            raise ApplicationError(str(error), type="RecordsRejected") from None
        if written and record.final:
            metrics.call_ended(record.snapshot.agent, record.snapshot.outcome or "failed")
        elif not written:
            log.info("call record kept as it is: a later one is there", extra={"call_id": call_id})

    async def _ready_engine(self) -> AsyncEngine:
        async with self._lock:
            if not self._upgraded:
                await upgrade(self._url)
                self._upgraded = True
            if self._engine is None:
                self._engine = create_engine(self._target, busy_timeout=self._busy_timeout)
            return self._engine
