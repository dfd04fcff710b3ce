"""A hundred short calls and more: what the bridge and the worker hold does not grow with them.

The long form is `python -m benchmarks.soak`.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.soak import slope, soak

CALLS = int(os.environ.get("SOAK_CALLS", "160"))
AT_ONCE = 16
WARM_UP = 60
ROUNDS = 2
MIB = 2**20


@pytest.mark.timeout(500)
async def test_short_calls_leave_nothing_behind(tmp_path: Path) -> None:
    async with soak(tmp_path) as run:
        await run.round(WARM_UP, AT_ONCE)
        await run.sample(patience=2)
        for _ in range(ROUNDS):
            await run.round(CALLS // ROUNDS, AT_ONCE)
            await run.sample(patience=20)
        assert run.calls == WARM_UP + CALLS // ROUNDS * ROUNDS
        assert run.outcomes.get("error", 0) == 0, run.outcomes
        for name, samples in (("bridge", run.bridge), ("worker", run.worker)):
            first, last = samples[0], samples[-1]
            assert last.tasks <= first.tasks, name
            # Pools keep idle connections (of a database of two files each) and threads, at most one for each call
            # at once, as the moment wants them. What one call of ten left behind would be too many.
            for kind in ("fds", "sockets", "threads"):
                assert getattr(last, kind) < getattr(first, kind) + AT_ONCE, f"{kind} of the {name}"
            growth = slope(samples, "rss") / MIB
            # a call's sound is 0.05 MiB, its history 0.1; caches fill a little
            assert growth < 80, f"{name} grows by {growth:.1f} MiB in 1000 calls"
