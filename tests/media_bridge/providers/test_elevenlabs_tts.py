"""ElevenLabsTts against a wire-level ElevenLabs: audio, alignment, contexts, and losses."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from elevenlabs.types import (
    AudioOutputMulti,
    CloseContext,
    CloseSocket,
    FinalOutputMulti,
    InitializeConnectionMulti,
    KeepContextAlive,
    SendTextMulti,
)

from media_bridge.providers import elevenlabs_voice, vendor_socket
from media_bridge.providers.base import ProviderConfig, TtsProvider
from media_bridge.providers.elevenlabs_alignment import advance, split
from media_bridge.providers.elevenlabs_tts import ElevenLabsTts
from media_bridge.providers.elevenlabs_voice import ElevenLabsVoice
from media_bridge.providers.vendor_socket import Query
from stayline.errors import ConfigError, ProviderError
from tests.fakes import misbehaviour
from tests.fakes.elevenlabs import FakeElevenLabs
from tests.media_bridge.providers.speech import audio_of, collect, counts, listen, own_tasks, say, until

VOICE = "21m00Tcm4TlvDq8ikWAM"
CLAUSES = ("Hello!", " Thank you for calling.", " How can I help you today?")
TEXT = "".join(CLAUSES)


@pytest.fixture
async def fake() -> AsyncIterator[FakeElevenLabs]:
    async with FakeElevenLabs() as server:
        yield server


def adapter(fake: FakeElevenLabs, model: str = "eleven_flash_v2_5", **options: Any) -> ElevenLabsTts:
    return ElevenLabsTts(
        ProviderConfig("elevenlabs", model, api_key=fake.api_key, base_url=fake.url, voice=VOICE, options=options)
    )


@pytest.fixture
async def voice(fake: FakeElevenLabs) -> AsyncIterator[ElevenLabsVoice]:
    session = await adapter(fake).connect(call_id="CA1")
    yield session
    await session.aclose()
    assert not own_tasks()


def messages(fake: FakeElevenLabs, connection: int = 0) -> list[dict[str, Any]]:
    return [message for message in fake.requests[connection].messages if isinstance(message, dict)]


async def test_the_audio_is_that_of_the_text_and_every_character_is_counted(
    fake: FakeElevenLabs, voice: ElevenLabsVoice
) -> None:
    chunks = await say(await voice.utterance(), *CLAUSES)
    assert len(audio_of(chunks)) == (len(TEXT) + 3) * 480  # each clause got a blank at its end
    told = counts(chunks)
    assert told == sorted(told)
    assert told[-1] == len(TEXT)
    assert TEXT[: told[0]] == "Hello!"  # words end where they end
    assert all(chunk.audio for chunk in chunks)
    request = fake.requests[0]
    assert request.path == f"/v1/text-to-speech/{VOICE}/multi-stream-input"
    assert request.headers["xi-api-key"] == fake.api_key
    assert dict(request.query) == {
        "model_id": "eleven_flash_v2_5",
        "output_format": "ulaw_8000",
        "inactivity_timeout": "60",
        "sync_alignment": "true",
        "language_code": "en",
    }


async def test_counts_stand_where_the_words_end(voice: ElevenLabsVoice) -> None:
    """At 60 ms a character, the fifth character ends at 300 ms: what was heard is exact at any word."""
    at = 0
    heard: dict[str, int] = {}
    for chunk in await say(await voice.utterance(), "Seven plumbers are on their way to you now."):
        at += len(chunk.audio) // 8
        if chunk.chars is not None:
            heard["Seven plumbers are on their way to you now."[: chunk.chars]] = at
    assert heard["Seven"] == 5 * 60
    assert heard["Seven plumbers are on their way"] == 31 * 60


async def test_what_it_sends_is_what_elevenlabs_documents(
    fake: FakeElevenLabs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elevenlabs_voice, "KEEPALIVE", 0.01)
    session = await adapter(fake, stability=0.5, speed=1.1, enable_logging=False).connect(call_id="CA1")
    await until(lambda: any(message.get("text") == "" for message in messages(fake)))
    await say(await session.utterance(), "Hello.")
    await session.aclose()
    await until(lambda: messages(fake)[-1] == {"close_socket": True})
    for message in messages(fake):
        kind: Any = SendTextMulti
        if message.get("close_socket"):
            kind = CloseSocket
        elif message.get("close_context"):
            kind = CloseContext
        elif message["text"] == "":
            kind = KeepContextAlive
        elif message["text"] == " ":
            kind = InitializeConnectionMulti
        parsed = kind.model_validate(message)
        assert not parsed.model_extra, message
    assert messages(fake)[0] == {
        "text": " ",
        "context_id": "u1",
        "voice_settings": {"stability": 0.5, "speed": 1.1},
    }
    assert fake.requests[0].param("enable_logging") == ["false"]


async def test_what_the_fake_sends_is_what_elevenlabs_documents(fake: FakeElevenLabs) -> None:
    path = f"/v1/text-to-speech/{VOICE}/multi-stream-input"
    query: Query = [("model_id", "eleven_flash_v2_5"), ("output_format", "ulaw_8000"), ("sync_alignment", True)]
    headers = {"xi-api-key": fake.api_key}
    socket = await vendor_socket.open_socket("elevenlabs", fake.url, path, query=query, headers=headers)
    await socket.send('{"text":" ","context_id":"a"}')
    await socket.send('{"text":"Hello there. ","context_id":"a","flush":true}')
    await socket.send('{"context_id":"a","close_context":true}')
    audio = AudioOutputMulti.model_validate_json(await socket.recv())
    assert audio.context_id == "a"
    assert audio.alignment is not None
    await socket.recv()
    assert FinalOutputMulti.model_validate_json(await socket.recv()).is_final
    await socket.close()


async def test_speech_begins_before_the_text_is_complete(voice: ElevenLabsVoice) -> None:
    utterance = await voice.utterance()
    await utterance.send(CLAUSES[0])
    async with asyncio.timeout(10):
        assert (await anext(aiter(utterance))).audio


async def test_two_utterances_at_once_are_kept_apart(voice: ElevenLabsVoice) -> None:
    first, second = await voice.utterance(), await voice.utterance()
    await first.send("One moment, please.")
    await second.send("Here it is.")
    await first.finish()
    await second.finish()
    assert len(audio_of(await collect(first))) == 20 * 480
    assert len(audio_of(await collect(second))) == 12 * 480


async def test_cancelling_stops_the_audio_and_late_audio_is_dropped(
    fake: FakeElevenLabs, voice: ElevenLabsVoice
) -> None:
    fake.pace.hold_after = 1
    utterance = await voice.utterance()
    await utterance.send(TEXT)
    async with asyncio.timeout(10):
        assert (await anext(aiter(utterance))).audio
    await utterance.cancel()  # one more message of it comes after this
    await utterance.cancel()
    assert await collect(utterance) == []
    await utterance.send("Nobody hears this.")
    fake.pace.hold_after = None
    chunks = await say(await voice.utterance(), "Yes?")
    assert (len(audio_of(chunks)), counts(chunks)[-1]) == (5 * 480, 4)
    assert len(fake.requests) == 1


async def test_a_caller_who_interrupts_again_and_again_does_not_run_out_of_contexts(
    fake: FakeElevenLabs, voice: ElevenLabsVoice
) -> None:
    fake.pace.hold_after = 0
    for _ in range(12):
        utterance = await voice.utterance()
        await utterance.send("This will be cut.")
        await utterance.cancel()
    fake.pace.hold_after = None
    assert counts(await say(await voice.utterance(), "Go on."))[-1] == 6
    assert fake.most_contexts <= 5
    assert len(fake.requests) == 1


async def test_a_sixth_utterance_waits_for_a_context(fake: FakeElevenLabs, voice: ElevenLabsVoice) -> None:
    open_ones = [await voice.utterance() for _ in range(5)]
    sixth = asyncio.create_task(voice.utterance())
    await say(open_ones[0], "I am done.")
    async with asyncio.timeout(10):
        assert counts(await say(await sixth, "Me too."))[-1] == 7
    assert fake.most_contexts == 5


async def test_closing_does_not_wait_for_an_utterance_that_waits(fake: FakeElevenLabs) -> None:
    provider: TtsProvider = adapter(fake)
    session = await provider.connect(call_id="CA1")
    for _ in range(5):
        await session.utterance()
    sixth = asyncio.create_task(session.utterance())
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await session.aclose()
        with pytest.raises(ProviderError):
            await sixth
    assert not own_tasks()


async def test_nothing_to_say_is_no_utterance(voice: ElevenLabsVoice) -> None:
    assert audio_of(await say(await voice.utterance(), " ")) == b""
    assert audio_of(await say(await voice.utterance())) == b""


async def test_without_alignment_the_end_is_still_counted() -> None:
    async with FakeElevenLabs(alignment=False) as fake:
        session = await adapter(fake).connect(call_id="CA1")
        chunks = await say(await session.utterance(), *CLAUSES)
        assert counts(chunks) == [len(TEXT)]
        assert all(chunk.audio for chunk in chunks)
        await session.aclose()


async def test_only_models_that_take_a_language_get_one(fake: FakeElevenLabs) -> None:
    session = await adapter(fake, "eleven_multilingual_v2").connect(call_id="CA1")
    assert fake.requests[0].param("language_code") == []
    assert counts(await say(await session.utterance(), "Hi."))[-1] == 3
    await session.aclose()


# --- what goes wrong -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "status", "retryable"),
    [
        (misbehaviour.unauthorized(), 401, False),
        (misbehaviour.rate_limited(3), 429, True),
        (misbehaviour.server_error(500), 500, True),
        (misbehaviour.reset(), None, True),
        (misbehaviour.hang(), None, True),
    ],
    ids=lambda value: getattr(value, "what", None),
)
async def test_a_refused_connection(
    fake: FakeElevenLabs,
    monkeypatch: pytest.MonkeyPatch,
    fault: misbehaviour.Misbehaviour,
    status: int | None,
    retryable: bool,
) -> None:
    if fault.what == "hang":
        monkeypatch.setattr(vendor_socket, "OPEN_TIMEOUT", 0.1)
    fake.misbehave(fault)
    with pytest.raises(ProviderError) as caught:
        await adapter(fake).connect(call_id="CA1")
    assert (caught.value.status, caught.value.retryable) == (status, retryable)
    assert caught.value.retry_after == fault.retry_after
    assert not own_tasks()


@pytest.mark.parametrize(("key", "voice"), [("wrong-secret", VOICE), (None, "nobody")])
async def test_a_wrong_key_or_voice_is_final(
    fake: FakeElevenLabs, caplog: pytest.LogCaptureFixture, key: str | None, voice: str
) -> None:
    """ElevenLabs accepts the websocket first and says what is wrong on it."""
    caplog.set_level(logging.DEBUG)
    config = ProviderConfig(
        "elevenlabs", "eleven_flash_v2_5", api_key=key or fake.api_key, base_url=fake.url, voice=voice
    )
    session = await ElevenLabsTts(config).connect(call_id="CA1")
    for _ in range(2):
        with pytest.raises(ProviderError) as caught:
            await say(await session.utterance(), "Hello.")
        assert not caught.value.retryable
        assert config.api_key not in str(caught.value) + caplog.text
    await session.aclose()


@pytest.mark.parametrize(
    "fault",
    [
        misbehaviour.disconnect(2),
        misbehaviour.half_message(2),
        misbehaviour.hang(2),
        misbehaviour.error(2),
    ],
    ids=lambda fault: fault.what,
)
async def test_a_loss_in_mid_audio_is_told_and_the_next_utterance_has_a_new_connection(
    fake: FakeElevenLabs, monkeypatch: pytest.MonkeyPatch, fault: misbehaviour.Misbehaviour
) -> None:
    if fault.what == "hang":
        monkeypatch.setattr(elevenlabs_voice, "STALL", 0.5)
    fake.misbehave(fault)
    session = await adapter(fake).connect(call_id="CA1")
    utterance = await session.utterance()
    await utterance.send(TEXT)
    await utterance.finish()
    heard = bytearray()
    with pytest.raises(ProviderError) as caught:
        await listen(utterance, heard)
    assert caught.value.retryable
    assert len(heard) == 24 * 480
    await utterance.send("More.")
    await utterance.cancel()
    assert counts(await say(await session.utterance(), "Again."))[-1] == 6
    assert len(fake.requests) == 2
    await session.aclose()
    assert not own_tasks()


@pytest.mark.parametrize("fault", [misbehaviour.unknown_message(1), misbehaviour.garbage(1)], ids=lambda f: f.what)
async def test_messages_that_nobody_knows_are_ignored(
    fake: FakeElevenLabs, fault: misbehaviour.Misbehaviour
) -> None:
    fake.misbehave(fault)
    session = await adapter(fake).connect(call_id="CA1")
    assert counts(await say(await session.utterance(), TEXT))[-1] == len(TEXT)
    await session.aclose()


async def test_closing_ends_what_is_spoken(fake: FakeElevenLabs) -> None:
    fake.pace.hold_after = 1
    session = await adapter(fake).connect(call_id="CA1")
    utterance = await session.utterance()
    await utterance.send(TEXT)
    await session.aclose()
    await session.aclose()
    assert await collect(utterance) == []
    assert not own_tasks()
    with pytest.raises(ProviderError):
        await session.utterance()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"stabilty": 0.5}, "Did you mean 'stability'"),
        ({"speed": 3}, "speed"),
        ({"apply_text_normalization": "x"}, "x"),
    ],
)
def test_wrong_options_are_refused_at_start(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        ElevenLabsTts(ProviderConfig("elevenlabs", "eleven_flash_v2_5", voice=VOICE, options=options))


def test_a_voice_is_needed() -> None:
    with pytest.raises(ConfigError, match="voice="):
        ElevenLabsTts(ProviderConfig("elevenlabs", "eleven_flash_v2_5"))


# --- alignment -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "position", "chars", "expected"),
    [
        ("Hello there.", 0, "Hello", 5),
        ("Hello there.", 0, " Hello ", 6),
        ("Hello  there.", 0, "Hello there.", 13),
        ("One. Two.", 4, "Two. ", 9),
        ("One.Two.", 0, "One. Two. ", 8),
        ("It is £5.", 0, "It is $5.", 9),
        ("Short.", 0, "Short. And more than there is.", 6),
    ],
)
def test_aligned_characters_are_found_in_the_text(text: str, position: int, chars: str, expected: int) -> None:
    assert advance(text, position, list(chars)) == expected


def test_splitting_keeps_every_byte() -> None:
    """Also when the vendor's times run past the audio."""
    alignment = {"chars": list("One two three "), "charStartTimesMs": [i * 100 for i in range(14)]}
    pieces = split(bytes(range(250)) * 20, alignment, "One two three", 0)
    assert b"".join(audio for audio, _ in pieces) == bytes(range(250)) * 20
    assert pieces[-1][1] == 13
