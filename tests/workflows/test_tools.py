"""Tools as a call's workflow runs them: retried, joined, approved, timed out, outliving the call."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from temporalio.client import Client, WorkflowUpdateStage

from stayline import ToolContext, ToolError, tool
from stayline.messages import Approve
from tests.workflows.bench import agent, bench, refused, said, until, user
from workflows.call import CallWorkflow

runs: list[str] = []
gate = asyncio.Event()


@pytest.fixture(autouse=True)
def _fresh() -> None:
    global gate
    gate = asyncio.Event()
    runs.clear()


@tool(retries=2, backoff=0.05)
async def book(date: str, context: ToolContext) -> dict[str, Any]:
    """Fails twice, then books."""
    runs.append(context.idempotency_key)
    if context.attempt < 3:
        raise ConnectionError(f"busy {context.attempt}")
    return {"booked": date}


@tool(retries=1, backoff=0.05)
async def broken() -> str:
    """Always fails."""
    raise ZeroDivisionError("secret detail")


@tool
async def refuses(order: str) -> str:
    """Says no, finally."""
    runs.append(order)
    raise ToolError("There is no such order.")


@tool
async def slow(what: str) -> str:
    """Waits until the test lets it go on."""
    runs.append(what)
    await gate.wait()
    return what


@tool(retries=1, attempt_timeout=0.2, total_timeout=5, backoff=0.05)
async def hangs() -> str:
    """Never answers."""
    runs.append("hangs")
    await asyncio.Event().wait()
    return ""


@tool(needs_approval=True, approval_timeout=30)
async def refund(amount: int) -> str:
    """A person must release it."""
    runs.append("refund")
    return f"refunded {amount}"


@tool(needs_approval=True, approval_timeout=0.2)
async def refund_soon(amount: int) -> str:
    """Nobody is quick enough."""
    runs.append("refund_soon")
    return ""


desk = agent(book, broken, refuses, slow, hangs, refund, refund_soon, transfers={"support": "+15551234567"})


async def test_a_tool_is_retried_to_success_and_its_attempts_are_kept(client: Client) -> None:
    async with bench(client, desk) as call:
        await call.begin()
        outcome = await call.tool("book", date="2026-12-01")
        assert (outcome.status, outcome.result) == ("succeeded", {"booked": "2026-12-01"})
        assert [(a.number, a.error) for a in outcome.attempts] == [
            (1, "ConnectionError: busy 1"),
            (2, "ConnectionError: busy 2"),
            (3, None),
        ]
        assert all(a.started_at and a.seconds is not None for a in outcome.attempts)
        assert runs == [f"{call.handle.id}:call_1"] * 3
        history = await call.handle.fetch_history()
        names = [
            e.activity_task_scheduled_event_attributes.activity_type.name
            for e in history.events
            if e.HasField("activity_task_scheduled_event_attributes")
        ]
        assert names == ["book"]
        assert (await call.snapshot()).metrics.tool_attempt_count == 3
        await call.hang_up()
        await call.result()


async def test_how_a_tool_can_fail(client: Client) -> None:
    async with bench(client, desk) as call:
        await call.begin()
        outcome = await call.tool("broken")
        assert (outcome.status, outcome.error) == ("failed", "The tool broken failed.")
        assert [a.error for a in outcome.attempts] == ["ZeroDivisionError: secret detail"] * 2
        outcome = await call.tool("refuses", "call_2", order="4711")
        assert (outcome.status, outcome.error, len(outcome.attempts)) == ("failed", "There is no such order.", 1)
        outcome = await call.tool("refuses", "call_3", wrong=1)
        assert outcome.status == "failed"
        assert "Wrong arguments for refuses" in (outcome.error or "")
        outcome = await call.tool("no_such_tool", "call_4")
        assert outcome.status == "failed"
        assert "no tool" in (outcome.error or "")
        assert runs == ["4711"]
        await call.hang_up()
        await call.result()


async def test_a_tool_that_hangs_is_unknown_never_done(client: Client) -> None:
    async with bench(client, desk) as call:
        await call.begin()
        outcome = await call.tool("hangs")
        assert outcome.status == "unknown"
        assert [a.error for a in outcome.attempts] == ["no answer within 0.2 s"] * 2
        assert runs == ["hangs", "hangs"]
        await call.hang_up()
        await call.result()


async def test_asked_twice_runs_once(client: Client) -> None:
    async with bench(client, desk) as call:
        await call.begin()
        first = await call.start_tool("slow", what="x")
        again = await call.handle.start_update(
            CallWorkflow.run_tool,
            call.asked("slow", "call_1", what="x"),
            id="another-bridge",
            wait_for_stage=WorkflowUpdateStage.ACCEPTED,
        )
        joined = await call.start_tool("slow", "call_2", what="x")
        other = await call.start_tool("slow", "call_3", what="y")
        gate.set()
        outcomes = [await update.result() for update in (first, again, joined, other)]
        assert [(o.id, o.status, o.result) for o in outcomes] == [
            ("call_1", "succeeded", "x"),
            ("call_1", "succeeded", "x"),
            ("call_2", "succeeded", "x"),
            ("call_3", "succeeded", "y"),
        ]
        assert sorted(runs) == ["x", "y"]
        called = [e.event for e in await call.timeline("tool_called")]
        assert [(e.call.id, e.duplicate_of) for e in called] == [  # type: ignore[union-attr]
            ("call_1", None),
            ("call_2", "call_1"),
            ("call_3", None),
        ]
        # Only a running twin is joined: a success is asked again when it is asked again.
        assert (await call.tool("slow", "call_4", what="x")).status == "succeeded"
        assert sorted(runs) == ["x", "x", "y"]
        await call.hang_up()
        await call.result()


async def test_a_model_that_was_not_told_of_a_tools_end_runs_it_no_second_time(client: Client) -> None:
    """The stream broke while the tool ran, and the next session's model asks for it again at once."""
    runs: list[str] = []
    gate.clear()

    @tool
    async def slow(what: str) -> str:
        await gate.wait()
        runs.append(what)
        return what

    async with bench(client, agent(slow)) as call:
        await call.begin()
        first = await call.start_tool("slow", "call_1", what="x")
        await call.stream_ends("lost")
        await call.next_step("t2")
        await call.open("t2", stream="MZ2")
        gate.set()
        assert (await first.result()).status == "succeeded"

        async def ask(id: str, session: int) -> Any:
            again = call.asked("slow", id, what="x").model_copy(update={"session": session})
            return await call.handle.execute_update(CallWorkflow.run_tool, again, id=id)

        assert (await ask("call_2", 2)).result == "x"
        assert runs == ["x"]
        assert [e.event.duplicate_of for e in await call.timeline("tool_called")] == [None, "call_1"]  # type: ignore[union-attr]
        # Who was told, and asks again, means it.
        assert (await ask("call_3", 1)).result == "x"
        assert runs == ["x", "x"]
        await call.hang_up(session=2)
        await call.result()


