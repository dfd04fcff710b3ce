"""Two calls through the whole harness: vendors, callers and a server as processes. What is asserted is that all is
heard, answered and measured; never how fast."""

from __future__ import annotations

import pytest

pytest.importorskip("picows")
pytest.importorskip("uvloop")

from benchmarks.cell import Cell, Outcome, run


def answered(outcome: Outcome) -> None:
    row = outcome.row
    assert row["turns"] >= 2  # each caller at least once
    assert row["answered"] == row["turns"]
    assert row["lost"] == 0
    assert {turn.call for turn in outcome.turns} == {0, 1}
    assert all(turn.heard_ms is not None for turn in outcome.turns)
    assert row["rss_mib"] > 0
    assert row["server_cpu"] > 0


@pytest.mark.parametrize("mode", ["text", "realtime"])
async def test_relay(mode: str) -> None:
    answered(await run(Cell("relay", mode, calls=2, turns=1)))


async def test_callers_who_interrupt_hear_the_line_cleared() -> None:
    outcome = await run(Cell("relay", "text", calls=2, turns=3, script="interrupt"))
    assert any(turn.clear_ms is not None and turn.onset_ms is not None for turn in outcome.turns)


@pytest.mark.parametrize(
    ("server", "mode"), [("stayline", "text"), ("stayline", "realtime"), ("stayline-vad", "text")]
)
async def test_bridge(server: str, mode: str) -> None:
    answered(await run(Cell(server, mode, calls=2, turns=1)))
