"""Chaos, network: every link between two parts is cut, slowed and broken, and the carrier itself fails."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.chaos import faults
from tests.chaos.scenario import run

SEED = int(os.environ.get("CHAOS_SEED", "1"))


@pytest.mark.timeout(240)
async def test_no_call_is_lost_when_the_network_fails(tmp_path: Path) -> None:
    outcome = await run(tmp_path, [*faults.NETWORK, *faults.CARRIER], seed=SEED, calls=16)
    assert not outcome.report.findings, outcome.text()
