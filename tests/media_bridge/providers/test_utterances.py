"""Turn detection for recognisers that have none, on real speech: made here, and a person's."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest

from media_bridge.audio import mulaw, vad
from media_bridge.audio.resample import resample
from media_bridge.providers import utterances
from media_bridge.providers.utterances import (
    UtteranceAudio,
    UtteranceEvent,
    UtteranceFinder,
    UtteranceOver,
    UtteranceRule,
    UtteranceStarted,
)
from stayline.errors import ConfigError
from tests.fakes import sound
from tests.media_bridge.audio.voices import spoken

PERSON = Path(__file__).resolve().parents[3].parent / "shared/data/audio/weather_question.wav"
SPEECH = "Where is my order?"

try:
    utterances.require_vad("test")
except ConfigError:
    pytest.skip("the extra `offline` is not installed", allow_module_level=True)


def find(audio: bytes, rule: UtteranceRule | None = None, frame: int = 160) -> list[UtteranceEvent]:
    finder = UtteranceFinder(rule)
    return [e for at in range(0, len(audio), frame) for e in finder.push(audio[at : at + frame])]


def started(events: list[UtteranceEvent]) -> list[UtteranceStarted]:
    return [event for event in events if isinstance(event, UtteranceStarted)]


def over(events: list[UtteranceEvent]) -> list[UtteranceOver]:
    return [event for event in events if isinstance(event, UtteranceOver)]


def test_a_sentence_is_an_utterance_with_its_times() -> None:
    speech = spoken(SPEECH)
    events = find(mulaw.silence(1000) + speech + mulaw.silence(1000))
    [start], [end] = started(events), over(events)
    assert abs(start.at_ms - 1000) < 100
    assert start.audio_from_ms == end.audio_from_ms
    assert 0 <= start.at_ms - 300 - start.audio_from_ms < 8
    assert abs(end.speech_end_ms - (1000 + len(speech) // 8)) < 150
    assert end.speech_ms == end.speech_end_ms - start.at_ms


def test_its_pieces_are_the_whole_of_it_and_a_stretch_of_the_line() -> None:
    line = mulaw.silence(500) + spoken(SPEECH) + mulaw.silence(1000)
    events = find(line)
    [end] = over(events)
    assert b"".join(event.audio for event in events if isinstance(event, UtteranceAudio)) == end.audio
    begin = end.audio_from_ms * 8
    assert line[begin : begin + len(end.audio)] == end.audio
    kinds = [type(event) for event in events]
    assert kinds[0] is UtteranceStarted
    assert kinds[-1] is UtteranceOver


@pytest.mark.parametrize("frame", [1, 160, 777, 100_000])
def test_it_does_not_matter_how_the_audio_is_cut(frame: int) -> None:
    line = (mulaw.silence(700) + spoken(SPEECH)) * 2 + mulaw.silence(700)
    events = find(line, frame=frame)
    assert over(events) == over(find(line))
    assert len(over(events)) == 2


def test_a_tone_a_click_and_silence_are_no_utterance() -> None:
    click = bytes(sound.encode(30_000) for _ in range(40))
    assert find(sound.tone(2000) + mulaw.silence(500) + click + mulaw.silence(2000)) == []


def test_a_pause_that_is_shorter_than_stop_ms_is_within_the_utterance() -> None:
    line = spoken("One moment.") + mulaw.silence(600) + spoken("Here it is.") + mulaw.silence(1500)
    assert len(over(find(line, UtteranceRule(stop_ms=300)))) == 2
    assert len(over(find(line, UtteranceRule(stop_ms=1000)))) == 1


def test_an_utterance_that_is_too_long_ends_where_it_is() -> None:
    line = mulaw.silence(500) + spoken("I would like to know where my order is, please tell me.")
    events = find(line + mulaw.silence(1000), UtteranceRule(longest_ms=1000))
    first, *rest = over(events)
    assert rest
    assert abs(first.speech_ms - 1000) < 64
    assert rest[0].audio_from_ms >= first.audio_from_ms + len(first.audio) // 8  # nothing is heard twice


def test_flush_ends_the_open_utterance_with_all_its_audio() -> None:
    finder = UtteranceFinder()
    assert finder.flush() == []
    line = mulaw.silence(500) + spoken(SPEECH)
    events = [e for at in range(0, len(line), 160) for e in finder.push(line[at : at + 160])]
    assert finder.speaking
    assert finder.now_ms == len(line) // 8
    [end] = over(finder.flush())
    assert line.endswith(end.audio)
    assert end.audio_from_ms == started(events)[0].audio_from_ms
    assert not finder.speaking


@pytest.mark.skipif(not PERSON.exists(), reason="needs ../shared/data/audio/weather_question.wav")
def test_a_person_is_heard() -> None:
    with wave.open(str(PERSON)) as file:
        rate = file.getframerate()
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / np.float32(32768)
    line = mulaw.from_float(resample(samples, rate, 8000)) + mulaw.silence(1000)
    assert over(find(line))


def test_a_missing_network_is_told_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Path:
        raise ConfigError("no package")

    monkeypatch.setattr(utterances, "find_vad", missing)
    with pytest.raises(ConfigError, match=r"openai stt.*pip install"):
        utterances.require_vad("openai")


async def test_warming_loads_it() -> None:
    await utterances.warm_vad()
    assert vad._load.cache_info().currsize == 1
