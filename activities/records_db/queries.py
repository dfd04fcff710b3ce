"""Reading calls back: the list, and one call as the record that was written."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Self, TypeVar

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from activities.records_db.engine import (
    NoTables,
    create_engine,
    database_url,
    is_sqlite,
    readable_errors,
    sqlite_path,
)
from activities.records_db.mapping import record_of
from activities.records_db.models import Call, Event, ToolAttemptRow, ToolCallRow
from stayline.models import CarrierName, Direction, Mode, Model
from stayline.timeline import CallOutcome, CallRecord, CallStatus

T = TypeVar("T")


class CallSummary(Model):
    """A call as one line of a list."""

    call_id: str
    agent: str
    mode: Mode
    direction: Direction
    carrier: CarrierName
    from_number: str
    to_number: str
    status: CallStatus
    outcome: CallOutcome | None
    started_at: datetime
    ended_at: datetime | None
    duration: float  #: seconds
    turn_count: int
    interruption_count: int
    tool_call_count: int
    error_count: int
    final: bool


class CallStore:
    """The database, for reading. Makes no file and no table: an empty answer is what a new machine gives.

    Raises from every method:
        RecordsUnavailable: the database is away or refuses us.
    """

    def __init__(self, url: str) -> None:
        self._url = database_url(url)
        self._engine: AsyncEngine | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        if self._engine is not None:
            await self._engine.dispose()
            self._engine = None

    async def list_calls(
        self,
        *,
        limit: int = 50,
        before: datetime | None = None,
        agent: str | None = None,
        outcome: CallOutcome | None = None,
        status: CallStatus | None = None,
        since: datetime | None = None,
    ) -> list[CallSummary]:
        """Calls, newest first, that began in [since, before)."""
        query = select(Call).order_by(Call.started_at.desc(), Call.call_id).limit(limit)
        if before is not None:
            query = query.where(Call.started_at < before)
        if since is not None:
            query = query.where(Call.started_at >= since)
        if agent is not None:
            query = query.where(Call.agent == agent)
        if outcome is not None:
            query = query.where(Call.outcome == outcome)
        if status is not None:
            query = query.where(Call.status == status)

        async def read(session: AsyncSession) -> list[CallSummary]:
            calls = (await session.scalars(query)).all()
            return [CallSummary.model_validate(call, from_attributes=True) for call in calls]

        return await self._read(read, [])

    async def find_ids(self, prefix: str, limit: int = 10) -> list[str]:
        """Ids of calls that begin so, newest first."""
        query = (
            select(Call.call_id)
            .where(Call.call_id.startswith(prefix, autoescape=True))
            .order_by(Call.started_at.desc(), Call.call_id)
            .limit(limit)
        )

        async def read(session: AsyncSession) -> list[str]:
            return list((await session.scalars(query)).all())

        return await self._read(read, [])

    async def get_call(self, call_id: str) -> CallRecord | None:
        """The record of a call, exactly as it was saved."""

        async def read(session: AsyncSession) -> CallRecord | None:
            call = await session.get(Call, call_id)
            if call is None:
                return None
            events = await session.scalars(
                select(Event).where(Event.call_id == call_id).order_by(Event.timeline_index)
            )
            tools = await session.scalars(
                select(ToolCallRow).where(ToolCallRow.call_id == call_id).order_by(ToolCallRow.position)
            )
            attempts = await session.scalars(
                select(ToolAttemptRow)
                .where(ToolAttemptRow.call_id == call_id)
                .order_by(ToolAttemptRow.tool_position, ToolAttemptRow.position)
            )
            return record_of(call, events.all(), tools.all(), attempts.all())

        return await self._read(read, None)

    async def _read(self, read: Callable[[AsyncSession], Awaitable[T]], nothing: T) -> T:
        """Run `read` in one consistent view of the database; `nothing` when nothing was ever written."""
        path = sqlite_path(self._url)
        if path is not None and not await asyncio.to_thread(path.exists):
            return nothing
        try:
            with readable_errors(self._url):
                async with AsyncSession(self._open()) as session:
                    return await read(session)
        except NoTables:
            return nothing

    def _open(self) -> AsyncEngine:
        if self._engine is None:
            engine = create_engine(self._url)
            # A save that commits between two SELECTs of one record must not show in half of them.
            # SQLite's read transactions are snapshots by themselves.
            self._engine = (
                engine if is_sqlite(self._url) else engine.execution_options(isolation_level="REPEATABLE READ")
            )
        return self._engine
