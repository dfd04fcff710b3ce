"""A call that we place: dialled once, known by its webhooks, ended as what it was, cancelled while it rings."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from temporalio.client import Client
from temporalio.exceptions import ApplicationError
from temporalio.testing import WorkflowEnvironment

from stayline import CallInfo, RejectCall
from stayline.messages import CallStart, Dial, PlaceCall, Placed
from stayline.timeline import CallOutcome
from tests.workflows.bench import LEG, Bench, agent, bench, until, user
from workflows.limits import next_deadline
from workflows.outbound import QUEUED_AT_MOST, RING_MARGIN
from workflows.state import CallState

NUMBER = "+15551234567"
DIAL = Dial(ring_timeout=20)


async def placed(call: Bench, **fields: Any) -> PlaceCall:
    """Start the workflow; returns what the carrier was asked."""
    await call.start(**fields)

    async def leg() -> bool:
        return (await call.snapshot()).call.carrier_call_id == LEG

    await until(leg)
    return call.outside.placed[0]


async def closed(call: Bench) -> None:
    """Wait until the bridge was asked to close the stream."""

    async def asked() -> bool:
        return bool(call.outside.closed)

    await until(asked)


def kinds(call: Bench) -> list[str]:
    """The final record's events by type."""
    return [entry.event.type for entry in call.outside.saved[-1].timeline]


async def test_from_the_dial_to_the_goodbye(client: Client) -> None:
    async with bench(client, agent(max_duration=600), dial=DIAL) as call:
        asked = await placed(call)
        assert (asked.call_id, asked.to_number, asked.time_limit) == (call.call_id, "+15550002222", 720)
        assert asked.dial == DIAL
        [dialled] = await call.timeline("call_dialled")
        assert dialled.event.at == asked.since
        await call.carrier("initiated", carrier_call_id=LEG)
        await call.carrier("ringing", carrier_call_id=LEG)
        assert (await call.snapshot()).status == "ringing"
        assert (await call.answered()).accepted
        await call.carrier("in-progress", carrier_call_id=LEG)
        grant = await call.open()
        assert grant.call.direction == "outbound"
        assert grant.call.carrier_call_id == LEG
        await call.record(user("Who is this?"))
        await call.handle.signal("end", {"say": "Bye.", "by": "ana"})
        await closed(call)
        await call.stream_ends("closed")

        async def hung_up() -> bool:
            return call.outside.hung_up == [LEG]

        await until(hung_up)
        await call.carrier("completed", carrier_call_id=LEG)
        assert (await call.result()).outcome == "completed"
        assert [c.say for c in call.outside.closed] == ["Bye."]
        assert call.outside.canceled == []
        assert kinds(call) == [
            "call_dialled",
            "call_admitted",
            "session_opened",
            "user_turn",
            "commanded",
            "session_closed",
            "call_ended",
        ]


async def test_the_policy_is_for_calls_that_come_in(client: Client) -> None:
    desk = agent()

    @desk.on_call
    def policy(info: CallInfo) -> None:
        raise RejectCall("We are closed.")

    async with bench(client, desk, dial=DIAL) as call:
        await placed(call, has_policy=False)
        assert (await call.answered()).accepted
        await call.carrier("completed", carrier_call_id=LEG)
        assert (await call.result()).outcome == "caller_hung_up"


@pytest.mark.parametrize(
    ("status", "outcome"),
    [("busy", "busy"), ("no-answer", "no_answer"), ("failed", "failed"), ("canceled", "no_answer")],
)
async def test_nobody_answers(client: Client, status: Any, outcome: CallOutcome) -> None:
    async with bench(client, agent(), dial=DIAL) as call:
        await placed(call)
        await call.carrier(status, carrier_call_id=LEG)
        assert (await call.result()).outcome == outcome
        assert call.outside.hung_up == []
        assert kinds(call) == ["call_dialled", "call_ended"]


async def test_webhooks_come_twice_and_in_any_order(client: Client) -> None:
    async with bench(client, agent(), dial=DIAL) as call:
        await placed(call)
        assert (await call.answered("t1")).accepted
        assert (await call.answered("t2")).accepted
        await call.open("t2")
        for status in ("ringing", "in-progress", "initiated", "ringing"):
            await call.carrier(status, carrier_call_id=LEG)
        for _ in range(2):
            await call.carrier("in-progress", carrier_call_id=LEG, answered_by="machine_start")
        await call.stream_ends()
        for _ in range(2):
            await call.carrier("completed", carrier_call_id=LEG)
        assert (await call.result()).outcome == "caller_hung_up"
        assert kinds(call).count("answered_by") == 1
        assert kinds(call).count("session_opened") == 1
        assert len(call.outside.placed) == 1


