"""Recovery: SIGKILL of the bridge that holds calls, until each caller hears the next bridge.

Real processes: Temporal, a worker, bridges; the lab is the carrier; the vendors are fakes without latency. Half of
the calls are at a carrier that goes on with its TwiML when a stream breaks, half at one that leaves the caller in
silence until a REST request steers the call. Half of the agents are speaking. Each round starts a bridge, kills the
one that holds the calls, and so moves all of them; what is timed is the first 20 ms of speech that the caller's end
of the line plays from the new stream.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from benchmarks.durable_report import Row, percentile
from stayline.lab.call import Behaviour
from stayline.lab.events import Kind
from stayline.lab.line import Spoken
from stayline.lab.voice import is_voiced
from tests.whole_call.puppet import Puppet
from tests.whole_call.stack import Stack, stack

OnBreak = Literal["next", "wait"]
GOAL_SECONDS: dict[OnBreak, float] = {"next": 1.5, "wait": 5.0}
WHAT: dict[OnBreak, str] = {
    "next": "the carrier follows its TwiML at once",
    "wait": "the carrier stays dead until the REST redirect",
}
STEPS: dict[OnBreak, tuple[tuple[Kind, str], ...]] = {
    "next": (("webhook", "answer of /voice/next"), ("stream_opened", "stream"), ("first_audio", "first audio")),
    "wait": (
        ("rest", "REST redirect"),
        ("webhook", "answer of /voice/next"),
        ("stream_opened", "stream"),
        ("first_audio", "first audio"),
    ),
}
PATIENCE = 40.0


@dataclasses.dataclass(frozen=True, slots=True)
class Recovery:
    """One call that lost its bridge.

    Attributes:
        seconds: from the kill to speech at the caller's ear.
        steps: seconds from the break of the stream to each step, by the carrier's log.
    """

    on_break: OnBreak
    seconds: float
    steps: dict[str, float]


class Ear(Puppet):
    """A caller who notes when it last began to hear the agent on the stream that it has now."""

    on_break: OnBreak = "next"

    def tick(self, heard: bytes, *, at_ms: int, queued_ms: float) -> Spoken:
        if self._streams != self.call.streams:
            self._streams, self.first_heard = self.call.streams, None
        if self.first_heard is None and is_voiced(heard):
            self.first_heard = time.monotonic()
        return super().tick(heard, at_ms=at_ms, queued_ms=queued_ms)

    _streams = 0
    first_heard: float | None = None


async def callers(town: Stack, count: int, on_break: OnBreak) -> list[Ear]:
    """Callers who have heard the greeting, one after the other."""
    found = []
    floor = asyncio.Lock()
    for _ in range(count):
        town.carrier.behaviour = Behaviour(on_break=on_break)
        caller = Ear(town.deepgram, floor)
        caller.on_break = on_break
        await caller.ring(town.carrier)
        await caller.hears_out()
        found.append(caller)
    return found


async def kill_round(town: Stack, calls: Sequence[Ear]) -> list[Recovery]:
    """Start a bridge, kill the one that holds all calls, and wait until every caller hears the new one."""
    (doomed,) = town.alive
    for caller in calls:
        await caller.hears_out(500)
    town.deepgram.script.clear()
    for caller in calls[::2]:  # these hear a long answer when the bridge dies
        await caller.say("tell me everything", ms=200)
        await caller.hears(300)
    await town.bridge()
    await asyncio.sleep(1.5)  # the machine has started a process; calls go on as before
    before = {caller.sid: caller.call.streams for caller in calls}
    child = town.processes.bridges[doomed]
    killed_at = time.monotonic()
    child.kill()
    found = await asyncio.gather(*(_recovered(town, caller, before[caller.sid], killed_at) for caller in calls))
    await child.wait()
    return found


async def _recovered(town: Stack, caller: Ear, streams: int, killed_at: float) -> Recovery:
    await caller.until(lambda: caller.call.streams > streams and caller.first_heard is not None, PATIENCE)
    assert caller.first_heard is not None
    log = town.carrier.log
    broken = log.of("stream_broken", caller.sid)[-1].seconds
    steps = {}
    for kind, name in STEPS[caller.on_break]:
        after = [event.seconds - broken for event in log.of(kind, caller.sid) if event.seconds >= broken]
        steps[name] = after[0]
    return Recovery(caller.on_break, caller.first_heard - killed_at, steps)


async def measure(folder: Path, calls: int, rounds: int) -> list[Recovery]:
    """Recoveries of `calls` calls of each kind in each of `rounds` kills."""
    found: list[Recovery] = []
    async with stack(folder) as town:
        both = [*await callers(town, calls, "next"), *await callers(town, calls, "wait")]
        for _ in range(rounds):
            found += await kill_round(town, both)
        for caller in both:
            caller.call.hang_up()
        await asyncio.gather(*(caller.call.wait() for caller in both))
    return found


def rows(found: Sequence[Recovery]) -> list[Row]:
    table = []
    for kind in WHAT:
        times = [recovery.seconds for recovery in found if recovery.on_break == kind]
        goal = GOAL_SECONDS[kind]
        worst = percentile(times, 95)
        about = f"SIGKILL of the bridge to speech heard, {WHAT[kind]}; n={len(times)}"
        table.append(Row(f"{about}: p50", round(percentile(times, 50), 2), "s"))
        table.append(Row(f"{about}: p95", round(worst, 2), "s", f"≤ {goal} s", worst <= goal))
        for _, name in STEPS[kind]:
            steps = [recovery.steps[name] for recovery in found if recovery.on_break == kind]
            table.append(Row(f"… of it, break of the stream to {name}: p50", round(percentile(steps, 50), 3), "s"))
    return table
