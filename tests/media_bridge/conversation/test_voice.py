"""The agent's voice when its providers misbehave: what is spoken, in which order, and that nothing hangs.

The providers are scripted: each utterance of a voice meets the next of its fates.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from media_bridge.conversation import voice as module
from media_bridge.conversation.voice import Voice
from media_bridge.providers.base import SpeechChunk, TtsProfile, TtsProvider
from media_bridge.providers.fallback import REST, Lineup
from stayline.errors import ProviderError
from tests.media_bridge.providers.speech import until

TIMEOUT = 0.15
"""Seconds without audio after which a voice has failed, here."""


class Utterance:
    """Speaks each clause as one chunk; its audio is the text, so that a test reads what was spoken."""

    def __init__(self, provider: Provider, fate: str) -> None:
        self._provider = provider
        self._fate = fate
        self._chunks: asyncio.Queue[SpeechChunk | ProviderError | None] = asyncio.Queue()
        self._spoken = 0
        self.cancelled = False

    async def send(self, text: str) -> None:
        self._provider.sent.append(text)
        if self._fate == "fails at once":
            raise self._provider.error()
        if self._fate == "mute":
            return
        self._spoken += len(text)
        if self._fate == "fails uncounted":
            self._chunks.put_nowait(SpeechChunk(text.encode()))
            self._chunks.put_nowait(self._provider.error())
            return
        self._chunks.put_nowait(SpeechChunk(text.encode(), self._spoken))
        if self._fate == "fails after audio":
            self._chunks.put_nowait(self._provider.error())

    async def finish(self) -> None:
        if self._fate != "mute":
            self._chunks.put_nowait(None)

    async def __aiter__(self) -> AsyncIterator[SpeechChunk]:
        while (chunk := await self._chunks.get()) is not None:
            if isinstance(chunk, ProviderError):
                raise chunk
            if self._fate == "has a defect":
                raise KeyError("audio")
            if self._fate == "slow":
                await asyncio.sleep(TIMEOUT / 3)
            yield chunk
            if self._fate == "stalls":
                await asyncio.Event().wait()

    async def cancel(self) -> None:
        self.cancelled = True


class Provider:
    """A TTS provider and its one session. Fates are used up one per utterance; afterwards all goes well."""

    profile = TtsProfile(native_mulaw=True)

    def __init__(self, name: str, *fates: str, refuses: int = 0, bad_goodbye: bool = False) -> None:
        self.name = name
        self.fates = list(fates)
        self.refuses = refuses
        self.bad_goodbye = bad_goodbye
        self.connected = 0
        self.closed = 0
        self.sent: list[str] = []
        self.utterances: list[Utterance] = []

    def error(self) -> ProviderError:
        return ProviderError(self.name, "out of order", retryable=True)

    async def warm(self) -> None: ...

    async def connect(self, *, call_id: str) -> Provider:
        if self.refuses:
            self.refuses -= 1
            raise self.error()
        self.connected += 1
        return self

    async def utterance(self) -> Utterance:
        fate = self.fates.pop(0) if self.fates else "speaks"
        if fate == "never begins":
            await asyncio.Event().wait()
        made = Utterance(self, fate)
        self.utterances.append(made)
        return made

    async def aclose(self) -> None:
        self.closed += 1
        if self.bad_goodbye:
            raise ConnectionResetError


class Listener:
    """A voice that runs, and everything that it told."""

    def __init__(self, *providers: Provider) -> None:
        self.audio: list[tuple[int, str]] = []
        self.done: list[int] = []
        self.failures: list[str] = []
        self.changes: list[tuple[str, str]] = []
        self.mute = 0
        self.now = 0.0  #: of the lineup's clock
        members: list[tuple[str, TtsProvider]] = [(f"{p.name}/model", p) for p in providers]
        self.voice = Voice(
            Lineup("tts", members, lambda: self.now),
            "CA1",
            self._heard,
            self.done.append,
            self._failed,
            lambda role, ref, why: self.changes.append((ref, why)),
            self._muted,
        )

    def _muted(self) -> None:
        self.mute += 1

    def _heard(self, utterance: int, audio: bytes, chars: int | None) -> None:
        self.audio.append((utterance, audio.decode()))

    def _failed(self, role: str, error: ProviderError) -> None:
        assert role == "tts"
        self.failures.append(error.message)

    def says(self, utterance: int, *clauses: str) -> None:
        for clause in clauses:
            self.voice.say(utterance, clause)
        self.voice.end(utterance)

    async def until(self, condition: Callable[[], bool]) -> None:
        await until(condition)

    async def over(self, *utterances: int) -> None:
        await until(lambda: self.done == list(utterances))


@pytest.fixture(autouse=True)
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AUDIO_TIMEOUT", TIMEOUT)
    monkeypatch.setattr(module, "PAUSE", 0.01)


@asynccontextmanager
async def speaking(*providers: Provider) -> AsyncIterator[Listener]:
    listener = Listener(*providers)
    running = asyncio.create_task(listener.voice.run())
    try:
        yield listener
        assert not running.done(), "whatever its providers do, the voice goes on"
    finally:
        running.cancel()
        await asyncio.wait({running})
    assert running.cancelled()


# --- order -----------------------------------------------------------------------------------------------


async def test_utterances_are_spoken_one_after_the_other_over_one_connection() -> None:
    provider = Provider("a")
    async with speaking(provider) as listener:
        listener.voice.say(1, "One, ")
        listener.voice.say(2, "Two.")
        listener.voice.end(2)
        await listener.until(lambda: listener.audio == [(1, "One, ")])
        listener.voice.say(1, "and a half.")
        listener.voice.end(1)
        await listener.over(1, 2)
        listener.voice.end(7)  # nobody knows it
        listener.says(3, "Three.")
        await listener.over(1, 2, 3)
    assert listener.audio == [(1, "One, "), (1, "and a half."), (2, "Two."), (3, "Three.")]
    assert (provider.connected, provider.closed, listener.failures) == (1, 1, [])
    assert all(utterance.cancelled for utterance in provider.utterances), "each is given back"


async def test_what_is_dropped_is_never_heard() -> None:
    provider = Provider("a", "stalls")
    async with speaking(provider) as listener:
        listener.says(1, "A long story.")
        listener.says(2, "And another.")
        await listener.until(lambda: listener.audio == [(1, "A long story.")])
        listener.voice.drop()
        listener.says(3, "Yes?")
        await listener.over(1, 3)
    assert listener.audio == [(1, "A long story."), (3, "Yes?")]
    assert provider.utterances[0].cancelled
    assert (provider.connected, listener.failures) == (1, []), "an interruption is nobody's failure"


async def test_dropping_nothing_is_harmless() -> None:
    async with speaking(Provider("a")) as listener:
        listener.voice.drop()
        listener.says(1, "Hello.")
        await listener.over(1)
        listener.voice.drop()
        listener.says(2, "Still here.")
        await listener.over(1, 2)


async def test_an_utterance_whose_text_comes_late_is_not_overdue() -> None:
    """While the language model thinks, silence is not the voice's fault."""
    async with speaking(Provider("a")) as listener:
        listener.voice.say(1, "Let me see. ")
        await listener.until(lambda: len(listener.audio) == 1)
        await asyncio.sleep(3 * TIMEOUT)
        listener.voice.say(1, "Found it.")
        listener.voice.end(1)
        await listener.over(1)
    assert [text for _, text in listener.audio] == ["Let me see. ", "Found it."]
    assert listener.failures == []


