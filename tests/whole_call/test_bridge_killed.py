"""A bridge is killed with SIGKILL while it holds calls: each goes on elsewhere, and its record is whole.

The races: what the agent was saying is in no record yet and is lost with the process; what the caller was saying
is unheard; a tool belongs to the workflow and goes on, while the update that waited for it has lost its sender.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from stayline.lab.call import Behaviour
from stayline.models import ToolRun
from stayline.timeline import CallRecord, SessionClosed, SessionOpened

from tests.whole_call import agents
from tests.whole_call.puppet import Puppet
from tests.whole_call.stack import Stack, exists, stack, story, turns

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def town(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with stack(tmp_path_factory.mktemp("killed")) as running:
        yield running


def sessions(record: CallRecord) -> list[str]:
    """The bridge (its name) of each session, in order, with how the session ended."""
    opened = [e.event for e in record.timeline if isinstance(e.event, SessionOpened)]
    closed = {e.event.session: e.event.reason for e in record.timeline if isinstance(e.event, SessionClosed)}
    return [f"{event.bridge_id.rpartition('-')[0]} {closed.get(event.session)}" for event in opened]


def only(tools: tuple[ToolRun, ...]) -> ToolRun:
    (run,) = tools
    return run


async def greeted(town: Stack) -> Puppet:
    """A caller who has heard the greeting."""
    caller = town.caller()
    await caller.ring(town.carrier)
    await caller.hears_out()
    return caller


async def test_calls_move_to_another_bridge(town: Stack) -> None:
    """Three calls on one bridge, killed in one instant: in agent speech, in caller speech, in a running tool."""
    listening, talking, booking = [await greeted(town) for _ in range(3)]
    standby = await town.bridge("b2")
    assert standby.pid
    agents.permit(town.folder).unlink(missing_ok=True)

    await booking.say("book a table")
    await exists(agents.begun(town.folder, booking.sid))
    await listening.say("tell me everything")
    await listening.hears(500)
    await talking.begin("my name is", ms=6000)
    await talking.until(lambda: not town.deepgram.script)
    assert listening.queued_ms > 0
    assert talking.speaking
    town.processes.bridges["b1"].kill()

    talking.falls_silent()  # nobody seems to be there any more

    await asyncio.gather(*(caller.hears() for caller in (listening, talking, booking)))
    agents.permit(town.folder).touch()
    await booking.until(lambda: len(town.booked(booking.sid)) > 0)
    await booking.hears()
    await booking.hears_out(1000)
    await listening.asks("are you there")
    await talking.hears_out()
    town.deepgram.script.clear()  # what was cut off is said again
    await talking.asks("my name is Ann")
    for caller in (listening, talking, booking):
        await caller.leaves()
    records = [await town.record(c.sid) for c in (listening, talking, booking)]

    for record in records:
        assert sessions(record) == ["b1 bridge_lost", "b2 stopped"]
        assert record.snapshot.outcome == "caller_hung_up"
        assert record.snapshot.metrics.session_count == 2
        assert "We got cut off." in [e.event.text for e in record.timeline if e.event.type == "agent_turn"], story(record)
    told = [turns(record) for record in records]
    assert told[0][:2] == [("agent", "Hello there."), ("caller", "tell me everything")]
    assert told[0][-2:] == [("caller", "are you there"), ("agent", "You said are you there.")]
    assert told[1] == [
        ("agent", "Hello there."),
        ("caller", "my name is Ann"),
        ("agent", "You said my name is Ann."),
    ]
    assert told[2] == [
        ("agent", "Hello there."),
        ("caller", "book a table"),
        ("agent", 'Done: "a table is booked".'),
    ]
    assert len(town.booked(booking.sid)) == 1
    run = only(records[2].snapshot.tools)
    assert run.outcome is not None
    assert run.outcome.status == "succeeded"
    assert len(run.outcome.attempts) == 1


async def test_the_only_bridge_is_started_again(town: Stack) -> None:
    """Nobody is there to take the call for some seconds: the redirect is held until a bridge answers."""
    (name, alone), = [(n, c) for n, c in town.processes.bridges.items() if c.pid]
    caller = await greeted(town)
    await caller.say("tell me everything")
    await caller.hears(500)
    alone.kill()
    await alone.wait()
    await town.bridge("b3")
    await town.until(caller.sid, "session_opened", 2)
    await caller.hears()
    await caller.hears_out(1000)
    await caller.asks("are you there")
    await caller.leaves()
    record = await town.record(caller.sid)
    assert sessions(record) == [f"{name} bridge_lost", "b3 stopped"]
    assert turns(record)[-2:] == [("caller", "are you there"), ("agent", "You said are you there.")]
    assert [text for who, text in turns(record) if who == "caller"] == ["tell me everything", "are you there"]


async def test_a_carrier_that_comes_back_by_itself(tmp_path: Path) -> None:
    """The carrier takes the TwiML after the broken stream, before anybody knows that the bridge is dead."""
    async with stack(tmp_path, bridges=2, behaviour=Behaviour(on_break="next")) as town:
        caller = await greeted(town)
        await caller.say("tell me everything")
        await caller.hears(500)
        bridge_id = (await town.snapshot(caller.sid)).bridge_id
        assert bridge_id
        holder = town.processes.bridge_of(bridge_id)
        assert holder is not None
        holder.kill()
        await town.until(caller.sid, "session_opened", 2)
        await caller.hears()
        await caller.hears_out(1000)
        await caller.asks("are you there")
        await caller.leaves()
        record = await town.record(caller.sid)
    assert record.snapshot.metrics.session_count == 2
    assert turns(record)[-2:] == [("caller", "are you there"), ("agent", "You said are you there.")]
    assert record.snapshot.outcome == "caller_hung_up"
