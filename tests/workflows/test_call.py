"""A call's ordinary life: admission, sessions, records, commands, the end."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from temporalio.client import Client

from stayline import CallInfo, RejectCall
from stayline.messages import EndCall, SayText, TransferCall
from stayline.timeline import Dtmf, SessionClosed, TurnLatency
from tests.conftest import SCRIPTS
from tests.workflows.bench import agent, bench, refused, said, until, user
from workflows.call import CallWorkflow


async def test_a_call_from_webhook_to_record(client: Client) -> None:
    async with bench(client, agent()) as call:
        grant = await call.begin()
        assert grant.session == 1
        assert not grant.resumed
        assert 1790 < grant.seconds_left <= 1800
        latency = TurnLatency(endpoint_ms=300, llm_ms=200, tts_ms=100, total_ms=650)
        await call.record(user("Hello", speech_ms=400), said("Hi!", latency=latency, speech_ms=300))
        await call.status("active")
        await call.hang_up()
        result = await call.result()
        assert result.outcome == "caller_hung_up"
        assert result.metrics.turn_count == 2
        assert result.metrics.avg_stt_latency_ms == 300
        assert result.metrics.max_total_latency_ms == 650
        assert call.outside.hung_up == []
        [record] = call.outside.saved
        assert record.final
        assert record.snapshot.status == "ended"
        assert [e.event.type for e in record.timeline] == [
            "call_admitted",
            "session_opened",
            "user_turn",
            "agent_turn",
            "session_closed",
            "call_ended",
        ]
        description = await call.handle.describe()
        attributes = {pair.key.name: pair.value for pair in description.typed_search_attributes}
        assert (attributes["CallStatus"], attributes["CallOutcome"]) == ("ended", "caller_hung_up")


async def test_a_repeated_webhook_is_the_same_call(client: Client) -> None:
    asked: list[str] = []
    desk = agent()

    @desk.on_call
    async def policy(info: CallInfo) -> None:
        asked.append(info.call_id)

    async with bench(client, desk) as call:
        assert (await call.admit("t1")).accepted
        assert (await call.admit("t2")).accepted
        assert asked == [call.call_id]
        assert (await call.open("t2")).session == 1
        assert (await refused(call.open("t1"))).type == "BadToken"
        await call.hang_up()
        await call.result()


async def test_tokens_are_good_once(client: Client) -> None:
    async with bench(client, agent()) as call:
        await call.admit("t1")
        assert (await refused(call.open("forged"))).type == "BadToken"
        await call.open("t1")
        assert (await refused(call.open("t1", "MZ2"))).type == "BadToken"
        await call.admit("t1")
        assert (await refused(call.open("t1", "MZ2"))).type == "BadToken"
        await call.hang_up()
        await call.result()


async def test_a_call_that_is_ending_takes_no_stream(client: Client) -> None:
    async with bench(client, agent()) as call:
        await call.begin()
        await call.next_step("t2")
        await call.handle.signal("end")
        await call.status("ending")
        assert (await refused(call.open("t2"))).type == "CallOver"
        assert (await call.next_step("t3")).action == "hangup"
        await call.carrier("completed")
        await call.stream_ends()
        assert (await call.result()).outcome == "completed"


async def test_a_rejected_call(client: Client) -> None:
    desk = agent()

    @desk.on_call
    def policy(info: CallInfo) -> None:
        raise RejectCall("We are closed.")

    async with bench(client, desk) as call:
        admission = await call.admit()
        assert (admission.accepted, admission.say) == (False, "We are closed.")
        assert (await call.result()).outcome == "rejected"
        assert call.outside.hung_up == []
        assert call.outside.saved[-1].snapshot.outcome == "rejected"


async def test_a_policy_that_crashes_is_an_apology(client: Client) -> None:
    desk = agent(apology_text="So sorry.")

    @desk.on_call
    def policy(info: CallInfo) -> None:
        raise ZeroDivisionError

    async with bench(client, desk) as call:
        admission = await call.admit()
        assert (admission.accepted, admission.say) == (False, "So sorry.")
        assert (await call.result()).outcome == "rejected"


async def test_records_once_each_whatever_order(client: Client) -> None:
    async with bench(client, agent()) as call:
        await call.begin()
        one, two, three, four, five = (user(word) for word in ("one", "two", "three", "four", "five"))
        await call.record(one, first_seq=1)
        await call.record(one, two, first_seq=1)
        await call.record(five, first_seq=5)
        await call.record(four, first_seq=4)
        await call.record(four, first_seq=4)
        await call.record(user("six"), session=9, first_seq=1)
        texts = [e.event.text for e in await call.timeline("user_turn")]  # type: ignore[union-attr]
        assert texts == ["one", "two", "five", "four"]
        [gap] = await call.timeline("gap")
        assert (gap.event.first, gap.event.last) == (3, 4)  # type: ignore[union-attr]
        assert "session 9" in (await call.event("error")).message
        await call.record(three, first_seq=3)
        await call.next_step("t2")
        await call.stream_ends()
        grant = await call.open("t2")
        said_by_user = [m.text for m in grant.messages if m.role == "user"]
        assert said_by_user == ["one", "two", "three", "four", "five"]
        await call.hang_up(session=2)
        await call.result()


async def test_late_records_of_a_lost_session_count(client: Client) -> None:
    async with bench(client, agent()) as call:
        await call.begin()
        await call.record(user("before"))
        await call.handle.signal("bridge_lost", call.bridge_id)
        await call.next_step("t2")
        await call.open("t2")
        await call.record(user("after"), session=2)
        await call.record(said("spooled"), Dtmf(at=datetime.now(UTC), digit="5"), session=1)
        await call.next_step("t3")
        await call.stream_ends(session=2)
        grant = await call.open("t3")
        assert [m.text for m in grant.messages if m.role != "tool"] == [
            "before",
            "spooled",
            "The caller pressed 5.",
            "after",
        ]
        await call.hang_up(session=3)
        await call.result()


async def test_bad_signals_hurt_nobody(client: Client) -> None:
    async with bench(client, agent()) as call:
        await call.begin()
        for name in ("record", "carrier_status", "bridge_lost", "end", "transfer", "say", "approve"):
            await call.handle.signal(name, args=[{"nonsense": [1]}, 7])
            await call.handle.signal(name, 12.5)
        await call.handle.signal("transfer")
        await call.handle.signal("transfer", "123")
        await call.handle.signal("say", "  ")
        await call.record(user("still here"))
        snapshot = await call.snapshot()
        assert snapshot.metrics.user_turn_count == 1
        assert snapshot.metrics.error_count >= 14
        # An unknown key is ignored, so the first `end` is a valid one.
        await call.carrier("completed")
        await call.stream_ends()
        await call.result()


async def test_temporals_own_cli_steers_a_call(client: Client) -> None:
    async def cli(*arguments: str) -> None:
        address = client.service_client.config.target_host
        target = ("--address", address, "--workflow-id", call.handle.id)
        process = await asyncio.create_subprocess_exec(
            str(SCRIPTS / "temporal"), "workflow", "signal", *target, *arguments, stdout=asyncio.subprocess.DEVNULL
        )
        assert await process.wait() == 0

    async with bench(client, agent()) as call:
        await call.begin()
        await cli("--name", "transfer", "--input", '{"to": "nonsense"}')
        await cli("--name", "transfer", "--input", '"+15551234567"')
        await call.status("transferring")
        assert "nonsense" in (await call.event("error")).message
        await cli("--name", "end")
        await call.carrier("completed")
        await call.stream_ends()
        assert (await call.result()).outcome == "completed"
        words = [(e.event.command, e.event.by) for e in await call.timeline("commanded")]  # type: ignore[union-attr]
        assert words == [("transfer", "signal"), ("end", "signal")]


async def test_commands_as_updates(client: Client) -> None:
    async with bench(client, agent()) as call:
        await call.admit()
        assert (
            "not active"
            in (
                await refused(
                    call.handle.execute_update(CallWorkflow.transfer_update, TransferCall(to="+15551234567"))
                )
            ).message
        )
        await call.open()
        for wrong in ("123", "tel:+15551234567", "", "+1555123456789012"):
            error = await refused(call.handle.execute_update("transfer", TransferCall(to=wrong)))
            assert error.type == "Refused"
        assert (await refused(call.handle.execute_update("say", SayText(text=" ")))).type == "Refused"
        accepted = await call.handle.execute_update(
            CallWorkflow.say_update, SayText(text="A colleague listens in.", by="ana")
        )
        assert (await call.timeline())[accepted.index].event.by == "ana"  # type: ignore[union-attr]

        async def spoken() -> bool:
            return bool(call.outside.spoken)

        await until(spoken)
        assert call.outside.spoken[0].text == "A colleague listens in."
        await call.handle.execute_update(CallWorkflow.end_update, EndCall(say="Bye now.", by="ana", why="test"))
        assert (await refused(call.handle.execute_update("end", EndCall()))).message == "the call is over"
        await call.carrier("completed")
        await call.stream_ends()
        assert (await call.result()).outcome == "completed"
        assert call.outside.closed[0].say == "Bye now."
        assert call.outside.saved[-1].timeline[-1].event.by == "ana"  # type: ignore[union-attr]


async def test_a_session_on_another_stream_is_replaced(client: Client) -> None:
    async with bench(client, agent()) as call:
        await call.begin()
        await call.admit("t2")
        grant = await call.open("t2", "MZ2")
        assert grant.session == 2
        assert grant.resumed

        async def closed() -> bool:
            return any(c.reason == "replaced" and c.session == 1 for c in call.outside.closed)

        await until(closed)
        # What the old one still says is taken, and does not detach the new one.
        await call.record(SessionClosed(at=datetime.now(UTC), session=1, reason="closed"))
        assert (await call.snapshot()).status == "active"
        await call.hang_up(session=2)
        await call.result()


async def test_a_cancelled_workflow_says_goodbye(client: Client) -> None:
    async with bench(client, agent()) as call:
        await call.begin()
        await call.handle.cancel()
        await call.status("ending")
        await call.carrier("completed")
        await call.stream_ends()
        assert (await call.result()).outcome == "completed"
        assert call.outside.saved[-1].final