async def test_the_webhooks_are_faster_than_the_answer_of_the_request(client: Client) -> None:
    """The race: the carrier rings and asks while the request to place the call has not returned."""
    gate = asyncio.Event()

    async def slowly(ask: PlaceCall) -> Placed:
        await gate.wait()
        return Placed(carrier_call_id=LEG)

    async with bench(client, agent(), dial=DIAL) as call:
        call.outside.places = slowly
        await call.start()
        await call.event("call_dialled")
        await call.carrier("initiated", carrier_call_id=LEG)
        assert (await call.answered()).accepted
        await call.open()
        gate.set()
        await call.hang_up()
        assert (await call.result()).outcome == "caller_hung_up"
        assert call.outside.hung_up == []


async def test_dialled_twice_all_the_same(client: Client) -> None:
    """An answer was lost and the carrier did not know the call yet when it was asked: the second leg is hung up."""
    async with bench(client, agent(), dial=DIAL) as call:
        await placed(call)
        await call.carrier("ringing", carrier_call_id="CA2")

        async def hung_up() -> bool:
            return call.outside.hung_up == ["CA2"]

        await until(hung_up)
        assert call.outside.canceled == ["CA2"]
        assert not (await call.answered("t2", leg="CA2")).accepted
        await call.carrier("canceled", carrier_call_id="CA2")
        assert (await call.next_step("t3", carrier_call_id="CA2")).action == "hangup"
        assert (await call.answered()).accepted
        await call.open()
        await call.hang_up()
        assert (await call.result()).outcome == "caller_hung_up"


async def test_the_carrier_refuses(client: Client) -> None:
    async def refuse(ask: PlaceCall) -> Placed:
        raise ApplicationError("Invalid 'To' Phone Number", type="CarrierRefused", non_retryable=True)

    async with bench(client, agent(), dial=DIAL) as call:
        call.outside.places = refuse
        await call.start()
        assert (await call.result()).outcome == "failed"
        assert call.outside.hung_up == []
        [error] = [e.event for e in call.outside.saved[-1].timeline if e.event.type == "error"]
        assert (error.where, "Invalid 'To'" in error.message) == ("carrier", True)


async def test_ended_while_it_rings(client: Client) -> None:
    async with bench(client, agent(), dial=DIAL) as call:
        await placed(call)
        await call.carrier("ringing", carrier_call_id=LEG)
        await call.handle.signal("end")

        async def canceled() -> bool:
            return call.outside.canceled == [LEG]

        await until(canceled)
        await call.carrier("canceled", carrier_call_id=LEG)
        assert (await call.result()).outcome == "completed"


async def test_ended_before_it_was_dialled(client: Client) -> None:
    """The command comes with the very start."""
    async with bench(client, agent(), dial=DIAL) as call:
        await client.start_workflow(
            "CallWorkflow",
            call.start_input(),
            id=call.handle.id,
            task_queue=call.queue,
            start_signal="end",
            start_signal_args=[""],
        )
        assert (await call.result()).outcome == "completed"
        assert call.outside.placed == []
        assert call.outside.hung_up == []


async def test_ended_while_the_request_is_on_its_way(client: Client) -> None:
    """The race: nobody knows the carrier's id yet, and the call must not ring on."""
    gate, begun = asyncio.Event(), asyncio.Event()

    async def slowly(ask: PlaceCall) -> Placed:
        begun.set()
        while not gate.is_set():  # a request in a thread hears of no cancellation
            try:
                await gate.wait()
            except asyncio.CancelledError:
                continue
        return Placed(carrier_call_id=LEG)

    async with bench(client, agent(), dial=DIAL) as call:
        call.outside.places = slowly
        await call.start()
        await begun.wait()
        await call.handle.signal("end")
        await call.status("ending")
        gate.set()

        async def canceled() -> bool:
            return call.outside.canceled == [LEG]

        await until(canceled)
        await call.carrier("canceled", carrier_call_id=LEG)
        assert (await call.result()).outcome == "completed"
        assert len(call.outside.placed) == 1


async def test_a_transfer_outlasts_the_carriers_limit(client: Client) -> None:
    async with bench(client, agent(max_duration=60), dial=DIAL) as call:
        await placed(call)
        await call.answered()
        await call.open()
        await call.handle.signal("transfer", NUMBER)
        await closed(call)
        await call.stream_ends("closed")
        assert (await call.next_step(carrier_call_id=LEG)).action == "dial"

        async def extended() -> bool:
            return bool(call.outside.extended)

        await until(extended)
        [extension] = call.outside.extended
        assert extension.carrier_call_id == LEG
        assert extension.time_limit >= 4 * 3600
        assert (await call.next_step("n2", dial_status="completed", carrier_call_id=LEG)).action == "hangup"
        await call.carrier("completed", carrier_call_id=LEG)
        assert (await call.result()).outcome == "transferred"
        assert len(call.outside.extended) == 1


