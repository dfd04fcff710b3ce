"""One cell of the load benchmark: a server, so many calls at once, and what came of it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from benchmarks import figures, machine
from benchmarks.servers import HERE, Running, Vendors, ended, serving

CALLERS_LATE_MS = 10.0
FOREIGN = 0.3
"""Above these (99 in 100 steps of the callers' timer; of a core) a cell is no evidence."""


@dataclasses.dataclass(frozen=True, slots=True)
class Cell:
    """What is run. `script` is the callers' (`talk` or `interrupt`); of a crowd some may be refused."""

    server: str
    mode: str
    calls: int
    turns: int = 6
    script: str = "talk"
    crowd: bool = False

    @property
    def long(self) -> int:
        """Who interrupts is given long answers."""
        return 4 if self.script == "interrupt" else 1


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    cell: Cell
    turns: list[figures.Turn]
    row: dict[str, Any]  #: the figures, as they go into the results

    @property
    def kept_up(self) -> bool:
        """Every turn was answered, and no answer but one in 200 was cut or ran dry."""
        row = self.row
        return row["lost"] == 0 and row["answered"] == row["turns"] and row["on_time"] >= 0.995 * row["turns"]


async def run(cell: Cell, started: Callable[[int], None] = lambda pid: None) -> Outcome:
    """Start everything, hold the calls, stop everything.

    Args:
        started: told the server's process id when it takes calls.
    Raises:
        RuntimeError: a part of it failed.
    """
    with tempfile.TemporaryDirectory(prefix="load-") as directory:
        folder = Path(directory)
        books = {who: folder / f"{who}.json" for who in ("vendors", "callers")}
        arguments = (f"--ledger={books['vendors']}", f"--long={cell.long}")
        async with _program("vendors", folder, *arguments) as vendors:
            ports = Vendors(**json.loads(await _line(vendors)))
            async with serving(cell.server, cell.mode, ports, folder) as server:
                started(server.pid)
                idle = machine.sample(server.pid)
                steady, over = await _calls(cell, server, folder, books["callers"])
        told = json.loads(books["callers"].read_text())
        turns = figures.turns(told, json.loads(books["vendors"].read_text()), long=cell.long)
    cost = machine.cost(steady, over)
    held = max(1, cell.calls - told["refused"])
    late = figures.quantile([step * 1000 for step in told["late"]], 0.99) or 0.0
    row = {
        **dataclasses.asdict(cell),
        **figures.summary(turns),
        "lost": sum(call["lost"] is not None and call["lost"] < told["over"] for call in told["calls"]),
        "refused": told["refused"],
        "server_cpu": round(cost.server, 4),
        "cpu_ms_per_call_second": round(cost.server * 1000 / held, 2),
        "rss_idle_mib": round(idle.rss / 2**20, 1),
        "rss_mib": round(over.rss / 2**20, 1),
        "rss_mib_per_call": round((over.rss - idle.rss) / 2**20 / held, 2),
        "callers_late_p99_ms": round(late, 2),
        "callers_late_max_ms": round(max(told["late"]) * 1000, 1),
        "others_cpu": round(cost.others, 3),
        "foreign_cpu": round(cost.foreign, 3),
        "stolen_cpu": round(cost.stolen, 3),
        "evidence": late <= CALLERS_LATE_MS and cost.foreign <= FOREIGN,
    }
    return Outcome(cell, turns, row)


async def _calls(cell: Cell, server: Running, folder: Path, ledger: Path) -> tuple[machine.Sample, machine.Sample]:
    """Hold the calls; the counters when all were under way, and at the end."""
    arguments = [f"--ledger={ledger}", f"--calls={cell.calls}", f"--turns={cell.turns}", f"--script={cell.script}"]
    arguments += ["--crowd"] * cell.crowd
    samples = {}
    async with _program("callers", folder, *arguments, *server.callers, **server.environment) as callers:
        while True:
            event = json.loads(await _line(callers))["event"]
            if event in ("steady", "over"):
                samples[event] = machine.sample(server.pid)
            if event == "hung up":
                return samples["steady"], samples["over"]


@contextlib.asynccontextmanager
async def _program(
    name: str, folder: Path, *arguments: str, **environment: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """One of the benchmark's own processes; it writes its ledger when it is told to end.

    Raises:
        RuntimeError: it complained. A vendor that trips is no vendor.
    """
    complaints = folder / f"{name}.err"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        f"benchmarks.{name}",
        *arguments,
        cwd=HERE.parent,
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=complaints.open("wb"),
    )
    try:
        yield process
    finally:
        await ended(process)
        if said := complaints.read_text(errors="replace"):
            raise RuntimeError(f"the {name} failed:\n{said[-3000:]}")


async def _line(process: asyncio.subprocess.Process) -> bytes:
    assert process.stdout is not None
    line = await process.stdout.readline()
    if not line:
        raise RuntimeError("the vendors or the callers ended early")
    return line
