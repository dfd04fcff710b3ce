"""Two faults at once, at the worst moment: the few that no schedule should leave to chance."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.chaos.auditor import audit
from tests.chaos.callers import Wish
from tests.chaos.fleet import fleet

GAP = 3.0
"""Seconds between a turn and the death of its bridge: more than the last moment that the auditor forgives."""


@pytest.mark.timeout(240)
async def test_the_only_bridge_dies_while_temporal_is_away(tmp_path: Path) -> None:
    """Turns that Temporal never took must not die with the bridge, however short Temporal has been away."""
    async with fleet(tmp_path, bridges=1, workers=1) as town:
        caller = await town.call(*[Wish("say")] * 12)
        await town.talking(1)
        await town.until(lambda: caller.answers >= 2)
        town.note("kill", "temporal")
        await town.temporal.kill()
        answered = caller.answers
        await town.until(lambda: caller.answers >= answered + 2)
        caller.holds = True
        await asyncio.sleep(GAP)
        town.kill_bridge("b1")
        caller.holds = False
        await town.temporal.start()
        town.note("started", "temporal", end=True)
        await town.start_bridge("b1")
        answered = caller.answers
        await town.until(lambda: caller.answers > answered)
        await town.lab_calls[-1].wait()
        await town.collect()
    report = audit(tmp_path)
    assert not report.findings, report.text()