async def test_a_lost_bridge_redirects_the_carriers_call(client: Client) -> None:
    async with bench(client, agent(), dial=DIAL) as call:
        await placed(call)
        await call.answered()
        await call.open(bridge_id="dead")
        await call.handle.signal("bridge_lost", "dead")

        async def fetched() -> bool:
            return call.outside.redirected == [LEG]

        await until(fetched)
        await call.next_step("t2", carrier_call_id=LEG)
        assert (await call.open("t2")).resumed
        await call.hang_up(session=2)
        assert (await call.result()).outcome == "caller_hung_up"


async def test_the_leg_is_known_after_continuing_as_new(client: Client) -> None:
    async with bench(client, agent(), dial=DIAL) as call:
        await placed(call, history_limit=30)
        await call.answered()
        await call.open()
        for n in range(10):
            await call.record(user(f"question {n}"))

        async def continued() -> bool:
            return (await call.snapshot()).run_count >= 2

        await until(continued)
        assert (await call.snapshot()).call.carrier_call_id == LEG
        await call.handle.signal("end")

        async def hung_up() -> bool:
            return call.outside.hung_up == [LEG]

        await until(hung_up)
        await call.carrier("completed", carrier_call_id=LEG)
        assert len(call.outside.placed) == 1


# --- timers, on the server's own clock ---------------------------------------------------------------------


async def test_it_rings_and_the_carriers_word_is_lost(time_skipping_env: WorkflowEnvironment) -> None:
    async with bench(time_skipping_env.client, agent(), dial=DIAL) as call:
        await placed(call)
        await call.carrier("initiated", carrier_call_id=LEG)
        result = await call.result()
        assert result.outcome == "no_answer"
        assert call.outside.canceled == [LEG]
        assert kinds(call) == ["call_dialled", "limit", "call_ended"]
        record = call.outside.saved[-1].snapshot
        assert record.ended_at is not None
        assert 35 <= (record.ended_at - record.started_at).total_seconds() < 45


async def test_answered_but_no_stream_comes(time_skipping_env: WorkflowEnvironment) -> None:
    async with bench(time_skipping_env.client, agent(ring_timeout=30), dial=DIAL) as call:
        await placed(call)
        await call.carrier("in-progress", carrier_call_id=LEG)
        assert (await call.result()).outcome == "no_stream"
        assert call.outside.hung_up == [LEG]
        assert call.outside.canceled == []


async def test_the_carrier_cannot_be_reached(time_skipping_env: WorkflowEnvironment) -> None:
    async def nobody(ask: PlaceCall) -> Placed:
        raise ApplicationError("the carrier cannot be reached", type="CarrierUnreachable")

    async with bench(time_skipping_env.client, agent(), dial=DIAL) as call:
        call.outside.places = nobody
        await call.start()
        assert (await call.result()).outcome == "failed"
        assert len(call.outside.placed) > 3
        assert call.outside.hung_up == []


async def test_a_call_that_may_have_been_placed_is_named_by_its_webhooks(
    time_skipping_env: WorkflowEnvironment,
) -> None:
    async def unsure(ask: PlaceCall) -> Placed:
        return Placed()

    async with bench(time_skipping_env.client, agent(), dial=DIAL) as call:
        call.outside.places = unsure
        await call.start()
        await call.event("call_dialled")
        await call.carrier("ringing", carrier_call_id=LEG)
        assert (await call.result()).outcome == "no_answer"
        assert call.outside.canceled == [LEG]


# --- deadlines, by the state alone -------------------------------------------------------------------------

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def state() -> CallState:
    info = CallInfo(call_id="out-1", from_number="+1", to_number="+2", direction="outbound", started_at=NOW)
    return CallState.begin(CallStart(call=info, agent=agent().spec(), outbound=DIAL), NOW)


def due(state: CallState) -> float | None:
    deadline = next_deadline(state)
    assert deadline is None or deadline.limit == "ring"
    return (deadline.at - NOW).total_seconds() if deadline else None


def test_ringing_begins_when_the_carrier_dials() -> None:
    call = state()
    assert due(call) is None
    call.dial(NOW)
    assert call.outbound is not None
    margin = 20 + RING_MARGIN.total_seconds()
    assert due(call) == QUEUED_AT_MOST.total_seconds() + margin
    call.outbound.placed_at = NOW + timedelta(seconds=3)
    assert due(call) == QUEUED_AT_MOST.total_seconds() + margin + 3
    call.outbound.dialled(NOW + timedelta(seconds=5), rings=False)
    assert due(call) == 5 + margin
    call.outbound.dialled(NOW + timedelta(seconds=7), rings=True)
    assert due(call) == 7 + margin
    call.outbound.dialled(NOW + timedelta(seconds=9), rings=True)
    call.outbound.dialled(NOW + timedelta(seconds=9), rings=False)
    assert due(call) == 7 + margin
    call.outbound.answered(NOW + timedelta(seconds=10))
    assert due(call) == 10 + 60
