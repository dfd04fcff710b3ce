"""How long things take to start, on this machine: imports, commands, a bridge, a worker, the demo.

    .venv/bin/python -m benchmarks.start              # 7 runs of each, 3 of the demo; writes results/start.json
    .venv/bin/python -m benchmarks.start --runs 3 --demos 0 --dry

Everything is a process of its own, timed from its start as a user would see it; nothing is cached but the disk. The
runs alternate, so that what else the machine does hits all rows alike, and each has the same command's CPU seconds
beside its time: where the two lie apart, the machine was busy. Yardsticks in the same run are bare Python, and bare
Python that imports the libraries without which no bridge could be: Temporal's client and worker, aiohttp, pydantic.

`serve` is ready when GET /ready answers 200, with Temporal running already and the README's agent; its vendors are
away. It is warm when /ready?warm does: sessions and the vendors' SDKs are loaded. The demo's first word is the
first sound of the agent at the simulated caller.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import psutil  # type: ignore[import-untyped]

from benchmarks import machine
from stayline.commands.processes import worker_polls
from stayline.dev_server import DevServer
from stayline.ports import free_port
from stayline.settings import Settings, load_settings
from stayline.temporal import connect

HOME: Final = Path(__file__).resolve().parent.parent
AGENT: Final = f"{HOME / 'examples' / 'my_agent.py'}:agent"
LIBRARIES: Final = "import temporalio.client, temporalio.worker, aiohttp.web, pydantic"
PATIENCE: Final = 120.0
"""Seconds; what has not started by then never will."""
POLL: Final = 0.005
NOWHERE: Final = "http://127.0.0.1:9"
HEARD: Final = "the caller hears the agent"
"""What `stayline demo` prints then."""

IMPORTS: Final = {
    "bare python": "pass",
    "python, libraries only": LIBRARIES,
    "import stayline": "import stayline",
    "an agent's module": "from examples import my_agent",
}
COMMANDS: Final = {
    "stayline --help": ["--help"],
    "stayline calls list": ["calls", "list"],
}
SERVE_READY, SERVE_WARM, WORKER, DEMO = (
    "serve: ready",
    "serve: providers warm",
    "worker: polls",
    "demo: first spoken word",
)
GOALS: Final = {"import stayline": 0.15, SERVE_READY: 1.0, DEMO: 15.0}
"""Seconds."""


@dataclass(frozen=True, slots=True)
class Taken:
    """One start, in seconds."""

    wall: float
    cpu: float


class Started:
    """A process that runs until the block ends, and how long it has been running."""

    def __init__(self, process: subprocess.Popen[bytes], began: float) -> None:
        self.process = process
        self._began = began

    def taken(self) -> Taken:
        wall, times = time.perf_counter() - self._began, psutil.Process(self.process.pid).cpu_times()
        return Taken(wall, times.user + times.system)

    def check(self) -> None:
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.process.args!r} ended with {self.process.returncode}")
        if time.perf_counter() - self._began > PATIENCE:
            raise RuntimeError(f"{self.process.args!r} has not started within {PATIENCE:.0f} s")


@contextlib.contextmanager
def started(
    arguments: list[str], environment: Mapping[str, str], output: int | IO[bytes] = subprocess.DEVNULL
) -> Iterator[Started]:
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments],
        env={**os.environ, **environment},
        cwd=HOME,
        stdout=output,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield Started(process, began)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def to_its_end(arguments: list[str], environment: Mapping[str, str]) -> Taken:
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments], env={**os.environ, **environment}, cwd=HOME, stdout=subprocess.DEVNULL
    )
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
    return Taken(wall, used.ru_utime + used.ru_stime)


def serve(environment: Mapping[str, str]) -> dict[str, Taken]:
    """Start a bridge, until it takes calls, and until it has loaded all that they need."""
    address = f"127.0.0.1:{free_port()}"
    found: dict[str, Taken] = {}
    arguments = ["-m", "stayline", "serve", "--agent", AGENT]
    with started(arguments, {**environment, "STAYLINE_LISTEN_ADDR": address}) as bridge:
        for what, path in ((SERVE_READY, "/ready"), (SERVE_WARM, "/ready?warm")):
            while not answers(f"http://{address}{path}"):
                bridge.check()
                time.sleep(POLL)
            found[what] = bridge.taken()
    return found


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def worker(environment: Mapping[str, str], polls: Callable[[], bool]) -> Taken:
    """Start a worker on a namespace's task queue that nobody else serves, until Temporal sees it there."""
    with started(["-m", "stayline", "worker", "--agent", AGENT], environment) as process:
        while not polls():
            process.check()
            time.sleep(POLL)
        return process.taken()


