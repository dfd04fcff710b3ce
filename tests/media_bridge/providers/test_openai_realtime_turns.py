"""OpenAIRealtime against a wire-level OpenAI: interruptions, what the model remembers, who answers, and tools."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from media_bridge.providers.base import (
    LlmUsage,
    ResponseDone,
    ResponseStarted,
    SpeechStarted,
    SpeechStopped,
    ToolCallDelta,
)
from stayline.models import ToolCall, ToolMessage
from tests.fakes.llm import Call, Part, Say, Wait
from tests.fakes.openai_realtime import Asked, Reply, obey
from tests.media_bridge.providers.openai_line import Line, in_order, line, saying
from tests.media_bridge.providers.realtime import calls_of, hear, speak, text_of, turn
from tests.media_bridge.providers.speech import until

# --- interruptions and memory ----------------------------------------------------------------------------


async def test_an_interrupted_response_is_cut_in_its_memory() -> None:
    go = asyncio.Event()
    reply = in_order([Say("Seven plumbers are on"), Wait(go), Say("never said")], [Say("Yes?")])
    async with line(reply, hears=["Stop."]) as talk:
        await talk.session.respond()
        events = await hear(talk.session, ResponseStarted)
        name = talk.last
        await until(lambda: talk.there.memory == [("assistant", "Seven plumbers are on")])
        await speak(talk.session, turn(300))
        events = await hear(talk.session, ResponseDone)
        assert events[-1] == ResponseDone(name, "cancelled")
        assert SpeechStarted(400) in events
        await talk.session.truncate(name, 14 * 60)
        await hear(talk.session, ResponseDone)
        await until(lambda: talk.there.memory[0] == ("assistant", "Seven plumbers"))
        assert ("user", "Stop.") in talk.there.memory


async def test_a_response_that_is_complete_is_cut_too_while_it_is_played() -> None:
    async with line() as talk:
        await talk.session.say("We are open from eight to six.")
        await hear(talk.session, ResponseDone)
        await talk.session.truncate(talk.last, 11 * 60)
        await until(lambda: talk.there.memory == [("assistant", "We are open")])


async def test_what_was_heard_whole_is_left_and_what_nobody_heard_is_forgotten() -> None:
    reply = saying(Say("Let me see."), Say("It is sunny."))  # 660 and 720 ms
    for heard_ms, memory in [
        (1380, ["Let me see.", "It is sunny."]),
        (660 + 300, ["Let me see.", "It is"]),
        (660, ["Let me see."]),
        (180, ["Let"]),
        (0, []),
        (9999, ["Let me see.", "It is sunny."]),
    ]:
        async with line(reply) as talk:
            await talk.session.respond()
            await hear(talk.session, ResponseDone)
            await talk.session.truncate(talk.last, heard_ms)
            await talk.session.note("done")
            await until(lambda talk=talk: ("system", "done") in talk.there.memory)  # type: ignore[misc]
            assert [text for _, text in talk.there.memory[:-1]] == memory
            await talk.session.truncate("resp_of_another_session", 10)


async def test_a_cancelled_response_says_no_more() -> None:
    go = asyncio.Event()
    async with line(saying(Say("One."), Wait(go), Say("Two."))) as talk:
        await talk.session.respond()
        await hear(talk.session, ResponseStarted)
        await talk.session.cancel()
        await talk.session.cancel()
        assert await hear(talk.session, ResponseDone) == [
            LlmUsage(100, 1),
            ResponseDone(talk.last, "cancelled"),
        ]
        await talk.session.cancel()  # nothing is under way
        assert talk.count("response.cancel") == 1


async def test_a_response_that_has_not_begun_can_be_cancelled() -> None:
    async with line() as talk:
        await talk.session.say("Nobody hears this.")
        await talk.session.cancel()
        await talk.session.say("Goodbye.")
        events = await hear(talk.session, ResponseDone, 2)
        assert [e.status for e in events if isinstance(e, ResponseDone)] == ["cancelled", "completed"]
        assert text_of(events) == "Goodbye."


def answering(until: asyncio.Event, when_asked: Reply = obey) -> Reply:
    """What nobody asked for lasts until the event is set."""
    return lambda asked: when_asked(asked) if asked["response"] else [Say("Well."), Wait(until)]


async def _ended_turn(talk: Line) -> None:
    """The caller's turn is over, OpenAI has begun to answer, and the adapter does not know it yet."""
    await speak(talk.session, turn())
    await hear(talk.session, SpeechStopped)
    await until(lambda: talk.there.memory[-1] == ("assistant", "Well."))


async def test_what_is_to_be_said_when_an_answer_begins_by_itself_is_given_back() -> None:
    """When the answer that was in its way has ended, the wish counts as cancelled: whoever has it decides whether
    the caller speaks meanwhile, and asks again."""
    go = asyncio.Event()
    async with line(answering(go), hears=["Hello?"], refused=1) as talk:
        await _ended_turn(talk)
        await talk.session.say("We close in five minutes.")
        await until(lambda: bool(talk.there.refused))
        go.set()
        events = await hear(talk.session, ResponseDone, 2)
        first, second = (e for e in events if isinstance(e, ResponseStarted))
        assert (first.by_itself, second.by_itself) == (True, False)
        assert text_of(events) == text_of(events, first.response) == "Well."
        assert events[-1] == ResponseDone(second.response, "cancelled")
        await talk.session.say("We close in five minutes.")
        events = await hear(talk.session, ResponseDone)
        assert ResponseStarted(talk.last) in events
        assert text_of(events) == "We close in five minutes."


