"""A call whose history grows long continues as new, with everything it knew."""

from __future__ import annotations

import asyncio

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
