"""A call that ends while the database is down: its workflow waits with the record, and nothing of it is lost."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from temporalio.client import Client
from temporalio.worker import Worker

from activities.policy import PolicyActivities
from activities.records import RecordActivities
from activities.records_db import CallStore
from activities.tools import ToolActivities
from tests.postgres import PASSWORD, PostgresServer, running_postgres
from tests.workflows.bench import Bench, Outside, agent, bridge_worker, said, until, user
from workflows.call import CallWorkflow


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with running_postgres() as server:
        yield server


async def test_a_call_waits_with_its_record_until_the_database_is_back(
    client: Client, postgres: PostgresServer
) -> None:
    url = await postgres.create_database("calls")
    desk, outside = agent(), Outside()
    queue, bridge_id = f"calls-{uuid.uuid4().hex}", uuid.uuid4().hex[:8]
    async with (
        RecordActivities(url) as records,
        CallStore(url) as store,
        Worker(
            client,
            task_queue=queue,
            workflows=[CallWorkflow],
            activities=[
                ToolActivities({desk.name: desk}).run,
                PolicyActivities({desk.name: desk}).screen_call,
                outside.hang_up,
                outside.redirect_call,
                records.save_call,
            ],
        ),
        bridge_worker(client, bridge_id, outside),
    ):
        bench = Bench(client, desk, outside, queue, bridge_id)
        await bench.begin()
        await bench.record(said("Hello!", source="greeting"), user("Hi."))
        postgres.stop()
        await bench.hang_up()

        async def failed() -> str:
            pending = (await bench.handle.describe()).raw_description.pending_activities
            return next((a.last_failure.message for a in pending if a.HasField("last_failure")), "")

        message = await until(failed)
        assert "cannot be reached" in message
        assert PASSWORD not in message
        assert (await bench.snapshot()).status == "ended"
        postgres.start()
        await bench.result()
        saved = await store.get_call(bench.call_id)
        assert saved is not None
        assert saved.final
        assert saved.timeline == tuple(await bench.timeline())
