"""A bridge dies: its calls are told, the caller is fetched back, and the conversation goes on or ends as lost."""

from __future__ import annotations

import asyncio
import sys
import uuid
from datetime import timedelta

from temporalio import activity
from temporalio.client import Client, WorkflowHandle
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker

from stayline.messages import LeaseInput, LeaseState
from stayline.names import bridge_task_queue, bridge_workflow_id
from tests.workflows.bench import TIMEOUT, Bench, agent, bench, until, user
from workflows.bridge import BridgeWorkflow


async def fetched(call: Bench) -> None:
    async def redirected() -> bool:
        return bool(call.outside.redirected)

    await until(redirected)


async def test_the_caller_is_fetched_back(client: Client) -> None:
    async with bench(client, agent()) as call:
        await call.begin()
        await call.record(user("Hello"))
        await call.handle.signal("bridge_lost", "some-other-bridge")
        assert (await call.snapshot()).status == "active"
        await call.handle.signal("bridge_lost", call.bridge_id)
        await fetched(call)
        assert (await call.snapshot()).status == "detached"
        assert (await call.next_step("t2")).action == "connect"
        grant = await call.open("t2")
        assert grant.resumed
        assert [m.role for m in grant.messages] == ["user"]
        await call.hang_up(session=2)
        assert (await call.result()).metrics.session_count == 2


async def test_a_call_that_cannot_be_fetched_back_is_lost(client: Client) -> None:
    async with bench(client, agent(reattach_timeout=1.2)) as call:
        call.outside.redirect_fails = True
        await call.begin()
        await call.handle.signal("bridge_lost", call.bridge_id)
        await call.status("ending")
        await call.carrier("completed")
        assert (await call.result()).outcome == "lost"
        assert call.outside.hung_up == [call.call_id]


async def test_the_carrier_knows_that_the_caller_is_gone(client: Client) -> None:
    async with bench(client, agent()) as call:
        call.outside.call_is_over = True
        await call.begin()
        await call.handle.signal("bridge_lost", call.bridge_id)
        await call.status("ending")
        await call.carrier("completed")
        assert (await call.result()).outcome == "caller_hung_up"


class LivingBridge:
    """Keeps a lease as a bridge does: heartbeats with its calls, until it is told to stall, drain or die."""

    def __init__(self, *calls: str) -> None:
        self.calls = calls
        self.taken = 0
        self.stalls = asyncio.Event()
        self.drained = asyncio.Event()

    @activity.defn
    async def keep_lease(self, lease: LeaseInput) -> None:
        self.taken += 1
        first = self.taken == 1
        try:
            while not self.drained.is_set():
                if not (first and self.stalls.is_set()):
                    activity.heartbeat(LeaseState(calls=self.calls))
                await asyncio.sleep(0.05)
        except asyncio.CancelledError:
            if activity.is_worker_shutdown():
                raise ApplicationError("stopped", LeaseState(calls=self.calls), type="BridgeStopped") from None
            raise


def worker(client: Client, bridge_id: str, bridge: LivingBridge) -> Worker:
    quick = timedelta(milliseconds=50)
    return Worker(
        client,
        task_queue=bridge_task_queue(bridge_id),
        activities=[bridge.keep_lease],
        max_heartbeat_throttle_interval=quick,
        default_heartbeat_throttle_interval=quick,
    )


async def lease(client: Client, queue: str, bridge_id: str) -> WorkflowHandle[BridgeWorkflow, int]:
    terms = LeaseInput(bridge_id=bridge_id, heartbeat_timeout=0.5, pickup_timeout=1.0)
    return await client.start_workflow(
        BridgeWorkflow.run, terms, id=bridge_workflow_id(bridge_id), task_queue=queue
    )


async def test_a_bridge_that_only_stalled_is_not_lost(client: Client) -> None:
    async with bench(client, agent()) as call:
        await call.admit()
        bridge_id = uuid.uuid4().hex[:8]
        await call.open(bridge_id=bridge_id)
        bridge = LivingBridge(call.call_id)
        async with worker(client, bridge_id, bridge):
            handle = await lease(client, call.queue, bridge_id)
            bridge.stalls.set()

            async def taken_again() -> bool:
                return bridge.taken >= 2

            await until(taken_again)
            bridge.drained.set()
            async with asyncio.timeout(TIMEOUT):
                assert await handle.result() == 0
        assert (await call.snapshot()).status == "active"
        await call.hang_up()
        await call.result()


async def test_a_killed_bridges_calls_are_told(client: Client) -> None:
    async with bench(client, agent()) as call:
        await call.admit()
        bridge_id = uuid.uuid4().hex[:8]
        await call.open(bridge_id=bridge_id)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "tests.workflows.lease_holder", client.service_client.config.target_host, bridge_id),
            *("CA-of-a-call-that-has-ended", call.call_id),
        )
        try:
            handle = await lease(client, call.queue, bridge_id)

            async def held() -> bool:
                pending = (await handle.describe()).raw_description.pending_activities
                return any(a.last_heartbeat_time.seconds and a.heartbeat_details.payloads for a in pending)

            await until(held)
        finally:
            process.kill()
            await process.wait()
        async with asyncio.timeout(TIMEOUT):
            assert await handle.result() == 1
        await fetched(call)
        assert (await call.event("session_closed")).reason == "bridge_lost"
        await call.carrier("completed")
        await call.result()


async def test_a_bridge_that_stops_without_draining_names_its_calls(client: Client) -> None:
    async with bench(client, agent()) as call:
        await call.admit()
        bridge_id = uuid.uuid4().hex[:8]
        await call.open(bridge_id=bridge_id)
        bridge = LivingBridge(call.call_id)
        handle = await lease(client, call.queue, bridge_id)
        async with worker(client, bridge_id, bridge):

            async def taken() -> bool:
                return bridge.taken >= 1

            await until(taken)
        async with asyncio.timeout(TIMEOUT):
            assert await handle.result() == 1
        await fetched(call)
        await call.carrier("completed")
        await call.result()
