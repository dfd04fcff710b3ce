"""One run: a fleet, callers, a schedule of faults, the auditor."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.chaos import faults
from tests.chaos.auditor import Report, audit
from tests.chaos.fleet import REALTIME, Front, fleet


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """A run that is over."""

    seed: int
    front: Front
    schedule: tuple[faults.Step, ...]
    report: Report
    folder: Path

    def text(self) -> str:
        """For a person: what was done, and what the auditor says."""
        steps = ", ".join(f"{step.kind} ({step.seconds:.1f} s)" for step in self.schedule)
        return f"seed {self.seed}, {self.front}, evidence in {self.folder}\nfaults: {steps}\n{self.report.text()}"

    def json(self) -> dict[str, Any]:
        steps = [dataclasses.asdict(step) for step in self.schedule]
        told = {"seed": self.seed, "front": self.front, "folder": str(self.folder), "faults": steps}
        return told | dataclasses.asdict(self.report)


async def run(
    folder: Path,
    kinds: Sequence[str],
    *,
    seed: int,
    calls: int,
    at_once: int = 8,
    front: Front = "balancer",
    realtime: float = REALTIME,
) -> Outcome:
    """Keep `at_once` callers on the line until all faults were done and `calls` have called; then judge.

    Args:
        kinds: of faults, see `faults.ALL`.
        seed: of the schedule, and of what callers do.
        realtime: share of the callers who talk with a voice-to-voice model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    schedule = tuple(faults.plan(seed, kinds))
    async with fleet(folder, front=front, seed=seed, fake_clock="clock jump" in kinds) as town:
        town.realtime = realtime
        work = asyncio.create_task(faults.torment(town, schedule))
        try:
            await town.traffic(at_once, calls, 3 * calls, work)
        finally:
            work.cancel()
        await town.collect()
    return Outcome(seed, front, schedule, audit(folder), folder)
