"""Every voice."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from stayline.errors import ConfigError, ProviderError
from tests.conformance.suite import Subject, Suite, run
from tests.conformance.tts_benches import MS_PER_CHAR, SUBJECTS, TtsBench
from tests.fakes import misbehaviour
from tests.fakes.sound import BYTES_PER_MS
from tests.media_bridge.providers.speech import audio_of, collect, counts, say, until

SUITE: Suite[TtsBench] = Suite("tts", "voices", SUBJECTS)
CLAUSES = ("Hello there. ", "Your order left our warehouse on Tuesday, ", "and it should arrive on Friday.")


@SUITE.check()
async def an_unknown_option(bench: TtsBench) -> None:
    """A misspelt option is refused with the right one."""
    with pytest.raises(ConfigError, match="no tts option"):
        bench.make(sped=1)


async def _failure(bench: TtsBench, **settings: Any) -> ProviderError:
    """What connecting and speaking ends with."""
    tts = bench.make(**settings)
    try:
        async with asyncio.timeout(20):
            session = await tts.connect(call_id="CA123")
            try:
                await say(await session.utterance(), "Hello.")
            finally:
                await session.aclose()
    except ProviderError as error:
        return error
    finally:
        await tts.aclose()
    raise AssertionError("it spoke")


@SUITE.check(live=True)
async def a_wrong_key(bench: TtsBench) -> None:
    """A wrong key is final, and never in the error."""
    error = await _failure(bench, key="wrong-secret")
    assert not error.retryable
    assert "wrong-secret" not in str(error)


@SUITE.check()
async def too_many_requests(bench: TtsBench) -> None:
    """429 with Retry-After: may pass, and when."""
    assert bench.fake is not None
    bench.fake.always = misbehaviour.rate_limited(retry_after=7)
    error = await _failure(bench)
    assert (error.status, error.retryable, error.retry_after) == (429, True, 7)


@SUITE.check()
async def nobody_listens(bench: TtsBench) -> None:
    """A vendor that cannot be reached: may pass."""
    assert bench.fake is not None
    await bench.fake.refuse_connections()
    assert (await _failure(bench)).retryable


@SUITE.check(live=True)
async def clauses_are_spoken_in_order_and_counted(bench: TtsBench) -> None:
    """Audio comes, as long as such a text is, and characters that are counted never go back."""
    tts = bench.make()
    session = await tts.connect(call_id="CA123")
    chunks = await say(await session.utterance(), *CLAUSES)
    assert 3000 < len(audio_of(chunks)) / BYTES_PER_MS < 20_000
    told = counts(chunks)
    assert told == sorted(told)
    assert all(0 <= count <= len("".join(CLAUSES)) for count in told)
    await session.aclose()
    await tts.aclose()


@SUITE.check()
async def one_second_is_one_second(bench: TtsBench) -> None:
    """The audio is as long as the vendor's, to 1 %."""
    tts = bench.make()
    session = await tts.connect(call_id="CA123")
    text = "x" * 99 + "."
    heard = len(audio_of(await say(await session.utterance(), text))) / BYTES_PER_MS
    assert heard == pytest.approx(100 * MS_PER_CHAR, rel=0.01)
    await session.aclose()
    await tts.aclose()


@SUITE.check(live=True)
async def text_may_come_while_it_is_spoken(bench: TtsBench) -> None:
    """The first clause is heard before the last is known."""
    tts = bench.make()
    session = await tts.connect(call_id="CA123")
    utterance = await session.utterance()
    await utterance.send(CLAUSES[0])
    async with asyncio.timeout(20):
        first = await anext(aiter(utterance))
    assert first.audio
    await utterance.send(CLAUSES[1])
    await utterance.finish()
    assert audio_of(await collect(utterance))
    await session.aclose()
    await tts.aclose()


@SUITE.check(live=True)
async def a_connection_is_kept_between_utterances(bench: TtsBench) -> None:
    """The next utterance needs no new configuration by whoever speaks."""
    tts = bench.make()
    session = await tts.connect(call_id="CA123")
    for text in ("Hello there.", "Are you still there?", "Goodbye."):
        assert audio_of(await say(await session.utterance(), text))
    await session.aclose()
    await tts.aclose()


