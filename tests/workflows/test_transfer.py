"""A transfer: announced, dialled through `next_step`, and its outcome told to the agent where it failed."""

from __future__ import annotations

from typing import Any

import pytest
from temporalio.client import Client

from tests.workflows.bench import Bench, agent, bench, until

NUMBER = "+15551234567"
desk = agent(transfers={"support": NUMBER}, transfer_text="Connecting you.", transfer_ring_timeout=20)


async def transferred(call: Bench, given: Any = NUMBER) -> None:
    """Bring a call to the point where the carrier dials."""
    await call.begin()
    await call.handle.signal("transfer", given)

    async def announced() -> bool:
        return bool(call.outside.closed)

    await until(announced)
    assert call.outside.closed[0].say == "Connecting you."
    await call.stream_ends("closed")
    step = await call.next_step("dial")
    assert (step.action, step.to, step.say, step.ring_timeout) == ("dial", NUMBER, "", 20)


async def test_a_model_may_ask_for_the_same_transfer_again_at_once(client: Client) -> None:
    """The line was busy and the caller is back with another session: that is no repetition of what was done."""
    async with bench(client, desk) as call:
        await call.begin()
        await call.tool("transfer_call", to="support")
        await call.stream_ends("closed")
        await call.next_step("dial")
        assert (await call.next_step("back", dial_status="busy")).action == "connect"
        await call.open("back", stream="MZ2")
        again = call.asked("transfer_call", "call_2", to="support").model_copy(update={"session": 2})
        assert (await call.handle.execute_update("run_tool", again, id="call_2"))["status"] == "succeeded"
        assert [e.event.duplicate_of for e in await call.timeline("tool_called")] == [None, None]  # type: ignore[union-attr]
        await call.hang_up(session=2)
        await call.result()


async def test_the_stream_breaks_over_the_announcement(client: Client) -> None:
    """The carrier asks at once, and says itself what the caller has not heard to the end."""
    async with bench(client, desk, bridge=False) as call:
        await call.begin()
        await call.handle.signal("transfer", NUMBER)
        step = await call.next_step("dial")
        assert (step.action, step.say) == ("dial", "Connecting you.")
        await call.next_step(dial_status="completed", dial_seconds=90)
        await call.carrier("completed")
        assert (await call.result()).outcome == "transferred"


@pytest.mark.parametrize("given", [NUMBER, "support", {"to": NUMBER, "by": "ana"}])
async def test_answered(client: Client, given: Any) -> None:
    async with bench(client, desk) as call:
        await transferred(call, given)
        assert (await call.snapshot()).status == "transferring"
        assert (await call.next_step(dial_status="completed", dial_seconds=90)).action == "hangup"
        await call.carrier("completed")
        assert (await call.result()).outcome == "transferred"
        [settled] = [e.event for e in call.outside.saved[-1].timeline if e.event.type == "transfer_settled"]
        assert (settled.outcome, settled.seconds) == ("answered", 90)


@pytest.mark.parametrize(
    ("status", "outcome", "why"),
    [("busy", "busy", "line was busy"), ("no-answer", "no_answer", "nobody"), ("failed", "failed", "could not")],
)
async def test_a_failed_transfer_brings_the_caller_back(
    client: Client, status: Any, outcome: str, why: str
) -> None:
    async with bench(client, desk) as call:
        await transferred(call)
        assert (await call.next_step("back", dial_status=status)).action == "connect"
        # The carrier repeats its request: nothing changes.
        assert (await call.next_step("back", dial_status=status)).action == "connect"
        grant = await call.open("back")
        assert "support" in grant.note
        assert why in grant.note
        assert grant.messages[-1].role == "note"
        assert [e.event.outcome for e in await call.timeline("transfer_settled")] == [outcome]  # type: ignore[union-attr]
        await call.hang_up(session=2)
        assert (await call.result()).outcome == "caller_hung_up"


@pytest.mark.parametrize("dial_status", ["canceled", None])
async def test_the_caller_leaves_while_it_rings(client: Client, dial_status: Any) -> None:
    async with bench(client, desk) as call:
        await transferred(call)
        await call.carrier("completed")
        if dial_status:
            assert (await call.next_step(dial_status=dial_status)).action == "hangup"
        assert (await call.result()).outcome == "caller_hung_up"
        [settled] = [e.event for e in call.outside.saved[-1].timeline if e.event.type == "transfer_settled"]
        assert settled.outcome == "caller_left"


async def test_a_dead_bridge_does_not_stop_a_transfer(client: Client) -> None:
    async with bench(client, desk) as call:
        await call.admit()
        await call.open(bridge_id="dead")
        await call.handle.signal("transfer", NUMBER)
        await call.handle.signal("bridge_lost", "dead")

        async def fetched() -> bool:
            return bool(call.outside.redirected)

        await until(fetched)
        step = await call.next_step()
        assert (step.action, step.say) == ("dial", "Connecting you.")
        await call.next_step(dial_status="completed")
        await call.carrier("completed")
        assert (await call.result()).outcome == "transferred"
