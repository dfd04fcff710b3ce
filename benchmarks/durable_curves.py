"""Does anything grow faster than the work? More calls, longer calls, more tools in one call.

Calls are driven by the bridge's own messages (`durable_line`) against a worker process. Times of workflow tasks and
of records are read from the histories (the server's clock), tool calls are timed where the bridge asks.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import psutil
from temporalio.client import Client, WorkflowHistory
from temporalio.worker import Replayer

from benchmarks.durable_bridge_calls import desk
from benchmarks.durable_line import Line, line
from benchmarks.durable_place import signal_latencies, task_times, whole_history
from benchmarks.durable_report import Row, percentile
from stayline.agent import Agent
from workflows.bridge import BridgeWorkflow
from workflows.call import CallWorkflow

EXCHANGE_SECONDS = 9.0
"""Of a real conversation: 200 exchanges in 30 minutes."""
TOOL_EVERY = 5
FLAT = 1.3
"""A figure that has not grown by more than this has not grown: neighbouring buckets of one call differ as much."""


def calm() -> Agent:
    """Its limits do not interfere with a call that is driven as fast as it goes."""
    return desk(silence_prompt=0, silence_timeout=0, max_duration=24 * 3600)


async def in_one_call(client: Client, folder: Path, exchanges: int) -> dict[str, Any]:
    """One call with a tool in every exchange, one after the other without a pause."""
    async with line(client, calm(), folder) as call:
        for _ in range(exchanges):
            await call.turns(0, tool=True)
            await call.caught_up()
        await call.end()
        runs = await whole_history(client, call.workflow_id)
    return {
        "tool_ms": call.tool_ms,
        "record_ms": [ms for run in runs for ms in signal_latencies(run.events)],
        "task_ms": [ms for run in runs for ms in task_times(run.events)],
        "events": [len(run.events) for run in runs],
        "bytes": [run.size for run in runs],
        "carried_bytes": [
            sum(len(p.data) for p in run.events[0].workflow_execution_started_event_attributes.input.payloads)
            for run in runs
        ],
    }


async def by_length(
    client: Client, folder: Path, worker: psutil.Process, lengths: Sequence[int], calls: int
) -> list[dict[str, Any]]:
    """Calls of so many exchanges: history, replay on a new worker, memory that the worker keeps for each."""
    found = []
    for length in lengths:
        before = worker.memory_info().rss
        async with AsyncExitStack() as stack:
            held = [await stack.enter_async_context(line(client, calm(), folder)) for _ in range(calls)]
            await asyncio.gather(*(_many(call, length) for call in held))
            memory = (worker.memory_info().rss - before) / calls
            runs = await whole_history(client, held[0].workflow_id)
            cpu = await _replay(held[0].workflow_id, WorkflowHistory("", runs[-1].events), client)
        found.append(
            {
                "exchanges": length,
                "minutes": length * EXCHANGE_SECONDS / 60,
                "events": sum(len(run.events) for run in runs),
                "bytes": sum(run.size for run in runs),
                "runs": len(runs),
                "replayed_events": len(runs[-1].events),
                "replay_ms": cpu,
                "worker_bytes_per_call": memory,
            }
        )
    return found


async def _many(call: Line, exchanges: int) -> None:
    for number in range(exchanges):
        await call.turns(0.005, tool=number % TOOL_EVERY == 0)
    await call.caught_up()


async def _replay(workflow_id: str, recorded: WorkflowHistory, client: Client) -> float:
    """Milliseconds that a worker without this call in its cache takes to get there: the shortest of three."""
    times = []
    for _ in range(3):
        replayer = Replayer(workflows=[CallWorkflow, BridgeWorkflow], data_converter=client.data_converter)
        begun = time.perf_counter()
        await replayer.replay_workflow(WorkflowHistory(workflow_id, recorded.events))
        times.append((time.perf_counter() - begun) * 1000)
    return min(times)


async def at_once(
    client: Client, folder: Path, processes: dict[str, psutil.Process], counts: Sequence[int], exchanges: int
) -> list[dict[str, Any]]:
    """So many calls at once, an exchange every three seconds in each, a tool in every fifth."""
    found = []
    for count in counts:
        async with AsyncExitStack() as stack:
            held = [await stack.enter_async_context(line(client, calm(), folder)) for _ in range(count)]
            before = {name: _cpu(process) for name, process in processes.items()}
            await asyncio.gather(*(_paced(call, number, count, exchanges) for number, call in enumerate(held)))
            used = {name: _cpu(process) - before[name] for name, process in processes.items()}
            runs = [run for call in held for run in await whole_history(client, call.workflow_id)]
        found.append(
            {
                "calls": count,
                "tool_ms": [ms for call in held for ms in call.tool_ms],
                "record_ms": [ms for run in runs for ms in signal_latencies(run.events)],
                "cpu_ms_per_exchange": {
                    name: seconds * 1000 / (count * exchanges) for name, seconds in used.items()
                },
            }
        )
    return found


async def _paced(call: Line, number: int, of: int, exchanges: int) -> None:
    await asyncio.sleep(3.0 * number / of)
    for exchange in range(exchanges):
        await call.turns(1.5, tool=(number + exchange) % TOOL_EVERY == 0)
    await call.caught_up()


def _cpu(process: psutil.Process) -> float:
    used = process.cpu_times()
    return float(used.user + used.system)


def rows_of_one(found: dict[str, Any]) -> list[Row]:
    """First tenth (after the very first calls) against the last."""
    table = []
    count = len(found["tool_ms"])
    for name, about in (
        ("tool_ms", "tool call"),
        ("record_ms", "record, until the workflow has taken it"),
        ("task_ms", "workflow task"),
    ):
        values = found[name]
        tenth = max(5, len(values) // 10)
        parts = {"first": values[5 : 5 + tenth], "last": values[-tenth:]}
        for which, part in parts.items():
            about_part = f"{about}, {which} tenth of {count} exchanges with a tool"
            table.append(Row(f"{about_part}: p50", round(percentile(part, 50), 1), "ms"))
        grown = percentile(parts["last"], 10) / percentile(parts["first"], 10)
        about_ratio = f"{about}, last tenth / first, by their p10 (what nothing else disturbed)"
        table.append(Row(about_ratio, round(grown, 2), "×", f"≤ {FLAT}", grown <= FLAT))
    table.append(Row(f"{count} exchanges with a tool in one call", sum(found["events"]), "events"))
    table.append(Row(f"{count} exchanges with a tool in one call", sum(found["bytes"]), "bytes"))
    table.append(Row("… in so many runs", len(found["events"]), "runs"))
    if len(found["carried_bytes"]) > 1:
        carried = found["carried_bytes"][-1]
        table.append(Row("state carried into the last run (2 MiB at most)", carried, "bytes"))
    return table


def rows_of_lengths(found: Sequence[dict[str, Any]]) -> list[Row]:
    table = []
    for length in found:
        about = f"call of {length['minutes']:.0f} min ({length['exchanges']} exchanges)"
        table.append(Row(about, length["events"], "events"))
        table.append(Row(about, length["bytes"], "bytes"))
        table.append(Row(f"{about}: replay on a new worker", round(length["replay_ms"]), "ms"))
        each = length["replay_ms"] / length["replayed_events"]
        table.append(Row(f"{about}: replay of one event", round(each, 3), "ms"))
        table.append(Row(f"{about}: worker memory", round(length["worker_bytes_per_call"] / 1024), "KiB"))
    short, long = found[0], found[-1]
    grown = long["replay_ms"] / long["replayed_events"] / (short["replay_ms"] / short["replayed_events"])
    about = f"replay of one event, {long['minutes']:.0f} min / {short['minutes']:.0f} min"
    table.append(Row(about, round(grown, 2), "×", f"≤ {FLAT}", grown <= FLAT))
    return table


def rows_of_calls(found: Sequence[dict[str, Any]]) -> list[Row]:
    table = []
    for cell in found:
        about = f"{cell['calls']} calls at once, an exchange every 3 s"
        for name, what in (("tool_ms", "tool call"), ("record_ms", "record taken")):
            for percent in (50, 95):
                table.append(Row(f"{about}: {what}, p{percent}", round(percentile(cell[name], percent), 1), "ms"))
        for name, ms in cell["cpu_ms_per_exchange"].items():
            table.append(Row(f"{about}: CPU of the {name} per exchange", round(ms, 1), "ms"))
    few, many = (sum(cell["cpu_ms_per_exchange"].values()) for cell in (found[0], found[-1]))
    about = f"CPU per exchange, {found[-1]['calls']} calls / {found[0]['calls']}"
    table.append(Row(about, round(many / few, 2), "×", f"≤ {FLAT}", many / few <= FLAT))
    return table
