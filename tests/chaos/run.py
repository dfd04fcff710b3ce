"""The nightly form: a thousand calls in waves, every fault in each wave, and a report.

    python -m tests.chaos.run --calls 1000 --seed 7

Each wave has a fleet of its own, so that what is left over afterwards can be told from what was there before, and
a seed of its own, which is printed: `--seed` of that wave with `--calls 100` repeats its schedule.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

from tests.chaos import faults
from tests.chaos.fleet import REALTIME, Front
from tests.chaos.scenario import Outcome, run

WAVE = 100
"""Calls of one wave, at least: it goes on until every fault was done."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.run", description=__doc__.partition("\n")[0])
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--at-once", type=int, default=16, help="callers on the line at any time")
    parser.add_argument("--realtime", type=float, default=REALTIME, help="share of the callers in realtime mode")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument(
        "--faults", nargs="*", default=list(faults.ALL), metavar="KIND", help="default: all of them"
    )
    parser.add_argument(
        "--folder", type=Path, default=Path(".chaos"), help="evidence of every wave, and report.json"
    )
    given = parser.parse_args()
    for kind in given.faults:
        faults.fault_of(kind)
    return asyncio.run(_nightly(given))


async def _nightly(given: argparse.Namespace) -> int:
    folder: Path = given.folder / time.strftime("%Y%m%d-%H%M%S")
    outcomes: list[Outcome] = []
    print(f"seed {given.seed}, {given.calls} calls, {given.at_once} at once, {len(given.faults)} kinds of faults")
    while sum(outcome.report.calls for outcome in outcomes) < given.calls:
        number = len(outcomes)
        left = given.calls - sum(outcome.report.calls for outcome in outcomes)
        front: Front = "shared" if number % 3 == 2 else "balancer"
        outcome = await run(
            folder / f"wave-{number + 1}",
            given.faults,
            seed=given.seed + number,
            calls=min(WAVE, left),
            at_once=given.at_once,
            front=front,
            realtime=given.realtime,
        )
        outcomes.append(outcome)
        print(f"\nwave {number + 1}: {outcome.text()}", flush=True)
    report = _sum(given, outcomes)
    (folder / "report.json").write_text(json.dumps(report, indent=1))
    print(f"\nseed {given.seed}: {report['calls']} calls, {report['findings']} findings; {folder / 'report.json'}")
    for how, count in sorted(report["heard"].items()):
        print(f"  {count:5} {how}")
    return 1 if report["findings"] else 0


def _sum(given: argparse.Namespace, outcomes: list[Outcome]) -> dict[str, Any]:
    heard: dict[str, int] = {}
    for outcome in outcomes:
        for how, count in outcome.report.heard.items():
            heard[how] = heard.get(how, 0) + count
    return {
        "command": f"python -m tests.chaos.run --calls {given.calls} --at-once {given.at_once} --seed {given.seed}"
        f" --realtime {given.realtime}",
        "seed": given.seed,
        "calls": sum(outcome.report.calls for outcome in outcomes),
        "findings": sum(len(outcome.report.findings) for outcome in outcomes),
        "heard": heard,
        "waves": [outcome.json() for outcome in outcomes],
    }


if __name__ == "__main__":
    sys.exit(main())