def demo(folder: Path) -> Taken:
    """Start the demo, until the agent is heard. CPU is the demo's own process's, without its children's."""
    environment = {"STAYLINE_DATA_DIR": str(folder), "PYTHONUNBUFFERED": "1"}
    with started(["-m", "stayline", "demo"], environment, subprocess.PIPE) as process:
        assert process.process.stdout is not None
        for line in process.process.stdout:
            if HEARD in line.decode():
                return process.taken()
    raise RuntimeError("the demo's agent was never heard")


def measure(runs: int, demos: int) -> dict[str, list[Taken]]:
    found: dict[str, list[Taken]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as directory, asyncio.Runner() as loop:
        folder = Path(directory)
        settings = load_settings(data_dir=folder / "temporal")
        server = DevServer(settings, port=0, ui=False)
        loop.run(server.start())
        try:
            environment = surroundings(server.address, folder)
            for _ in range(runs):
                for what, code in IMPORTS.items():
                    found[what].append(to_its_end(["-c", code], environment))
                for what, arguments in COMMANDS.items():
                    found[what].append(to_its_end(["-m", "stayline", *arguments], environment))
                for what, taken in serve(environment).items():
                    found[what].append(taken)
        finally:
            loop.run(server.stop())
        for number in range(runs):  # a server remembers its pollers for minutes: a new one each time
            found[WORKER].append(_worker(loop, folder / f"worker-{number}"))
        for number in range(demos):
            found[DEMO].append(demo(folder / f"demo-{number}"))
    return found


def _worker(loop: asyncio.Runner, folder: Path) -> Taken:
    settings: Settings = load_settings(data_dir=folder)
    server = DevServer(settings, port=0, ui=False)
    loop.run(server.start())
    try:
        client = loop.run(connect(settings, address=server.address))
        return worker(surroundings(server.address, folder), lambda: loop.run(worker_polls(client)))
    finally:
        loop.run(server.stop())


def surroundings(temporal: str, folder: Path) -> dict[str, str]:
    """What the processes are started with: Temporal is there, the vendors are away."""
    vendors = {
        f"{vendor}_{what}": value
        for vendor in ("ANTHROPIC", "DEEPGRAM", "ELEVENLABS")
        for what, value in (("API_KEY", "a-key-of-no-account"), ("BASE_URL", NOWHERE))
    }
    return {
        **vendors,
        "TEMPORAL_ADDRESS": temporal,
        "STAYLINE_DATA_DIR": str(folder / "data"),
        "STAYLINE_CARRIER": "lab",
        "TWILIO_ACCOUNT_SID": "AC" + "0" * 32,
        "TWILIO_AUTH_TOKEN": "a-token-of-no-account",
    }


def rows(found: Mapping[str, list[Taken]]) -> list[dict[str, Any]]:
    """Medians in seconds; `worst`, CPU seconds and the ratio to the yardsticks beside them."""
    wall = {what: statistics.median(t.wall for t in taken) for what, taken in found.items()}
    made = []
    for what, taken in found.items():
        goal = GOALS.get(what)
        made.append(
            {
                "what": what,
                "figure": round(wall[what], 3),
                "unit": "s",
                "goal": f"≤ {goal:g}" if goal is not None else None,
                "met": wall[what] <= goal if goal is not None else None,
                "worst": round(max(t.wall for t in taken), 3),
                "cpu": round(statistics.median(t.cpu for t in taken), 3),
                "times_bare_python": round(wall[what] / wall["bare python"], 1),
                "times_libraries": round(wall[what] / wall["python, libraries only"], 2),
                "runs": len(taken),
            }
        )
    return made


def show(made: list[dict[str, Any]]) -> None:
    print(f"{'':<26}{'median':>9}{'worst':>9}{'CPU':>9}{'× python':>10}{'× libraries':>13}   goal")
    for row in made:
        met = "" if row["met"] is None else f"{row['goal']} s  {'met' if row['met'] else 'NOT MET'}"
        print(
            f"{row['what']:<26}{row['figure']:>7.3f} s{row['worst']:>7.3f} s{row['cpu']:>7.3f} s"
            f"{row['times_bare_python']:>10.1f}{row['times_libraries']:>13.2f}   {met}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=7, help="of each start")
    parser.add_argument("--demos", type=int, default=3, help="runs of the demo; it needs stayline[offline]")
    parser.add_argument("--dry", action="store_true", help="write no results")
    given = parser.parse_args()
    load = os.getloadavg()[0]
    made = rows(measure(given.runs, given.demos))
    show(made)
    if not given.dry:
        result = {
            **machine.heading(
                "Start times", f"python -m benchmarks.start --runs {given.runs} --demos {given.demos}"
            ),
            "load_average_before": round(load, 2),
            "rows": made,
        }
        path = Path(__file__).parent / "results" / "start.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
