"""Durable limits end a call politely: goodbye, hang-up at the carrier, a closed record."""

from __future__ import annotations

import asyncio
from pathlib import Path

from temporalio.client import Client

from stayline.timeline import LimitReached
from tests.whole_call.house import scene, vendor_agent

ENDED = ("rest", "bridge")
"""Hung up by our request, or told to when the carrier asked what comes next: whichever is first."""


async def test_limits_end_calls(client: Client, tmp_path: Path) -> None:
    """Three calls at once: one of a second, one that falls silent, one that speaks when it is asked to."""
    short = vendor_agent(
        name="short", greeting="Hi.", limit_text="Time is up.", max_duration=1, numbers=["+15550100003"]
    )
    quiet = vendor_agent(
        name="quiet",
        greeting="Hi.",
        silence_prompt=2,
        silence_timeout=6,
        silence_text="Are you there?",
        goodbye="Goodbye now.",
    )
    async with scene(client, tmp_path, short, quiet) as stage:
        hurried, silent, answering = stage.caller(), stage.caller(), stage.caller()
        await hurried.ring(stage.carrier, "+15550100003")
        await silent.ring(stage.carrier)
        await answering.ring(stage.carrier)
        await stage.home.until(answering.sid, "limit")
        await stage.home.until(answering.sid, "agent_turn", 2)
        await answering.asks("yes I am here")
        await answering.leaves()
        await asyncio.gather(hurried.call.wait(), silent.call.wait())
        told = {c: await stage.home.over(c.sid) for c in (hurried, silent, answering)}
        snapshots = {c: await stage.home.snapshot(c.sid) for c in told}

    def said(caller: object) -> list[str]:
        return [e.text for e in told[caller] if e.type == "agent_turn"]  # type: ignore[index]

    def limits(caller: object) -> list[str]:
        return [e.limit for e in told[caller] if isinstance(e, LimitReached)]  # type: ignore[index]

    assert said(hurried) == ["Hi.", "Time is up."]
    assert limits(hurried) == ["duration"]
    assert hurried.call.ended_by in ENDED
    assert (snapshots[hurried].outcome, snapshots[hurried].status) == ("duration_limit", "ended")
    assert hurried.heard_ms >= 200

    assert said(silent) == ["Hi.", "Are you there?", "Goodbye now."]
    assert limits(silent) == ["silence_prompt", "silence"]
    assert silent.call.ended_by in ENDED
    assert snapshots[silent].outcome == "silence_limit"

    assert said(answering)[:3] == ["Hi.", "Are you there?", "You said: yes I am here"]
    assert snapshots[answering].outcome == "caller_hung_up"
