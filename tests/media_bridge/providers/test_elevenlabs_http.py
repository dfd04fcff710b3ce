"""ElevenLabs' voice over HTTP: audio and alignment, what is asked for, and the change from the websocket to it."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from elevenlabs import AsyncElevenLabs
from elevenlabs.types import StreamingAudioChunkWithTimestampsResponse

from media_bridge.providers import elevenlabs_http, elevenlabs_transport, vendor_socket
from media_bridge.providers.base import ProviderConfig, TtsProvider, TtsSession, Utterance
from media_bridge.providers.elevenlabs_alignment import ClipAlignment
from media_bridge.providers.elevenlabs_tts import ElevenLabsTts
from stayline.errors import ConfigError, ProviderError
from tests.fakes import misbehaviour
from tests.fakes.elevenlabs import FakeElevenLabs
from tests.fakes.misbehaviour import Misbehaviour
from tests.media_bridge.providers.speech import audio_of, collect, counts, listen, own_tasks, say, until

VOICE = "21m00Tcm4TlvDq8ikWAM"
TEXT = "Thank you for calling. How can I help you today?"
PATH = f"/v1/text-to-speech/{VOICE}/stream/with-timestamps"


@pytest.fixture
async def fake() -> AsyncIterator[FakeElevenLabs]:
    async with FakeElevenLabs() as server:
        yield server


@pytest.fixture
async def adapters() -> AsyncIterator[list[ElevenLabsTts]]:
    made: list[ElevenLabsTts] = []
    yield made
    for provider in made:
        await provider.aclose()
    assert not own_tasks()


Made = list[ElevenLabsTts]


def make(made: Made, fake: FakeElevenLabs, model: str = "eleven_flash_v2_5", **options: Any) -> ElevenLabsTts:
    config = ProviderConfig(
        "elevenlabs", model, api_key=fake.api_key, base_url=fake.url, voice=VOICE, options=options
    )
    made.append(ElevenLabsTts(config))
    return made[-1]


async def http_voice(made: Made, fake: FakeElevenLabs, **options: Any) -> TtsSession:
    return await make(made, fake, transport="http", **options).connect(call_id="CA1")


def bodies(fake: FakeElevenLabs) -> list[dict[str, Any]]:
    """Of the requests over HTTP."""
    return [json.loads(request.body) for request in fake.requests if request.method == "POST"]


# --- speech over HTTP ------------------------------------------------------------------------------------


async def test_the_audio_is_that_of_the_text_and_counts_stand_where_the_words_end(
    adapters: Made, fake: FakeElevenLabs
) -> None:
    provider: TtsProvider = make(adapters, fake, transport="http")
    await provider.warm()
    session = await provider.connect(call_id="CA1")
    chunks = await say(await session.utterance(), TEXT)
    assert len(audio_of(chunks)) == len(TEXT) * 480
    assert counts(chunks) == sorted(counts(chunks))
    assert counts(chunks)[-1] == len(TEXT)
    at = 0
    heard: dict[str, int] = {}
    for chunk in chunks:
        at += len(chunk.audio) // 8
        if chunk.chars is not None:
            heard[TEXT[: chunk.chars]] = at
    assert heard["Thank"] == 5 * 60
    assert heard["Thank you for calling. How can"] == 30 * 60
    await session.aclose()


async def test_what_it_asks_for(adapters: Made, fake: FakeElevenLabs) -> None:
    session = await http_voice(
        adapters, fake, stability=0.5, speed=1.1, apply_text_normalization="on", enable_logging=False
    )
    await say(await session.utterance(), "Hello!")
    (request,) = fake.requests
    assert (request.method, request.path) == ("POST", PATH)
    assert request.headers["xi-api-key"] == fake.api_key
    assert dict(request.query) == {"output_format": "ulaw_8000", "enable_logging": "false"}
    assert bodies(fake) == [
        {
            "text": "Hello!",
            "model_id": "eleven_flash_v2_5",
            "language_code": "en",
            "apply_text_normalization": "on",
            "voice_settings": {"stability": 0.5, "speed": 1.1},
        }
    ]
    await session.aclose()


async def test_speech_begins_with_the_first_clause_and_the_rest_is_asked_for_together(
    adapters: Made, fake: FakeElevenLabs
) -> None:
    fake.pace.hold_after = 1
    session = await http_voice(adapters, fake)
    utterance = await session.utterance()
    await utterance.send("Thank you for calling.")
    async with asyncio.timeout(10):
        first = await anext(aiter(utterance))
    assert first.audio
    await utterance.send(" How can I")
    await utterance.send(" help you?")
    await utterance.finish()
    fake.pace.let_go()
    rest = await collect(utterance)
    assert len(first.audio + audio_of(rest)) == 42 * 480
    assert counts(rest)[-1] == 42
    assert [(body["text"], body.get("previous_text")) for body in bodies(fake)] == [
        ("Thank you for calling.", None),
        (" How can I help you?", "Thank you for calling."),
    ]
    await session.aclose()


async def test_a_model_without_websocket_speaks_over_http_from_the_start(
    adapters: Made, fake: FakeElevenLabs
) -> None:
    session = await make(adapters, fake, "eleven_v3").connect(call_id="CA1")
    utterance = await session.utterance()
    await utterance.send("[laughs] Hello!")
    await until(lambda: len(fake.requests) == 1)
    assert counts(await say(utterance, " And again."))[-1] == 26
    assert {request.method for request in fake.requests} == {"POST"}
    assert "previous_text" not in bodies(fake)[-1]
    assert "language_code" not in bodies(fake)[-1]
    await session.aclose()


@pytest.mark.parametrize("way", ["times_begin_anew", "words_first"])
async def test_however_the_times_are_given(adapters: Made, fake: FakeElevenLabs, way: str) -> None:
    setattr(fake.http, way, True)
    session = await http_voice(adapters, fake)
    at = 0
    heard: dict[str, int] = {}
    for chunk in await say(await session.utterance(), TEXT):
        at += len(chunk.audio) // 8
        if chunk.chars is not None:
            heard[TEXT[: chunk.chars]] = at
    assert heard["Thank you for calling. How"] == 26 * 60
    assert heard[TEXT] == len(TEXT) * 60
    await session.aclose()


async def test_without_alignment_the_end_is_still_counted(adapters: Made) -> None:
    async with FakeElevenLabs(alignment=False) as fake:
        session = await http_voice(adapters, fake)
        chunks = await say(await session.utterance(), TEXT)
        assert counts(chunks) == [len(TEXT)]
        assert len(audio_of(chunks)) == len(TEXT) * 480
        await session.aclose()


async def test_cancelling_closes_the_connection_at_once(adapters: Made, fake: FakeElevenLabs) -> None:
    fake.pace.hold_after = 1
    session = await http_voice(adapters, fake)
    utterance = await session.utterance()
    await utterance.send(TEXT)
    async with asyncio.timeout(10):
        assert (await anext(aiter(utterance))).audio
    assert fake.http.connections == 1
    await utterance.cancel()
    await utterance.cancel()
    await utterance.send("Nobody hears this.")
    assert await collect(utterance) == []
    await until(lambda: fake.http.connections == 0)
    fake.pace.hold_after = None
    assert counts(await say(await session.utterance(), "Yes?"))[-1] == 4
    assert len(fake.requests) == 2
    await session.aclose()


async def test_nothing_to_say_asks_for_nothing(adapters: Made, fake: FakeElevenLabs) -> None:
    session = await http_voice(adapters, fake)
    assert audio_of(await say(await session.utterance(), " ")) == b""
    assert audio_of(await say(await session.utterance())) == b""
    assert fake.requests == []
    await session.aclose()


async def test_closing_ends_what_is_spoken(adapters: Made, fake: FakeElevenLabs) -> None:
    fake.pace.hold_after = 1
    session = await http_voice(adapters, fake)
    utterance = await session.utterance()
    await utterance.send(TEXT)
    await session.aclose()
    await session.aclose()
    assert await collect(utterance) == []
    with pytest.raises(ProviderError):
        await session.utterance()


@pytest.mark.parametrize(
    ("fault", "status", "retryable"),
    [
        (misbehaviour.unauthorized(), 401, False),
        (Misbehaviour("status", status=402), 402, False),
        (Misbehaviour("status", status=404), 404, False),
        (misbehaviour.rate_limited(3), 429, True),
        (misbehaviour.server_error(500), 500, True),
        (misbehaviour.reset(), None, True),
        (misbehaviour.hang(), None, True),
    ],
    ids=lambda value: f"{value.what}{value.status}" if isinstance(value, Misbehaviour) else None,
)
async def test_a_refused_request(
    adapters: Made,
    fake: FakeElevenLabs,
    monkeypatch: pytest.MonkeyPatch,
    fault: Misbehaviour,
    status: int | None,
    retryable: bool,
) -> None:
    if fault.what == "hang":
        monkeypatch.setattr(elevenlabs_http, "STALL", 0.1)
    fake.misbehave(fault)
    session = await http_voice(adapters, fake)
    with pytest.raises(ProviderError) as caught:
        await say(await session.utterance(), "Hello.")
    assert (caught.value.status, caught.value.retryable) == (status, retryable)
    assert caught.value.retry_after == fault.retry_after
    if status is not None:
        assert "req-7" in str(caught.value)  # by which ElevenLabs finds it
    await session.aclose()


@pytest.mark.parametrize(
    ("key", "voice", "says"), [("wrong-secret", VOICE, "ELEVENLABS_API_KEY"), (None, "nobody", "voice")]
)
async def test_a_wrong_key_or_voice_is_final_and_no_key_is_told(
    fake: FakeElevenLabs, caplog: pytest.LogCaptureFixture, key: str | None, voice: str, says: str
) -> None:
    caplog.set_level(logging.DEBUG)
    options = {"transport": "http"}
    config = ProviderConfig(
        "elevenlabs", "eleven_v3", api_key=key or fake.api_key, base_url=fake.url, voice=voice, options=options
    )
    provider = ElevenLabsTts(config)
    session = await provider.connect(call_id="CA1")
    with pytest.raises(ProviderError, match=says) as caught:
        await say(await session.utterance(), "Hello.")
    assert not caught.value.retryable
    assert config.api_key not in str(caught.value) + caplog.text
    await session.aclose()
    await provider.aclose()


@pytest.mark.parametrize(
    "fault", [misbehaviour.disconnect(2), misbehaviour.half_message(2), misbehaviour.hang(2)], ids=lambda f: f.what
)
async def test_an_answer_that_breaks_off_is_told_after_its_audio(
    adapters: Made, fake: FakeElevenLabs, monkeypatch: pytest.MonkeyPatch, fault: Misbehaviour
) -> None:
    if fault.what == "hang":
        monkeypatch.setattr(elevenlabs_http, "STALL", 0.3)
    fake.misbehave(fault)
    session = await http_voice(adapters, fake)
    utterance = await session.utterance()
    await utterance.send(TEXT)
    heard = bytearray()
    with pytest.raises(ProviderError) as caught:
        await listen(utterance, heard)
    assert caught.value.retryable
    assert len(heard) == 24 * 480
    assert counts(await say(await session.utterance(), "Again."))[-1] == 6
    await session.aclose()


@pytest.mark.parametrize("fault", [misbehaviour.unknown_message(1), misbehaviour.garbage(1)], ids=lambda f: f.what)
async def test_lines_that_nobody_knows_are_ignored(
    adapters: Made, fake: FakeElevenLabs, fault: Misbehaviour
) -> None:
    fake.misbehave(fault)
    session = await http_voice(adapters, fake)
    chunks = await say(await session.utterance(), TEXT)
    assert (len(audio_of(chunks)), counts(chunks)[-1]) == (len(TEXT) * 480, len(TEXT))
    await session.aclose()


async def test_what_the_fake_takes_and_sends_is_what_the_sdk_sends_and_takes(fake: FakeElevenLabs) -> None:
    client = AsyncElevenLabs(api_key=fake.api_key, base_url=fake.url)
    request: dict[str, Any] = {
        "voice_id": VOICE,
        "text": TEXT,
        "model_id": "eleven_flash_v2_5",
        "output_format": "ulaw_8000",
    }
    chunks = [chunk async for chunk in client.text_to_speech.stream_with_timestamps(**request)]
    assert all(isinstance(chunk, StreamingAudioChunkWithTimestampsResponse) for chunk in chunks)
    assert "".join("".join(chunk.alignment.characters) for chunk in chunks if chunk.alignment) == TEXT
    bare = b"".join([piece async for piece in client.text_to_speech.stream(**request)])
    assert len(bare) == len(TEXT) * 480


# --- from the websocket to HTTP --------------------------------------------------------------------------


async def lose(fake: FakeElevenLabs, utterance: Utterance) -> None:
    """Have the websocket break in the middle of an utterance that is not to be saved."""
    with pytest.raises(ProviderError):
        await say(utterance, "This is cut in the middle of the sentence.")


async def test_after_two_losses_the_utterance_goes_on_over_http_where_it_was(
    adapters: Made, fake: FakeElevenLabs
) -> None:
    """Nothing twice, nothing left out: the second utterance is heard in full, half of it over HTTP."""
    fake.misbehave(misbehaviour.disconnect(2), misbehaviour.disconnect(2))
    session = await make(adapters, fake).connect(call_id="CA1")
    await lose(fake, await session.utterance())
    utterance = await session.utterance()
    await utterance.send("Thank you for calling.")
    await utterance.send(" How can I help you today?")
    await utterance.finish()
    chunks = await collect(utterance)
    told = counts(chunks)
    assert told == sorted(told)
    assert told[-1] == len(TEXT)
    (body,) = bodies(fake)
    assert body["text"] == "How can I help you today?"
    assert len(audio_of(chunks)) == len(TEXT) * 480
    assert counts(await say(await session.utterance(), "Anything else?"))[-1] == 14
    assert [request.method for request in fake.requests] == ["GET", "GET", "POST", "POST"]
    await session.aclose()


async def test_text_that_comes_after_the_change_is_spoken_too(adapters: Made, fake: FakeElevenLabs) -> None:
    fake.misbehave(misbehaviour.disconnect(2), misbehaviour.disconnect(0))
    session = await make(adapters, fake).connect(call_id="CA1")
    await lose(fake, await session.utterance())
    utterance = await session.utterance()
    await utterance.send("Thank you.")
    chunks = aiter(utterance)
    async with asyncio.timeout(10):
        first = await anext(chunks)
    await utterance.send(" How can I help?")
    await utterance.finish()
    rest = await collect(utterance)
    assert len(first.audio + audio_of(rest)) == 26 * 480
    assert counts(rest)[-1] == 26
    await session.aclose()


@pytest.mark.parametrize("fault", [misbehaviour.server_error(503), misbehaviour.reset(), misbehaviour.hang()])
async def test_a_websocket_that_is_refused_twice_is_left_for_http(
    adapters: Made, fake: FakeElevenLabs, monkeypatch: pytest.MonkeyPatch, fault: Misbehaviour
) -> None:
    """The first refusal is told, so that another provider gets its chance; the second is not."""
    if fault.what == "hang":
        monkeypatch.setattr(vendor_socket, "OPEN_TIMEOUT", 0.1)
    provider = make(adapters, fake)
    fake.misbehave(fault, fault)
    with pytest.raises(ProviderError):
        await provider.connect(call_id="CA1")
    session = await provider.connect(call_id="CA1")
    assert counts(await say(await session.utterance(), TEXT))[-1] == len(TEXT)
    assert [request.method for request in fake.requests] == ["GET", "GET", "POST"]
    await session.aclose()


async def test_a_lost_websocket_that_is_refused_when_opened_again(adapters: Made, fake: FakeElevenLabs) -> None:
    fake.misbehave(misbehaviour.disconnect(1), misbehaviour.server_error(503))
    session = await make(adapters, fake).connect(call_id="CA1")
    await lose(fake, await session.utterance())
    assert counts(await say(await session.utterance(), "Hello."))[-1] == 6
    assert [request.method for request in fake.requests] == ["GET", "GET", "POST"]
    await session.aclose()


async def test_a_new_model_that_the_websocket_refuses_for_good_needs_no_second_refusal(
    adapters: Made, fake: FakeElevenLabs
) -> None:
    fake.misbehave(Misbehaviour("status", status=403))
    session = await make(adapters, fake, "eleven_v9").connect(call_id="CA1")
    assert counts(await say(await session.utterance(), "Hello."))[-1] == 6
    await session.aclose()


@pytest.mark.parametrize("status", [401, 402, 404, 429])
async def test_what_http_would_say_too_is_told(adapters: Made, fake: FakeElevenLabs, status: int) -> None:
    provider = make(adapters, fake)
    fake.always = Misbehaviour("status", status=status)
    for _ in range(3):
        with pytest.raises(ProviderError) as caught:
            await provider.connect(call_id="CA1")
        assert caught.value.status == status
    assert {request.method for request in fake.requests} == {"GET"}


async def test_new_calls_spare_themselves_a_websocket_that_failed_twice_and_try_it_later(
    adapters: Made, fake: FakeElevenLabs, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = make(adapters, fake)
    fake.misbehave(misbehaviour.server_error(503), misbehaviour.server_error(503))
    with pytest.raises(ProviderError):
        await provider.connect(call_id="CA1")
    await (await provider.connect(call_id="CA1")).aclose()
    second = await provider.connect(call_id="CA2")
    assert len(fake.requests) == 2
    await second.aclose()
    monkeypatch.setattr(elevenlabs_transport, "REST", 0)
    third = await provider.connect(call_id="CA3")
    assert counts(await say(await third.utterance(), "Hello."))[-1] == 6
    assert [request.method for request in fake.requests] == ["GET", "GET", "GET"]
    fake.misbehave(misbehaviour.server_error(503))
    with pytest.raises(ProviderError):  # it has worked in between, so this is the first trouble again
        await provider.connect(call_id="CA4")
    await third.aclose()


async def test_a_loss_that_two_utterances_share_is_one(adapters: Made, fake: FakeElevenLabs) -> None:
    session = await make(adapters, fake).connect(call_id="CA1")
    fake.pace.hold_after = 0
    both = [await session.utterance() for _ in range(2)]
    for utterance in both:
        await utterance.send("Hello.")
    await until(lambda: len(fake.requests[0].messages) >= 5)
    fake.sockets[0].abort()
    for utterance in both:
        with pytest.raises(ProviderError):
            await collect(utterance)
    fake.pace.hold_after = None
    assert counts(await say(await session.utterance(), "Hello."))[-1] == 6
    assert {request.method for request in fake.requests} == {"GET"}
    await session.aclose()


async def test_where_it_is_not_known_what_was_heard_the_loss_is_told(adapters: Made) -> None:
    async with FakeElevenLabs(alignment=False) as fake:
        fake.misbehave(misbehaviour.disconnect(2), misbehaviour.disconnect(2))
        session = await make(adapters, fake).connect(call_id="CA1")
        for _ in range(2):
            await lose(fake, await session.utterance())
        assert counts(await say(await session.utterance(), "Hello."))[-1] == 6
        assert [request.method for request in fake.requests] == ["GET", "GET", "POST"]
        await session.aclose()


async def test_a_cancelled_utterance_does_not_come_back_over_http(adapters: Made, fake: FakeElevenLabs) -> None:
    fake.misbehave(misbehaviour.disconnect(2))
    session = await make(adapters, fake).connect(call_id="CA1")
    await lose(fake, await session.utterance())
    fake.pace.hold_after = 1
    utterance = await session.utterance()
    await utterance.send(TEXT)
    async with asyncio.timeout(10):
        assert (await anext(aiter(utterance))).audio
    await utterance.cancel()
    fake.sockets[1].abort()
    assert await collect(utterance) == []
    assert bodies(fake) == []
    await session.aclose()


async def test_transport_websocket_never_asks_over_http(adapters: Made, fake: FakeElevenLabs) -> None:
    provider = make(adapters, fake, transport="websocket")
    fake.always = misbehaviour.server_error(503)
    for _ in range(3):
        with pytest.raises(ProviderError):
            await provider.connect(call_id="CA1")
    assert {request.method for request in fake.requests} == {"GET"}


def test_a_transport_that_the_model_does_not_have_is_refused_at_start() -> None:
    config = ProviderConfig("elevenlabs", "eleven_v3", voice=VOICE, options={"transport": "websocket"})
    with pytest.raises(ConfigError, match="no websocket"):
        ElevenLabsTts(config)


# --- alignment -------------------------------------------------------------------------------------------


def test_no_byte_is_lost_when_times_run_past_the_audio() -> None:
    alignment = {
        "characters": list("One two"),
        "character_start_times_seconds": [i * 10.0 for i in range(7)],
        "character_end_times_seconds": [(i + 1) * 10.0 for i in range(7)],
    }
    clip = ClipAlignment("One two")
    pieces = [*clip.split(b"\x01" * 1000, alignment), *clip.split(b"\x02" * 1000, None)]
    assert b"".join(audio for audio, _ in pieces) == b"\x01" * 1000 + b"\x02" * 1000
    assert all(chars is None for _, chars in pieces)


def test_times_of_audio_that_came_before_are_told_with_no_audio() -> None:
    alignment = {
        "characters": list("Hi"),
        "character_start_times_seconds": [0.0, 0.05],
        "character_end_times_seconds": [0.05, 0.1],
    }
    clip = ClipAlignment("Hi")
    assert clip.split(b"\x01" * 1600, None) == [(b"\x01" * 1600, None)]
    assert clip.split(b"", alignment) == [(b"", 2)]
