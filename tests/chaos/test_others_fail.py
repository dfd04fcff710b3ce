"""Chaos, what is around: vendors fail in every way, disks are full, clocks jump; bridges share one port."""

from __future__ import annotations

import importlib.util
import os
import warnings
from pathlib import Path

import pytest

from tests.chaos import faults
from tests.chaos.scenario import run

SEED = int(os.environ.get("CHAOS_SEED", "1"))


@pytest.mark.timeout(240)
async def test_no_call_is_lost_when_vendors_and_machines_fail(tmp_path: Path) -> None:
    kinds = [*faults.VENDORS, *faults.MACHINE, "bridge killed"]
    if importlib.util.find_spec("libfaketime") is None:
        warnings.warn("libfaketime is not installed: no clock jumps in this run", stacklevel=1)
        kinds.remove("clock jump")
    outcome = await run(tmp_path, kinds, seed=SEED, calls=16, front="shared")
    assert not outcome.report.findings, outcome.text()