@SUITE.check(live=True)
async def nothing_to_say(bench: TtsBench) -> None:
    """An utterance without text ends, without sound."""
    tts = bench.make()
    session = await tts.connect(call_id="CA123")
    assert audio_of(await say(await session.utterance())) == b""
    assert audio_of(await say(await session.utterance(), "Hello."))
    await session.aclose()
    await tts.aclose()


@SUITE.check(live=True)
async def cancelling_is_final(bench: TtsBench) -> None:
    """After a cancel nothing more comes, and the next utterance is whole."""
    tts = bench.make()
    session = await tts.connect(call_id="CA123")
    utterance = await session.utterance()
    await utterance.send("A long sentence that nobody wants to hear the end of. " * 6)
    async with asyncio.timeout(20):
        await anext(aiter(utterance))
    await utterance.cancel()
    await utterance.cancel()
    assert await collect(utterance) == []
    whole = await say(await session.utterance(), "Hello there.")
    assert audio_of(whole)
    if bench.fake is not None:
        assert len(audio_of(whole)) / BYTES_PER_MS == pytest.approx(12 * MS_PER_CHAR, abs=2 * MS_PER_CHAR)
    await session.aclose()
    await tts.aclose()


@SUITE.check()
async def a_lost_connection_in_mid_utterance(bench: TtsBench) -> None:
    """A connection cut in mid-audio is an error that may pass; the next utterance is spoken."""
    assert bench.fake is not None
    bench.fake.misbehave(misbehaviour.disconnect(after=bench.greeting + 1))
    tts = bench.make()
    session = await tts.connect(call_id="CA123")
    utterance = await session.utterance()
    with pytest.raises(ProviderError) as caught:
        await say(utterance, *CLAUSES)
    assert caught.value.retryable
    assert audio_of(await say(await session.utterance(), "Hello."))
    await session.aclose()
    await tts.aclose()


@SUITE.check()
async def an_unknown_message(bench: TtsBench) -> None:
    """A message of a kind that nobody knows is passed over."""
    assert bench.fake is not None
    bench.fake.misbehave(misbehaviour.unknown_message(after=bench.greeting))
    tts = bench.make()
    session = await tts.connect(call_id="CA123")
    assert audio_of(await say(await session.utterance(), "Hello there."))
    await session.aclose()
    await tts.aclose()


@SUITE.check()
async def a_vendor_that_is_silent_can_be_left(bench: TtsBench) -> None:
    """Cancelling while the vendor is silent ends at once."""
    assert bench.fake is not None
    bench.fake.always = misbehaviour.hang()
    tts = bench.make()

    async def speak() -> None:
        session = await tts.connect(call_id="CA123")
        try:
            await say(await session.utterance(), "Hello.")
        finally:
            await session.aclose()

    speaking = asyncio.create_task(speak())
    await until(lambda: bool(bench.fake and bench.fake.requests))
    speaking.cancel()
    async with asyncio.timeout(10):
        with pytest.raises(asyncio.CancelledError):
            await speaking
    await tts.aclose()


@SUITE.check(live=True)
async def two_calls_at_once(bench: TtsBench) -> None:
    """Two calls speak at once, each its own words."""
    tts = bench.make()
    sessions = [await tts.connect(call_id=f"CA{number}") for number in range(2)]
    short, long = await asyncio.gather(
        say(await sessions[0].utterance(), "Hello."),
        say(await sessions[1].utterance(), "Hello there, and welcome to the line."),
    )
    assert 0 < len(audio_of(short)) < len(audio_of(long))
    for session in sessions:
        await session.aclose()
    await tts.aclose()


@SUITE.check(live=True)
async def closing_twice(bench: TtsBench) -> None:
    """Closing twice is harmless, also before anything was said."""
    tts = bench.make()
    session = await tts.connect(call_id="CA123")
    for _ in range(2):
        await session.aclose()
    for _ in range(2):
        await tts.aclose()


@SUITE.parametrize()
async def test_tts(subject: Subject[Any], check: Callable[[Any], Awaitable[None]]) -> None:
    await run(subject, check)
