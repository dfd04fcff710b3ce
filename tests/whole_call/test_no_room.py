"""A bridge at its limit refuses new callers politely, on the record, and keeps those that it has."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from temporalio.client import Client

from activities.records_db import CallStore
from stayline.lab.call import LabCall
from stayline.lab.verbs import Reject, Say
from stayline.outbound import place_call
from stayline.timeline import CallRecord
from tests.whole_call.house import Scene, scene, vendor_agent
from tests.whole_call.test_outbound import leg

BUSY = "We are all busy."
GREETING = "Hello."
agent = vendor_agent(name="agent0", greeting=GREETING, record_audio=False)


@asynccontextmanager
async def busy_loop(stage: Scene) -> AsyncIterator[None]:
    """Have the bridge's event loop run late: something computes in it. It has taken notice within."""

    async def compute() -> None:
        while True:
            time.sleep(0.015)  # noqa: ASYNC251  what makes it late
            await asyncio.sleep(0)

    computing = asyncio.create_task(compute())
    try:
        async with asyncio.timeout(30):
            while not stage.home.bridge.capacity.overloaded:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        yield
    finally:
        computing.cancel()
    async with asyncio.timeout(30):
        while stage.home.bridge.capacity.overloaded:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def ready(stage: Scene) -> tuple[int, dict[str, Any]]:
    async with aiohttp.ClientSession() as http, http.get(f"{stage.home.settings.public}/ready") as answer:
        return answer.status, await answer.json()


async def record(stage: Scene, call_id: str) -> CallRecord:
    await stage.home.over(call_id)
    async with CallStore(stage.home.settings.database) as store:
        found = await store.get_call(call_id)
    assert found is not None
    return found


def verbs(stage: Scene, call: LabCall) -> list[Any]:
    return [event.data["verb"] for event in stage.carrier.log.of("twiml", call.sid)]


async def refused(stage: Scene, reason: str) -> LabCall:
    """A caller who is refused, with a record that says why."""
    call = await stage.carrier.place_call("+15550100009", "+15550100002")
    await call.wait()
    assert call.ended_by == "bridge"
    written = await record(stage, call.sid)
    assert written.snapshot.outcome == "rejected"
    events = [entry.event for entry in written.timeline]
    assert [event.type for event in events] == ["call_rejected", "call_ended"]
    assert reason in events[0].reason  # type: ignore[union-attr]
    return call


async def test_an_overloaded_bridge_refuses_new_callers_and_keeps_its_own(client: Client, tmp_path: Path) -> None:
    async with scene(client, tmp_path, agent, busy_text=BUSY, busy_timeout=2, max_loop_lag_ms=12) as stage:
        old = await stage.greeted()
        async with busy_loop(stage):
            status, state = await ready(stage)
            assert (status, state["why"], state["calls"], state["max_calls"]) == (503, "overloaded", 1, 50)
            assert state["loop_lag_ms"] > 12
            call = await refused(stage, "ms late")
            spoken = [verb.text for verb in verbs(stage, call) if isinstance(verb, Say)]
            assert spoken == [BUSY], "held first, since another bridge might have had room; then told"
            assert not old.call.over
            await old.asks("are you there")
            # one whose stream breaks comes back to the very bridge that refuses others
            assert old.call.drop_stream()
            await stage.home.until(old.sid, "session_opened", 2)
            await old.hears()
        assert (await ready(stage))[0] == 200
        new = await stage.greeted()  # it has recovered
        for caller in (new, old):
            await caller.leaves()
            assert (await stage.home.over(caller.sid))[-1].outcome == "caller_hung_up"


async def test_a_full_bridge_gives_a_busy_tone_where_there_are_no_words(client: Client, tmp_path: Path) -> None:
    async with scene(client, tmp_path, agent, busy_text="", max_calls=1) as stage:
        first = await stage.greeted()
        call = await refused(stage, "all 1 places are taken")
        assert verbs(stage, call) == [Reject("busy")]
        assert call.status == "busy"
        await first.leaves()
        await stage.home.over(first.sid)
        second = await stage.greeted()
        await second.leaves()


async def test_a_held_caller_gets_the_place_that_becomes_free(client: Client, tmp_path: Path) -> None:
    async with scene(client, tmp_path, agent, max_calls=1, busy_timeout=60) as stage:
        first = await stage.greeted()
        second = stage.caller()
        await second.ring(stage.carrier)
        await stage.carrier.log.wait_for("twiml", call_sid=second.sid)
        await first.leaves()
        await second.hears_out()
        assert type(verbs(stage, second.call)[-1]).__name__ == "Connect"
        await second.leaves()
        assert (await stage.home.over(second.sid))[-1].outcome == "caller_hung_up"


async def test_nobody_is_called_for_a_bridge_that_has_no_room(client: Client, tmp_path: Path) -> None:
    async with scene(client, tmp_path, agent, max_calls=1) as stage:
        first = await stage.greeted()
        settings = stage.home.settings
        call_id = await place_call(client, settings, agent, "+15550200001", from_number="+15550100002")
        async with asyncio.timeout(30):
            while not any(map(tries_again, await activities(client, call_id))):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        assert stage.carrier.requests == []
        await first.leaves()
        called = await leg(stage, call_id)
        await stage.home.until(call_id, "session_opened")
        called.hang_up("caller")
        assert (await stage.home.over(call_id))[-1].outcome == "caller_hung_up"


async def activities(client: Client, call_id: str) -> list[Any]:
    described = await client.get_workflow_handle(f"call-{call_id}").describe()
    return list(described.raw_description.pending_activities)


def tries_again(activity: Any) -> bool:
    return activity.activity_type.name == "place_call" and "no bridge takes calls" in activity.last_failure.message