async def test_results_that_come_when_an_answer_begins_by_itself_are_told_after_it() -> None:
    go = asyncio.Event()
    async with line(answering(go, after_tools(Call("end_call", id="call_a"))), hears=["Hm?"], refused=1) as talk:
        await talk.session.respond()
        await hear(talk.session, ResponseDone)
        await _ended_turn(talk)
        await talk.session.tool_result(_result("call_a", "Done."), respond=True)
        await until(lambda: bool(talk.there.refused))
        go.set()
        assert text_of(await hear(talk.session, ResponseDone, 2)) == "Well.Done."


async def test_an_answer_that_is_asked_for_when_it_begins_by_itself_is_given_once() -> None:
    go = asyncio.Event()
    async with line(answering(go), hears=["Hello?"], refused=1) as talk:
        await _ended_turn(talk)
        await talk.session.respond()
        await until(lambda: bool(talk.there.refused))
        go.set()
        assert text_of(await hear(talk.session, ResponseDone)) == "Well."
        await talk.session.say("And?")
        assert text_of(await hear(talk.session, ResponseDone)) == "And?"


async def test_a_wish_that_comes_when_the_answer_is_over_is_heard_after_it() -> None:
    """All of that answer is still to be read; it is not taken for ours."""
    async with line(hears=["Hello?"]) as talk:
        await speak(talk.session, turn())
        await hear(talk.session, SpeechStopped)
        await until(lambda: bool(talk.there.responses) and not talk.there.speaking)
        await talk.session.say("We close in five minutes.")
        events = await hear(talk.session, ResponseDone, 2)
        assert [e.by_itself for e in events if isinstance(e, ResponseStarted)] == [True, False]
        assert text_of(events, talk.last) == "We close in five minutes."


# --- tools -----------------------------------------------------------------------------------------------


def after_tools(*calls: Call) -> Reply:
    """Ask for the tools; once asked again, tell all results."""

    def reply(asked: Asked) -> Sequence[Part]:
        results = [text for kind, text in asked["memory"] if kind == "function_call_output"]
        return [Say(" ".join(results))] if results else calls

    return reply


async def test_a_tool_is_asked_for_and_its_result_is_told() -> None:
    call = Call("get_weather", {"location": "Rome"}, id="call_a")
    async with line(after_tools(call)) as talk:
        await talk.session.respond()
        (asked,) = calls_of(await hear(talk.session, ResponseDone))
        assert asked.call == ToolCall(id="call_a", name="get_weather", arguments={"location": "Rome"})
        assert asked.malformed is None
        await talk.session.tool_result(_result("call_a", '"sunny"'), respond=True)
        assert text_of(await hear(talk.session, ResponseDone)) == '"sunny"'


async def test_parallel_tools_are_answered_once_all_have_results() -> None:
    calls = [Call("get_weather", {"location": place}, id=place) for place in ("Rome", "Oslo", "Bonn")]
    async with line(after_tools(*calls)) as talk:
        await talk.session.respond()
        assert [c.call.id for c in calls_of(await hear(talk.session, ResponseDone))] == ["Rome", "Oslo", "Bonn"]
        await talk.session.tool_result(_result("Oslo", "cold"), respond=False)
        await talk.session.tool_result(_result("Rome", "warm"), respond=False)
        await talk.session.tool_result(_result("Bonn", "wet"), respond=True)
        assert text_of(await hear(talk.session, ResponseDone)) == "cold warm wet"
        assert talk.count("response.create") == 2


async def test_a_result_may_come_while_the_response_that_asked_for_it_goes_on() -> None:
    go = asyncio.Event()

    def reply(asked: Asked) -> Sequence[Part]:
        if ("function_call_output", "done") in asked["memory"]:
            return [Say("Booked.")]
        return [Call("end_call", "not JSON", id="call_a"), Wait(go), Say("Let me see.")]

    async with line(reply) as talk:
        await talk.session.respond()
        events = await hear(talk.session, ToolCallDelta)
        assert calls_of(events)[0].malformed == "not JSON"
        assert calls_of(events)[0].call.arguments == {}
        await talk.session.tool_result(_result("call_a", "done"), respond=True)
        await until(lambda: ("function_call_output", "done") in talk.there.memory)
        go.set()
        assert text_of(await hear(talk.session, ResponseDone, 2)) == "Let me see.Booked."


async def test_it_speaks_while_a_tool_runs() -> None:
    def reply(asked: Asked) -> Sequence[Part]:
        return obey(asked) if asked["response"].get("instructions") else after_tools(Call("end_call"))(asked)

    async with line(reply) as talk:
        await talk.session.respond()
        (call,) = calls_of(await hear(talk.session, ResponseDone))
        await talk.session.say("One moment, please.")
        assert text_of(await hear(talk.session, ResponseDone)) == "One moment, please."
        await talk.session.tool_result(_result(call.call.id, "Done."), respond=True)
        assert text_of(await hear(talk.session, ResponseDone)) == "Done."


async def test_a_call_that_was_cut_in_the_middle_is_none() -> None:
    started = asyncio.Event()

    def reply(asked: Asked) -> Sequence[Part]:
        return [Say("Well."), Wait(started), Call("get_weather", {"location": "Rome"})]

    async with line(reply, hears=["Stop."]) as talk:
        await talk.session.respond()
        await hear(talk.session, ResponseStarted)
        started.set()
        await talk.session.cancel()
        assert calls_of(await hear(talk.session, ResponseDone)) == []


def _result(call_id: str, content: str) -> ToolMessage:
    return ToolMessage(tool_call_id=call_id, name="get_weather", content=content)
