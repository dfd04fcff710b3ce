"""Checks of every model that hears and speaks: its session, its speech, and the turns of the caller."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from media_bridge.providers.base import (
    CallerTranscript,
    Expiring,
    LlmUsage,
    RealtimeEvent,
    ResponseAudio,
    ResponseDone,
    ResponseStarted,
    SpeechStarted,
    SpeechStopped,
)
from stayline.errors import ConfigError, ProviderError
from tests.conformance.realtime_benches import MS_PER_CHAR, RealtimeBench
from tests.conformance.realtime_suite import SUITE, Line, like, line, of, request
from tests.fakes import misbehaviour
from tests.fakes.llm import Say, Tokens, Wait
from tests.fakes.sound import BYTES_PER_MS
from tests.media_bridge.providers.realtime import audio_of, text_of
from tests.media_bridge.providers.speech import until

QUESTION = "Where is my order?"
GREETING = "Hello! How can I help you today?"

# --- connecting ------------------------------------------------------------------------------------------


@SUITE.check()
async def an_unknown_option(bench: RealtimeBench) -> None:
    """A misspelt option is refused with the right one."""
    with pytest.raises(ConfigError, match="no realtime option"):
        bench.make(temperatur=1)


async def _failure(bench: RealtimeBench, **settings: Any) -> ProviderError:
    """What connecting ends with."""
    provider = bench.make(**settings)
    async with asyncio.timeout(20):
        with pytest.raises(ProviderError) as caught:
            await provider.connect(request())
    await provider.aclose()
    return caught.value


@SUITE.check(live=True)
async def a_wrong_key(bench: RealtimeBench) -> None:
    """A wrong key is final, and never in the error."""
    error = await _failure(bench, key="wrong-secret")
    assert not error.retryable
    assert "wrong-secret" not in str(error)


@SUITE.check()
async def too_many_requests(bench: RealtimeBench) -> None:
    """429 with Retry-After: may pass, and when."""
    bench.there.fake.always = misbehaviour.rate_limited(retry_after=7)
    error = await _failure(bench)
    assert (error.status, error.retryable, error.retry_after) == (429, True, 7)


@SUITE.check()
async def nobody_listens(bench: RealtimeBench) -> None:
    """A vendor that cannot be reached: may pass."""
    await bench.there.fake.refuse_connections()
    assert (await _failure(bench)).retryable


@SUITE.check()
async def a_vendor_that_is_silent_can_be_left(bench: RealtimeBench) -> None:
    """Cancelling while the vendor is silent ends at once."""
    bench.there.fake.always = misbehaviour.hang()
    provider = bench.make()
    connecting = asyncio.create_task(provider.connect(request()))
    await until(lambda: bool(bench.there.fake.requests))
    connecting.cancel()
    async with asyncio.timeout(10):
        with pytest.raises(asyncio.CancelledError):
            await connecting
    await provider.aclose()


@SUITE.check()
async def the_call_can_be_found(bench: RealtimeBench) -> None:
    """The session names the call, for finding it at the vendor."""
    async with line(bench, call_id="CA456"):
        assert bench.there.reference() == "CA456"


# --- speaking --------------------------------------------------------------------------------------------


@SUITE.check(live=True)
async def it_says_what_it_is_told(bench: RealtimeBench) -> None:
    """What it is told to say it says, and tells the words of it."""
    async with line(bench) as call:
        await call.session.say(GREETING)
        events = await call.hear(ResponseDone)
        (started,) = of(events, ResponseStarted)
        assert not started.by_itself
        assert like(bench, text_of(events, started.response), GREETING)
        assert 500 < len(audio_of(events, started.response)) / BYTES_PER_MS < 10_000
        assert of(events, ResponseDone) == [ResponseDone(started.response)]


@SUITE.check()
async def one_second_is_one_second(bench: RealtimeBench) -> None:
    """The audio is as long as the vendor's, to 1 %."""
    async with line(bench) as call:
        await call.session.say("x" * 99 + ".")
        heard = len(audio_of(await call.hear(ResponseDone))) / BYTES_PER_MS
        assert heard == pytest.approx(100 * MS_PER_CHAR, rel=0.01)


