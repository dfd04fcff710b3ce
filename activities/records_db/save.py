"""Write a call record: one transaction, and harmless to repeat."""

from __future__ import annotations

from typing import Any

from sqlalchemy import delete, insert, or_
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from activities.records_db.engine import BEGIN, is_sqlite
from activities.records_db.mapping import call_row, child_rows
from activities.records_db.models import Call
from stayline.timeline import CallRecord


async def save(engine: AsyncEngine, record: CallRecord) -> bool:
    """Write the record in place of what is there of this call.

    A final record stays: no provisional one replaces it, and no provisional one replaces a longer one. Two
    writers of the same call wait for each other at the row of `calls`.

    Returns:
        False when what is there is better, and nothing was written.
    """
    async with engine.execution_options(**{BEGIN: "BEGIN IMMEDIATE"}).begin() as connection:
        if not await _claim(connection, record, sqlite if is_sqlite(engine.url) else postgresql):
            return False
        call_id = record.snapshot.call.call_id
        children = child_rows(record)
        for table, _ in reversed(children):
            await connection.execute(delete(table).where(table.__table__.c.call_id == call_id))
        for table, rows in children:
            if rows:
                await connection.execute(insert(table), rows)
        return True


async def _claim(connection: AsyncConnection, record: CallRecord, dialect: Any) -> bool:
    """Write the row of `calls` if this record may replace it; both databases speak the same upsert."""
    row = call_row(record)
    statement = dialect.insert(Call).values(row)
    statement = statement.on_conflict_do_update(
        index_elements=[Call.call_id],
        set_={name: statement.excluded[name] for name in row if name != "call_id"},
        where=or_(
            statement.excluded.final,
            ~Call.final & (Call.timeline_length <= statement.excluded.timeline_length),
        ),
    ).returning(Call.call_id)
    return (await connection.execute(statement)).first() is not None
