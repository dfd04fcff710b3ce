"""The agent's ear when its providers misbehave: no audio is lost to a connection that is made, and what is fatal.

The recognisers are scripted: a test says what they hear, and when they break.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from media_bridge.audio.quiet import SETTLED_MS
from media_bridge.conversation import ear
from media_bridge.conversation import events as ev
from media_bridge.conversation.ear import ATTEMPTS, KEPT_FRAMES, Ear
from media_bridge.providers import fallback
from media_bridge.providers.base import (
    EagerEndOfTurn,
    EndOfTurn,
    Partial,
    SpeechStarted,
    SttEvent,
    SttProfile,
    SttProvider,
    TurnResumed,
)
from media_bridge.providers.fallback import REST, Lineup
from stayline.catalog import Role
from stayline.errors import ProviderError
from stayline.timeline import ChangeReason
from tests.fakes.sound import silence, tone
from tests.media_bridge.providers.speech import until

FRAME_BYTES = 160


class Stream:
    """One connection to a recogniser."""

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self.audio: list[bytes] = []  #: frame by frame, however they were sent
        self.closed = False
        self.deaf: Exception | None = None  #: what the next audio meets
        self._events: asyncio.Queue[SttEvent | Exception | None] = asyncio.Queue()

    def hears(self, *events: SttEvent) -> None:
        for event in events:
            self._events.put_nowait(event)

    def breaks(self, error: Exception | None = None) -> None:
        self._events.put_nowait(error or self.provider.error())

    def ends(self) -> None:
        self._events.put_nowait(None)

    async def send(self, audio: bytes) -> None:
        if self.deaf is not None:
            raise self.deaf
        self.audio += [audio[at : at + FRAME_BYTES] for at in range(0, len(audio), FRAME_BYTES)]

    async def __aiter__(self) -> AsyncIterator[SttEvent]:
        while (event := await self._events.get()) is not None:
            if isinstance(event, Exception):
                raise event
            yield event

    async def aclose(self) -> None:
        self.closed = True
        if self.provider.bad_goodbye:
            raise ConnectionResetError


class Provider:
    """A recogniser; `open` false: connections wait until it is set."""

    profile = SttProfile(native_mulaw=True)

    def __init__(self, name: str, *, refuses: int = 0, bad_goodbye: bool = False) -> None:
        self.name = name
        self.refuses = refuses
        self.bad_goodbye = bad_goodbye
        self.open = asyncio.Event()
        self.open.set()
        self.streams: list[Stream] = []

    def error(self) -> ProviderError:
        return ProviderError(self.name, "out of order", retryable=True)

    async def warm(self) -> None: ...

    async def connect(self, *, call_id: str) -> Stream:
        await self.open.wait()
        if self.refuses:
            self.refuses -= 1
            raise self.error()
        self.streams.append(Stream(self))
        return self.streams[-1]

    async def stream(self, number: int) -> Stream:
        """Wait for the n-th connection, from 1."""
        await until(lambda: len(self.streams) >= number)
        return self.streams[number - 1]

    async def aclose(self) -> None: ...


class Listener:
    """An ear that runs, and everything that it told."""

    def __init__(self, *providers: Provider) -> None:
        self.events: list[ev.Event] = []
        self.failures: list[str] = []
        self.changes: list[tuple[str, str]] = []
        self.now = 0.0  #: of the lineup's clock
        self.lineup = lineup(*providers, clock=lambda: self.now)
        self.ear = Ear(self.lineup, "CA1", self.events.append, self._failed, self._changed)
        self.running = asyncio.create_task(self.ear.run())

    def _failed(self, role: str, error: ProviderError) -> None:
        assert role == "stt"
        self.failures.append(error.message)

    def _changed(self, role: Role, ref: str, why: ChangeReason) -> None:
        assert role == "stt"
        self.changes.append((ref, why))


def lineup(*providers: Provider, clock: Callable[[], float] = time.monotonic) -> Lineup[SttProvider]:
    members: list[tuple[str, SttProvider]] = [(f"{p.name}/model", p) for p in providers]
    return Lineup("stt", members, clock)


@asynccontextmanager
async def listening(*providers: Provider) -> AsyncIterator[Listener]:
    listener = Listener(*providers)
    try:
        yield listener
    finally:
        listener.running.cancel()
        await asyncio.wait({listener.running})


def frame(number: int) -> bytes:
    return number.to_bytes(2, "big") * (FRAME_BYTES // 2)


# --- hearing ---------------------------------------------------------------------------------------------


async def test_what_is_heard_becomes_events() -> None:
    provider = Provider("a")
    async with listening(provider) as listener:
        stream = await provider.stream(1)
        stream.hears(
            SpeechStarted(at_ms=40),
            Partial("where is"),
            EagerEndOfTurn("where is my"),
            TurnResumed(),
            EndOfTurn("Where is my order?", 0.9, 1200, 1100),
        )
        await until(lambda: len(listener.events) == 5)
    assert listener.events == [
        ev.CallerSpoke(40),
        ev.CallerPartial("where is"),
        ev.CallerPaused("where is my"),
        ev.CallerResumed(),
        ev.CallerTurn("Where is my order?", 0.9, 1200, 1100),
    ]
    assert stream.closed
    assert listener.failures == []


async def test_audio_is_kept_while_the_connection_is_made() -> None:
    provider = Provider("a")
    provider.open.clear()
    async with listening(provider) as listener:
        for number in range(3):
            listener.ear.audio(frame(number))
        provider.open.set()
        stream = await provider.stream(1)
        listener.ear.audio(frame(3))
        await until(lambda: len(stream.audio) == 4)
    assert stream.audio == [frame(number) for number in range(4)]


async def test_of_too_much_audio_the_latest_is_kept() -> None:
    provider = Provider("a")
    provider.open.clear()
    async with listening(provider) as listener:
        for number in range(KEPT_FRAMES + 10):
            listener.ear.audio(frame(number))
        provider.open.set()
        stream = await provider.stream(1)
        await until(lambda: len(stream.audio) == KEPT_FRAMES)
    assert stream.audio[0] == frame(10)
    assert stream.audio[-1] == frame(KEPT_FRAMES + 9)


async def test_quiet_that_waits_is_heard_once_whoever_hears_it() -> None:
    a, b = Provider("a"), Provider("b")
    settled, waiting = [silence(20)] * (SETTLED_MS // 20), [b"\xfe" * FRAME_BYTES, b"\x7e" * FRAME_BYTES]
    async with listening(a, b) as listener:
        first = await a.stream(1)
        for quiet in [*settled, *waiting]:
            listener.ear.audio(quiet)
        await until(lambda: len(first.audio) == len(settled))
        assert first.audio == settled, "two frames wait for more"
        first.breaks()
        second = await b.stream(1)
        listener.ear.audio(tone(20))
        await until(lambda: second.audio[-1:] == [tone(20)])
    assert second.audio == [*settled, *waiting, tone(20)]


# --- failures --------------------------------------------------------------------------------------------


async def test_the_next_recogniser_hears_what_no_turn_has_come_of() -> None:
    a, b = Provider("a"), Provider("b")
    b.open.clear()
    async with listening(a, b) as listener:
        first = await a.stream(1)
        listener.ear.audio(frame(1))
        await until(lambda: first.audio == [frame(1)])
        first.hears(EndOfTurn("one"))
        await until(lambda: len(listener.events) == 1)
        listener.ear.audio(frame(2))
        await until(lambda: first.audio == [frame(1), frame(2)])
        first.breaks()
        await until(lambda: first.closed)
        listener.ear.audio(frame(3))  # while nobody listens
        b.open.set()
        second = await b.stream(1)
        await until(lambda: second.audio == [frame(2), frame(3)])
        second.hears(EndOfTurn("two", None, 30, 20))
        await until(lambda: len(listener.events) == 2)
    assert listener.events[1] == ev.CallerTurn("two", None, 50, 20), "positions count from the call's first audio"
    assert listener.failures == ["a: out of order"]
    assert not listener.running.done() or listener.running.cancelled()


async def test_a_preferred_one_is_taken_up_again_between_two_turns() -> None:
    a, b = Provider("a"), Provider("b")
    async with listening(a, b) as listener:
        (await a.stream(1)).breaks()
        second = await b.stream(1)
        second.hears(EndOfTurn("hello"))
        await until(lambda: len(listener.events) == 1)
        assert not second.closed  # the first one rests
        listener.now = REST + 1
        second.hears(Partial("are you"))
        await until(lambda: len(listener.events) == 2)
        assert not second.closed  # nobody is cut off in mid-turn
        second.hears(EndOfTurn("are you there"))
        third = await a.stream(2)
        assert second.closed
        third.hears(EndOfTurn("yes"))
        await until(lambda: len(listener.events) == 4)
    assert listener.changes == [("b/model", "failed"), ("a/model", "recovered")]
    assert listener.failures == ["a: out of order"]


@pytest.mark.parametrize("error", [ProviderError("a", "gone", retryable=True), KeyError("channel"), TimeoutError()])
@pytest.mark.parametrize("while_", ["hearing", "sending"])
async def test_whatever_an_adapter_raises_costs_only_its_connection(error: Exception, while_: str) -> None:
    a, b = Provider("a"), Provider("b")
    async with listening(a, b) as listener:
        first = await a.stream(1)
        if while_ == "hearing":
            first.breaks(error)
        else:
            first.deaf = error
            listener.ear.audio(frame(1))
        second = await b.stream(1)
        second.hears(Partial("still here"))
        await until(lambda: len(listener.events) == 1)
        assert not listener.running.done()
    assert len(listener.failures) == 1
    assert first.closed


async def test_a_stream_that_just_ends_was_lost() -> None:
    provider = Provider("a")
    async with listening(provider) as listener:
        (await provider.stream(1)).ends()
        await provider.stream(2)
    assert listener.failures == ["stt: the stream ended"]


async def test_a_recogniser_that_cannot_even_be_closed() -> None:
    a, b = Provider("a", bad_goodbye=True), Provider("b")
    async with listening(a, b) as listener:
        (await a.stream(1)).breaks()
        await b.stream(1)
        assert not listener.running.done()


async def test_one_that_refuses_or_hangs_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fallback, "CONNECT_TIMEOUT", 0.1)
    refuses, hangs, sound = Provider("a", refuses=1), Provider("b"), Provider("c")
    hangs.open.clear()
    async with listening(refuses, hangs, sound) as listener:
        await sound.stream(1)
    assert [message.split(":")[0] for message in listener.failures] == ["a", "b/model"]
    assert "did not answer in time" in listener.failures[1]


async def test_losses_in_a_row_end_the_hearing() -> None:
    a, b = Provider("a"), Provider("b")
    async with listening(a, b) as listener:
        for loss in range(ATTEMPTS):
            (await (a, b)[loss % 2].stream(loss // 2 + 1)).breaks()
        with pytest.raises(ProviderError, match="out of order"):
            await listener.running
    assert len(listener.failures) == ATTEMPTS
    assert all(stream.closed for stream in (*a.streams, *b.streams))


async def test_a_recogniser_that_hears_something_has_made_good_for_earlier_losses() -> None:
    provider = Provider("a")
    async with listening(provider) as listener:
        for loss in range(2 * ATTEMPTS):
            stream = await provider.stream(loss + 1)
            stream.hears(Partial("hello"))
            stream.breaks()
        await provider.stream(2 * ATTEMPTS + 1)
        assert not listener.running.done()


async def test_one_that_hears_nothing_of_a_loud_caller_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ear, "DEAF_SECONDS", 0.05)
    monkeypatch.setattr(ear, "WATCH_SECONDS", 0.01)
    a, b = Provider("a"), Provider("b")
    async with listening(a, b) as listener:
        await a.stream(1)
        for _ in range(ear.DEAF_LOUD_MS // 20):
            listener.ear.audio(tone(20))
        second = await b.stream(1)
        await until(lambda: len(second.audio) == ear.DEAF_LOUD_MS // 20)
        for _ in range(ear.DEAF_LOUD_MS // 20):
            listener.ear.audio(tone(20))
        await until(lambda: len(second.audio) == 2 * ear.DEAF_LOUD_MS // 20)
        await asyncio.sleep(0.1)
        assert len(a.streams) == 1, "it is the line, then: nobody is asked in turn for ever"
    assert listener.failures == ["a/model: it does not hear the caller any more"]


async def test_silence_is_nobodys_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ear, "DEAF_SECONDS", 0.01)
    monkeypatch.setattr(ear, "WATCH_SECONDS", 0.01)
    a, b = Provider("a"), Provider("b")
    async with listening(a, b) as listener:
        stream = await a.stream(1)
        for _ in range(ear.DEAF_LOUD_MS // 10):
            listener.ear.audio(silence(20))
        await until(lambda: len(stream.audio) == ear.DEAF_LOUD_MS // 10)
        await asyncio.sleep(0.05)
        assert b.streams == []


async def test_one_that_notices_sound_and_never_words_is_given_up() -> None:
    provider = Provider("a")
    async with listening(provider) as listener:
        for loss in range(ATTEMPTS):
            stream = await provider.stream(loss + 1)
            stream.hears(SpeechStarted(at_ms=0), EndOfTurn(""))
            stream.breaks()
        with pytest.raises(ProviderError, match="out of order"):
            await listener.running


async def test_when_nobody_accepts_a_connection_hearing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ear, "PAUSE", 0.01)
    async with listening(Provider("a", refuses=99), Provider("b", refuses=99)) as listener:
        with pytest.raises(ProviderError, match="b: out of order"):
            await listener.running
    assert listener.failures == ["a: out of order", "b: out of order"] * ATTEMPTS


async def test_a_short_outage_of_all_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ear, "PAUSE", 0.01)
    only = Provider("a", refuses=ATTEMPTS - 1)
    async with listening(only) as listener:
        await only.stream(1)
        assert not listener.running.done()


async def test_a_defect_of_the_listener_is_not_blamed_on_the_recogniser() -> None:
    provider, failures = Provider("a"), list[str]()

    def broken(event: ev.Event) -> None:
        raise ZeroDivisionError

    ear = Ear(lineup(provider), "CA1", broken, lambda role, _: failures.append(role), lambda *_: None)
    running = asyncio.create_task(ear.run())
    (await provider.stream(1)).hears(Partial("hello"))
    with pytest.raises(ExceptionGroup) as caught:
        await running
    assert caught.group_contains(ZeroDivisionError)
    assert failures == []
    assert provider.streams[0].closed
