"""Call records in a real database: SQLite and PostgreSQL, by the same tests."""

from __future__ import annotations

import asyncio
import logging
import secrets
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, delete, func, select, text
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.records import RecordActivities
from activities.records_db import CallStore, RecordsUnavailable, upgrade
from activities.records_db.engine import create_engine, database_url, describe
from activities.records_db.models import Base, Call, Event, Session, ToolAttemptRow, ToolCallRow, Turn
from stayline.errors import ConfigError
from stayline.models import ToolCall, ToolRun
from stayline.timeline import (
    AgentTurn,
    CallMetrics,
    CallRecord,
    CallSnapshot,
    SessionClosed,
    TimelineEntry,
    UserTurn,
)
from tests.activities.databases import Database
from tests.postgres import PASSWORD, PostgresServer, running_postgres
from tests.sample_call import CALL_ID, RECORD, at, record


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with running_postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    if request.param == "sqlite":
        path = tmp_path / "not" / "there yet" / "calls.db"
        return Database(f"sqlite:///{path}", path=path)
    server: PostgresServer = request.getfixturevalue("postgres")
    return Database(await server.create_database(f"t_{secrets.token_hex(6)}"), server=server)


@pytest.fixture
async def records(database: Database) -> AsyncIterator[RecordActivities]:
    async with RecordActivities(database.url, busy_timeout=0.05) as activities:
        yield activities


@pytest.fixture
async def store(database: Database) -> AsyncIterator[CallStore]:
    async with CallStore(database.url) as calls:
        yield calls


async def save(activities: RecordActivities, written: CallRecord) -> None:
    """As a worker runs it."""
    await ActivityEnvironment().run(activities.save_call, written)


async def count(database: Database, table: type[Base]) -> int:
    engine = create_engine(database_url(database.url))
    try:
        async with engine.connect() as connection:
            return (await connection.execute(select(func.count()).select_from(table))).scalar_one()
    finally:
        await engine.dispose()


# --- writing and reading back ----------------------------------------------------------------------------


async def test_a_record_comes_back_exactly(records: RecordActivities, store: CallStore) -> None:
    await save(records, RECORD)
    assert await store.get_call(CALL_ID) == RECORD


async def test_an_unknown_call_is_none(records: RecordActivities, store: CallStore) -> None:
    await save(records, RECORD)
    assert await store.get_call("CA-nobody") is None


async def test_every_table_has_its_rows(database: Database, records: RecordActivities) -> None:
    await save(records, RECORD)
    turns = sum(isinstance(entry.event, UserTurn | AgentTurn) for entry in RECORD.timeline)
    expected = {Call: 1, Event: len(RECORD.timeline), Turn: turns, Session: 3, ToolCallRow: 3, ToolAttemptRow: 4}
    assert {table: await count(database, table) for table in expected} == expected


async def test_saving_twice_leaves_one_row_per_turn(
    database: Database, records: RecordActivities, store: CallStore
) -> None:
    await save(records, RECORD)
    before = {table: await count(database, table) for table in (Call, Event, Turn, Session, ToolAttemptRow)}
    await save(records, RECORD)
    assert {table: await count(database, table) for table in before} == before
    assert await store.get_call(CALL_ID) == RECORD


async def test_a_final_record_replaces_a_provisional_one(records: RecordActivities, store: CallStore) -> None:
    await save(records, record(final=False, events=20, status="wrapping_up"))
    await save(records, RECORD)
    assert await store.get_call(CALL_ID) == RECORD


async def test_a_provisional_record_never_replaces_a_final_one(records: RecordActivities, store: CallStore) -> None:
    await save(records, RECORD)
    await save(records, record(final=False, status="wrapping_up"))
    assert await store.get_call(CALL_ID) == RECORD


async def test_a_late_provisional_record_never_replaces_a_longer_one(
    records: RecordActivities, store: CallStore
) -> None:
    await save(records, record(final=False, events=20))
    await save(records, record(final=False, events=10))
    saved = await store.get_call(CALL_ID)
    assert saved is not None
    assert len(saved.timeline) == 20


async def test_odd_characters_and_numbers_are_kept(records: RecordActivities, store: CallStore) -> None:
    """U+0000 is what PostgreSQL refuses in text; the timeline keeps it, and nothing is refused."""
    said = "nul \x00, quote ' \", emoji 🎧, عربى, 漢字"
    call = ToolCall(id="x\x001", name="odd", arguments={"big": 2**70, "nested": [{"k": [None, 1.5, said]}]})
    odd = CallRecord(
        snapshot=RECORD.snapshot.model_copy(update={"tools": (ToolRun(call=call, session=1, requested_at=at(1)),)}),
        timeline=(TimelineEntry(index=0, session=1, event=UserTurn(at=at(1), text=said, speech_ms=2**40)),),
    )
    await save(records, odd)
    saved = await store.get_call(CALL_ID)
    assert saved is not None
    assert saved.timeline == odd.timeline
    assert saved.snapshot.tools[0].call.arguments == call.arguments
    assert saved.snapshot.tools[0].outcome is None


