"""The worker is killed with SIGKILL while a tool runs: another worker takes the tool over, and the call's state.

The race: the attempt has begun and nobody knows whether it took effect. The next one carries the same idempotency
key, so that the system behind the tool books once. The bridge is another process: the caller notices a pause at
most, and no stream breaks.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.whole_call import agents
from tests.whole_call.stack import PATIENCE, Stack, contains, stack, story, turns


async def test_a_tool_outlives_its_worker(tmp_path: Path) -> None:
    async with stack(tmp_path) as town:
        caller = await town.greeted()
        await caller.say("book a table")
        begun = agents.begun(tmp_path, caller.sid)
        await contains(begun)
        town.processes.worker.kill()
        await town.processes.worker.wait()

        await caller.asks("hello")  # answered by the bridge alone, while there is no worker at all
        await town.processes.start_worker()
        await _begun_again(begun)
        await _impatient(town, caller.sid)
        agents.permit(tmp_path).touch()
        await caller.hears()
        await caller.hears_out(600)
        await caller.asks("thank you")
        await caller.leaves()
        record = await town.record(caller.sid)

        assert town.carrier.log.of("stream_broken") == []
        assert town.carrier.log.of("rest") == []
        assert len(town.booked(caller.sid)) == 1
        results = [item["output"] for item in town.openai.answered[-1]["input"] if "output" in item]
        assert results == ['"a table is booked"']
    assert record.snapshot.metrics.session_count == 1, story(record)
    (run,) = record.snapshot.tools
    assert run.outcome is not None
    assert run.outcome.status == "succeeded"
    *cut_off, last = run.outcome.attempts
    assert cut_off
    assert all(attempt.error for attempt in cut_off)
    assert last.error is None
    assert turns(record) == [
        ("agent", "Hello there."),
        ("caller", "book a table"),
        ("caller", "hello"),
        ("agent", "You said hello."),
        ("caller", "thank you"),
        ("agent", "You said thank you."),
    ], story(record)


async def _begun_again(begun: Path) -> None:
    """Wait for another attempt. It is the third where the second was lost too, to a worker still warming up."""
    async with asyncio.timeout(PATIENCE):
        while True:
            if len(begun.read_text().split()) > 1:
                return
            await asyncio.sleep(0.05)


async def _impatient(town: Stack, call_id: str) -> None:
    """The workflow, replayed by the new worker, knows that the tool still runs."""
    (run,) = (await town.snapshot(call_id)).tools
    assert run.outcome is None
