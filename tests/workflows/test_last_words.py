"""The bridge has no voice left: the carrier says the last words, and only then the call is hung up."""

from __future__ import annotations

import asyncio
from typing import Any

from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment

from stayline.messages import Dial, EndCall
from tests.workflows.bench import LEG, Bench, agent, bench, bridge_worker, until

SORRY = "Sorry, I'm having trouble right now."
VOICELESS = EndCall(by="bridge", why="no voice works", say=SORRY, by_carrier=True)


async def closed(call: Bench) -> None:
    async def asked() -> bool:
        return bool(call.outside.closed)

    await until(asked)


async def carrier_said(call: Bench, words: str) -> None:
    """Wait until the carrier was made to say it, by REST."""

    async def told() -> bool:
        return call.outside.carrier_said == [words]

    await until(told)


async def test_the_carrier_asks_and_is_told(client: Client) -> None:
    async with bench(client, agent()) as call:
        await call.begin()
        await call.handle.signal("end", VOICELESS)
        await closed(call)
        await call.stream_ends("closed")
        step = await call.next_step()
        assert (step.action, step.say) == ("hangup", SORRY)
        # It did not get the answer and asks again: still no silence.
        assert (await call.next_step("n2")).say == SORRY
        await call.carrier("completed")
        assert (await call.result()).outcome == "completed"
        assert [c.say for c in call.outside.closed] == [""]
        assert call.outside.hung_up == []
        assert call.outside.carrier_said == []


async def test_the_carrier_does_not_ask_and_is_told_by_rest(client: Client) -> None:
    async with bench(client, agent()) as call:
        await call.begin()
        await call.handle.signal("end", VOICELESS)
        await call.stream_ends("closed")

        await carrier_said(call, SORRY)
        await call.carrier("completed")
        await call.result()
        assert call.outside.hung_up == []


async def test_the_bridge_dies_over_it(client: Client) -> None:
    """The stream cannot even be closed: the carrier takes the caller off it."""
    async with bench(client, agent(), bridge=False) as call:
        await call.admit()
        await call.open(bridge_id="dead")
        await call.handle.signal("end", VOICELESS)
        await call.handle.signal("bridge_lost", "dead")

        await carrier_said(call, SORRY)
        await call.carrier("completed")
        assert (await call.result()).outcome == "completed"


async def test_nobody_waits_for_ever(time_skipping_env: WorkflowEnvironment) -> None:
    async with bench(time_skipping_env.client, agent()) as call:
        await call.start()
        await call.begin()
        await call.handle.signal("end", VOICELESS)
        assert (await call.result()).outcome == "completed"
        assert call.outside.carrier_said == [SORRY]
        assert call.outside.hung_up == [call.call_id]


async def test_the_caller_leaves_meanwhile(client: Client) -> None:
    async with bench(client, agent()) as call:
        await call.begin()
        await call.handle.signal("end", VOICELESS)
        await call.hang_up()
        assert (await call.result()).outcome == "completed"
        assert call.outside.carrier_said == []
        assert call.outside.hung_up == []


async def test_nothing_to_say(client: Client) -> None:
    async with bench(client, agent()) as call:
        await call.begin()
        await call.handle.signal("end", {"say": "", "by_carrier": True})

        async def hung_up() -> Any:
            return call.outside.hung_up

        await until(hung_up)
        await call.hang_up()
        await call.result()
        assert call.outside.carrier_said == []


async def test_of_a_call_that_we_placed(client: Client) -> None:
    async with bench(client, agent(), dial=Dial()) as call:
        await call.start()
        await call.event("call_dialled")
        await call.answered()
        await call.open()
        await call.handle.signal("end", VOICELESS)
        await closed(call)
        await call.stream_ends("closed")
        step = await call.next_step(carrier_call_id=LEG)
        assert (step.action, step.say) == ("hangup", SORRY)
        await call.carrier("completed", carrier_call_id=LEG)
        await call.result()
        assert call.outside.hung_up == []


# --- a goodbye that the bridge should have said ------------------------------------------------------------


async def test_the_bridge_dies_when_it_has_said_goodbye(client: Client) -> None:
    """It had recorded that, but the workflow has no answer: none is waited for, and nothing is said twice."""
    async with bench(client, agent()) as call:
        call.outside.never_answers = True
        await call.begin()
        await call.handle.signal("end")
        await closed(call)
        await call.stream_ends("closed")
        await call.handle.signal("bridge_lost", call.bridge_id)

        async def hung_up() -> bool:
            return bool(call.outside.hung_up)

        await until(hung_up)
        await call.carrier("completed")
        assert (await call.result()).outcome == "completed"
        assert call.outside.carrier_said == []


async def test_the_bridge_dies_while_it_should_say_goodbye(client: Client) -> None:
    async with bench(client, agent()) as call:
        await call.admit()
        await call.open(bridge_id="dead")
        await call.handle.signal("end")
        await call.handle.signal("bridge_lost", "dead")
        await carrier_said(call, "Goodbye.")
        await call.carrier("completed")
        assert (await call.result()).outcome == "completed"
        assert call.outside.hung_up == []


async def test_ended_while_the_caller_is_fetched_back(client: Client) -> None:
    async with bench(client, agent()) as call:
        await call.begin()
        await call.stream_ends("lost")
        await call.handle.signal("end", "We call you back.")
        await carrier_said(call, "We call you back.")
        await call.carrier("completed")
        assert (await call.result()).outcome == "completed"


