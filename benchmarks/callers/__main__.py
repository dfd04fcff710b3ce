"""The callers as one process.

    python -m benchmarks.callers --ledger callers.json --calls 10 --turns 6 --plain ws://127.0.0.1:8000/ws
    TWILIO_ACCOUNT_SID=… TWILIO_AUTH_TOKEN=… python -m benchmarks.callers … --stayline http://127.0.0.1:8080

They dial one after the other. When all are connected, each speaks for a second and is quiet for four, again and
again, evenly spread over these five seconds. One timer of 2 ms serves all; how late it was is in the ledger: a run
whose callers were late says nothing about the server. Prints a line of JSON when all are connected, when every
caller has spoken once (`steady`), and when it is over; the calls are hung up after that. A call that is refused
ends it all, unless it is a crowd (`--crowd`): then each caller speaks as soon as they are connected, while others
still dial, and those who are refused are counted.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import gc
import json
import os
import sys
import time
from pathlib import Path

import aiohttp
import uvloop

from benchmarks.callers.call import Call
from benchmarks.callers.dial import Carrier, Exchange, Plain, Refused
from benchmarks.callers.script import QUIET_MS, Script
from benchmarks.sound import FRAME_MS

SLOTS = 10
STEP = FRAME_MS / 1000 / SLOTS
"""Seconds between two steps of the timer: callers are spread over the 20 ms as they are at a carrier."""
DIALS_PER_SECOND = 10
"""So quickly the calls begin."""
CROWD_PER_SECOND = 3
"""So quickly those of a crowd do: as if a hundred calls at once lasted for half a minute each."""

HELLO = 50
"""Ticks after which a caller of a crowd speaks."""


class Clock:
    """Ticks all calls. `late`: by how much each step was late, in seconds, since it was last emptied."""

    def __init__(self) -> None:
        self.slots: list[list[Call]] = [[] for _ in range(SLOTS)]
        self.late: list[float] = []
        self._begun = time.monotonic()
        self._steps = 0
        self._loop = asyncio.get_running_loop()
        self._step()

    @property
    def tick(self) -> int:
        return self._steps // SLOTS

    def add(self, call: Call) -> None:
        self.slots[call.script.number % SLOTS].append(call)

    def _step(self) -> None:
        while (late := time.monotonic() - (self._begun + self._steps * STEP)) >= 0:
            self.late.append(late)
            tick = self.tick
            for call in self.slots[self._steps % SLOTS]:
                call.tick(tick)
            self._steps += 1
        self._loop.call_later(-late, self._step)


def say(event: str, **more: object) -> None:
    print(json.dumps({"event": event, "at": time.monotonic(), **more}), flush=True)


async def connected(exchange: Exchange, clock: Clock, scripts: list[Script], crowd: bool) -> list[Call]:
    """Those who were taken: all, but of a crowd.

    Raises:
        Refused
    """

    async def one(script: Script) -> Call | None:
        await asyncio.sleep(script.number / (CROWD_PER_SECOND if crowd else DIALS_PER_SECOND))
        try:
            call = await exchange.connect(script)
        except Refused:
            if crowd:
                return None
            raise
        clock.add(call)
        if crowd:
            script.first = clock.tick + HELLO
        return call

    taken = await asyncio.gather(*(one(script) for script in scripts))
    return [call for call in taken if call is not None]


async def run(exchange: Exchange, scripts: list[Script], turns: int, ledger: Path, crowd: bool) -> None:
    clock = Clock()
    calls = await connected(exchange, clock, scripts, crowd)
    await asyncio.sleep(1.0)
    cycle = scripts[0].cycle
    begin = clock.tick + SLOTS
    for place, script in enumerate(scripts):
        if not crowd:
            script.first = begin + cycle * place // len(scripts)
    gc.collect()
    gc.freeze()
    gc.disable()  # nothing here makes cycles, and a collection would make the callers late
    say("connected", calls=len(calls))
    seconds = cycle * FRAME_MS / 1000
    await asyncio.sleep(seconds)
    clock.late.clear()
    say("steady")
    await asyncio.sleep(seconds * turns)
    late = sorted(clock.late)
    over = time.monotonic()
    say("over")
    notes = [dataclasses.asdict(call.notes) for call in calls]
    told = {
        "late": late[:: max(1, len(late) // 2000)] + late[-1:],
        "over": over,
        "cycle": seconds,
        "calls": notes,
        "refused": len(scripts) - len(calls),
    }
    ledger.write_text(json.dumps(told))
    await asyncio.gather(*(exchange.over(call) for call in calls))
    say("hung up")


async def main(given: argparse.Namespace) -> None:
    scripts = [Script(number, QUIET_MS[given.script]) for number in range(given.calls)]
    if given.plain:
        await run(Plain(given.plain), scripts, given.turns, given.ledger, given.crowd)
        return
    async with aiohttp.ClientSession() as http:
        sid, token = os.environ["TWILIO_ACCOUNT_SID"], os.environ["TWILIO_AUTH_TOKEN"]
        await run(Carrier(http, given.stayline, sid, token), scripts, given.turns, given.ledger, given.crowd)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ledger", type=Path, required=True)
    parser.add_argument("--calls", type=int, default=1)
    parser.add_argument("--turns", type=int, default=6, help="of each caller, after the first")
    parser.add_argument("--script", choices=tuple(QUIET_MS), default="talk")
    parser.add_argument("--crowd", action="store_true", help="speak at once, and bear being refused")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--plain", help="address of a server's websocket")
    where.add_argument("--stayline", help="origin of a Stayline bridge")
    try:
        uvloop.run(main(parser.parse_args()))
    except Refused as refused:
        sys.exit(str(refused))
