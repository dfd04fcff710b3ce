"""Live events: one bounded log for each session, and any number of listeners who cannot hurt each other."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from media_bridge.conversation import commands as do
from media_bridge.conversation import events as ev
from media_bridge.live_events import AUDIO_EVERY, KEPT_ENDED, LiveEvent, LiveEvents, LiveLog, LiveSession

START = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def passes(self, span: timedelta) -> None:
        self.now += span


def types(session: LiveSession) -> list[str]:
    return [event.type for event in session.log.after(0)]


# --- what is told ----------------------------------------------------------------------------------------


def test_a_turn_of_each() -> None:
    session = LiveSession(Clock())
    for event in (
        ev.CallerSpoke(),
        ev.CallerSpoke(),
        ev.CallerPartial("what"),
        ev.CallerTurn("what is this"),
    ):
        session.event(event)
    session.command(do.StartReply(1, ()))
    session.command(do.StopTimer("keys"))
    session.event(ev.SpeechBegan(7))
    session.event(ev.SpeechEnded(7, "this", complete=True, speech_ms=900))
    assert types(session) == [
        "user_speech_start",
        "user_speech_end",
        "agent_thinking",
        "agent_speech_start",
        "agent_speech_end",
    ]
    assert [event.seq for event in session.log.after(0)] == [1, 2, 3, 4, 5]


def test_a_noise_begins_and_ends_too() -> None:
    session = LiveSession(Clock())
    session.event(ev.CallerSpoke())
    session.event(ev.CallerTurn(""))
    session.event(ev.CallerTurn(""))
    assert types(session) == ["user_speech_start", "user_speech_end"]


def test_a_recogniser_that_tells_of_no_beginning() -> None:
    session = LiveSession(Clock())
    session.event(ev.CallerTurn("hello"))
    assert types(session) == ["user_speech_start", "user_speech_end"]


def test_a_realtime_model() -> None:
    session = LiveSession(Clock())
    session.event(ev.CallerSpoke())
    session.event(ev.CallerStopped(900, 700))
    session.event(ev.CallerPartial("its words come late"))
    session.event(ev.ResponseBegan("r1"))
    assert types(session) == ["user_speech_start", "user_speech_end", "agent_thinking"]


def test_utterances_that_follow_each_other_are_one_stretch_of_speech() -> None:
    session = LiveSession(Clock())
    for event in (
        ev.SpeechBegan(1),
        ev.SpeechBegan(2),
        ev.SpeechEnded(1, "a", complete=True, speech_ms=1),
        ev.SpeechEnded(9, "of an utterance that never began", complete=False, speech_ms=0),
        ev.SpeechEnded(2, "b", complete=False, speech_ms=1),
    ):
        session.event(event)
    assert types(session) == ["agent_speech_start", "agent_speech_end"]


def test_what_was_open_is_closed_at_the_end() -> None:
    session = LiveSession(Clock())
    session.event(ev.CallerSpoke())
    session.event(ev.SpeechBegan(1))
    session.close()
    assert types(session) == ["user_speech_start", "agent_speech_start", "user_speech_end", "agent_speech_end"]


# --- sound -----------------------------------------------------------------------------------------------


def test_sound_is_counted_once_a_second_and_whole_at_the_end() -> None:
    clock = Clock()
    session = LiveSession(clock)
    for _ in range(125):  # 2.5 s of 20 ms frames
        session.audio("audio_received", 160)
        clock.passes(timedelta(milliseconds=20))
    session.audio("audio_sent", 1600)
    session.close()
    counted = [(e.type, e.total_bytes) for e in session.log.after(0)]
    assert counted == [
        ("audio_received", 160),
        ("audio_received", 51 * 160),
        ("audio_received", 101 * 160),
        ("audio_sent", 1600),
        ("audio_received", 125 * 160),
    ]


def test_a_long_call_keeps_its_count_and_loses_detail_only() -> None:
    clock = Clock()
    session = LiveSession(clock)
    session.log = LiveLog(kept_audio=10)
    for _ in range(1000):
        session.audio("audio_received", 8000)
        session.audio("audio_sent", 800)
        clock.passes(AUDIO_EVERY)
    session.close()
    kept = session.log.after(0)
    assert len(kept) <= 11
    for kind, total in (("audio_received", 8_000_000), ("audio_sent", 800_000)):
        counts = [e.total_bytes for e in kept if e.type == kind]
        assert counts == sorted(counts)
        assert counts[-1] == total
    assert [e.seq for e in kept] == sorted(e.seq for e in kept)


def test_speech_beyond_the_bound_is_dropped_from_its_beginning() -> None:
    log = LiveLog(kept_speech=3)
    for seq in range(1, 6):
        log.append(LiveEvent(seq, "agent_thinking", START))
    assert [e.seq for e in log.after(0)] == [3, 4, 5]
    assert [e.seq for e in log.after(4)] == [5]
    assert log.after(5) == []


# --- listeners -------------------------------------------------------------------------------------------


async def read(session: LiveSession, after: int = 0) -> list[LiveEvent]:
    return [event async for news in session.follow(after) for event in news]


async def test_every_listener_hears_everything_whenever_it_comes_and_however_slow_it_is() -> None:
    session = LiveSession(Clock())
    early = asyncio.create_task(read(session))
    slow = session.follow()
    session.event(ev.CallerSpoke())
    first = await anext(slow)  # and then it does something else
    for utterance in range(100):
        session.event(ev.SpeechBegan(utterance))
        session.event(ev.SpeechEnded(utterance, "x", complete=True, speech_ms=1))
        await asyncio.sleep(0)
    middle = asyncio.create_task(read(session))
    session.event(ev.CallerTurn("hello"))
    session.close()
    late = await read(session)
    assert len(late) == 202
    assert await early == await middle == late
    assert [*first, *[event async for news in slow for event in news]] == late
    assert await read(session, after=200) == late[200:]


async def test_listening_ends_with_the_session() -> None:
    session = LiveSession(Clock())
    listening = asyncio.create_task(read(session))
    await asyncio.sleep(0)
    session.close()
    assert await listening == []


# --- the sessions of a bridge ----------------------------------------------------------------------------


def test_ended_sessions_are_kept_for_a_while() -> None:
    clock = Clock()
    hub = LiveEvents(clock)
    first = hub.open("CA1", 1)
    lasting = hub.open("CA2", 1)
    assert (hub.find("CA1", 1), hub.find("CA1", 2)) == (first, None)
    first.close()
    clock.passes(KEPT_ENDED)
    second = hub.open("CA1", 2)
    assert hub.find("CA1", 1) is first
    assert hub.latest("CA1") is second
    clock.passes(timedelta(seconds=1))
    hub.open("CA3", 1)
    assert hub.find("CA1", 1) is None
    assert hub.find("CA2", 1) is lasting, "it goes on"
    assert hub.latest("CA9") is None