@SUITE.check()
async def several_responses(bench: RealtimeBench) -> None:
    """Responses come one after the other, each with an id and an end of its own."""
    async with line(bench) as call:
        ids = []
        for text in ("Hello there.", "Are you still there?", "Goodbye."):
            await call.session.say(text)
            events = await call.hear(ResponseDone)
            (done,) = of(events, ResponseDone)
            assert text_of(events, done.response) == text
            ids.append(done.response)
        assert len(set(ids)) == 3


@SUITE.check(live=True)
async def usage_is_told(bench: RealtimeBench) -> None:
    """Tokens read, written, and read from a cache."""
    bench.reply = lambda known: [Say("Yes."), Tokens(500, 20, 400)]
    async with line(bench) as call:
        events = await call.ask(QUESTION, LlmUsage)
        (usage, *_) = of(events, LlmUsage)
        if bench.vendor is not None:
            assert usage == LlmUsage(500, 20, 400)
        assert usage.input_tokens > usage.cached_tokens >= 0
        assert usage.output_tokens > 0


# --- the caller's turns ----------------------------------------------------------------------------------


@SUITE.check(live=True)
async def a_turn_of_the_caller(bench: RealtimeBench) -> None:
    """A turn is noticed, written down and answered, in an order that can be relied on."""
    async with line(bench) as call:
        events = await call.ask(QUESTION, CallerTranscript)
        kinds = [type(event) for event in events]
        assert kinds.count(CallerTranscript) == 1
        assert like(bench, of(events, CallerTranscript)[0].text, QUESTION)
        started = kinds.index(ResponseStarted)
        if call.profile.server_turns:
            assert kinds.index(SpeechStarted) < kinds.index(SpeechStopped) < started
        response = of(events, ResponseStarted)[0].response
        done = events.index(ResponseDone(response))
        spoken = [i for i, event in enumerate(events) if isinstance(event, ResponseAudio)]
        assert spoken
        assert all(started < i < done for i in spoken)
        assert text_of(events, response)
        if bench.vendor is not None:
            assert kinds.count(SpeechStarted) == kinds.count(SpeechStopped) == 1
            assert text_of(events, response) == f"You said: {QUESTION}"


@SUITE.check()
async def where_speech_was(bench: RealtimeBench) -> None:
    """Where it is told, speech lies where it was in the stream, to a quarter of a second."""
    async with line(bench) as call:
        sound = await call.caller(QUESTION)
        events = await call.hear(ResponseDone)
        end = len(sound) / BYTES_PER_MS - 1000
        assert of(events, SpeechStarted)[0].at_ms == pytest.approx(400, abs=250)
        assert of(events, SpeechStopped)[0].at_ms == pytest.approx(end, abs=250)


@SUITE.check()
async def all_of_the_callers_sound_is_sent(bench: RealtimeBench) -> None:
    """The caller's sound reaches the vendor whole, to 1 %."""
    async with line(bench) as call:
        sound = await call.caller(QUESTION)
        await call.hear(ResponseDone)
        assert bench.there.heard_ms() == pytest.approx(len(sound) / BYTES_PER_MS, rel=0.01)


@SUITE.check()
async def several_turns(bench: RealtimeBench) -> None:
    """Turns come one after the other, each with its own words and answer."""
    async with line(bench) as call:
        for words in (QUESTION, "Please deliver it on Saturday."):
            events = await call.ask(words, CallerTranscript)
            assert of(events, CallerTranscript) == [CallerTranscript(words)]
            assert text_of(events) == f"You said: {words}"


async def held(call: Line, go: asyncio.Event) -> str:
    """The model speaks, and has more to say when `go` is set; the response's id."""
    call.bench.reply = lambda known: [Say("Let me see."), Wait(go), Say("It is sunny.")]
    await call.caller("How is the weather?")
    if call.interruption != "immediate" and call.profile.manual_responses:
        await call.session.respond()
    events = await call.hear(ResponseAudio)
    call.bench.reply = None
    (started,) = of(events, ResponseStarted)
    return str(started.response)


