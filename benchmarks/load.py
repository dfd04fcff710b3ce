"""How quick a server answers, how many calls a core holds, what a call costs: Stayline beside others, in one run.

    python -m benchmarks.load --servers stayline,relay,pipecat --calls 1,10,50 --rounds 3
    python -m benchmarks.load --mode realtime --servers stayline,relay,pipecat --calls 1,10,50
    python -m benchmarks.load --servers stayline,relay --ceiling          # calls per core
    python -m benchmarks.load --servers stayline,pipecat --barge-in       # caller speaks over the agent

Callers (`benchmarks.callers`) speak Twilio Media Streams, vendors (`benchmarks.vendors`) answer at once; both are
real processes on core 1, as are Temporal and the worker, and the measured server has core 0 for itself. Servers
alternate within a run: compare figures of one run only. Cells in which the callers were late, or others used the
machine, are marked; they are no evidence. The server's process id is printed, so that a profiler can be attached
(`py-spy record --pid …`). Results go to `benchmarks/results/load-<mode>.json`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import structlog

from benchmarks import cell, figures, machine
from benchmarks.servers import HERE, NAMES
from stayline.errors import StaylineError

RESULTS = HERE / "results"
ROUGH = 1.4
"""Factor between two steps on the way up to the ceiling; then the gap is halved until it is below FINE."""
FINE = 0.08


async def alternating(given: argparse.Namespace, cells: Sequence[cell.Cell]) -> list[cell.Outcome]:
    outcomes: list[cell.Outcome] = []
    for number in range(given.rounds):
        for one in cells:
            outcome = await _run(one, f"round {number + 1}")
            if outcome is not None:
                outcomes.append(outcome)
    return outcomes


def next_step(good: int, bad: int) -> int:
    """Calls to try next, between the most that held and the fewest that did not (0: none yet); 0: it is found."""
    if not bad:
        return max(good + 1, round(good * ROUGH))
    if not good:
        return bad // 2
    return (good + bad) // 2 if bad - good > max(1, FINE * good) else 0


async def ceiling(given: argparse.Namespace, server: str, start: int) -> tuple[int, list[cell.Outcome]]:
    """The most calls at which the server kept up. A failure is tried once more: it may have been the machine's."""
    outcomes: list[cell.Outcome] = []

    async def holds(calls: int) -> bool:
        for _ in range(2):
            one = cell.Cell(server, given.mode, calls, given.turns)
            outcome = await _run(one, "ceiling")
            if outcome is not None:
                outcomes.append(outcome)
                if outcome.kept_up:
                    return True
        return False

    good, bad, calls = 0, 0, start
    while 0 < calls <= given.most:
        if await holds(calls):
            good = calls
        else:
            bad = calls
        calls = next_step(good, bad)
    return good, outcomes


async def _run(one: cell.Cell, when: str) -> cell.Outcome | None:
    """Run a cell; None when a part of it failed, which is told."""
    print(f"{when:8}  {one.server:17} {one.calls:4} calls  ", end="", flush=True)
    try:
        outcome = await cell.run(one, lambda pid: print(f"pid {pid:<7} ", end="", flush=True))
    except (RuntimeError, StaylineError, TimeoutError) as error:
        print(f"FAILED: {error}", flush=True)
        return None
    print(shown(outcome.row), flush=True)
    return outcome


def shown(row: dict[str, Any]) -> str:
    """A cell as a line."""

    def spread(name: str) -> str:
        found = row.get(name)
        return f"{found['p50']:6.1f} /{found['p95']:6.1f} /{found['p99']:6.1f} ms" if found else "none".center(27)

    what = "clear_ms" if row["script"] == "interrupt" else "answer_ms"
    parts = [
        f"{what.removesuffix('_ms')} {spread(what)}",
        *([f"onset {spread('onset_ms')}"] if row["script"] == "interrupt" else []),
        f"answered {row['answered']}/{row['turns']} on time {row['on_time']}"
        + (f" LOST {row['lost']}" if row["lost"] else ""),
        f"cpu {100 * row['server_cpu']:5.1f} % = {row['cpu_ms_per_call_second']:5.2f} ms/call s",
        f"rss {row['rss_mib']:.0f} MiB +{row['rss_mib_per_call']:.2f}/call",
        f"callers late {row['callers_late_p99_ms']:.1f} ms",
        f"others {100 * row['others_cpu']:.0f} %, foreign {100 * row['foreign_cpu']:.0f} %",
    ]
    return "  ".join(parts) + ("" if row["evidence"] else "  NO EVIDENCE")