# --- failures --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fate", ["fails at once", "has a defect", "mute", "never begins"])
async def test_a_voice_that_fails_before_any_audio_is_replaced(fate: str) -> None:
    broken, sound = Provider("a", fate), Provider("b")
    async with speaking(broken, sound) as listener:
        listener.says(1, "Good ", "morning.")
        await listener.over(1)
        assert "".join(text for _, text in listener.audio) == "Good morning.", "all of it, once"
        listener.says(2, "Again.")
        await listener.over(1, 2)
    assert sound.sent[-1] == "Again.", "it stays with the one that works"
    assert len(listener.failures) == 1
    assert (broken.connected, broken.closed, sound.connected) == (1, 1, 1)


async def test_the_second_voice_gets_its_own_time() -> None:
    """The first hung for the whole time limit; the second must not be found late in its first moment."""
    hangs, slow = Provider("a", "mute"), Provider("b", "slow")
    async with speaking(hangs, slow) as listener:
        listener.says(1, "Good morning.")
        await listener.over(1)
    assert listener.audio == [(1, "Good morning.")]
    assert len(listener.failures) == 1


async def test_an_utterance_that_waited_for_its_turn_is_not_overdue() -> None:
    async with speaking(Provider("a", "speaks", "slow")) as listener:
        listener.voice.say(1, "A story ")
        listener.says(2, "The end.")
        await asyncio.sleep(1.5 * TIMEOUT)
        listener.voice.say(1, "of a day.")
        listener.voice.end(1)
        await listener.over(1, 2)
    assert listener.audio[-1] == (2, "The end.")
    assert listener.failures == []


