"""What a durable call costs and how fast it is taken up again: tools, history, recovery, cost curves.

    .venv/bin/python -m benchmarks.durable                     # all, about a quarter of an hour
    .venv/bin/python -m benchmarks.durable --only recovery --kills 4 --calls 10
    .venv/bin/python -m benchmarks.durable --quick             # does it run? Its figures are worth nothing

Prints a table and writes benchmarks/results/durable.json. Everything runs on this machine, Temporal included, so
times are compared within one run only; counts (events, bytes, actions) are the same anywhere.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import sys
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import psutil
import structlog

from benchmarks import durable_curves, durable_history, durable_recovery, durable_tools
from benchmarks.durable_place import temporal
from benchmarks.durable_report import RESULTS, machine, show, write
from benchmarks.durable_worker import worker

TITLE = "The durable call: tools, history, recovery, cost curves"


@dataclasses.dataclass(frozen=True, slots=True)
class Sizes:
    """How much of each is done."""

    tools: int = 300
    exchanges: int = 10
    speed: float = 20.0
    calls: int = 10  #: of each kind, in each kill
    kills: int = 4
    in_one_call: int = 500
    lengths: tuple[int, ...] = (7, 50, 200, 400)
    held: int = 8
    at_once: tuple[int, ...] = (1, 10, 50, 100)
    paced: int = 10


QUICK = Sizes(20, 2, 200.0, 2, 1, 12, (2, 6), 2, (1, 2), 2)

Part = Callable[[Path, Sizes], Coroutine[Any, Any, dict[str, Any]]]


async def tools(folder: Path, sizes: Sizes) -> dict[str, Any]:
    async with temporal(folder) as client, worker(client, folder):
        at_once = await durable_tools.measure(client, folder, sizes.tools, 0)
        apart = await durable_tools.measure(client, folder, sizes.tools, 0.1)
    rows = durable_tools.rows(at_once, "one after the other") + durable_tools.rows(apart, "100 ms apart")
    return {"rows": rows, "series": {"one after the other": at_once, "100 ms apart": apart}}


async def history(folder: Path, sizes: Sizes) -> dict[str, Any]:
    async with temporal(folder) as client:
        address = client.service_client.config.target_host
        exchange = await durable_history.per_exchange(address, folder / "bridge", client, sizes.exchanges)
        async with worker(client, folder):
            calls = await durable_history.long_calls(client, folder, sizes.speed)
    return {
        "rows": durable_history.rows(exchange, calls),
        "series": {"exchange": exchange, "calls": calls, "speed": sizes.speed},
    }


async def recovery(folder: Path, sizes: Sizes) -> dict[str, Any]:
    found = await durable_recovery.measure(folder, sizes.calls, sizes.kills)
    return {
        "rows": durable_recovery.rows(found),
        "series": [dataclasses.asdict(recovery) for recovery in found],
    }


async def curves(folder: Path, sizes: Sizes) -> dict[str, Any]:
    async with temporal(folder) as client, worker(client, folder) as process:
        (server,) = [p for p in psutil.Process().children() if "start-dev" in p.cmdline()]
        one = await durable_curves.in_one_call(client, folder, sizes.in_one_call)
        lengths = await durable_curves.by_length(client, folder, process, sizes.lengths, sizes.held)
        processes = {"worker": process, "server": server}
        calls = await durable_curves.at_once(client, folder, processes, sizes.at_once, sizes.paced)
    return {
        "rows": [
            *durable_curves.rows_of_one(one),
            *durable_curves.rows_of_lengths(lengths),
            *durable_curves.rows_of_calls(calls),
        ],
        "series": {"in one call": one, "by length": lengths, "at once": calls},
    }


PARTS: dict[str, Part] = {"tools": tools, "history": history, "recovery": recovery, "curves": curves}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--only", action="append", choices=PARTS, help="parts; may be repeated")
    parser.add_argument("--quick", action="store_true", help="a little of each; nothing is written")
    usual = Sizes()
    parser.add_argument("--calls", type=int, default=usual.calls, help="calls of each kind that lose their bridge")
    parser.add_argument("--kills", type=int, default=usual.kills)
    parser.add_argument("--tools", type=int, default=usual.tools, help="tool calls of each way")
    parser.add_argument("--speed", type=float, default=usual.speed, help="of the 30-minute call's clock; 1: real")
    given = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    wanted = dataclasses.replace(usual, calls=given.calls, kills=given.kills, tools=given.tools, speed=given.speed)
    sizes = QUICK if given.quick else wanted
    here = machine()
    parts = {}
    for name in given.only or PARTS:
        with tempfile.TemporaryDirectory() as folder:
            parts[name] = asyncio.run(PARTS[name](Path(folder), sizes))
        show(parts[name]["rows"])
    if not given.quick:
        command = " ".join([".venv/bin/python -m benchmarks.durable", *sys.argv[1:]])
        write(RESULTS / "durable.json", TITLE, command, here, parts)


if __name__ == "__main__":
    main()
