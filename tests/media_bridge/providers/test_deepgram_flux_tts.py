"""DeepgramTts with a Flux voice against a wire-level Deepgram: turns, interruptions, and losses."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from media_bridge.providers import deepgram_flux_voice, speech_socket, vendor_socket
from media_bridge.providers.base import ProviderConfig, TtsProvider, TtsSession
from media_bridge.providers.deepgram_flux_voice import FluxVoice
from media_bridge.providers.deepgram_tts import DeepgramTts
from stayline.errors import ConfigError, ProviderError
from tests.fakes import misbehaviour
from tests.fakes.deepgram import FakeDeepgram
from tests.fakes.deepgram_speak import Interrupts
from tests.fakes.sound import tone
from tests.media_bridge.providers.speech import audio_of, collect, counts, listen, own_tasks, say, until

CLAUSES = ("Hello!", " Thank you for calling.", " How can I help you today?")
TEXT = "".join(CLAUSES)


@pytest.fixture
async def fake() -> AsyncIterator[FakeDeepgram]:
    async with FakeDeepgram() as server:
        yield server


def adapter(fake: FakeDeepgram, model: str = "flux-alexis-en", **options: Any) -> TtsProvider:
    return DeepgramTts(ProviderConfig("deepgram", model, api_key=fake.api_key, base_url=fake.url, options=options))


@pytest.fixture
async def voice(fake: FakeDeepgram) -> AsyncIterator[TtsSession]:
    session = await adapter(fake).connect(call_id="CA1")
    yield session
    await session.aclose()
    assert not own_tasks()


def sent(fake: FakeDeepgram, connection: int = 0) -> list[str]:
    messages = fake.requests[connection].messages
    return [str(message.get("type")) for message in messages if isinstance(message, dict)]


async def test_an_utterance_is_one_turn_and_every_character_is_counted(
    fake: FakeDeepgram, voice: TtsSession
) -> None:
    chunks = await say(await voice.utterance(), *CLAUSES)
    assert audio_of(chunks) == b"".join(tone(len(clause) * 60) for clause in CLAUSES)
    assert counts(chunks) == [len(TEXT)]
    assert all(chunk.audio for chunk in chunks)
    assert fake.requests[0].path == "/v2/speak"
    assert fake.requests[0].query == [
        ("model", "flux-alexis-en"),
        ("encoding", "mulaw"),
        ("sample_rate", "8000"),
        ("tag", "CA1"),
    ]
    assert sent(fake) == ["Speak", "Speak", "Speak", "Flush"]


async def test_the_model_or_the_voice_decides_which_route_is_taken(fake: FakeDeepgram) -> None:
    configs = [
        ("aura-2-thalia-en", ""),
        ("aura-2-thalia-en", "flux-haley-en"),
        ("flux-alexis-en", "aura-2-luna-en"),
    ]
    for model, name in configs:
        config = ProviderConfig("deepgram", model, api_key=fake.api_key, base_url=fake.url, voice=name)
        session = await DeepgramTts(config).connect(call_id="CA1")
        assert counts(await say(await session.utterance(), "Yes.")) == [4]
        await session.aclose()
    assert [(request.path, request.param("model")) for request in fake.requests] == [
        ("/v1/speak", ["aura-2-thalia-en"]),
        ("/v2/speak", ["flux-haley-en"]),
        ("/v1/speak", ["aura-2-luna-en"]),
    ]


async def test_options_are_sent_by_deepgrams_names(fake: FakeDeepgram) -> None:
    provider = adapter(fake, speed=1.15, expressivity=-1, mip_opt_out=True, tag=("shop",))
    await (await provider.connect(call_id="CA1")).aclose()
    assert fake.requests[0].query[3:] == [
        ("speed", "1.15"),
        ("expressivity", "-1"),
        ("mip_opt_out", "true"),
        ("tag", "CA1"),
        ("tag", "shop"),
    ]


async def test_speech_begins_before_the_text_is_complete(voice: TtsSession) -> None:
    utterance = await voice.utterance()
    await utterance.send(CLAUSES[0])
    async with asyncio.timeout(10):
        assert (await anext(aiter(utterance))).audio
    await utterance.cancel()


async def test_a_second_of_speech_is_a_second_of_audio(fake: FakeDeepgram, voice: TtsSession) -> None:
    fake.pace.ms_per_char = 40
    assert len(audio_of(await say(await voice.utterance(), "Twenty-five characters ok"))) == 8000


async def test_utterances_follow_one_another_on_one_connection(fake: FakeDeepgram, voice: TtsSession) -> None:
    """Flux carries its tone from turn to turn, on the same connection."""
    for text in ("One.", "Two, and a bit.", "Three."):
        assert len(audio_of(await say(await voice.utterance(), text))) == len(text) * 480
    assert len(fake.requests) == 1


async def test_the_next_utterance_waits_for_the_one_before(voice: TtsSession) -> None:
    first, text = await voice.utterance(), "One moment, please."
    await first.send(text)
    second = await voice.utterance()  # finishes the first
    await second.send("Here it is.")
    await second.finish()
    assert len(audio_of(await collect(first))) == len(text) * 480
    chunks = await collect(second)
    assert (len(audio_of(chunks)), counts(chunks)) == (11 * 480, [11])


async def test_cancelling_interrupts_the_turn_and_spoils_nothing(fake: FakeDeepgram, voice: TtsSession) -> None:
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
    assert sent(fake) == ["Speak", "Interrupt", "Speak", "Flush"]
    assert len(fake.requests) == 1


async def test_one_that_waits_behind_a_cancelled_one_is_spoken(fake: FakeDeepgram, voice: TtsSession) -> None:
    fake.pace.hold_after = 1
    first = await voice.utterance()
    await first.send(TEXT)
    second = await voice.utterance()
    await second.send("Second.")
    await second.finish()
    async with asyncio.timeout(10):
        assert (await anext(aiter(first))).audio
    fake.pace.hold_after = None
    await first.cancel()
    assert audio_of(await collect(second)) == tone(7 * 60)


async def test_before_the_first_audio_only_closing_stops_a_turn(fake: FakeDeepgram, voice: TtsSession) -> None:
    """Flux ignores an `Interrupt` in a session that has not spoken yet."""
    fake.pace.hold_after = 0
    utterance = await voice.utterance()
    await utterance.send(TEXT)
    await until(lambda: sent(fake) == ["Speak"])
    await utterance.cancel()
    await until(lambda: fake.sockets[0].ws.closed)
    fake.pace.hold_after = None
    assert audio_of(await say(await voice.utterance(), "Yes?")) == tone(4 * 60)
    assert sent(fake) == ["Speak"]
    assert len(fake.requests) == 2


@pytest.mark.parametrize(("interrupts", "connections"), [("late", 1), ("ignored", 2)])
async def test_an_interruption_that_changes_nothing(
    fake: FakeDeepgram, interrupts: Interrupts, connections: int
) -> None:
    """Deepgram warns: the turn had just ended by itself, or it goes on, and only closing stops it."""
    fake.interrupts = interrupts
    fake.pace.hold_after = 1
    session = await adapter(fake).connect(call_id="CA1")
    utterance = await session.utterance()
    await utterance.send("Yes, of course.")
    await utterance.finish()
    await anext(aiter(utterance))
    await utterance.cancel()
    await until(lambda: sent(fake)[-1] == "Interrupt")
    fake.pace.hold_after = None
    assert audio_of(await say(await session.utterance(), "Well.")) == tone(5 * 60)
    assert len(fake.requests) == connections
    await session.aclose()


async def test_an_interruption_without_an_answer_costs_the_connection(
    fake: FakeDeepgram, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deepgram_flux_voice, "INTERRUPT_TIMEOUT", 0.05)
    fake.misbehave(misbehaviour.hang(3))
    session = await adapter(fake).connect(call_id="CA1")
    utterance = await session.utterance()
    await utterance.send(TEXT)
    await anext(aiter(utterance))
    await utterance.cancel()
    assert audio_of(await say(await session.utterance(), "Yes?")) == tone(4 * 60)
    assert len(fake.requests) == 2
    await session.aclose()


async def test_cancelling_before_or_after_speech_needs_no_interrupt(fake: FakeDeepgram, voice: TtsSession) -> None:
    await (await voice.utterance()).cancel()
    done = await voice.utterance()
    await say(done, "Done.")
    await done.cancel()
    empty = await voice.utterance()
    await empty.finish()
    assert await collect(empty) == []
    assert "Interrupt" not in sent(fake)


async def test_blanks_are_counted_but_not_spoken_alone(fake: FakeDeepgram, voice: TtsSession) -> None:
    chunks = await say(await voice.utterance(), " ", "Well.", " ")
    assert counts(chunks) == [7]
    assert fake.requests[0].messages[0] == {"type": "Speak", "text": " Well."}
    assert sent(fake) == ["Speak", "Flush"]


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
        (misbehaviour.disconnect(5), None),
        (misbehaviour.half_message(5), None),
        (misbehaviour.hang(5), None),
        (misbehaviour.error(5), 1008),
    ],
    ids=lambda value: getattr(value, "what", None),
)
async def test_a_loss_in_mid_audio_is_told_and_the_next_utterance_has_a_new_connection(
    fake: FakeDeepgram, monkeypatch: pytest.MonkeyPatch, fault: misbehaviour.Misbehaviour, status: int | None
) -> None:
    if fault.what == "hang":
        monkeypatch.setattr(speech_socket, "STALL", 0.5)
    fake.misbehave(fault)
    session = await adapter(fake).connect(call_id="CA1")
    utterance = await session.utterance()
    await utterance.send(TEXT)
    await utterance.finish()
    heard = bytearray()
    with pytest.raises(ProviderError) as caught:
        await listen(utterance, heard)
    assert (caught.value.status, caught.value.retryable) == (status, status is None)
    if fault.what == "error":
        assert "NET-0000: Internal failure" in str(caught.value)
    assert bytes(heard) == tone(200)  # after Connected, SpeechStarted and Flushed
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


async def test_a_connection_lost_while_idle_is_opened_again_or_is_an_error(fake: FakeDeepgram) -> None:
    fake.misbehave(misbehaviour.disconnect(0))
    session = await adapter(fake).connect(call_id="CA1")
    assert isinstance(session, FluxVoice)
    await until(lambda: not session._socket.alive)
    assert counts(await say(await session.utterance(), "Here.")) == [5]
    fake.sockets[1].abort()
    await fake.refuse_connections()
    await until(lambda: not session._socket.alive)
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
    ("options", "says"),
    [
        ({"sped": 1.2}, "Did you mean 'speed'"),
        ({"speed": 1.6}, "less than or equal to 1.5"),
        ({"speed": 1.12}, "multiple of 0.05"),
        ({"expressivity": 3}, "less than or equal to 2"),
    ],
)
def test_wrong_options_are_refused_at_start(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        DeepgramTts(ProviderConfig("deepgram", "flux-alexis-en", options=options))
