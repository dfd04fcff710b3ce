"""Every language model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, cast

import pytest

from media_bridge.providers.base import LlmEvent, TextDelta
from stayline.errors import ConfigError, ProviderError
from stayline.models import AgentMessage, NoteMessage, ToolCall, ToolMessage, UserMessage
from tests.conformance.llm_benches import SUBJECTS, LlmBench
from tests.conformance.suite import Subject, Suite, run
from tests.fakes import misbehaviour
from tests.fakes.llm import Call, Say, Tokens, Wait
from tests.media_bridge.providers.llm import CONVERSATION, WEATHER, hear, request

SUITE: Suite[LlmBench] = Suite("llm", "language models", SUBJECTS)


@SUITE.check()
async def an_unknown_option(bench: LlmBench) -> None:
    """A misspelt option is refused with the right one."""
    with pytest.raises(ConfigError, match="no llm option"):
        bench.make(temperatur=1)


@SUITE.check(live=True)
async def a_wrong_key(bench: LlmBench) -> None:
    """A wrong key is final, and never in the error."""
    llm = bench.make(key="wrong-secret")
    with pytest.raises(ProviderError) as caught:
        await hear(llm, request())
    assert not caught.value.retryable
    assert "wrong-secret" not in str(caught.value)
    await llm.aclose()


@SUITE.check()
async def too_many_requests(bench: LlmBench) -> None:
    """429 with Retry-After: may pass, and when."""
    assert bench.fake is not None
    bench.fake.misbehave(misbehaviour.rate_limited(retry_after=7))
    llm = bench.make()
    with pytest.raises(ProviderError) as caught:
        await hear(llm, request())
    assert (caught.value.status, caught.value.retryable, caught.value.retry_after) == (429, True, 7)
    assert len(bench.fake.requests) == 1, "asked once: whoever asked decides"
    await llm.aclose()


@SUITE.check()
async def nobody_listens(bench: LlmBench) -> None:
    """A vendor that cannot be reached: may pass."""
    assert bench.fake is not None
    await bench.fake.refuse_connections()
    llm = bench.make()
    with pytest.raises(ProviderError) as caught:
        await hear(llm, request())
    assert caught.value.retryable
    await llm.aclose()


@SUITE.check(live=True)
async def text_comes_in_pieces(bench: LlmBench) -> None:
    """A reply comes in pieces and is whole."""
    bench.answers(Say("One, two, three, four, five."))
    llm = bench.make()
    question = UserMessage(text="Please say: One, two, three, four, five.")
    pieces = [event.text async for event in llm.stream(request(question)) if isinstance(event, TextDelta)]
    assert len(pieces) > 1
    assert "One, two, three, four, five." in "".join(pieces)
    await llm.aclose()


@SUITE.check()
async def a_reply_of_nothing(bench: LlmBench) -> None:
    """A reply without text or calls is no error."""
    bench.answers()
    llm = bench.make()
    heard = await hear(llm, request())
    assert (heard.text, heard.calls) == ("", [])
    await llm.aclose()


@SUITE.check()
async def tools_are_offered(bench: LlmBench) -> None:
    """Tools reach the vendor with their schema."""
    assert bench.fake is not None
    llm = bench.make()
    await hear(llm, request())
    assert "get_weather" in str(bench.fake.answered[0]["tools"])
    assert "location" in str(bench.fake.answered[0]["tools"])
    await llm.aclose()


@SUITE.check(live=True)
async def a_tool_round_trip(bench: LlmBench) -> None:
    """A tool is asked for, and its result is read."""
    bench.answers(Say("Let me see."), Call("get_weather", {"location": "Rome"}, id="call_1"))
    llm = bench.make()
    question = UserMessage(text="What is the weather in Rome right now?")
    heard = await hear(llm, request(question))
    (call,) = heard.calls
    assert (call.name, heard.malformed) == ("get_weather", [None])
    assert "Rome" in str(call.arguments["location"])
    bench.answers_by(lambda body: [Say("It is sunny." if '"sunny' in str(body) else "What do you mean?")])
    again = await hear(
        llm,
        request(
            question,
            AgentMessage(text=heard.text, tool_calls=(call,)),
            ToolMessage(tool_call_id=call.id, name=call.name, content='"sunny, 24 degrees"'),
        ),
    )
    assert "sunny" in again.text.lower()
    await llm.aclose()


@SUITE.check()
async def parallel_calls(bench: LlmBench) -> None:
    """Two tools at once, each with its own id and arguments."""
    bench.answers(Call("get_weather", {"location": "Rome"}), Call("get_weather", {"location": "Oslo"}))
    llm = bench.make()
    heard = await hear(llm, request())
    assert [call.arguments for call in heard.calls] == [{"location": "Rome"}, {"location": "Oslo"}]
    assert len({call.id for call in heard.calls}) == 2
    await llm.aclose()


@SUITE.check()
async def malformed_arguments(bench: LlmBench) -> None:
    """Arguments that are no JSON object are told as such."""
    bench.answers(Call("get_weather", '{"location": Rome'))
    llm = bench.make()
    heard = await hear(llm, request())
    assert (heard.calls[0].arguments, heard.malformed) == ({}, ['{"location": Rome'])
    await llm.aclose()


@SUITE.check(live=True)
async def everything_a_history_can_hold(bench: LlmBench) -> None:
    """Turns, cut turns, calls, failed results and notes are all accepted."""
    llm = bench.make()
    await hear(llm, request(*CONVERSATION))
    if bench.fake is not None:
        sent = str(bench.fake.answered[0])
        for text in ("Only Oslo please.", "In Rome it is", "no such place", "The caller pressed 1."):
            assert text in sent
    await llm.aclose()


@SUITE.check(live=True)
async def a_conversation_that_begins_with_the_agent(bench: LlmBench) -> None:
    """A history that begins or ends with the agent, or with a note, is accepted."""
    llm = bench.make()
    for messages in (
        (AgentMessage(text="Hello."),),
        (NoteMessage(text="The caller pressed 1."),),
        (UserMessage(text="Hi"), AgentMessage(text="Hello."), NoteMessage(text="Nobody answered.")),
    ):
        await hear(llm, request(*messages, tools=(WEATHER,)))
    await llm.aclose()


@SUITE.check(live=True)
async def usage_is_told(bench: LlmBench) -> None:
    """Tokens read, written, and read from a cache."""
    bench.answers(Say("Yes."), Tokens(120, 8, cached=100))
    llm = bench.make()
    (usage,) = (await hear(llm, request())).usage
    if bench.fake is not None:
        assert (usage.input_tokens, usage.output_tokens, usage.cached_tokens) == (120, 8, 100)
    assert usage.input_tokens > usage.cached_tokens >= 0
    assert usage.output_tokens > 0
    await llm.aclose()


@SUITE.check()
async def the_call_can_be_found(bench: LlmBench) -> None:
    """The request names the call, for finding it at the vendor."""
    assert bench.fake is not None
    llm = bench.make()
    await hear(llm, request())
    assert bench.reference(bench.fake.answered[0]) == "CA123"
    await llm.aclose()


@SUITE.check()
async def a_reply_that_breaks_off(bench: LlmBench) -> None:
    """A stream cut in the middle is an error that may pass, after what came."""
    assert bench.fake is not None
    for fault in (misbehaviour.disconnect(after=6), misbehaviour.half_message(after=6)):
        bench.answers(Say("one two three four five six seven eight"))
        bench.fake.misbehave(fault)
        llm = bench.make()
        with pytest.raises(ProviderError) as caught:
            await hear(llm, request())
        assert caught.value.retryable
        await llm.aclose()


@SUITE.check()
async def an_error_in_the_stream(bench: LlmBench) -> None:
    """The vendor's own error in mid-reply is an error."""
    assert bench.fake is not None
    bench.answers(Say("one two three four five six seven eight"))
    bench.fake.misbehave(misbehaviour.error(after=6))
    llm = bench.make()
    with pytest.raises(ProviderError):
        await hear(llm, request())
    await llm.aclose()