async def test_approval(client: Client) -> None:
    async with bench(client, desk) as call:
        await call.begin()
        yes = await call.start_tool("refund", "yes", amount=5)
        no = await call.start_tool("refund", "no", amount=6)
        late = await call.start_tool("refund_soon", "late", amount=7)
        assert [run.waiting_approval for run in (await call.snapshot()).tools][:2] == [True, True]
        assert (await refused(call.handle.execute_update("approve", Approve(tool_call_id="x", approved=True)))).type
        await call.handle.signal("approve", "yes")
        await call.handle.execute_update(
            CallWorkflow.approve_update, Approve(tool_call_id="no", approved=False, by="ana", why="too much")
        )
        assert (await yes.result()).result == "refunded 5"
        assert (await no.result()).status == "refused"
        assert (await late.result()).status == "refused"
        assert runs == ["refund"]
        words = [(e.event.command, e.event.by) for e in await call.timeline("commanded")]  # type: ignore[union-attr]
        assert words == [("approve", "signal"), ("refuse", "ana")]
        await call.hang_up()
        await call.result()


async def test_a_tool_outlives_the_call(client: Client) -> None:
    async with bench(client, desk) as call:
        await call.begin()
        update = await call.start_tool("slow", what="x")
        await call.hang_up()
        await call.status("wrapping_up")

        async def saved() -> bool:
            return bool(call.outside.saved)

        await until(saved)
        assert not call.outside.saved[0].final
        gate.set()
        assert (await update.result()).status == "succeeded"
        await call.result()
        assert [r.final for r in call.outside.saved] == [False, True]
        [run] = call.outside.saved[-1].snapshot.tools
        assert run.after_hangup
        assert run.outcome
        assert run.outcome.result == "x"


async def test_the_grant_holds_what_tools_gave(client: Client) -> None:
    """Also when the reply that asked for them was never recorded."""
    async with bench(client, desk) as call:
        await call.begin()
        await call.record(user("book me"))
        await call.tool("book", "c1", date="tomorrow")
        running = await call.start_tool("slow", "c2", what="x")
        await call.handle.signal("bridge_lost", call.bridge_id)
        await call.next_step("t2")
        grant = await call.open("t2")
        roles = [m.role for m in grant.messages]
        assert roles == ["user", "agent", "tool"]
        assert grant.messages[1].tool_calls[0].id == "c1"  # type: ignore[union-attr]
        assert grant.messages[2].content == '{"booked": "tomorrow"}'  # type: ignore[union-attr]
        assert [c.id for c in grant.running_tools] == ["c2"]
        gate.set()
        # The new bridge asks again with the same id, under another update id too.
        assert (await call.tool("slow", "c2", what="x")).result == "x"
        assert (await running.result()).result == "x"
        await call.record(said("Booked.", tool_calls=("c1",)), session=1)
        await call.next_step("t3")
        grant = await call.open("t3")
        first = next(m for m in grant.messages if m.role == "agent")
        assert (first.text, [c.id for c in first.tool_calls]) == ("Booked.", ["c1"])
        await call.stream_ends(session=2)
        await call.hang_up(session=3)
        await call.result()


async def test_the_model_ends_the_call(client: Client) -> None:
    async with bench(client, desk) as call:
        await call.begin()
        outcome = await call.tool("end_call", say="Farewell.")
        assert outcome.status == "succeeded"
        await call.carrier("completed")
        await call.stream_ends()
        assert (await call.result()).outcome == "completed"
        assert call.outside.saved[-1].timeline[-1].event.by == "agent"  # type: ignore[union-attr]


async def test_the_model_transfers_to_a_name_it_knows(client: Client) -> None:
    async with bench(client, desk) as call:
        await call.begin()
        outcome = await call.tool("transfer_call", to="sales")
        assert outcome.status == "failed"
        assert "support" in (outcome.error or "")
        assert (await call.tool("transfer_call", "call_2", to="support")).status == "succeeded"

        async def closed() -> bool:
            return any(c.reason == "transfer" for c in call.outside.closed)

        await until(closed)
        await call.stream_ends("closed")
        step = await call.next_step()
        assert (step.action, step.to) == ("dial", "+15551234567")
        await call.next_step(dial_status="completed", dial_seconds=61)
        await call.carrier("completed")
        assert (await call.result()).outcome == "transferred"
