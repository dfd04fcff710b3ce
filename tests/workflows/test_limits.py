"""Durable limits, on real time where they are short and on the server's own clock where they are long."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment

from stayline import CallInfo, tool
from stayline.messages import CallStart, OpenSession
from tests.workflows.bench import agent, bench, until
from workflows.limits import next_deadline
from workflows.state import CallState


async def test_one_second_is_a_limit(client: Client) -> None:
    async with bench(client, agent(max_duration=1, limit_text="Time is up.")) as call:
        await call.begin()
        await call.event("limit")
        await call.stream_ends("closed")

        async def hung_up() -> bool:
            return call.outside.hung_up == [call.call_id]

        await until(hung_up)
        await call.carrier("completed")
        assert (await call.result()).outcome == "duration_limit"
        assert [c.say for c in call.outside.closed] == ["Time is up."]
        assert call.outside.hung_up == [call.call_id]
        assert call.outside.spoken == []


async def test_no_stream_comes(client: Client) -> None:
    async with bench(client, agent(ring_timeout=0.3)) as call:
        await call.admit()
        await call.event("limit")
        await call.carrier("completed")
        assert (await call.result()).outcome == "no_stream"


async def test_a_stream_that_stops_and_nothing_more(time_skipping_env: WorkflowEnvironment) -> None:
    desk = agent()
    async with bench(time_skipping_env.client, desk) as call:
        await call.start()
        await call.begin()
        await call.stream_ends("stopped")
        result = await call.result()
        assert result.outcome == "caller_hung_up"
        assert call.outside.hung_up == [call.call_id]
        assert result.metrics.duration < 4


async def test_half_an_hour_with_a_warning(time_skipping_env: WorkflowEnvironment) -> None:
    desk = agent(max_duration=1800, silence_timeout=0)
    async with bench(time_skipping_env.client, desk) as call:
        await call.start()
        await call.begin()
        result = await call.result()
        assert result.outcome == "duration_limit"
        assert 1800 <= result.metrics.duration < 1810
        assert [(s.text, s.source) for s in call.outside.spoken] == [(desk.spec().warning_text, "limit")]
        limits = [e.event.limit for e in call.outside.saved[-1].timeline if e.event.type == "limit"]
        assert limits == ["duration_warning", "duration"]


async def test_silence(time_skipping_env: WorkflowEnvironment) -> None:
    desk = agent(silence_prompt=20, silence_timeout=60)
    async with bench(time_skipping_env.client, desk) as call:
        await call.start()
        await call.begin()
        result = await call.result()
        assert result.outcome == "silence_limit"
        assert 60 <= result.metrics.duration < 70
        assert [s.text for s in call.outside.spoken] == ["Are you still there?", ""]
        assert call.outside.closed[0].say == "Goodbye."


async def test_silence_because_the_bridge_is_dead(time_skipping_env: WorkflowEnvironment) -> None:
    """A bridge that dies before a heartbeat has named the call: nobody else tells."""
    desk = agent(silence_prompt=20, silence_timeout=60, reattach_timeout=10)
    async with bench(time_skipping_env.client, desk) as call:
        await call.start()
        assert (await call.admit()).accepted
        await call.open(bridge_id="dead")
        result = await call.result()
        assert result.outcome == "lost"
        assert result.metrics.duration < 60
        assert call.outside.redirected != []
        closed = [e.event for e in call.outside.saved[-1].timeline if e.event.type == "session_closed"]
        assert [event.reason for event in closed] == ["bridge_lost"]


async def test_somebody_who_speaks_for_long_is_not_silent(time_skipping_env: WorkflowEnvironment) -> None:
    desk = agent(max_duration=300, duration_warning=0)
    async with bench(time_skipping_env.client, desk) as call:
        await call.start()
        call.outside.somebody_speaks = True
        await call.begin()
        assert (await call.result()).outcome == "duration_limit"
        assert call.outside.spoken == []


# --- deadlines, by the state alone -----------------------------------------------------------------------

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


@tool
def wait_for_it() -> str:
    """Takes a while."""
    return ""


def state() -> CallState:
    info = CallInfo(call_id="CA1", from_number="+1", to_number="+2", started_at=NOW)
    return CallState.begin(CallStart(call=info, agent=agent(wait_for_it).spec()), NOW)


def attached() -> CallState:
    fresh = state()
    fresh.open_session(OpenSession(token_sha256="t", bridge_id="b", stream_id="s"), NOW)
    return fresh


def due(state: CallState) -> tuple[str, float] | None:
    deadline = next_deadline(state)
    return (deadline.limit, (deadline.at - NOW).total_seconds()) if deadline else None


def test_ringing() -> None:
    assert due(state()) == ("ring", 60)


def test_attached_waits_for_silence_first() -> None:
    assert due(attached()) == ("silence_prompt", 20)


def test_after_the_prompt() -> None:
    call = attached()
    call.prompted = True
    assert due(call) == ("silence", 60)


@pytest.mark.parametrize(
    ("reason", "expected"),
    [("stopped", ("caller_gone", 4)), ("lost", ("redirect", 3)), ("bridge_lost", ("redirect", 0))],
)
def test_detached(reason: str, expected: tuple[str, float]) -> None:
    call = attached()
    call.detach(reason, NOW)  # type: ignore[arg-type]
    assert due(call) == expected


def test_the_carrier_has_asked() -> None:
    call = attached()
    call.carrier_asks("t2", NOW)
    assert due(call) == ("redirect", 10)
    assert call.detached is not None
    call.detached.redirecting = True
    assert due(call) == ("reattach", 30)


def test_while_people_talk_the_agents_limits_do_not_hold() -> None:
    call = attached()
    call.begin_transfer("+15551234567", None, "ana", "", NOW)
    assert call.transfer is not None
    call.transfer.dialled_at = NOW
    limit = due(call)
    assert limit is not None
    assert limit[0] == "dial_forgotten"
    call.carrier_over("caller_hung_up", "caller", NOW + timedelta(seconds=5))
    assert due(call) == ("dial_unsettled", 8)


def test_nothing_is_due_when_the_call_is_ending() -> None:
    call = attached()
    call.command_end(None, "ana", "", NOW)
    assert due(call) is None
