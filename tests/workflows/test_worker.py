"""Workers: one that is killed in the middle of a tool, and a deploy while a call is in progress."""

from __future__ import annotations

import asyncio
import sys
import uuid
from typing import Any

from temporalio.client import Client, WorkflowHandle
from temporalio.worker import Worker

from stayline import Agent
from stayline.settings import Settings
from stayline.worker import build_worker, promote_build
from tests.workflows.bench import Bench, Outside, agent, until
from tests.workflows.test_lost_bridge import LivingBridge, lease
from tests.workflows.test_lost_bridge import worker as bridge_worker
from tests.workflows.worker_process import fragile_agent


def on_queue(client: Client, desk: Agent, queue: str) -> Bench:
    return Bench(client, desk, Outside(), queue, bridge_id="none")


def worker(client: Client, desk: Agent, queue: str, **settings: str) -> Worker:
    records = [Outside().save_call]
    return build_worker(client, {desk.name: desk}, Settings(**settings), records, task_queue=queue)  # type: ignore[arg-type]


async def test_a_worker_is_killed_while_it_runs_a_tool(client: Client) -> None:
    queue, desk = f"calls-{uuid.uuid4().hex}", fragile_agent()
    call = on_queue(client, desk, queue)
    process = await asyncio.create_subprocess_exec(
        sys.executable, *("-m", "tests.workflows.worker_process"), client.service_client.config.target_host, queue
    )
    try:
        await call.begin()
        update = await call.start_tool("fragile")

        async def running() -> bool:
            pending = (await call.handle.describe()).raw_description.pending_activities
            return any(a.last_heartbeat_time.seconds for a in pending)

        await until(running)
    finally:
        process.kill()
        await process.wait()
    async with worker(client, desk, queue):
        outcome = await update.result()
        assert (outcome.status, outcome.result) == ("succeeded", "done in attempt 2")
        assert "cut off" in outcome.attempts[0].error
        assert outcome.attempts[1].error is None
        await call.hang_up()
        await call.result()


async def test_a_deploy_leaves_calls_in_progress_alone(client: Client) -> None:
    queue, desk = f"calls-{uuid.uuid4().hex}", agent()
    async with worker(client, desk, queue, build_id="one"):
        await promote_build(client, Settings(build_id="one"))
        old = on_queue(client, desk, queue)
        await old.begin()
        bridge_id, bridge = uuid.uuid4().hex[:8], LivingBridge()
        watch = await lease(client, queue, bridge_id)
        async with worker(client, desk, queue, build_id="two"):
            await promote_build(client, Settings(build_id="two"))
            new = on_queue(client, desk, queue)
            await new.begin()
            for call in (old, new):
                await call.hang_up()
                await call.result()
            bridge.drained.set()
            async with bridge_worker(client, bridge_id, bridge):
                assert await watch.result() == 0
            assert "two" in await builds(watch), "the watch over a bridge moves on"
            assert await builds(old.handle) == {"one"}
            assert await builds(new.handle) == {"two"}


async def builds(handle: WorkflowHandle[Any, Any]) -> set[str]:
    """The builds that completed the workflow's tasks."""
    history = await handle.fetch_history()
    completed = (e.workflow_task_completed_event_attributes for e in history.events if e.event_type == 7)
    return {attributes.deployment_version.build_id for attributes in completed}
