"""A soak: thousands of short calls through one bridge, and what bridge and worker hold after every few hundred.

Real processes: Temporal, a worker, a bridge; the lab is the carrier, the vendors are fakes without latency. Callers
hang up after the greeting, ask, book by a tool, leave while the tool runs, cut in, are said goodbye to, and lose
their stream without a word and come back. Between two rounds there are no calls: what is held then and grows, is a
leak.

    python -m benchmarks.soak --calls 5000
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from benchmarks import machine, soak_agent
from stayline.commands.local import LabAccount, LocalStack
from stayline.lab.call import Behaviour
from stayline.lab.carrier import LabCarrier
from stayline.ports import free_port
from stayline.settings import Settings
from tests.chaos.callers import Caller, Wish
from tests.chaos.collect import look_at
from tests.chaos.ledger import Ledger
from tests.chaos.vendors import Vendors

RESULTS: Final = Path(__file__).parent / "results" / "soak.json"
AGENT: Final = f"{soak_agent.__file__}:agent"
COUNTS: Final = ("fds", "sockets", "threads", "tasks")
KEPT_ALIVE: Final = 40.0
"""Seconds after which idle connections to vendors are closed, by them or by us (aiohttp: 15)."""
LONGEST_CALL: Final = 60.0

PLANS: Final[tuple[tuple[Wish, ...], ...]] = (
    (),  # hangs up after the greeting
    (Wish("say"),),
    (Wish("book"),),
    (Wish("book", leave=True),),
    (Wish("tell", cut_in=True), Wish("say")),
    (Wish("say"), Wish("goodbye")),
)
DROPPED: Final = 0.1
"""Share of the calls whose stream breaks once."""


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """What a process holds while there are no calls; `rss` in bytes."""

    calls: int
    rss: int
    fds: int
    sockets: int
    threads: int
    tasks: int  #: of the event loop; -1: it does not say


@dataclasses.dataclass(slots=True)
class Soak:
    """A stack under soak, and what has been seen of it so far."""

    stack: LocalStack
    carrier: LabCarrier
    luck: random.Random
    ledger: Ledger
    calls: int = 0
    outcomes: dict[str, int] = dataclasses.field(default_factory=dict)
    bridge: list[Sample] = dataclasses.field(default_factory=list)
    worker: list[Sample] = dataclasses.field(default_factory=list)

    async def round(self, count: int, at_once: int) -> None:
        """So many calls, so many of them at once; returns when all are over."""
        places = asyncio.Semaphore(at_once)

        async def one() -> None:
            async with places:
                await self._call()

        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(one())

    async def _call(self) -> None:
        self.calls += 1
        name = f"c{self.calls}"
        caller = Caller(name, list(self.luck.choice(PLANS)), self.ledger, random.Random(name))
        drop = self.luck.random() < DROPPED
        call = await self.carrier.place_call("+15550100001", "+15550100002", caller=caller)
        caller.sid = call.sid
        try:
            async with asyncio.timeout(LONGEST_CALL):
                while drop and not call.over:
                    await asyncio.sleep(0.2)
                    drop = not (caller.talking and call.drop_stream())
                await call.wait()
        except TimeoutError:
            call.hang_up("timeout")
            await call.wait()
        ended = str(call.ended_by)
        self.outcomes[ended] = self.outcomes.get(ended, 0) + 1
        del self.carrier.calls[call.sid]  # the lab remembers every call

    async def sample(self, patience: float) -> tuple[Sample, Sample]:
        """What bridge and worker hold. They get `patience` seconds to come down to what they held first."""
        loop = asyncio.get_running_loop()
        until = loop.time() + patience
        while True:
            found = await asyncio.gather(self._bridge_now(), self._look(self.stack.worker, 0))
            first = (self.bridge or [found[0]])[0], (self.worker or [found[1]])[0]
            down = all(
                getattr(now, name) <= getattr(then, name)
                for now, then in zip(found, first, strict=True)
                for name in COUNTS
                if name != "threads"  # pools of them grow as they are used, to a limit
            )
            if (down and self.bridge) or loop.time() >= until:
                break
            await asyncio.sleep(0.5)
        self.bridge.append(found[0])
        self.worker.append(found[1])
        for recording in self.stack.settings.recordings_dir.glob("*.wav"):
            recording.unlink()
        return found

    async def _bridge_now(self) -> Sample:
        (child,) = self.stack.bridges.values()
        return await self._look(child, int(self.stack.url.rpartition(":")[2]))

    async def _look(self, child: Any, port: int) -> Sample:
        seen = await look_at(child, port)
        if seen.get("dead"):
            child.check()
        status = Path(f"/proc/{child.pid}/statm").read_text().split()
        return Sample(
            calls=self.calls,
            rss=int(status[1]) * os.sysconf("SC_PAGE_SIZE"),
            fds=seen["fds"],
            sockets=seen["sockets"],
            threads=seen["threads"],
            tasks=int(seen.get("tasks", -1)),
        )


@asynccontextmanager
async def soak(folder: Path, seed: int = 1) -> AsyncIterator[Soak]:
    """Start everything."""
    settings = Settings(data_dir=folder, carrier="lab")
    account = LabAccount.of(folder)
    address = f"127.0.0.1:{free_port()}"
    behaviour = Behaviour(on_break="next", say_aloud=False)
    async with (
        Vendors() as vendors,
        LabCarrier(f"http://{address}", account.account_sid, account.auth_token, behaviour=behaviour) as carrier,
    ):
        stack = LocalStack(
            settings,
            [AGENT],
            account,
            carrier.rest_url,
            listen_addr=address,
            temporal_port=0,
            # This looks for leaks; where the machine is slow, calls are to come all the same.
            extra={**vendors.environment({}), "STAYLINE_MAX_LOOP_LAG_MS": "0", "STAYLINE_LOG_LEVEL": "warning"},
        )
        async with stack:
            await stack.start_temporal()
            await stack.start_worker()
            await stack.start_bridges()
            await stack.ready()
            yield Soak(stack, carrier, random.Random(seed), Ledger(Path(os.devnull)))


def slope(samples: Sequence[Sample], what: str) -> float:
    """By how much a figure grows in 1000 calls: least squares over the samples."""
    calls = [sample.calls / 1000 for sample in samples]
    return statistics.linear_regression(calls, [getattr(sample, what) for sample in samples]).slope


def report(run: Soak, warm_up: int, seconds: float, seed: int) -> dict[str, Any]:
    found: dict[str, Any] = {
        **machine.heading("A soak", f"python -m benchmarks.soak --calls {run.calls - warm_up} --seed {seed}"),
        "calls": run.calls,
        "warm_up": warm_up,
        "seconds": round(seconds, 1),
        "ended_by": run.outcomes,
    }
    for name, samples in (("bridge", run.bridge), ("worker", run.worker)):
        found[name] = {
            "per_1000_calls": {what: round(slope(samples, what), 3) for what in ("rss", *COUNTS)},
            "samples": [dataclasses.asdict(sample) for sample in samples],
        }
    found["rows"] = rows(found)
    return found


def rows(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The figures as `docs/performance.md` shows them."""
    shown: list[dict[str, Any]] = [{"what": "calls", "figure": found["calls"], "unit": ""}]
    for name in ("bridge", "worker"):
        first, last = found[name]["samples"][0], found[name]["samples"][-1]
        grown = found[name]["per_1000_calls"]["rss"] / 2**20
        shown.append({"what": f"{name}: memory at the end", "figure": round(last["rss"] / 2**20), "unit": "MiB"})
        shown.append({"what": f"{name}: growth in 1,000 calls", "figure": round(grown, 2), "unit": "MiB"})
        shown += [
            {"what": f"{name}: {what} at the end", "figure": last[what], "unit": f"(at first {first[what]})"}
            for what in COUNTS
            if first[what] >= 0
        ]
    return shown


