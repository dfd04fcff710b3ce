"""Temporal is killed in mid-call and comes back, or does not: audio goes on, records follow, new calls are held.

The races: the bridge's lease runs out while nobody can renew it, which must not be taken for the bridge's death;
records wait in the bridge, and on disk when the bridge dies too; a new call is asked to wait, round by round.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from media_bridge.server.webhooks import APOLOGY
from stayline.lab.call import Behaviour
from tests.whole_call.puppet import Puppet
from tests.whole_call.stack import Stack, contains, stack, story, turns

pytestmark = pytest.mark.asyncio(loop_scope="module")

AWAY = 10.0
"""Seconds that Temporal is away at least."""
ADMISSION = 30
"""Seconds that a new call is held: `AWAY`, and 10 more in which a worker's polls find Temporal again, and some."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def town(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with stack(tmp_path_factory.mktemp("away"), STAYLINE_ADMISSION_TIMEOUT=str(ADMISSION)) as running:
        yield running


async def test_a_call_goes_on_and_a_new_one_is_held(town: Stack) -> None:
    caller = await town.greeted()
    loop = asyncio.get_running_loop()
    await town.processes.dev_server.kill()
    back_at = loop.time() + AWAY
    newcomer = town.caller()
    await newcomer.ring(town.carrier)
    said: list[str] = []
    while loop.time() < back_at:
        said.append(f"number {len(said) + 1}")
        await caller.asks(said[-1])
    assert newcomer.call.status == "ringing"
    assert town.carrier.log.of("twiml", newcomer.sid)[0].detail == "Pause"
    assert town.carrier.log.of("answered", newcomer.sid) == []

    await town.processes.dev_server.start()
    await newcomer.hears(patience=2 * ADMISSION)
    await newcomer.hears_out()
    await newcomer.asks("finally")
    await caller.asks("still here")
    said.append("still here")
    await newcomer.leaves()
    await caller.leaves()
    record, second = await town.record(caller.sid), await town.record(newcomer.sid)

    told = [("agent", "Hello there.")]
    for words in said:
        told += [("caller", words), ("agent", f"You said {words}.")]
    assert turns(record) == told, story(record)
    assert record.snapshot.metrics.session_count == 1, story(record)
    assert [e.event.type for e in record.timeline if e.event.type in ("gap", "error")] == []
    assert turns(second)[-1] == ("agent", "You said finally.")
    assert second.snapshot.metrics.session_count == 1


async def test_the_spool_outlives_the_bridge_and_a_new_call_is_refused_politely(town: Stack) -> None:
    """Temporal stays away for longer than a new call is held; meanwhile the bridge dies with records in hand.

    A caller whose stream breaks meanwhile has no ringing tone to listen to: they are told that it goes on.
    """
    caller = await town.greeted()
    town.carrier.behaviour, usual = Behaviour(on_break="next"), town.carrier.behaviour
    dropped = await town.greeted()
    town.carrier.behaviour = usual
    await town.until(caller.sid, "agent_turn")
    await town.until(dropped.sid, "agent_turn")
    await town.processes.dev_server.kill()
    assert dropped.call.drop_stream()
    unlucky = town.caller()
    await unlucky.ring(town.carrier)
    await caller.asks("please note this")
    spool = town.processes.settings.spool_dir / f"{caller.sid}.1.json"
    await contains(spool, "please note this", "You said please note this.")

    async with asyncio.timeout(90):
        await unlucky.call.wait()
        await dropped.call.wait()
    assert spoken(town, unlucky) == [APOLOGY]
    words = spoken(town, dropped)
    assert words[-1] == APOLOGY
    assert len(words) > 2
    assert set(words[:-1]) == {town.processes.settings.hold_text}
    assert unlucky.call.ended_by == "bridge"
    assert unlucky.heard_ms > 1000

    for name in town.alive:
        await town.kill_bridge(name)
    await town.processes.dev_server.start()
    await town.bridge()
    await town.until(caller.sid, "session_opened", 2)
    await caller.hears()
    await caller.hears_out(600)
    await caller.asks("are you there")
    await caller.leaves()
    record = await town.record(caller.sid)
    assert [turn for turn in turns(record) if "note" in turn[1]] == [
        ("caller", "please note this"),
        ("agent", "You said please note this."),
    ], story(record)
    assert turns(record)[-1] == ("agent", "You said are you there.")
    assert not spool.exists()
    assert not list(spool.parent.glob("*.refused"))


def spoken(town: Stack, caller: Puppet) -> list[str]:
    """What the carrier itself said to the caller."""
    return [e.data["verb"].text for e in town.carrier.log.of("twiml", caller.sid) if e.detail == "Say"]
