"""What calls feel like, and what they cost, on this machine: real speech, real Temporal, everything on it.

    .venv/bin/python -m benchmarks.calls            # 1 and 8 calls at once
    .venv/bin/python -m benchmarks.calls --calls 1 --calls 12

The callers, Temporal, the worker and the bridge share the machine, so figures are compared within one run only:
the loaded row against the row of a single call. Callers say the demo's lines, without interrupting; then one
interrupts. The bridge's CPU is read from the kernel, as a share of one core.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import structlog

from stayline.commands.demo import demo_folder
from stayline.commands.local import LabAccount, LocalStack
from stayline.lab.carrier import LabCarrier
from stayline.lab.place import LabResult, call_with_script
from stayline.lab.script import Step, parse_script
from stayline.ports import free_port
from stayline.settings import load_settings

TALK = parse_script(
    [
        {"say": "When are you open on Monday?"},
        {"say": "Hello, where is my order?"},
        {"say": "When are you open on Monday?"},
        {"hang_up": True},
    ]
)
INTERRUPT = parse_script(
    [
        {"say": "When are you open on Monday?"},
        {"say": "Where is my order?", "when": {"agent_speaking_for_ms": 1500}},
        {"hang_up": True},
    ]
)
STAGGER = 1.7
"""Seconds between two calls' beginnings, so that not all speak in the same moment."""


def spread(values: Sequence[float], unit: str = "ms") -> str:
    """Median and worst."""
    if not values:
        return "none"
    return f"{statistics.median(values):6.0f} {unit} median, {max(values):6.0f} worst (n={len(values)})"


async def several(carrier: LabCarrier, count: int, steps: Sequence[Step]) -> list[LabResult]:
    async def one(number: int) -> LabResult:
        await asyncio.sleep(number * STAGGER)
        return await call_with_script(carrier, steps, max_seconds=90)

    return list(await asyncio.gather(*(one(number) for number in range(count))))


async def loaded(stack: LocalStack, carrier: LabCarrier, count: int) -> None:
    pid = stack.bridges["b1"].pid
    assert pid is not None
    process = psutil.Process(pid)
    before, begun = process.cpu_times(), time.monotonic()
    results = await several(carrier, count, TALK)
    after, seconds = process.cpu_times(), time.monotonic() - begun
    used = after.user + after.system - before.user - before.system
    call_seconds = sum(result.seconds for result in results)
    replies = [ms for result in results for ms in result.reply_ms]
    print(f"{count:3d} calls at once   reply after {spread(replies)}")
    print(
        f"                     bridge {100 * used / seconds:4.0f} % of a core, "
        f"{100 * used / call_seconds:4.1f} % per call, {process.memory_info().rss / 2**20:.0f} MiB"
    )


async def main(counts: Sequence[int]) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    with tempfile.TemporaryDirectory() as directory:
        settings = load_settings(data_dir=Path(directory))
        listen = f"127.0.0.1:{free_port()}"
        account = LabAccount.of(settings.data_dir)
        async with LabCarrier(
            f"http://{listen}", account.account_sid, account.auth_token, rest_port=account.rest_port
        ) as carrier:
            agents = [f"{demo_folder() / 'agent.py'}:agent"]
            async with LocalStack(settings, agents, account, carrier.rest_url, listen_addr=listen) as stack:
                await stack.start_temporal()
                await stack.start_worker()
                await stack.start_bridges()
                await stack.ready()
                print(f"load average before: {os.getloadavg()[0]:.1f}, cores: {os.cpu_count()}")
                for count in counts:
                    await loaded(stack, carrier, count)
                stops = [
                    utterance.stop_ms
                    for _ in range(3)
                    for result in await several(carrier, 1, INTERRUPT)
                    for utterance in result.utterances
                    if utterance.stop_ms is not None
                ]
                print(f"interruption         silent after {spread(stops)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--calls", type=int, action="append", help="calls at once; may be repeated")
    given = parser.parse_args()
    asyncio.run(main(given.calls or [1, 8]))