@pytest.mark.parametrize("fate", ["fails after audio", "stalls"])
async def test_where_a_voice_fails_the_next_goes_on(fate: str) -> None:
    broken, sound = Provider("a", fate), Provider("b")
    async with speaking(broken, sound) as listener:
        listener.says(1, "Your order ", "is here.")
        await listener.over(1)
        listener.says(2, "Anything else?")
        await listener.over(1, 2)
    assert [text for number, text in listener.audio if number == 1] == ["Your order ", "is here."]
    assert sound.sent == ["is here.", "Anything else?"], "it repeats nothing"
    assert listener.changes == [("b/model", "failed")]
    assert len(listener.failures) == 1


async def test_a_voice_that_refuses_to_connect_is_passed_over() -> None:
    refuses, sound = Provider("a", refuses=1), Provider("b")
    async with speaking(refuses, sound) as listener:
        listener.says(1, "Hello.")
        await listener.over(1)
    assert listener.audio == [(1, "Hello.")]
    assert listener.failures == ["a: out of order"]


async def test_the_only_voice_gets_a_second_chance() -> None:
    provider = Provider("a", "fails at once")
    async with speaking(provider) as listener:
        listener.says(1, "Hello.")
        await listener.over(1)
    assert listener.audio == [(1, "Hello.")]
    assert (provider.connected, len(listener.failures)) == (2, 1)


async def test_what_a_voice_that_does_not_count_was_not_given_is_left_for_the_next() -> None:
    silent, sound = Provider("a", "fails uncounted"), Provider("b")
    async with speaking(silent, sound) as listener:
        listener.voice.say(1, "Your order ")
        await listener.until(lambda: len(listener.failures) == 1)
        listener.says(1, "is here.")
        await listener.over(1)
    assert listener.audio == [(1, "Your order "), (1, "is here.")]


async def test_a_preferred_voice_is_taken_up_again() -> None:
    a, b = Provider("a", "fails at once"), Provider("b")
    async with speaking(a, b) as listener:
        listener.says(1, "Hello.")
        await listener.over(1)
        listener.says(2, "How are you?")
        await listener.over(1, 2)
        listener.now = REST + 1
        listener.says(3, "Fine.")
        await listener.over(1, 2, 3)
    assert b.sent == ["Hello.", "How are you?"]
    assert a.sent == ["Hello.", "Fine."]
    assert listener.changes == [("b/model", "failed"), ("a/model", "recovered")]


async def test_when_all_fail_again_and_again_the_agent_is_mute() -> None:
    a, b = (Provider(name, *["fails at once"] * module.ROUNDS) for name in "ab")
    async with speaking(a, b) as listener:
        listener.says(1, "Hello.")
        await listener.over(1)
        assert listener.audio == []
        assert listener.failures == ["a: out of order", "b: out of order"] * module.ROUNDS
        assert listener.mute == 1
        listener.says(2, "Back again.")
        await listener.over(1, 2)
    assert listener.audio == [(2, "Back again.")]


async def test_when_nobody_accepts_a_connection_all_are_asked_again() -> None:
    async with speaking(Provider("a", refuses=1), Provider("b", refuses=1)) as listener:
        listener.says(1, "Hello.")
        await listener.over(1)
    assert listener.failures == ["a: out of order", "b: out of order"]
    assert listener.audio == [(1, "Hello.")]
    assert listener.mute == 0


async def test_a_failed_voice_that_cannot_even_be_closed() -> None:
    broken, sound = Provider("a", "fails at once", bad_goodbye=True), Provider("b")
    async with speaking(broken, sound) as listener:
        listener.says(1, "Hello.")
        await listener.over(1)
    assert listener.audio == [(1, "Hello.")]
