"""A call's connection to a realtime model when models refuse, break, grow old, deaf or silent. On virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from media_bridge.audio.loudness import loudness
from media_bridge.audio.quiet import SETTLED_MS, TOGETHER_MS
from media_bridge.conversation import model_health, model_link
from media_bridge.conversation.cancellation import end
from media_bridge.conversation.kept_sound import KEPT_MS, KeptSound
from media_bridge.conversation.model_link import LOSSES, ModelLink
from media_bridge.providers.base import (
    CallerTranscript,
    Expiring,
    Partial,
    RealtimeEvent,
    RealtimeProfile,
    RealtimeRequest,
    ResponseDone,
    ResponseStarted,
    SpeechStarted,
    SpeechStopped,
)
from media_bridge.providers.fallback import REST, Lineup
from stayline.errors import ProviderError
from stayline.models import Message, UserMessage
from tests.media_bridge.conversation.virtual_time import virtual

LOUD = bytes([0x00]) * 160
QUIET = b"\xff" * 160


class Session:
    def __init__(self, provider: Provider, request: RealtimeRequest) -> None:
        self.provider = provider
        self.request = request
        self.audio: list[bytes] = []
        self.words: list[str] = []
        self.closed = False
        self.handle = ""
        self.fault: Exception | None = None  #: met by what is sent next
        self._events: asyncio.Queue[RealtimeEvent | Exception | None] = asyncio.Queue()

    def tells(self, *events: RealtimeEvent | Exception | None) -> None:
        """Events; an exception breaks it, None ends it."""
        for event in events:
            self._events.put_nowait(event)

    def breaks(self) -> None:
        self.tells(self.provider.error())

    async def send(self, audio: bytes) -> None:
        if self.fault is not None:
            raise self.fault
        self.audio.append(audio)

    async def _word(self, word: str) -> None:
        if self.fault is not None:
            raise self.fault
        self.words.append(word)

    async def say(self, text: str) -> None:
        await self._word(f"say {text}")

    async def respond(self) -> None:
        await self._word("respond")

    async def note(self, text: str) -> None:
        await self._word(f"note {text}")

    async def tool_result(self, result: Any, *, respond: bool) -> None:
        await self._word(f"result {respond}")

    async def cancel(self) -> None:
        await self._word("cancel")

    async def truncate(self, response: str, heard_ms: int) -> None:
        await self._word(f"truncate {response} {heard_ms}")

    async def __aiter__(self) -> AsyncIterator[RealtimeEvent]:
        while (event := await self._events.get()) is not None:
            if isinstance(event, Exception):
                raise event
            yield event

    async def aclose(self) -> None:
        self.closed = True
        if self.provider.bad_goodbye:
            raise ConnectionResetError


class Provider:
    """A realtime model; `open` unset: connections wait. `faults`: what the next connections meet."""

    def __init__(
        self,
        name: str,
        *,
        faults: Sequence[Exception] = (),
        seconds: float | None = None,
        can_resume: bool = False,
        bad_goodbye: bool = False,
    ) -> None:
        self.name = name
        self.profile = RealtimeProfile(
            native_mulaw=True,
            can_truncate=True,
            can_cancel=True,
            can_resume=can_resume,
            session_seconds=seconds,
        )
        self.faults = list(faults)
        self.bad_goodbye = bad_goodbye
        self.open = asyncio.Event()
        self.open.set()
        self.sessions: list[Session] = []

    def error(self, *, retryable: bool = True) -> ProviderError:
        return ProviderError(self.name, "out of order", retryable=retryable)

    async def warm(self) -> None: ...

    async def connect(self, request: RealtimeRequest) -> Session:
        await self.open.wait()
        if self.faults:
            raise self.faults.pop(0)
        if request.resume:
            assert all(session.closed for session in self.sessions), "the handle's connection still lives"
        self.sessions.append(Session(self, request))
        return self.sessions[-1]

    async def session(self, number: int, within: float = 20.0) -> Session:
        """Wait for the n-th connection, from 1."""
        await until(lambda: len(self.sessions) >= number, within)
        return self.sessions[number - 1]

    async def aclose(self) -> None: ...


async def until(condition: Callable[[], bool], within: float = 20.0) -> None:
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110 - time is virtual
            await asyncio.sleep(0.02)


class Call:
    """A link that runs, and all that it told. A new connection is told what was missed; nothing else is here."""

    def __init__(self, *providers: Provider) -> None:
        loop = asyncio.get_running_loop()
        self.story: list[str] = []
        self.events: list[tuple[RealtimeEvent, int]] = []
        self.failures: list[str] = []
        self.changes: list[tuple[str, str]] = []
        self.messages: tuple[Message, ...] = ()
        self.quiet = True
        self.needed = 0
        self.lineup: Lineup[Any] = Lineup("realtime", [(f"{p.name}/m", p) for p in providers], loop.time)
        self.link = ModelLink(
            self.lineup,
            self._request,
            lambda event, offset: self.events.append((event, offset)),
            lambda: self.story.append("lost"),
            lambda profile, resumed: self.story.append("resumed" if resumed else "new"),
            lambda: self.quiet,
            lambda: self.needed,
            self._failed,
            lambda role, ref, why: self.changes.append((ref, why)),
        )
        self.running = asyncio.create_task(self.link.run())

    def _request(self, resume: str) -> RealtimeRequest:
        return RealtimeRequest("Be kind.", self.messages, (), "CA1", resume=resume)

    def _failed(self, role: str, error: ProviderError) -> None:
        assert role == "realtime"
        self.failures.append(str(error))

    async def frames(self, *frames: bytes) -> None:
        """In real time."""
        for frame in frames:
            self.link.audio(frame, loudness(frame))
            await asyncio.sleep(0.02)


@asynccontextmanager
async def calling(*providers: Provider) -> AsyncIterator[Call]:
    call = Call(*providers)
    try:
        yield call
    finally:
        call.running.cancel()
        await asyncio.wait({call.running})
        sessions = [session for provider in providers for session in provider.sessions]
        assert all(session.closed for session in sessions)
        assert asyncio.all_tasks() == {asyncio.current_task()}, "a task was left behind"


def frame(number: int) -> bytes:
    """A quiet one, unlike all others."""
    return bytes(0xF0 | number >> shift & 0xF for shift in (12, 8, 4, 0)) * 40


# --- carrying --------------------------------------------------------------------------------------------


@virtual
async def test_words_go_out_in_order_and_events_come_in() -> None:
    provider = Provider("a")
    async with calling(provider) as call:
        session = await provider.session(1)
        call.link.send(lambda s: s.say("Hello."))
        call.link.send(lambda s: s.respond())
        session.tells(SpeechStarted(40), Partial("hi"))
        await until(lambda: len(call.events) == 2 and len(session.words) == 2)
    assert session.words == ["say Hello.", "respond"]
    assert call.events == [(SpeechStarted(40), 0), (Partial("hi"), 0)]
    assert call.story == ["new"]
    assert call.changes == []


@virtual
async def test_audio_is_kept_while_the_first_connection_is_made() -> None:
    provider = Provider("a")
    provider.open.clear()
    async with calling(provider) as call:
        await call.frames(*map(frame, range(100)))
        provider.open.set()
        session = await provider.session(1)
        await call.frames(frame(100))
        await until(lambda: len(session.audio) == 101)
    assert session.audio == [frame(number) for number in range(101)]


@virtual
async def test_a_quiet_caller_is_sent_in_larger_pieces_and_a_voice_frame_by_frame() -> None:
    provider = Provider("a")
    async with calling(provider) as call:
        session = await provider.session(1)
        await call.frames(*[LOUD] * 10, *[QUIET] * (SETTLED_MS // 20 + 10), QUIET, LOUD, LOUD)
        await until(lambda: session.audio[-1] == LOUD)
    together = QUIET * (TOGETHER_MS // 20)
    assert session.audio == [*[LOUD] * 10, *[QUIET] * (SETTLED_MS // 20), together, together, QUIET + LOUD, LOUD]


@virtual
async def test_quiet_that_waits_is_heard_once_by_a_new_connection() -> None:
    provider = Provider("a")
    async with calling(provider) as call:
        first = await provider.session(1)
        await call.frames(*[QUIET] * (SETTLED_MS // 20), frame(1), frame(2))
        first.breaks()
        second = await provider.session(2)
        await call.frames(LOUD)
        await until(lambda: bool(second.audio) and second.audio[-1] == LOUD)
    assert second.audio[-3:] == [frame(1), frame(2), LOUD]


@virtual
async def test_advice_on_its_end_is_not_for_the_conversation() -> None:
    provider = Provider("a")
    async with calling(provider) as call:
        session = await provider.session(1)
        call.quiet = False
        session.tells(Expiring(50.0), Partial("hi"))
        await until(lambda: len(call.events) == 1)
    assert call.events == [(Partial("hi"), 0)]


@virtual
async def test_a_call_may_end_at_the_moment_at_which_a_connection_is_lost() -> None:
    provider = Provider("a")
    async with calling(provider) as call:
        session = await provider.session(1)
        session.breaks()
        async with asyncio.timeout(30):
            await end([call.running])
        assert call.running.cancelled()


# --- loss ------------------------------------------------------------------------------------------------


@virtual
async def test_a_new_connection_hears_the_open_turn_again() -> None:
    provider = Provider("a")
    async with calling(provider) as call:
        first = await provider.session(1)
        await call.frames(*map(frame, range(450)))  # 9 s
        call.needed = 8500
        await call.frames(*map(frame, range(450, 500)))
        first.tells(SpeechStarted(9000))
        await call.frames(*map(frame, range(500, 600)))
        first.breaks()
        second = await provider.session(2)
        await call.frames(LOUD)
        await until(lambda: second.audio[-1:] == [LOUD])
        second.tells(SpeechStarted(500))
        await until(lambda: len(call.events) == 2)
    assert second.audio == [*(frame(number) for number in range(8500 // 20, 600)), LOUD]
    assert call.events[-1] == (SpeechStarted(500), 8500), "the same place in the caller's audio"
    assert call.story == ["new", "lost", "new"]
    assert call.failures == ["a: out of order"]
    assert call.changes == []


@virtual
async def test_what_is_not_needed_is_not_heard_again() -> None:
    provider = Provider("a")
    async with calling(provider) as call:
        first = await provider.session(1)
        call.needed = 9500
        await call.frames(*map(frame, range(500)))
        first.breaks()
        second = await provider.session(2)
        await until(lambda: len(second.audio) > 0)
    assert second.audio == [frame(number) for number in range(9500 // 20, 500)]


@virtual
async def test_what_is_understood_just_before_the_loss_is_not_heard_again() -> None:
    """Its words, and the loss after them, come between two frames of the caller."""
    provider = Provider("a")
    async with calling(provider) as call:
        first = await provider.session(1)
        await call.frames(*map(frame, range(500)))
        call.needed = 9500
        first.breaks()
        second = await provider.session(2)
        await until(lambda: len(second.audio) > 0)
    assert second.audio == [frame(number) for number in range(9500 // 20, 500)]


@virtual
async def test_what_was_heard_again_is_kept_until_it_is_understood() -> None:
    """The second connection breaks before it says a word: the third one hears the turn as well."""
    provider = Provider("a")
    async with calling(provider) as call:
        first = await provider.session(1)
        first.tells(SpeechStarted(0))
        await call.frames(*map(frame, range(50)))
        first.breaks()
        second = await provider.session(2)
        call.needed = 10**6
        await call.frames(*map(frame, range(50, 60)))
        second.breaks()
        third = await provider.session(3)
        await until(lambda: len(third.audio) == 60)
    assert third.audio == [frame(number) for number in range(60)]


@virtual
async def test_requests_of_an_old_connection_do_not_reach_the_new_one() -> None:
    provider = Provider("a")
    async with calling(provider) as call:
        first = await provider.session(1)
        provider.open.clear()
        first.breaks()
        await until(lambda: call.story[-1] == "lost")
        call.link.send(lambda s: s.respond())
        provider.open.set()
        second = await provider.session(2)
        call.link.send(lambda s: s.say("Hello."))
        await until(lambda: len(second.words) > 0)
    assert second.words == ["say Hello."]


@pytest.mark.parametrize("error", [ProviderError("a", "gone", retryable=True), KeyError("channel"), TimeoutError()])
@pytest.mark.parametrize("while_", ["hearing", "sending audio", "asking"])
def test_whatever_an_adapter_raises_costs_only_its_connection(error: Exception, while_: str) -> None:
    @virtual
    async def story() -> None:
        a, b = Provider("a", bad_goodbye=True), Provider("b")
        async with calling(a, b) as call:
            first = await a.session(1)
            first.fault = error
            if while_ == "hearing":
                first.tells(error)
            elif while_ == "asking":
                call.link.send(lambda s: s.respond())
            else:
                call.link.audio(frame(1), 0)
            second = await b.session(1)
            second.tells(Partial("still here"))
            await until(lambda: len(call.events) == 1)
            assert not call.running.done()
        assert len(call.failures) == 1
        assert call.changes == [("b/m", "failed")]

    story()


@virtual
async def test_a_session_that_just_ends_was_lost() -> None:
    provider = Provider("a")
    async with calling(provider) as call:
        (await provider.session(1)).tells(None)
        await provider.session(2)
    assert call.failures == ["a/m: the session ended"]


@virtual
async def test_what_a_lost_connection_still_had_to_say_is_not_heard() -> None:
    provider = Provider("a")
    async with calling(provider) as call:
        first = await provider.session(1)
        first.breaks()
        first.tells(Partial("too late"))
        second = await provider.session(2)
        second.tells(Partial("in time"))
        await until(lambda: len(call.events) > 0)
    assert [event for event, _ in call.events] == [Partial("in time")]


@virtual
async def test_losses_in_a_row_end_the_call() -> None:
    provider = Provider("a")
    async with calling(provider) as call:
        for number in range(LOSSES):
            session = await provider.session(number + 1)
            session.tells(ResponseStarted("r1"))
            session.breaks()
        with pytest.raises(ProviderError, match="out of order"):
            await call.running
    assert len(call.failures) == LOSSES


@virtual
async def test_a_whole_response_makes_good_for_earlier_losses() -> None:
    provider = Provider("a")
    async with calling(provider) as call:
        for number in range(2 * LOSSES):
            session = await provider.session(number + 1)
            session.tells(ResponseStarted("r1"), ResponseDone("r1"))
            session.breaks()
        await provider.session(2 * LOSSES + 1)
        assert not call.running.done()


# --- refusal ---------------------------------------------------------------------------------------------


@virtual
async def test_a_refusal_goes_to_the_next_and_later_back_to_the_preferred() -> None:
    a = Provider("a", faults=[ProviderError("a", "busy", retryable=True)])
    b = Provider("b")
    async with calling(a, b) as call:
        held = await b.session(1)
        assert call.failures == ["a: busy"]
        call.quiet = False
        await asyncio.sleep(REST + 1)
        assert a.sessions == [], "somebody would have noticed"
        call.quiet = True
        await a.session(1)
        await until(lambda: held.closed)
    assert call.story == ["new", "lost", "new"]
    assert call.changes == [("a/m", "recovered")]


@virtual
async def test_the_old_connection_holds_while_the_preferred_one_is_tried() -> None:
    a = Provider("a", faults=[ProviderError("a", "busy", retryable=True)] * 2)
    b = Provider("b")
    async with calling(a, b) as call:
        held = await b.session(1)
        await until(lambda: len(call.failures) == 2, within=REST + 5)
        held.tells(Partial("still here"))
        await until(lambda: len(call.events) == 1)
        assert not held.closed
    assert call.story == ["new"]


@virtual
async def test_who_begins_to_speak_while_the_preferred_one_is_tried_is_not_cut() -> None:
    a = Provider("a", faults=[ProviderError("a", "busy", retryable=True)])
    b = Provider("b")
    async with calling(a, b) as call:
        held = await b.session(1)
        a.open.clear()
        await asyncio.sleep(REST + 1)
        call.messages = (UserMessage(text="Something new."),)  # said while it was made: it does not know
        a.open.set()
        first = await a.session(1)
        await until(lambda: first.closed)
        second = await a.session(2)
        await until(lambda: held.closed)
        assert second.request.messages == call.messages
    assert call.story == ["new", "lost", "new"]


@virtual
async def test_one_that_hangs_is_passed_over() -> None:
    a, b = Provider("a"), Provider("b")
    a.open.clear()
    async with calling(a, b) as call:
        await b.session(1)
    assert call.failures == ["a/m: it did not answer in time"]


@virtual
async def test_when_all_refuse_the_call_is_given_up() -> None:
    busy = [ProviderError("a", "busy", retryable=True)] * 99
    begun = asyncio.get_running_loop().time()
    async with calling(Provider("a", faults=busy), Provider("b", faults=busy)) as call:
        with pytest.raises(ProviderError, match="busy"):
            await call.running
    assert model_link.PATIENCE <= asyncio.get_running_loop().time() - begun < 2 * model_link.PATIENCE
    assert len(call.failures) == 2 * 5
    assert call.story == []


@virtual
async def test_what_cannot_get_better_is_not_waited_for() -> None:
    wrong_key = [ProviderError("a", "wrong key", retryable=False)] * 9
    async with calling(Provider("a", faults=wrong_key), Provider("b", faults=wrong_key)) as call:
        with pytest.raises(ProviderError, match="wrong key"):
            await call.running
    assert len(call.failures) == 2


@virtual
async def test_a_short_outage_of_all_is_waited_for() -> None:
    provider = Provider("a", faults=[ProviderError("a", "busy", retryable=True)] * 4)
    async with calling(provider) as call:
        await provider.session(1)
        assert not call.running.done()


# --- age -------------------------------------------------------------------------------------------------


@virtual
async def test_a_connection_is_renewed_in_a_silent_moment_before_its_end() -> None:
    provider = Provider("a", seconds=600)
    async with calling(provider) as call:
        first = await provider.session(1)
        call.quiet = False
        await asyncio.sleep(560)
        assert len(provider.sessions) == 1
        call.quiet = True
        await provider.session(2)
        await until(lambda: first.closed)
    assert call.story == ["new", "lost", "new"]
    assert call.failures == []
    assert call.changes == [("a/m", "renewed")]


@virtual
async def test_it_is_renewed_by_force_when_nobody_falls_silent() -> None:
    provider = Provider("a", seconds=600)
    async with calling(provider) as call:
        await provider.session(1)
        call.quiet = False
        await asyncio.sleep(600 - model_health.FORCE_SECONDS - 1)
        assert len(provider.sessions) == 1
        await provider.session(2, within=3)
    assert call.changes == [("a/m", "renewed")]


@virtual
async def test_a_vendor_that_announces_the_end_is_left_in_time() -> None:
    provider = Provider("a", seconds=600)
    async with calling(provider) as call:
        first = await provider.session(1)
        first.tells(Expiring(50.0))
        await provider.session(2, within=5)
    assert call.changes == [("a/m", "renewed")]


@virtual
async def test_a_renewal_that_fails_is_tried_again_while_the_old_connection_holds() -> None:
    provider = Provider("a", seconds=600)
    async with calling(provider) as call:
        first = await provider.session(1)
        provider.faults = [provider.error()]
        await asyncio.sleep(540.5)
        assert call.failures == ["a: out of order"]
        assert not first.closed
        await provider.session(2)
    assert call.changes == [("a/m", "renewed")]


@virtual
async def test_a_handle_takes_up_the_old_conversation() -> None:
    provider = Provider("a", seconds=600, can_resume=True)
    async with calling(provider) as call:
        first = await provider.session(1)
        first.handle = "h1"
        second = await provider.session(2, within=560)
        assert second.request.resume == "h1"
    assert call.story == ["new", "lost", "resumed"]
    assert call.changes == [("a/m", "renewed")]


@virtual
async def test_a_handle_that_is_refused_costs_the_vendors_memory_only() -> None:
    provider = Provider("a", seconds=600, can_resume=True)
    async with calling(provider) as call:
        first = await provider.session(1)
        first.handle = "h1"
        provider.faults = [provider.error()]
        second = await provider.session(2, within=560)
        assert second.request.resume == ""
    assert call.story == ["new", "lost", "new"]
    assert call.changes == [("a/m", "renewed")]


# --- silence and deafness ---------------------------------------------------------------------------------


@virtual
async def test_a_silent_model_is_left() -> None:
    a, b = Provider("a"), Provider("b")
    async with calling(a, b) as call:
        await a.session(1)
        call.link.give_up()
        await b.session(1)
    assert call.failures == ["a/m: it did not answer in time"]
    assert call.changes == [("b/m", "failed")]


@virtual
async def test_failed_responses_in_a_row_are_enough() -> None:
    a, b = Provider("a"), Provider("b")
    async with calling(a, b) as call:
        session = await a.session(1)
        session.tells(ResponseStarted("r1"), ResponseDone("r1", "failed", "too much to do"))
        session.tells(ResponseStarted("r2"), ResponseDone("r2"))
        session.tells(ResponseStarted("r3"), ResponseDone("r3", "failed"))
        await asyncio.sleep(5)
        assert b.sessions == []
        session.tells(ResponseStarted("r4"), ResponseDone("r4", "failed"))
        await b.session(1)
    assert call.failures == [
        "a/m: too much to do",
        "a/m: a response failed",
        "a/m: a response failed",
        "a/m: it fails to respond",
    ]


@virtual
async def test_a_deaf_model_is_left_and_its_successor_hears_the_caller() -> None:
    a, b = Provider("a"), Provider("b")
    async with calling(a, b) as call:
        await a.session(1)
        await call.frames(*[LOUD] * 500)
        await b.session(1)
    assert call.failures == ["a/m: it does not hear the caller any more"]


@virtual
async def test_noise_that_no_model_takes_for_speech_costs_one_connection_only() -> None:
    a, b = Provider("a"), Provider("b")
    async with calling(a, b) as call:
        call.quiet = False
        await call.frames(*[LOUD] * 5000)
        assert len(call.failures) == 1
        b.sessions[0].tells(SpeechStarted(0), SpeechStopped(100), CallerTranscript("hello"))  # it does hear …
        await call.frames(*[LOUD] * 500)  # … and now it does not
        await until(lambda: len(call.failures) == 2)


@virtual
async def test_a_long_speech_is_not_deafness() -> None:
    provider = Provider("a")
    async with calling(provider) as call:
        session = await provider.session(1)
        session.tells(SpeechStarted(0))
        await call.frames(*[LOUD] * 1500)  # 30 s
        assert call.failures == []
        await call.frames(*[LOUD] * 1000)  # 50 s: not even its end is noticed
        await until(lambda: len(call.failures) == 1)


@virtual
async def test_a_quiet_caller_is_not_deafness() -> None:
    provider = Provider("a")
    async with calling(provider) as call:
        await call.frames(*[QUIET] * 3000)
    assert call.failures == []


# --- the end ---------------------------------------------------------------------------------------------


@virtual
async def test_a_defect_of_the_listener_is_not_blamed_on_the_model() -> None:
    provider = Provider("a")
    call = Call(provider)

    def broken(event: RealtimeEvent, offset: int) -> None:
        raise ZeroDivisionError

    call.link._heard = broken
    (await provider.session(1)).tells(Partial("hello"))
    with pytest.raises(ExceptionGroup) as caught:
        await call.running
    assert caught.group_contains(ZeroDivisionError)
    assert call.failures == []
    assert provider.sessions[0].closed


@pytest.mark.parametrize("moment", ["connecting", "holding", "renewing"])
def test_a_call_that_ends_leaves_nothing_open(moment: str) -> None:
    @virtual
    async def story() -> None:
        provider = Provider("a", seconds=600)
        async with calling(provider):  # which looks for what is left
            if moment == "connecting":
                provider.open.clear()
                await asyncio.sleep(1)
            elif moment == "renewing":
                await provider.session(1)
                provider.open.clear()
                await asyncio.sleep(542)
            else:
                await provider.session(1)

    story()


# --- the caller's sound ----------------------------------------------------------------------------------


def test_of_too_much_sound_the_latest_is_kept() -> None:
    kept = KeptSound()
    for number in range(KEPT_MS // 20 + 100):
        kept.add(frame(number))
    assert len(kept.frames) == KEPT_MS // 20
    assert kept.frames[0] == frame(100)
    assert (kept.start_ms, kept.end_ms) == (2000, KEPT_MS + 2000)