async def test_people_who_talk_to_each_other_hear_no_goodbye(client: Client) -> None:
    async with bench(client, agent()) as call:
        await call.begin()
        await call.handle.signal("transfer", "+15551234567")
        await closed(call)
        await call.stream_ends("closed")
        assert (await call.next_step()).action == "dial"
        await call.handle.signal("end")

        async def hung_up() -> bool:
            return call.outside.hung_up == [call.call_id]

        await until(hung_up)
        await call.carrier("completed")
        assert (await call.result()).outcome == "completed"
        assert call.outside.carrier_said == []


async def test_the_carrier_asks_since_the_bridge_died_over_its_goodbye(client: Client) -> None:
    """The stream breaks and the carrier asks at once; nobody knows yet that the bridge is dead."""
    async with bench(client, agent(), bridge=False) as call:
        await call.begin()
        await call.handle.signal("end")
        assert (await call.next_step()).say == "Goodbye."
        # It did not get the answer and asks again.
        assert (await call.next_step("n2")).say == "Goodbye."
        await call.handle.signal("bridge_lost", call.bridge_id)
        await call.carrier("completed")
        assert (await call.result()).outcome == "completed"
        assert call.outside.hung_up == []
        assert call.outside.carrier_said == []


async def test_the_stream_breaks_over_the_goodbye(client: Client) -> None:
    """The bridge lives and answers that the session is closed, which it is."""
    async with bench(client, agent(), bridge=False) as call:
        await call.begin()
        await call.handle.signal("end")
        await call.stream_ends("lost")
        async with bridge_worker(client, call.bridge_id, call.outside):
            await carrier_said(call, "Goodbye.")
            await call.carrier("completed")
            assert (await call.result()).outcome == "completed"
        assert call.outside.hung_up == []


async def test_a_goodbye_that_was_heard_is_not_said_again(client: Client) -> None:
    async with bench(client, agent()) as call:
        await call.begin()
        await call.handle.signal("end")
        await closed(call)
        await call.stream_ends("closed")
        assert (await call.next_step()).say == ""
        assert (await call.next_step("n2")).say == ""
        await call.carrier("completed")
        await call.result()
        assert [c.say for c in call.outside.closed] == ["Goodbye."]


async def test_who_was_asked_to_wait_after_the_goodbye_hears_another(client: Client) -> None:
    """Temporal was slow: the carrier asked what comes next, and said "one moment" meanwhile."""
    async with bench(client, agent(), bridge=False) as call:
        await call.begin()
        await call.handle.signal("end")
        assert (await call.next_step(held=True)).say == "Goodbye."
        async with bridge_worker(client, call.bridge_id, call.outside):
            await closed(call)
            await call.stream_ends("closed")
            assert (await call.next_step("n2", held=True)).say == "Goodbye."
            await call.carrier("completed")
            assert (await call.result()).outcome == "completed"
        assert call.outside.hung_up == []


async def test_the_answer_to_the_carrier_came_too_late(client: Client) -> None:
    """It said "one moment" meanwhile, and asks again. We do not hang up before that."""
    async with bench(client, agent(), bridge=False) as call:
        await call.begin()
        await call.handle.signal("end")
        await call.next_step()
        await call.stream_ends("closed")
        async with bridge_worker(client, call.bridge_id, call.outside):
            await closed(call)
            await asyncio.sleep(1)
            assert call.outside.hung_up == []
            assert (await call.next_step("n2", held=True)).say == "Goodbye."
            await call.carrier("completed")
            assert (await call.result()).outcome == "completed"
        assert call.outside.hung_up == []


async def test_the_carrier_was_told_to_hang_up_and_does_not(time_skipping_env: WorkflowEnvironment) -> None:
    async with bench(time_skipping_env.client, agent(), bridge=False) as call:
        await call.start()
        await call.begin()
        await call.handle.signal("end")
        await call.next_step()
        await call.stream_ends("closed")
        async with bridge_worker(time_skipping_env.client, call.bridge_id, call.outside):
            assert (await call.result()).outcome == "completed"
        assert call.outside.hung_up == [call.call_id]


# --- a goodbye of the model's own ---------------------------------------------------------------------------


async def test_the_model_has_said_goodbye(client: Client) -> None:
    async with bench(client, agent()) as call:
        await call.begin()
        assert (await call.tool("end_call")).status == "succeeded"
        await closed(call)
        await call.stream_ends("closed")
        assert (await call.next_step()).say == ""
        await call.carrier("completed")
        await call.result()
        assert [c.say for c in call.outside.closed] == [""]


async def test_the_bridge_dies_over_the_models_goodbye(client: Client) -> None:
    async with bench(client, agent(), bridge=False) as call:
        await call.begin()
        await call.tool("end_call")
        assert (await call.next_step()).say == "Goodbye."
        await call.handle.signal("bridge_lost", call.bridge_id)
        await call.carrier("completed")
        assert (await call.result()).outcome == "completed"
        assert call.outside.hung_up == []


async def test_the_bridge_dies_over_the_models_goodbye_and_the_carrier_does_not_ask(client: Client) -> None:
    async with bench(client, agent(), bridge=False) as call:
        await call.begin()
        await call.tool("end_call")
        await call.handle.signal("bridge_lost", call.bridge_id)
        await carrier_said(call, "Goodbye.")
        await call.carrier("completed")
        assert (await call.result()).outcome == "completed"
        assert call.outside.hung_up == []


async def test_the_model_said_goodbye_in_a_session_that_is_gone(client: Client) -> None:
    """The caller is with another bridge already when the old one's request comes through."""
    async with bench(client, agent()) as call:
        await call.begin()
        await call.stream_ends("lost")
        assert (await call.next_step("t2")).action == "connect"
        await call.open("t2", stream="MZ2")
        await call.tool("end_call")
        await closed(call)
        await call.stream_ends("closed", session=2)
        await call.carrier("completed")
        await call.result()
        assert [(c.session, c.say) for c in call.outside.closed] == [(2, "Goodbye.")]