@SUITE.check()
async def an_unknown_message(bench: LlmBench) -> None:
    """A message of a kind that nobody knows is passed over."""
    assert bench.fake is not None
    bench.answers(Say("one two three"))
    bench.fake.misbehave(misbehaviour.unknown_message(after=1))
    llm = bench.make()
    assert (await hear(llm, request())).text == "one two three"
    await llm.aclose()


@SUITE.check()
async def leaving_closes_the_connection(bench: LlmBench) -> None:
    """Whoever stops reading ends the vendor's work at once."""
    assert bench.fake is not None
    bench.answers(Say("one two three"), Wait(asyncio.Event()))
    llm = bench.make()
    stream = cast(AsyncGenerator[LlmEvent, None], llm.stream(request()))
    async with asyncio.timeout(10):
        await anext(stream)
        await stream.aclose()
        await bench.fake.hung_up.wait()
    await llm.aclose()


@SUITE.check()
async def a_cancelled_request(bench: LlmBench) -> None:
    """Cancelling while the vendor is silent ends at once."""
    assert bench.fake is not None
    bench.fake.misbehave(misbehaviour.hang())
    llm = bench.make()
    asking = asyncio.create_task(hear(llm, request()))
    async with asyncio.timeout(10):
        while not bench.fake.requests:  # noqa: ASYNC110 - the other side is a server, which has no event for it
            await asyncio.sleep(0.005)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    await llm.aclose()


@SUITE.check(live=True)
async def closing_twice(bench: LlmBench) -> None:
    """Closing twice is harmless, also before anything was asked."""
    llm = bench.make()
    await llm.aclose()
    await llm.aclose()


@SUITE.check(live=True)
async def ids_are_kept(bench: LlmBench) -> None:
    """Ids of another vendor's tool calls are accepted in a history."""
    llm = bench.make()
    foreign = ToolCall(id="toolu_01-x/7:ü" * 6, name="get_weather", arguments={})
    await hear(
        llm,
        request(
            UserMessage(text="Weather?"),
            AgentMessage(tool_calls=(foreign,)),
            ToolMessage(tool_call_id=foreign.id, name=foreign.name, content='"sunny"'),
        ),
    )
    await llm.aclose()


@SUITE.parametrize()
async def test_llm(subject: Subject[Any], check: Callable[[Any], Awaitable[None]]) -> None:
    await run(subject, check)
