"""Chaos, processes: bridges, workers and Temporal are killed, frozen and restarted under calls in progress."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.chaos import faults
from tests.chaos.scenario import run

SEED = int(os.environ.get("CHAOS_SEED", "1"))


@pytest.mark.timeout(240)
async def test_no_call_is_lost_when_processes_die(tmp_path: Path) -> None:
    outcome = await run(tmp_path, faults.PROCESSES, seed=SEED, calls=18)
    assert not outcome.report.findings, outcome.text()