async def test_a_session_that_was_lost_and_then_reports_keeps_both(
    database: Database, records: RecordActivities
) -> None:
    """The workflow sees the loss first; the bridge's own word, with the recording, comes from its spool."""
    lost = TimelineEntry(index=0, session=0, event=SessionClosed(at=at(5), session=1, reason="bridge_lost"))
    reported = TimelineEntry(
        index=1,
        session=1,
        event=SessionClosed(at=at(4), session=1, reason="lost", recording="a.wav", audio_in_ms=7),
    )
    await save(records, CallRecord(snapshot=RECORD.snapshot, timeline=(lost, reported)))
    engine = create_engine(database_url(database.url))
    async with engine.connect() as connection:
        columns = (Session.close_reason, Session.closed_at, Session.recording, Session.audio_in_ms)
        row = (await connection.execute(select(*columns))).one()
    await engine.dispose()
    assert tuple(row) == ("bridge_lost", at(5), "a.wav", 7)


async def test_every_field_of_a_snapshot_has_a_column() -> None:
    """A field that somebody adds to the contract must not be lost here in silence."""
    elsewhere = {"call", "metrics", "tools"}
    columns = set(Call.__table__.columns.keys())
    assert set(CallSnapshot.model_fields) - elsewhere <= columns
    assert set(CallMetrics.model_fields) <= columns


async def test_deleting_a_call_deletes_everything_of_it(database: Database, records: RecordActivities) -> None:
    await save(records, RECORD)
    await save(records, record("CA-other"))
    engine = create_engine(database_url(database.url))
    async with engine.begin() as connection:
        await connection.execute(delete(Call).where(Call.call_id == CALL_ID))
    await engine.dispose()
    assert await count(database, Call) == 1
    assert await count(database, Event) == len(RECORD.timeline)
    assert await count(database, ToolAttemptRow) == 4


async def test_concurrent_saves_of_one_call_and_of_many(
    database: Database, records: RecordActivities, store: CallStore
) -> None:
    """Workers of several processes: engines of their own over one database."""
    async with (
        RecordActivities(database.url) as first,
        RecordActivities(database.url) as second,
        asyncio.TaskGroup() as group,
    ):
        for number in range(8):
            group.create_task(save(first, RECORD))
            group.create_task(save(second, record(final=False)))
            group.create_task(save(second, record(f"CA-{number}")))
    assert await store.get_call(CALL_ID) == RECORD
    assert len(await store.list_calls()) == 9
    assert await count(database, Event) == 9 * len(RECORD.timeline)


# --- the list --------------------------------------------------------------------------------------------


async def test_the_list_is_newest_first_and_filtered(records: RecordActivities, store: CallStore) -> None:
    await save(records, record("CA-1", started_at=at(0)))
    await save(records, record("CA-2", started_at=at(60), agent="sales"))
    await save(records, record("CA-3", started_at=at(120), outcome="transferred"))
    await save(records, record("CA-4", started_at=at(180), status="wrapping_up", final=False))

    async def ids(**filters: Any) -> list[str]:
        return [call.call_id for call in await store.list_calls(**filters)]

    assert await ids() == ["CA-4", "CA-3", "CA-2", "CA-1"]
    assert await ids(limit=2) == ["CA-4", "CA-3"]
    assert await ids(before=at(120)) == ["CA-2", "CA-1"]
    assert await ids(since=at(60), before=at(180)) == ["CA-3", "CA-2"]
    assert await ids(agent="sales") == ["CA-2"]
    assert await ids(outcome="transferred") == ["CA-3"]
    assert await ids(status="wrapping_up") == ["CA-4"]
    (newest, *_) = await store.list_calls(limit=1)
    assert (newest.duration, newest.turn_count, newest.from_number) == (121.1, 9, "+351910000123")


async def test_ids_are_found_by_their_beginning(records: RecordActivities, store: CallStore) -> None:
    await save(records, record("CA_1"))
    await save(records, record("CAx1"))
    assert await store.find_ids("CA_") == ["CA_1"], "an underscore is no wildcard"
    assert sorted(await store.find_ids("CA")) == ["CA_1", "CAx1"]


async def test_reading_a_database_that_nobody_wrote_is_empty_and_makes_nothing(
    database: Database, store: CallStore
) -> None:
    assert await store.list_calls() == []
    assert await store.get_call(CALL_ID) is None
    assert database.path is None or not database.path.exists()


# --- migrations ------------------------------------------------------------------------------------------


