"""Checks of every model that hears and speaks: its tools, its memory, and what goes wrong."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from media_bridge.providers.base import (
    CallerTranscript,
    ResponseDone,
    ResponseStarted,
    ToolCallDelta,
)
from stayline.errors import ProviderError
from stayline.models import AgentMessage, ToolCall, ToolMessage, UserMessage
from tests.conformance.realtime_benches import MS_PER_CHAR, RealtimeBench
from tests.conformance.realtime_suite import SUITE, Line, line, of
from tests.fakes import misbehaviour
from tests.fakes.llm import Call, Part, Say
from tests.media_bridge.providers.llm import CONVERSATION
from tests.media_bridge.providers.realtime import calls_of, text_of
from tests.media_bridge.providers.speech import until

WEATHER_IN_ROME = "What is the weather in Rome right now?"

# --- tools -----------------------------------------------------------------------------------------------


def using(bench: RealtimeBench, *calls: Call, result: str) -> None:
    """The fake asks for these tools, and says the result once it knows it."""

    def reply(known: str) -> Sequence[Part]:
        return [Say(f"It is {result}.")] if result in known else calls

    bench.reply = reply


def answer(call: ToolCall, content: str, *, is_error: bool = False) -> ToolMessage:
    return ToolMessage(tool_call_id=call.id, name=call.name, content=content, is_error=is_error)


async def asked_for(call: Line, count: int = 1) -> list[ToolCallDelta]:
    """The caller asks, and the model calls."""
    await call.caller(WEATHER_IN_ROME)
    events = await call.hear(ToolCallDelta, count=count)
    await call.hear(ResponseDone)  # the response that asked for the last one
    return calls_of(events)


@SUITE.check(live=True)
async def a_tool_round_trip(bench: RealtimeBench) -> None:
    """A tool is asked for, and its result is spoken of."""
    using(bench, Call("get_weather", {"location": "Rome"}, id="call_1"), result="sunny")
    async with line(bench) as call:
        (asked,) = await asked_for(call)
        assert (asked.call.name, asked.malformed) == ("get_weather", None)
        assert "Rome" in str(asked.call.arguments["location"])
        await call.session.tool_result(answer(asked.call, '"sunny"'), respond=True)
        assert "sunny" in text_of(await call.hear(ResponseDone)).lower()


@SUITE.check()
async def parallel_calls(bench: RealtimeBench) -> None:
    """Two tools at once, each with its own id and arguments; one answer when both have results."""
    places = ("Rome", "Oslo")
    using(bench, *(Call("get_weather", {"location": place}) for place in places), result="cold")
    async with line(bench) as call:
        first, second = await asked_for(call, 2)
        assert [asked.call.arguments for asked in (first, second)] == [{"location": place} for place in places]
        assert first.call.id != second.call.id
        await call.session.tool_result(answer(first.call, '"warm"'), respond=False)
        await call.session.tool_result(answer(second.call, '"cold"'), respond=True)
        events = await call.hear(ResponseDone)
        assert len(of(events, ResponseStarted)) == 1
        assert text_of(events) == "It is cold."
        assert "warm" in bench.there.known()


@SUITE.check()
async def malformed_arguments(bench: RealtimeBench) -> None:
    """Arguments that are no JSON object are told as such, and the tool can be answered."""
    using(bench, Call("get_weather", "in Rome"), result="no such place")
    async with line(bench) as call:
        (asked,) = await asked_for(call)
        assert asked.call.arguments == {}
        assert asked.malformed is not None
        assert "in Rome" in asked.malformed
        await call.session.tool_result(answer(asked.call, "no such place", is_error=True), respond=True)
        assert text_of(await call.hear(ResponseDone)) == "It is no such place."


@SUITE.check()
async def a_tool_that_failed(bench: RealtimeBench) -> None:
    """The error of a tool is known to the model, which goes on."""
    using(bench, Call("get_weather", {"location": "Atlantis"}), result="no such place")
    async with line(bench) as call:
        (asked,) = await asked_for(call)
        await call.session.tool_result(answer(asked.call, "no such place", is_error=True), respond=True)
        assert text_of(await call.hear(ResponseDone)) == "It is no such place."


@SUITE.check()
async def it_speaks_while_a_tool_runs(bench: RealtimeBench) -> None:
    """Where it can, it says something while a tool runs, and the result is still taken."""
    using(bench, Call("get_weather", {"location": "Rome"}), result="sunny")
    async with line(bench) as call:
        assert call.profile.speaks_during_tools
        (asked,) = await asked_for(call)
        await call.session.say("One moment, please.")
        assert text_of(await call.hear(ResponseDone)) == "One moment, please."
        await call.session.tool_result(answer(asked.call, '"sunny"'), respond=True)
        assert text_of(await call.hear(ResponseDone)) == "It is sunny."


# --- memory ----------------------------------------------------------------------------------------------


@SUITE.check()
async def everything_a_history_can_hold(bench: RealtimeBench) -> None:
    """Turns, cut turns, calls, failed results and notes of before are known, and not answered by themselves."""
    async with line(bench, *CONVERSATION) as call:
        await call.session.say("Hello again.")
        events = await call.hear(ResponseDone)
        assert len(of(events, ResponseStarted)) == 1
        assert text_of(events) == "Hello again."
        for text in ("Only Oslo please.", "In Rome it is", "sunny", "no such place", "The caller pressed 1."):
            assert text in bench.there.known()


@SUITE.check(live=True)
async def a_history_is_used(bench: RealtimeBench) -> None:
    """What was said before is there for the next answer."""
    bench.reply = lambda known: [Say("Your name is Albert." if "Albert" in known else "Who are you?")]
    messages = (UserMessage(text="Hi, my name is Albert."), AgentMessage(text="Hello! How can I help?"))
    async with line(bench, *messages) as call:
        assert "Albert" in text_of(await call.ask("What is my name?"))


@SUITE.check()
async def a_note(bench: RealtimeBench) -> None:
    """A note is known, and not answered by itself."""
    async with line(bench) as call:
        await call.session.note("The caller pressed 1.")
        await call.session.say("Thank you.")
        events = await call.hear(ResponseDone)
        assert len(of(events, ResponseStarted)) == 1
        assert text_of(events) == "Thank you."
        await until(lambda: "The caller pressed 1." in bench.there.known())


@SUITE.check(live=True)
async def it_goes_on_when_asked(bench: RealtimeBench) -> None:
    """Asked to answer, it answers what it was told meanwhile."""
    bench.reply = lambda known: [Say("You have pressed seven." if "7" in known else "Yes?")]
    async with line(bench) as call:
        await call.session.note("The caller pressed the key 7. Tell the caller which key it was.")
        await call.session.respond()
        text = text_of(await call.hear(ResponseDone)).lower()
        assert "seven" in text or "7" in text


@SUITE.check()
async def what_was_not_heard_is_forgotten(bench: RealtimeBench) -> None:
    """Where its memory can be cut, it holds of a response what the caller heard."""
    async with line(bench) as call:
        assert call.profile.can_truncate
        await call.session.say("We are open from eight to six.")
        (started,) = of(await call.hear(ResponseDone), ResponseStarted)
        await call.session.truncate(started.response, len("We are open") * MS_PER_CHAR)
        await until(lambda: bench.there.known() == "We are open")


@SUITE.check()
async def what_it_cannot_do_does_nothing(bench: RealtimeBench) -> None:
    """`cancel` and `truncate` are harmless where nothing is under way, whatever the vendor can."""
    async with line(bench) as call:
        await call.session.cancel()
        await call.session.truncate("unknown", 100)
        await call.session.say("Hello.")
        assert text_of(await call.hear(ResponseDone)) == "Hello."


@SUITE.check(live=True)
async def a_session_is_taken_up_again(bench: RealtimeBench) -> None:
    """Where it can, a new session takes up the conversation of an old one by its handle."""
    bench.reply = lambda known: [Say("Your name is Albert." if "Albert" in known else "Who are you?")]
    async with line(bench) as old:
        assert old.profile.can_resume
        assert old.session.handle == ""
        await old.ask("My name is Albert.", CallerTranscript)
        await until(lambda: bool(old.session.handle))
        handle = old.session.handle
    async with line(bench, UserMessage(text="Only Oslo please."), resume=handle) as new:
        assert "Albert" in text_of(await new.ask("What is my name?"))
        if bench.vendor is not None:
            assert "Only Oslo please." not in bench.vendor.known()


# --- what goes wrong -------------------------------------------------------------------------------------


@SUITE.check()
async def a_lost_connection_in_mid_response(bench: RealtimeBench) -> None:
    """A connection cut, or a message cut, in mid-response is an error that may pass, and stays one."""
    for fault in (misbehaviour.disconnect, misbehaviour.half_message):
        bench.there.fake.misbehave(fault(after=bench.there.greeting + 9))
        async with line(bench) as call:
            await call.session.say("Your order left our warehouse on Tuesday, and it will arrive on Friday.")
            with pytest.raises(ProviderError) as caught:
                await call.hear(ResponseDone)
            assert caught.value.retryable
            with pytest.raises(ProviderError):
                await call.session.say("Are you there?")
            with pytest.raises(ProviderError):
                await call.hear(ResponseDone)


@SUITE.check()
async def an_unknown_message(bench: RealtimeBench) -> None:
    """A message of a kind that nobody knows, and one that is none, are passed over."""
    for fault in (misbehaviour.unknown_message, misbehaviour.garbage):
        bench.there.fake.misbehave(fault(after=bench.there.greeting + 2))
        async with line(bench) as call:
            await call.session.say("Hello there.")
            assert text_of(await call.hear(ResponseDone)) == "Hello there."


@SUITE.check(live=True)
async def two_calls_at_once(bench: RealtimeBench) -> None:
    """Two calls speak at once, each its own words."""
    async with line(bench) as one, line(bench, call_id="CA456") as other:
        await one.session.say("We open at eight.")
        await other.session.say("Goodbye, Albert.")
        assert "eight" in text_of(await one.hear(ResponseDone)).lower()
        assert "albert" in text_of(await other.hear(ResponseDone)).lower()
