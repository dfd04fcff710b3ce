"""Text to speech that runs here."""

from __future__ import annotations

import asyncio
import importlib.util
import socket
from collections.abc import AsyncIterator

import numpy as np
import pytest
import pytest_asyncio

from media_bridge.audio import mulaw
from media_bridge.providers.base import EndOfTurn, ProviderConfig
from media_bridge.providers.offline.hibari import CHUNK, HibariModel, HibariSession, HibariTts
from media_bridge.providers.offline.moonshine import MoonshineStt
from stayline.errors import ConfigError, ProviderError
from tests.media_bridge.providers.speech import audio_of, collect, counts, hear, say, talk

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("hibari") is None, reason="the extra `offline` is not installed"
)


def config(voice: str = "heart", **options: object) -> ProviderConfig:
    return ProviderConfig("offline", "hibari", voice=voice, options=options)


@pytest_asyncio.fixture
async def session() -> AsyncIterator[HibariSession]:
    tts = HibariTts(config())
    await tts.warm()
    session = await tts.connect(call_id="CA1")
    yield session
    await session.aclose()
    await tts.aclose()


async def test_what_it_says_can_be_understood(session: HibariSession) -> None:
    """Through the phone line's codec and our own recogniser."""
    chunks = await say(await session.utterance(), "Your order left our warehouse on Tuesday.")
    stream = await MoonshineStt(ProviderConfig("offline", "moonshine")).connect(call_id="CA1")
    await talk(stream, audio_of(chunks) + mulaw.silence(1000))
    turn = (await hear(stream, EndOfTurn))[-1]
    assert isinstance(turn, EndOfTurn)
    assert turn.text == "Your order left our warehouse on Tuesday."
    await stream.aclose()


async def test_sound_comes_in_small_chunks_with_the_text_at_each_sentences_end(session: HibariSession) -> None:
    clauses = ("Hello there. I am Dr. Smith, ", "and this is a test! ", "Goodbye.")
    chunks = await say(await session.utterance(), *clauses)
    assert max(len(chunk.audio) for chunk in chunks) <= CHUNK
    text = "".join(clauses)
    ends = counts(chunks)
    assert [text[a:b].strip() for a, b in zip([0, *ends], ends, strict=False)] == [
        "Hello there.",
        "I am Dr. Smith,",
        "and this is a test!",
        "Goodbye.",
    ]
    assert ends[-1] == len(text)
    assert chunks[-1].chars == len(text)


async def test_it_neither_hesitates_nor_mumbles(session: HibariSession) -> None:
    """The engine's 300 ms of silence before each clause are cut, and speech is as loud as a phone call's."""
    chunks = await say(await session.utterance(), "One moment please. ", "I am looking for it.")
    samples = np.abs(mulaw.to_float(audio_of(chunks)))
    loud = np.flatnonzero(samples > 0.02)
    assert loud[0] < mulaw.ms_to_bytes(100)
    longest_gap = np.diff(loud).max()
    assert mulaw.ms_to_bytes(200) < longest_gap < mulaw.ms_to_bytes(500)
    speech = samples[samples > 0.01]
    assert -26 < 20 * np.log10(np.sqrt(np.mean(speech**2))) < -14


async def test_the_same_text_sounds_the_same(session: HibariSession) -> None:
    first, second = [audio_of(await say(await session.utterance(), "Good morning.")) for _ in range(2)]
    assert first == second


async def test_speed(session: HibariSession) -> None:
    fast = await HibariTts(config(speed=1.5)).connect(call_id="CA1")
    text = "This is said at one speed or another."
    usual, faster = [len(audio_of(await say(await s.utterance(), text))) for s in (session, fast)]
    assert faster < 0.8 * usual


async def test_text_without_words_is_silence(session: HibariSession) -> None:
    assert audio_of(await say(await session.utterance(), " ", "...", "\n")) == b""
    assert await say(await session.utterance()) == []


async def test_a_cancelled_utterance_yields_nothing_more(session: HibariSession) -> None:
    utterance = await session.utterance()
    await utterance.send("This is a long sentence, and nobody wants to hear the end of it. " * 5)
    async with asyncio.timeout(10):
        assert (await anext(utterance)).audio
    await utterance.cancel()
    await utterance.cancel()
    assert await collect(utterance) == []
    await utterance.send("Too late.")
    await utterance.finish()
    assert await collect(utterance) == []


async def test_a_listener_who_waits_is_released_by_cancel(session: HibariSession) -> None:
    utterance = await session.utterance()
    waiting = asyncio.create_task(collect(utterance))
    await asyncio.sleep(0)
    await utterance.cancel()
    assert await waiting == []


async def test_closing_the_session_cancels_what_it_says() -> None:
    before = asyncio.all_tasks()
    session = await HibariTts(config()).connect(call_id="CA1")
    utterance = await session.utterance()
    await utterance.send("Hello. " * 20)
    await session.aclose()
    assert await collect(utterance) == []
    assert asyncio.all_tasks() == before


async def test_ten_calls_speak_at_once(session: HibariSession) -> None:
    sessions = [await HibariTts(config()).connect(call_id=str(n)) for n in range(10)]
    expected = audio_of(await say(await session.utterance(), "How can I help you?"))
    async with asyncio.TaskGroup() as group:
        calls = [group.create_task(say(await s.utterance(), "How can I help you?")) for s in sessions]
    assert all(audio_of(call.result()) == expected for call in calls)


async def test_nothing_is_downloaded(session: HibariSession, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("the engine asked for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert HibariModel().speak("Xylquorp and Szczebrzeszyn are no words.", 1.0)


async def test_a_broken_engine_is_a_provider_error(session: HibariSession, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: HibariModel, text: str, speed: float) -> bytes:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(HibariModel, "speak", broken)
    with pytest.raises(ProviderError, match="out of memory"):
        await say(await session.utterance(), "Hello.")


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (config(voice="emma"), "'emma'.*'heart'"),
        (config(speed=9), "speed"),
        (config(rate=1), "no tts option 'rate'"),
        (ProviderConfig("offline", "piper"), "offline/hibari"),
        (ProviderConfig("offline", "hibari", language="fr"), "English only"),
    ],
)
def test_a_wrong_configuration_is_refused(wrong: ProviderConfig, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        HibariTts(wrong)


def test_a_missing_engine_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"stayline\[offline\]"):
        HibariTts(config())
