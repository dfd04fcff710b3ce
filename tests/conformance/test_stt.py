"""Every recogniser."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from media_bridge.providers.base import (
    EagerEndOfTurn,
    EndOfTurn,
    Partial,
    SpeechStarted,
    SttEvent,
    SttStream,
    TurnResumed,
)
from stayline.errors import ConfigError, ProviderError
from tests.conformance.stt_benches import SUBJECTS, SttBench
from tests.conformance.suite import Subject, Suite, run
from tests.fakes import misbehaviour
from tests.fakes.sound import BYTES_PER_MS, silence
from tests.media_bridge.providers.speech import FRAME, hear, talk, until

SUITE: Suite[SttBench] = Suite("stt", "recognisers", SUBJECTS)
QUESTION = "Where is my order?"
ANSWER = "Please deliver it on Saturday."


async def utter(bench: SttBench, stream: SttStream, audio: bytes) -> None:
    """Send audio no faster than the recogniser can follow."""
    if not bench.speed:
        await talk(stream, audio)
        return
    for begin in range(0, len(audio), FRAME):
        await stream.send(audio[begin : begin + FRAME])
        await asyncio.sleep(0.02 / bench.speed)


async def turn(bench: SttBench, stream: SttStream, words: str) -> list[SttEvent]:
    """Say something, followed by silence; events up to the end of the turn."""
    await utter(bench, stream, await bench.says(words))
    return await hear(stream, EndOfTurn)


def understood(bench: SttBench, heard: str, said: str) -> bool:
    """Whether these are the words; an engine, which hears real sound, may miss some."""
    given, wanted = words(heard), words(said)
    return given == wanted if bench.fake else len(set(wanted) - set(given)) <= 2


def words(text: str) -> list[str]:
    return "".join(c for c in text.lower() if c.isalnum() or c == " ").split()


def ended(events: list[SttEvent]) -> EndOfTurn:
    (end,) = [event for event in events if isinstance(event, EndOfTurn)]
    return end


@SUITE.check()
async def an_unknown_option(bench: SttBench) -> None:
    """A misspelt option is refused with the right one."""
    with pytest.raises(ConfigError, match="no stt option"):
        bench.make(languag="en")


async def _failure(bench: SttBench, **settings: Any) -> ProviderError:
    """What connecting and listening ends with."""
    stt = bench.make(**settings)
    try:
        async with asyncio.timeout(20):
            stream = await stt.connect(call_id="CA123")
            try:
                await talk(stream, await bench.says(QUESTION))
                events = [event async for event in stream]  # the turn may be ended first, without words
            finally:
                await stream.aclose()
    except ProviderError as error:
        return error
    finally:
        await stt.aclose()
    raise AssertionError(f"it heard {events}")


@SUITE.check(live=True)
async def a_wrong_key(bench: SttBench) -> None:
    """A wrong key is final, and never in the error."""
    error = await _failure(bench, key="wrong-secret")
    assert not error.retryable
    assert "wrong-secret" not in str(error)


@SUITE.check()
async def too_many_requests(bench: SttBench) -> None:
    """429: may pass."""
    assert bench.fake is not None
    bench.fake.always = misbehaviour.rate_limited(retry_after=7)
    error = await _failure(bench)
    assert error.retryable
    assert error.status == 429


@SUITE.check()
async def nobody_listens(bench: SttBench) -> None:
    """A vendor that cannot be reached: may pass."""
    assert bench.fake is not None
    await bench.fake.refuse_connections()
    assert (await _failure(bench)).retryable


@SUITE.check(live=True)
async def a_turn(bench: SttBench) -> None:
    """Speech is noticed before its turn ends, and the turn has the words."""
    stt = bench.make()
    stream = await stt.connect(call_id="CA123")
    events = await turn(bench, stream, QUESTION)
    assert isinstance(events[0], SpeechStarted)
    assert sum(isinstance(event, SpeechStarted) for event in events) == 1
    assert understood(bench, ended(events).text, QUESTION)
    await stream.aclose()
    await stt.aclose()


@SUITE.check(live=True)
async def partial_transcripts(bench: SttBench) -> None:
    """Words are told while the turn is open, never empty ones."""
    stt = bench.make()
    stream = await stt.connect(call_id="CA123")
    audio = await bench.says("I would like to know where my order is, and when it will arrive at my house.")
    await utter(bench, stream, audio)
    events = await hear(stream, EndOfTurn)
    partials = [event.text for event in events if isinstance(event, Partial)]
    assert partials
    assert all(text.strip() for text in partials)
    await stream.aclose()
    await stt.aclose()


@SUITE.check(live=True)
async def eager_turns(bench: SttBench) -> None:
    """An eager end of a turn is followed by its end, or by word that it goes on."""
    stt = bench.make(eager_eot_threshold=0.4)
    assert stt.profile.eager_turns
    stream = await stt.connect(call_id="CA123")
    events = await turn(bench, stream, QUESTION)
    eager = [event for event in events if isinstance(event, EagerEndOfTurn | TurnResumed)]
    assert isinstance(eager[-1], EagerEndOfTurn)
    assert words(eager[-1].text) == words(ended(events).text)
    await stream.aclose()
    await stt.aclose()


@SUITE.check(live=True)
async def several_turns(bench: SttBench) -> None:
    """Turns come one after the other, each with its own words."""
    stt = bench.make()
    stream = await stt.connect(call_id="CA123")
    for text in (QUESTION, ANSWER):
        assert understood(bench, ended(await turn(bench, stream, text)).text, text)
    await stream.aclose()
    await stt.aclose()


@SUITE.check(live=True)
async def where_speech_ended(bench: SttBench) -> None:
    """Where it is told, the end of speech lies within what was sent, and speech has a length."""
    stt = bench.make()
    stream = await stt.connect(call_id="CA123")
    await utter(bench, stream, silence(500))
    audio = await bench.says(QUESTION)
    await utter(bench, stream, audio)
    end = ended(await hear(stream, EndOfTurn))
    if end.speech_end_ms is not None:
        assert 500 < end.speech_end_ms <= 500 + len(audio) // BYTES_PER_MS
    assert 0 <= end.speech_ms <= len(audio) // BYTES_PER_MS
    await stream.aclose()
    await stt.aclose()


@SUITE.check(live=True)
async def silence_says_nothing(bench: SttBench) -> None:
    """Silence makes no words, and does not end the stream."""
    stt = bench.make()
    stream = await stt.connect(call_id="CA123")
    await utter(bench, stream, silence(3000))
    assert understood(bench, ended(await turn(bench, stream, QUESTION)).text, QUESTION)
    await stream.aclose()
    await stt.aclose()


@SUITE.check(live=True)
async def closing_ends_the_events(bench: SttBench) -> None:
    """A stream that we close ends without an error, whoever waits for it."""
    stt = bench.make()
    stream = await stt.connect(call_id="CA123")

    async def listen() -> list[SttEvent]:
        return [event async for event in stream]

    listening = asyncio.create_task(listen())
    await talk(stream, silence(200))
    await stream.aclose()
    async with asyncio.timeout(10):
        assert await listening == []
    await stt.aclose()


@SUITE.check()
async def a_lost_connection_loses_no_words(bench: SttBench) -> None:
    """A connection cut between two turns: the next turn is heard, or an error that may pass is told."""
    assert bench.fake is not None
    stt = bench.make()
    stream = await stt.connect(call_id="CA123")
    await turn(bench, stream, QUESTION)
    for socket in bench.fake.sockets:
        socket.abort()
    heard: str | ProviderError
    try:
        heard = ended(await turn(bench, stream, ANSWER)).text
    except ProviderError as error:
        heard = error
    assert heard.retryable if isinstance(heard, ProviderError) else understood(bench, heard, ANSWER)
    await stream.aclose()
    await stt.aclose()


@SUITE.check()
async def a_connection_lost_in_mid_turn(bench: SttBench) -> None:
    """A connection cut while the caller speaks: the turn ends all the same, or an error that may pass is told."""
    assert bench.fake is not None
    stt = bench.make()
    stream = await stt.connect(call_id="CA123")
    audio = await bench.says(QUESTION)
    await talk(stream, audio[: 500 * BYTES_PER_MS])
    await hear(stream, SpeechStarted)
    for socket in bench.fake.sockets:
        socket.abort()
    await talk(stream, audio[500 * BYTES_PER_MS :])
    heard: tuple[EndOfTurn, ...] | ProviderError
    try:
        heard = ended(await hear(stream, EndOfTurn)), ended(await turn(bench, stream, ANSWER))
    except ProviderError as error:
        heard = error
    if isinstance(heard, ProviderError):
        assert heard.retryable
    else:  # a fake says the whole line again, after what it had told of it
        assert heard[0].text == "" or set(words(QUESTION)) <= set(words(heard[0].text))
        assert understood(bench, heard[1].text, ANSWER)
    await stream.aclose()
    await stt.aclose()


@SUITE.check()
async def an_unknown_message(bench: SttBench) -> None:
    """A message of a kind that nobody knows is passed over."""
    assert bench.fake is not None
    bench.fake.misbehave(misbehaviour.unknown_message(after=1))
    stt = bench.make()
    stream = await stt.connect(call_id="CA123")
    assert understood(bench, ended(await turn(bench, stream, QUESTION)).text, QUESTION)
    await stream.aclose()
    await stt.aclose()


@SUITE.check()
async def a_vendor_that_is_silent_can_be_left(bench: SttBench) -> None:
    """Cancelling while the vendor is silent ends at once."""
    assert bench.fake is not None
    bench.fake.always = misbehaviour.hang()
    stt = bench.make()

    async def listen() -> None:
        stream = await stt.connect(call_id="CA123")
        try:
            await turn(bench, stream, QUESTION)
        finally:
            await stream.aclose()

    listening = asyncio.create_task(listen())
    await until(lambda: bool(bench.fake and bench.fake.requests))
    listening.cancel()
    async with asyncio.timeout(10):
        with pytest.raises(asyncio.CancelledError):
            await listening
    await stt.aclose()


@SUITE.check(live=True)
async def closing_twice(bench: SttBench) -> None:
    """Closing twice is harmless."""
    stt = bench.make()
    stream = await stt.connect(call_id="CA123")
    for _ in range(2):
        await stream.aclose()
    for _ in range(2):
        await stt.aclose()


@SUITE.parametrize()
async def test_stt(subject: Subject[Any], check: Callable[[Any], Awaitable[None]]) -> None:
    await run(subject, check)
