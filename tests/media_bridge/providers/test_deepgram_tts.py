"""DeepgramTts against a wire-level Deepgram: audio, counting, cancelling, the flush budget, and losses."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from media_bridge.providers import deepgram_voice, vendor_socket
from media_bridge.providers.base import ProviderConfig, TtsProvider
from media_bridge.providers.deepgram_tts import DeepgramTts
from media_bridge.providers.deepgram_voice import DeepgramVoice
from stayline.errors import ConfigError, ProviderError
from tests.fakes import misbehaviour
from tests.fakes.deepgram import FakeDeepgram
from tests.fakes.sound import tone
from tests.media_bridge.providers.speech import audio_of, collect, counts, listen, own_tasks, say, until

CLAUSES = ("Hello!", " Thank you for calling.", " How can I help you today?")
TEXT = "".join(CLAUSES)


@pytest.fixture
async def fake() -> AsyncIterator[FakeDeepgram]:
    async with FakeDeepgram() as server:
        yield server


def adapter(fake: FakeDeepgram, **options: Any) -> DeepgramTts:
    return DeepgramTts(
        ProviderConfig("deepgram", "aura-2-thalia-en", api_key=fake.api_key, base_url=fake.url, options=options)
    )


@pytest.fixture
async def voice(fake: FakeDeepgram) -> AsyncIterator[DeepgramVoice]:
    session = await adapter(fake).connect(call_id="CA1")
    yield session
    await session.aclose()
    assert not own_tasks()


def sent(fake: FakeDeepgram, connection: int = 0) -> list[str]:
    return [str(message.get("type")) for message in messages(fake, connection)]


def messages(fake: FakeDeepgram, connection: int = 0) -> list[dict[str, Any]]:
    return [message for message in fake.requests[connection].messages if isinstance(message, dict)]


async def test_the_audio_is_that_of_the_text_and_every_character_is_counted(
    fake: FakeDeepgram, voice: DeepgramVoice
) -> None:
    chunks = await say(await voice.utterance(), *CLAUSES)
    assert audio_of(chunks) == tone(6 * 60) + tone((len(TEXT) - 6) * 60)
    assert counts(chunks) == [6, len(TEXT)]
    assert all(chunk.audio for chunk in chunks)
    assert dict(fake.requests[0].query) == {
        "model": "aura-2-thalia-en",
        "encoding": "mulaw",
        "sample_rate": "8000",
    }
    assert sent(fake) == ["Speak", "Flush", "Speak", "Speak", "Flush"]


async def test_speech_begins_before_the_text_is_complete(voice: DeepgramVoice) -> None:
    utterance = await voice.utterance()
    await utterance.send(CLAUSES[0])
    async with asyncio.timeout(10):
        assert (await anext(aiter(utterance))).audio


async def test_utterances_follow_one_another_on_one_connection(fake: FakeDeepgram, voice: DeepgramVoice) -> None:
    for text in ("One.", "Two, and a bit.", "Three."):
        assert len(audio_of(await say(await voice.utterance(), text))) == len(text) * 480
    assert len(fake.requests) == 1


async def test_the_next_utterance_waits_for_the_one_before(voice: DeepgramVoice) -> None:
    """A filler is still being spoken when the reply begins: nothing is mixed up."""
    first, text = await voice.utterance(), "One moment, please."
    await first.send(text)
    second = await voice.utterance()  # finishes the first
    await second.send("Here it is.")
    await second.finish()
    assert len(audio_of(await collect(first))) == len(text) * 480
    chunks = await collect(second)
    assert (len(audio_of(chunks)), counts(chunks)) == (11 * 480, [11])


async def test_cancelling_stops_the_audio_and_spoils_nothing(fake: FakeDeepgram, voice: DeepgramVoice) -> None:
    fake.pace.hold_after = 2
    utterance = await voice.utterance()
    await utterance.send(TEXT)
    async with asyncio.timeout(10):
        assert (await anext(aiter(utterance))).audio
    await utterance.cancel()
    await utterance.cancel()
    assert await collect(utterance) == []
    await utterance.send("Nobody hears this.")
    fake.pace.hold_after = None
    chunks = await say(await voice.utterance(), "Yes?")
    assert (audio_of(chunks), counts(chunks)) == (tone(4 * 60), [4])  # not what was on its way
    assert sent(fake).count("Clear") == 1
    assert len(fake.requests) == 1


async def test_cancelling_before_or_after_speech_needs_no_clear(fake: FakeDeepgram, voice: DeepgramVoice) -> None:
    await (await voice.utterance()).cancel()
    done = await voice.utterance()
    await say(done, "Done.")
    await done.cancel()
    waiting_behind = await voice.utterance()
    await waiting_behind.finish()
    assert await collect(waiting_behind) == []
    assert "Clear" not in sent(fake)


async def test_blanks_are_counted_but_not_spoken_alone(fake: FakeDeepgram, voice: DeepgramVoice) -> None:
    chunks = await say(await voice.utterance(), " ", "Well.", " ")
    assert counts(chunks)[-1] == 7
    assert messages(fake)[0] == {"type": "Speak", "text": " Well."}


async def test_flushes_are_saved_up_and_never_run_out(fake: FakeDeepgram, voice: DeepgramVoice) -> None:
    """More utterances in a minute than Deepgram takes flushes on one connection."""
    for _ in range(25):
        assert counts(await say(await voice.utterance(), "Hm.", " Yes."))[-1] == 8
    flushes = [sent(fake, connection).count("Flush") for connection in range(len(fake.requests))]
    assert max(flushes) <= 20
    assert len(fake.requests) <= 3
    assert sum(flushes) >= 25


async def test_long_text_is_sent_in_pieces(fake: FakeDeepgram) -> None:
    fake.pace.ms_per_char = 1
    provider: TtsProvider = adapter(fake)
    session = await provider.connect(call_id="CA1")
    text = "word " * 900
    chunks = await say(await session.utterance(), text)
    assert len(audio_of(chunks)) == len(text) * 8
    assert all(len(message.get("text", "")) <= 2000 for message in messages(fake))
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
    fake: FakeDeepgram,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fault: misbehaviour.Misbehaviour,
    status: int | None,
    retryable: bool,
) -> None:
    caplog.set_level(logging.DEBUG)
    if fault.what == "hang":
        monkeypatch.setattr(vendor_socket, "OPEN_TIMEOUT", 0.1)
    fake.misbehave(fault)
    with pytest.raises(ProviderError) as caught:
        await adapter(fake).connect(call_id="CA1")
    assert (caught.value.status, caught.value.retryable) == (status, retryable)
    assert caught.value.retry_after == fault.retry_after
    assert fake.api_key not in str(caught.value) + caplog.text


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (misbehaviour.disconnect(3), None),
        (misbehaviour.half_message(3), None),
        (misbehaviour.hang(3), None),
        (misbehaviour.error(3), 1008),
    ],
    ids=lambda value: getattr(value, "what", None),
)
async def test_a_loss_in_mid_audio_is_told_and_the_next_utterance_has_a_new_connection(
    fake: FakeDeepgram, monkeypatch: pytest.MonkeyPatch, fault: misbehaviour.Misbehaviour, status: int | None
) -> None:
    if fault.what == "hang":
        monkeypatch.setattr(deepgram_voice, "STALL", 0.5)
    fake.misbehave(fault)
    session = await adapter(fake).connect(call_id="CA1")
    utterance = await session.utterance()
    await utterance.send(TEXT)
    await utterance.finish()
    heard = bytearray()
    with pytest.raises(ProviderError) as caught:
        await listen(utterance, heard)
    assert (caught.value.status, caught.value.retryable) == (status, status is None)
    assert heard == tone(200)  # what came before the loss: two frames after the metadata
    await utterance.send("More.")
    await utterance.cancel()
    assert counts(await say(await session.utterance(), "Again."))[-1] == 6
    assert len(fake.requests) == 2
    await session.aclose()
    assert not own_tasks()


@pytest.mark.parametrize("fault", [misbehaviour.unknown_message(2), misbehaviour.garbage(2)], ids=lambda f: f.what)
async def test_messages_that_nobody_knows_are_ignored(fake: FakeDeepgram, fault: misbehaviour.Misbehaviour) -> None:
    fake.misbehave(fault)
    session = await adapter(fake).connect(call_id="CA1")
    assert counts(await say(await session.utterance(), TEXT)) == [len(TEXT)]
    await session.aclose()


async def test_a_connection_lost_while_idle_is_opened_again(fake: FakeDeepgram) -> None:
    fake.misbehave(misbehaviour.disconnect(0))
    session = await adapter(fake).connect(call_id="CA1")
    await until(lambda: not session._alive)
    assert counts(await say(await session.utterance(), "Here.")) == [5]
    await session.aclose()


async def test_a_vendor_that_stays_away_is_an_error(fake: FakeDeepgram) -> None:
    fake.misbehave(misbehaviour.disconnect(0))
    session = await adapter(fake).connect(call_id="CA1")
    await fake.refuse_connections()
    await until(lambda: not session._alive)
    with pytest.raises(ProviderError) as caught:
        await session.utterance()
    assert caught.value.retryable
    await session.aclose()


async def test_closing_ends_what_is_spoken(fake: FakeDeepgram) -> None:
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
    assert sent(fake)[-1] == "Close"


@pytest.mark.parametrize(
    ("options", "says"), [({"sped": 1.2}, "Did you mean 'speed'"), ({"speed": 9}, "less than or equal to 1.5")]
)
def test_wrong_options_are_refused_at_start(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        DeepgramTts(ProviderConfig("deepgram", "aura-2-thalia-en", options=options))
