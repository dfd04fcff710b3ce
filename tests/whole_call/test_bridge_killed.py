"""A bridge is killed with SIGKILL while it holds calls: each goes on elsewhere, and its record is whole.

The races: what the agent was saying is in no record yet and is lost with the process; what the caller was saying
is unheard; a tool belongs to the workflow and goes on, while the update that waited for it has lost its sender.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from stayline.lab.call import Behaviour
from stayline.timeline import CallRecord, SessionClosed, SessionOpened
from tests.whole_call import agents
from tests.whole_call.stack import Stack, contains, stack, story, turns

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def town(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with stack(tmp_path_factory.mktemp("killed"), bridges=2) as running:
        yield running


def sessions(record: CallRecord) -> list[str]:
    """The bridge (its name) of each session, in order, with how the session ended."""
    opened = [e.event for e in record.timeline if isinstance(e.event, SessionOpened)]
    closed = {e.event.session: e.event.reason for e in record.timeline if isinstance(e.event, SessionClosed)}
    return [f"{event.bridge_id.rpartition('-')[0]} {closed.get(event.session)}" for event in opened]


async def test_a_carrier_that_comes_back_by_itself(town: Stack) -> None:
    """The carrier goes on with the TwiML after the break, before anybody knows that the bridge is dead."""
    while len(town.alive) < 2:
        await town.bridge()
    town.carrier.behaviour = Behaviour(on_break="next")
    try:
        caller = await town.greeted()
    finally:
        town.carrier.behaviour = Behaviour()
    await caller.say("tell me everything")
    await caller.hears(500)
    bridge_id = (await town.snapshot(caller.sid)).bridge_id
    assert bridge_id
    await town.kill_bridge(bridge_id.rpartition("-")[0])
    await caller.hears()
    await town.until(caller.sid, "session_opened", 2)
    await caller.asks("are you there")
    await caller.leaves()
    record = await town.record(caller.sid)
    assert record.snapshot.metrics.session_count == 2, story(record)
    assert turns(record)[-2:] == [("caller", "are you there"), ("agent", "You said are you there.")], story(record)
    assert record.snapshot.outcome == "caller_hung_up"
    assert town.carrier.log.of("rest", caller.sid) == []


async def test_calls_move_to_another_bridge(town: Stack) -> None:
    """Three calls on one bridge, killed in one instant: in agent speech, in caller speech, in a running tool."""
    while len(town.alive) > 1:
        await town.kill_bridge(town.alive[0])
    (doomed,) = town.alive
    listening, talking, booking = [await town.greeted() for _ in range(3)]
    agents.permit(town.folder).unlink(missing_ok=True)
    await booking.say("book a table")
    await contains(agents.begun(town.folder, booking.sid))
    heir = await town.bridge()
    await listening.say("tell me everything")
    await listening.hears(500)
    await talking.begin("my name is", ms=6000)
    assert listening.queued_ms > 0
    assert talking.speaking
    await town.kill_bridge(doomed)
    talking.falls_silent()  # nobody seems to be there any more

    await asyncio.gather(*(caller.hears() for caller in (listening, talking, booking)))
    agents.permit(town.folder).touch()
    await booking.until(lambda: len(town.booked(booking.sid)) > 0)
    await booking.hears()
    await booking.hears_out(1000)
    town.deepgram.script.clear()  # what was cut off is said again
    await listening.asks("are you there")
    await talking.hears_out(600)
    await talking.asks("my name is Ann")
    for caller in (listening, talking, booking):
        await caller.leaves()
    records = [await town.record(c.sid) for c in (listening, talking, booking)]

    for record in records:
        assert sessions(record) == [f"{doomed} bridge_lost", f"{heir} stopped"], story(record)
        assert record.snapshot.outcome == "caller_hung_up"
        assert record.snapshot.metrics.session_count == 2
        assert "We got cut off." in [e.event.text for e in record.timeline if e.event.type == "agent_turn"]
    told = [turns(record) for record in records]
    assert told[0][:2] == [("agent", "Hello there."), ("caller", "tell me everything")], story(records[0])
    assert told[0][-2:] == [("caller", "are you there"), ("agent", "You said are you there.")], story(records[0])
    assert [who for who, _ in told[0]].count("caller") == 2
    assert told[1] == [
        ("agent", "Hello there."),
        ("caller", "my name is Ann"),
        ("agent", "You said my name is Ann."),
    ], story(records[1])
    assert told[2] == [
        ("agent", "Hello there."),
        ("caller", "book a table"),
        ("agent", 'Done: "a table is booked".'),
    ], story(records[2])
    assert len(town.booked(booking.sid)) == 1
    (run,) = records[2].snapshot.tools
    assert run.outcome is not None
    assert run.outcome.status == "succeeded"
    assert len(run.outcome.attempts) == 1


async def test_the_only_bridge_is_started_again(town: Stack) -> None:
    """Nobody is there to take the call for some seconds: the redirect is retried until a bridge answers."""
    while len(town.alive) > 1:
        await town.kill_bridge(town.alive[0])
    (alone,) = town.alive
    caller = await town.greeted()
    await caller.say("tell me everything")
    await caller.hears(500)
    await town.kill_bridge(alone)
    successor = await town.bridge()
    await caller.hears()
    await caller.asks("are you there")
    await caller.leaves()
    record = await town.record(caller.sid)
    assert sessions(record) == [f"{alone} bridge_lost", f"{successor} stopped"], story(record)
    assert turns(record)[-2:] == [("caller", "are you there"), ("agent", "You said are you there.")], story(record)
    assert [text for who, text in turns(record) if who == "caller"] == ["tell me everything", "are you there"]
