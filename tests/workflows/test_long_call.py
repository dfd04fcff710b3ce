"""A call whose history grows long continues as new, with everything it knew."""

from __future__ import annotations

import asyncio
import base64
import random

from temporalio.client import Client

from stayline import tool
from tests.workflows.bench import agent, bench, said, until, user

gate = asyncio.Event()


@tool
async def add(a: int, b: int) -> int:
    """Adds."""
    return a + b


@tool
async def wait_for_gate() -> str:
    """Waits until the test lets it go on."""
    await gate.wait()
    return "through"


@tool
async def read_file(seed: int) -> str:
    """Answers nearly as much as a tool may."""
    words = random.Random(seed).choices([f"word{n}" for n in range(3000)], k=26_000)
    return " ".join(words)


async def test_a_call_that_has_more_to_remember_than_one_payload_may_hold(client: Client) -> None:
    """Temporal takes 2 MiB: what a run hands to the next, and the final record, hold every result of every tool."""
    async with bench(client, agent(read_file)) as call:
        await call.begin(history_limit=60)
        results = [(await call.tool("read_file", f"r{seed}", seed=seed)).result for seed in range(7)]
        assert sum(map(len, results)) > 2**20, "which the timeline and the tools both hold"

        async def continued() -> bool:
            return (await call.handle.describe()).raw_description.workflow_execution_info.first_run_id != (
                await call.handle.describe()
            ).run_id

        await until(continued)
        await call.hang_up()
        assert (await call.result()).metrics.tool_call_count == 7
        saved = call.outside.saved[-1]
    assert [run.outcome.result for run in saved.snapshot.tools if run.outcome] == results
    assert [e.event.outcome.result for e in saved.timeline if e.event.type == "tool_settled"] == results
    assert saved.final


@tool
async def photograph(seed: int) -> str:
    """Answers what cannot be deflated."""
    return base64.b64encode(random.Random(seed).randbytes(180_000)).decode()


async def test_a_call_that_has_too_much_to_remember_stays_in_its_run_and_is_written_down(client: Client) -> None:
    async with bench(client, agent(photograph)) as call:
        await call.begin(history_limit=100)
        first_run = (await call.handle.describe()).run_id
        for seed in range(10):
            assert len((await call.tool("photograph", f"p{seed}", seed=seed)).result) == 240_000
        assert (await call.handle.describe()).run_id == first_run
        await call.record(user("Thank you."))
        await call.hang_up()
        assert (await call.result()).metrics.tool_call_count == 10
        saved = call.outside.saved[-1]
    assert saved.final
    assert saved.timeline[-1].event.type == "call_ended"
    results = [str(run.outcome.result) for run in saved.snapshot.tools if run.outcome]
    assert len(results) == 10
    assert all("cut: the record" in result and len(result) < 1200 for result in results)


async def test_continue_as_new_keeps_everything(client: Client) -> None:
    async with bench(client, agent(add, wait_for_gate)) as call:
        await call.begin(history_limit=30)
        first_run = (await call.handle.describe()).run_id
        held = await call.start_tool("wait_for_gate", "held")
        for n in range(20):
            await call.record(user(f"question {n}"))
        assert (await call.snapshot()).run_count == 1, "a running tool holds the run"
        gate.set()
        assert (await held.result()).result == "through"

        async def continued() -> bool:
            return (await call.snapshot()).run_count == 2

        await until(continued)
        assert (await call.handle.describe()).run_id != first_run
        # Sequence, tools, tokens, deadlines and the conversation are the same call's.
        await call.record(user("question 19"), first_seq=20)
        assert (await call.tool("wait_for_gate", "held")).result == "through"
        assert (await call.tool("add", "sum", a=2, b=3)).result == 5
        await call.record(said("Five."))
        assert (await call.admit("t9")).accepted
        await call.handle.signal("bridge_lost", call.bridge_id)
        grant = await call.open("t9")
        assert grant.session == 2
        texts = [m.text for m in grant.messages if m.role == "user"]
        assert texts == [f"question {n}" for n in range(20)]
        assert [m.tool_call_id for m in grant.messages if m.role == "tool"] == ["held", "sum"]
        await call.hang_up(session=2)
        result = await call.result()
        assert result.metrics.user_turn_count == 20
        assert result.metrics.tool_call_count == 2
        assert [e.index for e in call.outside.saved[-1].timeline] == list(
            range(len(call.outside.saved[-1].timeline))
        )
        attributes = {pair.key.name: pair.value for pair in (await call.handle.describe()).typed_search_attributes}
        assert attributes["CallOutcome"] == "caller_hung_up"