def pooled(outcomes: Sequence[cell.Outcome]) -> list[dict[str, Any]]:
    """One row per server and number of calls: the turns of all rounds together, the mean of what was counted."""
    groups: dict[tuple[str, int], list[cell.Outcome]] = defaultdict(list)
    for outcome in outcomes:
        groups[outcome.cell.server, outcome.cell.calls].append(outcome)
    rows = []
    for (server, calls), group in groups.items():
        counted = ("server_cpu", "cpu_ms_per_call_second", "rss_idle_mib", "rss_mib", "rss_mib_per_call")
        means = {name: round(sum(one.row[name] for one in group) / len(group), 4) for name in counted}
        found = [turn for one in group for turn in one.turns]
        doubts = ("callers_late_p99_ms", "others_cpu", "foreign_cpu")
        worst = {name: max(one.row[name] for one in group) for name in doubts}
        rows.append(
            {
                "server": server,
                "mode": group[0].cell.mode,
                "calls": calls,
                "rounds": len(group),
                **figures.summary(found),
                **means,
                **worst,
                "evidence": all(one.row["evidence"] for one in group),
            }
        )
    return rows


def write(given: argparse.Namespace, kind: str, body: dict[str, Any]) -> Path:
    RESULTS.mkdir(exist_ok=True)
    path = given.out or RESULTS / f"load-{given.mode}{kind}.json"
    title = f"load, {given.mode}{kind.replace('-', ', ')}"
    told = {
        **machine.heading(title, " ".join(["python -m benchmarks.load", *sys.argv[1:]])),
        "versions": machine.versions(
            "stayline", "aiohttp", "websockets", "temporalio", "openai", "uvloop", "picows"
        ),
        **body,
    }
    path.write_text(json.dumps(told, indent=1) + "\n")
    return path


async def main(given: argparse.Namespace) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    machine.leave_the_server_alone()
    servers: list[str] = given.servers
    if given.ceiling:
        most, outcomes = {}, []
        starts = given.start * len(servers) if len(given.start) == 1 else given.start
        for server, start in zip(servers, starts, strict=True):
            most[server], cells = await ceiling(given, server, start)
            outcomes += cells
            print(f"{server}: {most[server]} calls per core", flush=True)
            doubtful = {one.cell.server for one in outcomes if not (one.kept_up or one.row["evidence"])}
            body: dict[str, Any] = {
                "calls_per_core": most,
                "doubtful": sorted(doubtful),  # it failed in a cell that is no evidence: it may hold more
                "cells": [one.row for one in outcomes],
            }
            path = write(given, "-ceiling", body)
    else:
        script, kind = ("interrupt", "-barge-in") if given.barge_in else ("talk", "")
        plan = [
            cell.Cell(server, given.mode, calls, given.turns, script) for calls in given.calls for server in servers
        ]
        outcomes = await alternating(given, plan)
        path = write(given, kind, {"rows": pooled(outcomes), "cells": [one.row for one in outcomes]})
    print(f"written: {path}")


def _servers(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - set(NAMES):
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; there are {', '.join(NAMES)}")
    return names


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mode", choices=("text", "realtime"), default="text")
    parser.add_argument("--servers", type=_servers, default=["stayline", "relay"], help=", ".join(NAMES))
    parser.add_argument("--calls", type=_numbers, default=[1, 10], help="at once; several with commas")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--turns", type=int, default=6, help="of each caller and round, 5 s each")
    parser.add_argument("--barge-in", action="store_true", help="callers interrupt long answers")
    parser.add_argument("--ceiling", action="store_true", help="find the most calls that a core holds")
    parser.add_argument(
        "--start",
        type=_numbers,
        default=[20],
        help="calls to begin with, for --ceiling; one number, or one for each server",
    )
    parser.add_argument("--most", type=int, default=500, help="calls to stop at, for --ceiling")
    parser.add_argument("--out", type=Path, help="where the results go")
    arguments = parser.parse_args()
    if len(arguments.start) not in (1, len(arguments.servers)):
        parser.error("--start takes one number, or one for each of --servers")
    asyncio.run(main(arguments))
