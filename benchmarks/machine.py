"""What processes cost and who else was there: CPU and memory as the kernel counts them."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import importlib.metadata
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

SERVER_CORE = 0
OTHER_CORE = 1


def leave_the_server_alone() -> None:
    """This process and all that it starts keep to the other core, but for what is `pinned`."""
    os.sched_setaffinity(0, {OTHER_CORE} & set(range(os.cpu_count() or 1)) or {0})


@contextlib.contextmanager
def pinned(core: int) -> Iterator[None]:
    """Processes that are started inside run on this core only, their threads included."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core} & set(range(os.cpu_count() or 1)) or before)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """Counters at one moment; seconds of CPU."""

    at: float
    server: float
    ours: dict[int, float]  #: by process: this one and all that it started
    machine: float  #: all cores, whatever ran on them
    stolen: float  #: by the hypervisor
    rss: int  #: bytes, of the server


def sample(server: int) -> Sample:
    """Read the counters. `server` is the process that is measured."""
    times = psutil.cpu_times()
    ours = {}
    this = psutil.Process()
    for process in (this, *this.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            ours[process.pid] = _used(process)
    measured = psutil.Process(server)
    busy = times.user + times.system + times.nice + times.irq + times.softirq
    return Sample(time.monotonic(), _used(measured), ours, busy, times.steal, measured.memory_info().rss)


def _used(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


@dataclasses.dataclass(frozen=True, slots=True)
class Cost:
    """Between two samples; shares are of one core."""

    seconds: float
    server: float
    others: float  #: callers, vendors, Temporal, worker
    foreign: float  #: used by processes that are not of the run
    stolen: float


def cost(before: Sample, after: Sample) -> Cost:
    seconds = after.at - before.at
    ours = sum(used - before.ours.get(pid, 0.0) for pid, used in after.ours.items())
    foreign = max(0.0, after.machine - before.machine - ours)
    return Cost(
        seconds,
        (after.server - before.server) / seconds,
        (ours - after.server + before.server) / seconds,
        foreign / seconds,
        (after.stolen - before.stolen) / seconds,
    )


def description() -> dict[str, object]:
    """The machine, for the results."""
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "?"
    )
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def heading(title: str, command: str) -> dict[str, Any]:
    """What stands above the figures of a run: its command, when, and where."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"title": title, "command": command, "date": now, "machine": description()}


def versions(*packages: str) -> dict[str, str]:
    found = {}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