@SUITE.check()
async def an_interruption(bench: RealtimeBench) -> None:
    """Where the caller may interrupt, the vendor stops speaking when the caller speaks, and answers that."""
    async with line(bench) as call:
        first = await held(call, asyncio.Event())
        await call.caller("Never mind, thank you.")
        events = await call.hear(ResponseDone, count=2)
        cancelled, answered = of(events, ResponseDone)
        assert cancelled == ResponseDone(first, "cancelled")
        assert not audio_of(events[events.index(cancelled) :], first)
        assert answered.status == "completed"
        assert text_of(events, answered.response) == "You said: Never mind, thank you."


@SUITE.check()
async def no_interruption(bench: RealtimeBench) -> None:
    """Where the caller may not interrupt, it speaks to its end."""
    async with line(bench, interruption="disabled") as call:
        go = asyncio.Event()
        first = await held(call, go)
        await call.caller("Never mind, thank you.")
        await until(lambda: not bench.there.hears)
        go.set()
        events = await call.hear(ResponseDone)
        assert of(events, ResponseDone) == [ResponseDone(first)]
        assert text_of(events, first).endswith("It is sunny.")


@SUITE.check()
async def it_answers_when_asked(bench: RealtimeBench) -> None:
    """Where it can be told so, it answers only when it is asked, and once."""
    async with line(bench, interruption="disabled") as call:
        assert call.profile.manual_responses
        await call.caller(QUESTION)
        events = await call.hear(CallerTranscript)
        assert not of(events, ResponseStarted)
        for _ in range(2):
            await call.session.respond()
        (started,) = of(await call.hear(ResponseStarted), ResponseStarted)
        assert not started.by_itself
        assert text_of(await call.hear(ResponseDone)) == f"You said: {QUESTION}"
        await call.session.say("Goodbye.")
        assert text_of(await call.hear(ResponseDone)) == "Goodbye."


@SUITE.check()
async def a_cancelled_response(bench: RealtimeBench) -> None:
    """Where a response can be stopped by us, it says no more."""
    async with line(bench) as call:
        assert call.profile.can_cancel
        first = await held(call, asyncio.Event())
        for _ in range(2):
            await call.session.cancel()
        events = await call.hear(ResponseDone)
        assert of(events, ResponseDone) == [ResponseDone(first, "cancelled")]
        assert "sunny" not in text_of(events)


# --- the end ---------------------------------------------------------------------------------------------


@SUITE.check()
async def a_session_that_is_too_old(bench: RealtimeBench) -> None:
    """How long a session lasts is known, and its end is an error that may pass."""
    async with line(bench) as call:
        assert call.profile.session_seconds
        await call.session.say("Hello.")
        await call.hear(ResponseDone)
        await bench.there.expire()
        with pytest.raises(ProviderError) as caught:
            await call.hear(ResponseDone)
        assert caught.value.retryable


@SUITE.check()
async def the_end_of_a_session_is_announced(bench: RealtimeBench) -> None:
    """Where the vendor announces the end of a session, it is told."""
    async with line(bench) as call:
        await call.session.say("Hello.")
        await call.hear(ResponseDone)
        assert bench.there.announce is not None
        await bench.there.announce(50)
        assert of(await call.hear(Expiring), Expiring) == [Expiring(50)]


@SUITE.check(live=True)
async def closing_ends_the_events(bench: RealtimeBench) -> None:
    """A session that we close ends without an error, whoever waits for it."""
    async with line(bench) as call:

        async def listen() -> list[RealtimeEvent]:
            return [event async for event in call.session]

        listening = asyncio.create_task(listen())
        await asyncio.sleep(0)
        await call.session.aclose()
        async with asyncio.timeout(10):
            assert await listening == []


@SUITE.check(live=True)
async def closing_twice(bench: RealtimeBench) -> None:
    """Closing twice is harmless, and nothing is said after it."""
    async with line(bench) as call:
        await call.session.aclose()
        await call.session.say("Nobody hears this.")
        await call.session.aclose()
