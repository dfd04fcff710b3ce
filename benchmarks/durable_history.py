"""What a call leaves in Temporal's history, and what it would be billed: read from the histories themselves.

Per exchange: real calls through a real bridge in real time, with the silence limits off, so that only what the
conversation itself costs is counted; its share of the final record, written when the call ends, is in it. A call of
30 minutes and 200 exchanges: the bridge's own messages (`durable_line`) with the clock compressed, the silence
limits with it, so that its timers are armed as often as in real time. What a call costs does not depend on the
clock otherwise: a turn is sent when it is over, and two turns are never so near that they share a workflow task.
The lease is counted by the requests that a bridge really sends; a heartbeat leaves no history, and is billed.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from temporalio.client import Client

from benchmarks.durable_bridge_calls import LOOK_UP, SAYS, Requests, bridge_scene, desk, talk
from benchmarks.durable_line import line
from benchmarks.durable_place import History, actions, history, whole_history
from benchmarks.durable_report import Row
from stayline.names import call_workflow_id

EVENTS_PER_EXCHANGE, EVENTS_PER_CALL, BYTES_PER_CALL = 10, 3000, 1_000_000
MINUTES, EXCHANGES = 30, 200
TOOL_FLOOR = 11
"""Events of an update that runs one activity (facts of `durable_tools`' bare workflow): Temporal's own."""
MIXES = {"no tool": 0, "a tool in every fifth exchange": 5, "a tool in every exchange": 1}
BRIDGE_SIZES = (1, 10, 50)
"""Calls per bridge among which one lease is shared."""


async def per_exchange(
    address: str, folder: Path, client: Client, exchanges: int, lease_seconds: float = 10
) -> dict[str, Any]:
    """Events and bytes of one exchange: what calls with some differ from a call without any, divided.

    Args:
        lease_seconds: for so long the bridge's heartbeats are counted.
    """
    requests = Requests()
    quiet = desk(silence_prompt=0, silence_timeout=0)
    found: dict[str, History] = {}
    async with bridge_scene(address, folder, requests, quiet) as stage:
        for name, count, words in (("none", 0, ""), ("plain", exchanges, SAYS), ("tool", exchanges, LOOK_UP)):
            found[name] = await history(client, call_workflow_id(await talk(stage, count, words)))
        before = requests.counts()
        await asyncio.sleep(lease_seconds)
        beats = (requests.counts() - before)["RecordActivityTaskHeartbeat"] * 60 / lease_seconds
    base = found["none"]
    return {
        "exchanges": exchanges,
        "events of a call without an exchange": len(base.events),
        "heartbeats of one bridge per minute": beats,
        **{
            name: {
                "events": (len(found[name].events) - len(base.events)) / exchanges,
                "bytes": (found[name].size - base.size) / exchanges,
                "types": {k: v / exchanges for k, v in (found[name].types - base.types).items()},
            }
            for name in ("plain", "tool")
        },
    }


async def long_call(
    client: Client, folder: Path, tool_every: int, speed: float, exchanges: int = EXCHANGES
) -> dict[str, Any]:
    """One call of 30 minutes on a clock that runs `speed` times as fast, and what it left behind."""
    usual = desk().spec()
    agent = desk(
        silence_prompt=usual.silence_prompt / speed,
        silence_timeout=usual.silence_timeout / speed,
        max_duration=2 * MINUTES * 60,  # its end is of the caller's making
    )
    gap = MINUTES * 60 / EXCHANGES / 2 / speed
    async with line(client, agent, folder) as call:
        for number in range(exchanges):
            await call.turns(gap, tool=tool_every > 0 and number % tool_every == 0)
        await call.end()
        runs = await whole_history(client, call.workflow_id)
    counted: Counter[str] = sum((actions(run.events) for run in runs), Counter())
    return {
        "events": sum(len(run.events) for run in runs),
        "bytes": sum(run.size for run in runs),
        "runs": len(runs),
        "types": dict(sum((run.types for run in runs), Counter())),
        "actions": dict(counted),
        "actions per minute": counted.total() / MINUTES,
    }


async def long_calls(client: Client, folder: Path, speed: float) -> dict[str, Any]:
    found = await asyncio.gather(*(long_call(client, folder, every, speed) for every in MIXES.values()))
    return dict(zip(MIXES, found, strict=True))


def rows(exchange: dict[str, Any], calls: dict[str, Any]) -> list[Row]:
    table: list[Row] = []
    goal = EVENTS_PER_EXCHANGE
    abouts = {"plain": "without a tool", "tool": f"with a tool ({TOOL_FLOOR} of them Temporal's own for a tool)"}
    for name, about in abouts.items():
        events = exchange[name]["events"]
        many = f"n={exchange['exchanges']}, real bridge, real time"
        table.append(Row(f"an exchange {about}; {many}", events, "events", f"≤ {goal}", events <= goal))
        table.append(Row(f"an exchange {about}; {many}", round(exchange[name]["bytes"]), "bytes"))
    for mix, call in calls.items():
        about = f"call of {MINUTES} min, {EXCHANGES} exchanges, {mix}"
        events, size = call["events"], call["bytes"]
        table.append(Row(about, events, "events", f"≤ {EVENTS_PER_CALL}", events <= EVENTS_PER_CALL))
        table.append(Row(about, size, "bytes", f"≤ {BYTES_PER_CALL}", size <= BYTES_PER_CALL))
        table.append(Row(f"{about}: runs (1: it never continued as new)", call["runs"], "runs"))
    return table + billed(exchange["heartbeats of one bridge per minute"], calls)


def billed(beats: float, calls: dict[str, Any]) -> list[Row]:
    """Actions per call minute on Temporal Cloud, beside what the design cannot do without.

    The floor: two signals an exchange, since a turn is to be safe when it is over; update and activity for a tool.
    """
    table = [Row("heartbeats of one bridge's lease, whatever it holds", round(beats), "a minute")]
    for mix, call in calls.items():
        every = MIXES[mix]
        floor = (2 + (2 / every if every else 0)) * EXCHANGES / MINUTES
        own = call["actions per minute"]
        table.append(Row(f"actions per call minute, {mix}: floor by design", round(floor, 1), "actions"))
        table.append(Row(f"actions per call minute, {mix}, lease apart", round(own, 1), "actions"))
        for size in BRIDGE_SIZES:
            about = f"actions per call minute, {mix}, lease included, {size} calls on the bridge"
            table.append(Row(about, round(own + beats / size, 1), "actions"))
    return table


def types(call: dict[str, Any]) -> Sequence[tuple[str, int]]:
    """Events by type, most first."""
    return Counter(call["types"]).most_common()