async def main(calls: int, at_once: int, rounds: int, warm_up: int, seed: int, out: Path) -> None:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="stayline-soak-") as folder:
        async with soak(Path(folder), seed) as run:
            await run.round(warm_up, at_once)
            await run.sample(KEPT_ALIVE)
            each = -(-calls // rounds)
            while run.calls - warm_up < calls:
                await run.round(min(each, calls + warm_up - run.calls), at_once)
                bridge, worker = await run.sample(KEPT_ALIVE)
                print(f"{run.calls:6} calls  bridge {_line(bridge)}   worker {_line(worker)}", flush=True)
            found = report(run, warm_up, time.monotonic() - began, seed)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(found, indent=1) + "\n")
    for name in ("bridge", "worker"):
        grown = found[name]["per_1000_calls"]
        print(f"{name}: {grown.pop('rss') / 2**20:+.2f} MiB per 1000 calls;", grown)
    print(f"ended by: {run.outcomes}; written to {out}")


def _line(sample: Sample) -> str:
    counts = " ".join(f"{getattr(sample, name):3} {name}" for name in COUNTS if getattr(sample, name) >= 0)
    return f"{sample.rss / 2**20:6.1f} MiB {counts}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=5000)
    parser.add_argument("--at-once", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=20, help="samples that are taken")
    parser.add_argument("--warm-up", type=int, default=200, help="calls before the first sample")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    asyncio.run(main(given.calls, given.at_once, given.rounds, given.warm_up, given.seed, given.out))
