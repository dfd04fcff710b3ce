"""Workers: one that is killed in the middle of its work, and a deploy while a call is in progress."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from temporalio.api.enums.v1 import TimeoutType
from temporalio.client import Client, WorkflowHandle
from temporalio.service import RPCError
from temporalio.worker import Worker

from stayline import Agent
from stayline.settings import Settings
from stayline.worker import build_worker, promote_build
from tests.workflows.bench import Bench, Outside, agent, said, until, user
from tests.workflows.test_lost_bridge import LivingBridge, lease
from tests.workflows.test_lost_bridge import worker as bridge_worker
from tests.workflows.worker_process import fragile_agent
from workflows.call import CallWorkflow

CALLS = 30
TURNS = 10
TAKEN_OVER = 120.0
"""Seconds; it takes a fraction of that."""


def on_queue(client: Client, desk: Agent, queue: str) -> Bench:
    return Bench(client, desk, Outside(), queue, bridge_id="none")


def worker(client: Client, desk: Agent, queue: str, **settings: str) -> Worker:
    records = [Outside().save_call]
    return build_worker(client, {desk.name: desk}, Settings(**settings), records, task_queue=queue)  # type: ignore[arg-type]


@asynccontextmanager
async def worker_process(
    client: Client, queue: str, **environment: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    address = client.service_client.config.target_host
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.workflows.worker_process", address, queue),
        env={**os.environ, **environment},
    )
    try:
        yield process
    finally:
        process.kill()
        await process.wait()


async def starve(process: asyncio.subprocess.Process) -> None:
    """Leave it a quarter of a processor at most, as a machine may that has much else to do."""
    while True:
        process.send_signal(signal.SIGCONT)
        await asyncio.sleep(0.025)
        process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(0.075)


@pytest.mark.timeout(300)
async def test_a_starved_worker_takes_over_all_calls_at_once(client: Client) -> None:
    """Each has to be replayed, within a time limit that the server sets: all at once, none would ever be."""
    queue, desk = f"calls-{uuid.uuid4().hex}", fragile_agent()
    calls = [on_queue(client, desk, queue) for _ in range(CALLS)]

    async def talk(call: Bench) -> None:
        await call.begin()
        for turn in range(TURNS):
            await call.record(user(f"number {turn}"))
            await call.snapshot()  # each in a workflow task of its own
            await call.record(said(f"number {turn}"))
            await call.snapshot()

    async def ask(call: Bench) -> None:
        asked = call.asked("no such tool", "call_1")
        while True:
            try:
                await call.handle.execute_update(CallWorkflow.run_tool, asked, id=asked.call.id)
                return
            except RPCError:  # refused for the time being: replays of it have failed too often
                await asyncio.sleep(0.5)

    async with worker(client, desk, queue):
        await asyncio.gather(*map(talk, calls))
    async with worker_process(client, queue) as process:
        first = on_queue(client, desk, queue)
        await first.begin()  # it is there
        starving = asyncio.create_task(starve(process))
        try:
            async with asyncio.timeout(TAKEN_OVER):
                await asyncio.gather(*map(ask, calls))
        finally:
            starving.cancel()
    assert await timed_out(calls) < CALLS // 2


async def timed_out(calls: list[Bench]) -> int:
    """Calls of which a replay was thrown away because it took too long. Further ones are not in the history."""
    histories = [await call.handle.fetch_history() for call in calls]
    events = [[e.workflow_task_timed_out_event_attributes.timeout_type for e in h.events] for h in histories]
    return sum(TimeoutType.TIMEOUT_TYPE_START_TO_CLOSE in types for types in events)


async def test_a_worker_is_killed_while_it_runs_a_tool(client: Client) -> None:
    queue, desk = f"calls-{uuid.uuid4().hex}", fragile_agent()
    call = on_queue(client, desk, queue)
    async with worker_process(client, queue):
        await call.begin()
        update = await call.start_tool("fragile")

        async def running() -> bool:
            pending = (await call.handle.describe()).raw_description.pending_activities
            return any(a.last_heartbeat_time.seconds for a in pending)

        await until(running)
    async with worker(client, desk, queue):
        outcome = await update.result()
        assert (outcome.status, outcome.result) == ("succeeded", "done in attempt 2")
        assert "cut off" in outcome.attempts[0].error
        assert outcome.attempts[1].error is None
        await call.hang_up()
        await call.result()


async def test_a_worker_is_killed_while_it_has_a_caller_fetched_back(client: Client) -> None:
    """It is missed long before the time of its attempt is over: the caller hears nothing meanwhile."""
    queue, desk, asked = f"calls-{uuid.uuid4().hex}", agent(), asyncio.Queue[str]()
    answers = asyncio.Event()

    async def change(request: web.Request) -> web.Response:
        asked.put_nowait(str((await request.post())["Twiml"]))
        await answers.wait()
        return web.json_response({"sid": request.match_info["call"], "status": "in-progress"})

    async def health(request: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.router.add_post("/2010-04-01/Accounts/{account}/Calls/{call}.json", change)
    app.router.add_get("/health", health)
    async with TestServer(app) as carrier:
        origin = str(carrier.make_url("")).rstrip("/")
        account = {"TWILIO_ACCOUNT_SID": "AC1", "TWILIO_AUTH_TOKEN": "secret", "TWILIO_BASE_URL": origin}
        call = on_queue(client, desk, queue)
        async with worker_process(client, queue, **account):
            await call.begin(public_url=origin)
            await call.handle.signal("bridge_lost", call.bridge_id)
            first = await asked.get()
        answers.set()
        async with worker_process(client, queue, **account):
            assert await asked.get() == first
            await call.next_step("t2")
            await call.open("t2")
            await call.hang_up(session=2)
            await call.result()
    history = await call.handle.fetch_history()
    tried = [e.activity_task_started_event_attributes for e in history.events]
    missed = [t.last_failure.timeout_failure_info.timeout_type for t in tried if t.attempt == 2]
    assert missed == [TimeoutType.TIMEOUT_TYPE_HEARTBEAT]


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


async def test_without_a_build_the_history_tells_stayline_s_version(client: Client) -> None:
    queue, desk = f"calls-{uuid.uuid4().hex}", agent()
    call = on_queue(client, desk, queue)
    async with worker(client, desk, queue):
        await call.begin()
        await call.hang_up()
        await call.result()
    history = await call.handle.fetch_history()
    started = [e.workflow_task_started_event_attributes for e in history.events if e.event_type == 6]
    assert {attributes.worker_version.build_id for attributes in started} == {version("stayline")}


async def builds(handle: WorkflowHandle[Any, Any]) -> set[str]:
    """The builds that completed the workflow's tasks."""
    history = await handle.fetch_history()
    completed = (e.workflow_task_completed_event_attributes for e in history.events if e.event_type == 7)
    return {attributes.deployment_version.build_id for attributes in completed}