async def test_upgrade_makes_the_tables_that_the_models_describe(database: Database) -> None:
    await upgrade(database.url)
    await upgrade(database.url)

    def differences(connection: Connection) -> list[Any]:
        return list(compare_metadata(MigrationContext.configure(connection), Base.metadata))

    engine = create_engine(database_url(database.url))
    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []
        if database.path:
            assert (await connection.execute(text("PRAGMA journal_mode"))).scalar_one() == "wal"
    await engine.dispose()


async def test_many_upgrades_at_once(database: Database) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(6):
            group.create_task(upgrade(database.url))
    assert await count(database, Call) == 0


async def test_two_processes_upgrade_at_once(database: Database) -> None:
    program = "import asyncio, sys; from activities.records_db import upgrade; asyncio.run(upgrade(sys.argv[1]))"
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, database.url, stderr=asyncio.subprocess.PIPE
        )
        for _ in range(2)
    ]
    for process in processes:
        _, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()
    assert await count(database, Call) == 0


# --- the database is away --------------------------------------------------------------------------------


async def test_a_record_waits_for_a_database_that_is_away(
    database: Database, records: RecordActivities, store: CallStore, caplog: pytest.LogCaptureFixture
) -> None:
    await save(records, record("CA-before"))
    with database.outage():
        with pytest.raises(ApplicationError) as failed:
            await save(records, RECORD)
        assert failed.value.type == "RecordsAway"
        assert not failed.value.non_retryable
        assert failed.value.__cause__ is None
    await save(records, RECORD)
    assert await store.get_call(CALL_ID) == RECORD
    assert await store.get_call("CA-before") is not None
    said = caplog.text + str(failed.value)
    assert PASSWORD not in said
    assert "weather" not in said


async def test_a_worker_starts_before_its_database(database: Database, store: CallStore) -> None:
    if database.server is None:
        pytest.skip("a SQLite file cannot be away before it exists")
    async with RecordActivities(database.url) as records:
        with database.outage(), pytest.raises(ApplicationError, match="cannot be reached"):
            await save(records, RECORD)
        await save(records, RECORD)
    assert await store.get_call(CALL_ID) == RECORD


async def test_reading_says_that_the_database_is_away(postgres: PostgresServer) -> None:
    url = await postgres.create_database(f"t_{secrets.token_hex(6)}")
    await upgrade(url)
    async with CallStore(url) as store:
        assert await store.list_calls() == []
        with Database(url, server=postgres).outage(), pytest.raises(RecordsUnavailable) as failed:
            await store.list_calls()
        assert failed.value.retryable
        assert PASSWORD not in str(failed.value)
        assert await store.list_calls() == []


async def test_a_wrong_password_is_told_without_saying_it(postgres: PostgresServer) -> None:
    url = postgres.url().replace(PASSWORD, "open-sesame")
    async with RecordActivities(url) as records:
        with pytest.raises(ApplicationError) as failed:
            await save(records, RECORD)
    assert "password authentication failed" in str(failed.value)
    assert "open-sesame" not in str(failed.value)


async def test_a_rejected_statement_is_loud_and_repeats_nothing_that_was_said(
    records: RecordActivities, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    twice = CallRecord(snapshot=RECORD.snapshot, timeline=(RECORD.timeline[3], RECORD.timeline[3]))
    with caplog.at_level(logging.ERROR), pytest.raises(ApplicationError) as failed:
        await save(records, twice)
    assert failed.value.type == "RecordsRejected"
    assert not failed.value.non_retryable
    assert "REJECTED" in caplog.text
    assert "Lisbon" not in caplog.text + str(failed.value)
    assert await count(database, Call) == 0, "one transaction: nothing of it was written"


# --- the setting -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["mysql://u:secret@h/d", "just words", "postgresql+psycopg://u:secret@h/d", ""])
def test_a_url_of_something_else_is_refused(url: str) -> None:
    with pytest.raises(ConfigError) as refused:
        database_url(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("option", ["ssl=whatever", "nonsense=1", "sslmode=purple"])
async def test_a_wrong_option_of_the_url_is_a_config_error(option: str, postgres: PostgresServer) -> None:
    with pytest.raises(ConfigError) as refused:
        await upgrade(f"{postgres.url()}?{option}")
    assert PASSWORD not in str(refused.value)


async def test_libpq_names_work(postgres: PostgresServer) -> None:
    await upgrade(f"{await postgres.create_database('t_libpq')}?sslmode=prefer")


def test_where_it_is_without_who() -> None:
    assert describe(database_url("postgres://u:p@db.example:6432/calls")) == "PostgreSQL 'calls' at db.example:6432"
    assert describe(database_url("sqlite:///x/calls.db")) == "SQLite file x/calls.db"
