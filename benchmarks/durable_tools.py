"""A tool call through the call's workflow against a bare Temporal workflow: an update that runs one activity.

Same server, same worker process and settings, one after the other in one run. Ours is timed where the bridge asks,
from `CallLink.run_tool` to the outcome; the bare one from `execute_update` to its result. The order changes with
every pair. The call is in its eleventh exchange, as calls are when tools are asked.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from temporalio.client import Client

from benchmarks.durable_bare import QUEUE, BareCall
from benchmarks.durable_bridge_calls import desk
from benchmarks.durable_line import line
from benchmarks.durable_report import Row, percentile

GOAL = 1.2
WARM_UP = 30


async def measure(
    client: Client, folder: Path, count: int, pause: float, warm_up: int = WARM_UP
) -> dict[str, list[float]]:
    """Milliseconds of each call, by way. `pause`: seconds between two calls."""
    bare = await client.start_workflow(BareCall.run, id=f"bare-{uuid.uuid4().hex}", task_queue=QUEUE)
    bare_ms: list[float] = []

    async def ask_bare() -> None:
        id = "call_" + uuid.uuid4().hex[:24]
        begun = time.perf_counter()
        await bare.execute_update(BareCall.run_tool, {"order": "A-1002"}, id=id)
        bare_ms.append((time.perf_counter() - begun) * 1000)

    async with line(client, desk(), folder) as call:
        for _ in range(10):
            await call.turns(0.02, tool=False)
        await call.caught_up()
        ways: list[Callable[[], Awaitable[Any]]] = [call.tool, ask_bare]
        for number in range(warm_up + count):
            for ask in ways if number % 2 else ways[::-1]:
                await ask()
                await asyncio.sleep(pause)
    await bare.signal(BareCall.end)
    await bare.result()
    return {"ours": call.tool_ms[warm_up:], "bare": bare_ms[warm_up:]}


def rows(times: Mapping[str, Sequence[float]], about: str) -> list[Row]:
    table = []
    for percent in (50, 95):
        ours, bare = (percentile(times[way], percent) for way in ("ours", "bare"))
        many = f"{about}; n={len(times['ours'])}"
        table.append(Row(f"tool call through the workflow, {many}: p{percent}", round(ours, 1), "ms"))
        table.append(Row(f"bare update with one activity, {many}: p{percent}", round(bare, 1), "ms"))
        ratio = ours / bare
        table.append(
            Row(f"ratio of the two, {about}: p{percent}", round(ratio, 2), "×", f"≤ {GOAL}", ratio <= GOAL)
        )
    return table
