"""The caller's sound: synthesised or from files, as whole frames of phone audio."""

import wave
from pathlib import Path

import numpy as np
import pytest

from media_bridge.audio import mulaw
from stayline.errors import ConfigError
from stayline.lab.buffer import FRAME_BYTES, SILENCE
from stayline.lab.line import QUIET, quiet_frame
from stayline.lab.voice import is_voiced, load_wav, speak

HUMAN = Path(__file__).resolve().parents[3] / "../shared/data/audio/weather_question.wav"


def write(path: Path, samples: np.ndarray, rate: int = 8000, channels: int = 1, width: int = 2) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, width, rate, 0, "NONE", ""))
        file.writeframes(samples.astype("<i2").tobytes())
    return path


def tone(seconds: float, rate: int, hz: float = 440) -> np.ndarray:
    return np.sin(np.arange(round(seconds * rate)) * 2 * np.pi * hz / rate) * 8000


def pitch(audio: bytes) -> float:
    """Hz, from the zero crossings."""
    samples = mulaw.decode(audio).astype(float)
    return float(np.count_nonzero((samples[:-1] < 0) & (samples[1:] >= 0)) / (len(samples) / 8000))


def test_a_line_without_speech_is_not_voiced() -> None:
    assert not is_voiced(SILENCE)
    assert not any(is_voiced(QUIET[i : i + FRAME_BYTES]) for i in range(0, len(QUIET), FRAME_BYTES))
    assert {len(quiet_frame(at)) for at in range(0, 5000, 20)} == {FRAME_BYTES}
    assert is_voiced(mulaw.encode(tone(0.02, 8000).astype(np.int16)))


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000])
@pytest.mark.parametrize("channels", [1, 2])
def test_wav_files_of_any_rate(tmp_path: Path, rate: int, channels: int) -> None:
    silence = np.zeros(rate // 2)
    samples = np.repeat(np.concatenate((silence, tone(1, rate), silence)), channels)
    clip = load_wav(write(tmp_path / "tone.wav", samples, rate, channels))
    assert len(clip.audio) == clip.frames * FRAME_BYTES
    assert abs(clip.end_ms - clip.onset_ms - 1000) <= 40
    assert clip.onset_ms == 40  # the silence is cut to a breath
    assert abs(pitch(clip.audio[clip.onset_ms * 8 + 320 : clip.end_ms * 8 - 320]) - 440) < 5


def test_wav_files_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("not sound")
    (tmp_path / "empty.wav").write_bytes(b"")
    write(tmp_path / "eight_bit.wav", tone(0.1, 8000), width=1)
    write(tmp_path / "quadro.wav", tone(0.1, 8000), channels=4)
    write(tmp_path / "silent.wav", np.zeros(8000))
    write(tmp_path / "none.wav", np.zeros(0))
    for name, told in (
        ("missing", "no file"),
        ("text", "not a WAV file.*ffmpeg"),
        ("empty", "not a WAV file"),
        ("eight_bit", "8 bits.*ffmpeg"),
        ("quadro", "4 channels"),
        ("silent", "nothing to hear"),
        ("none", "nothing to hear"),
    ):
        with pytest.raises(ConfigError, match=told):
            load_wav(tmp_path / f"{name}.wav")


@pytest.mark.skipif(not HUMAN.exists(), reason=f"no recording of a person at {HUMAN}")
def test_a_person() -> None:
    clip = load_wav(HUMAN)
    assert 500 < clip.end_ms - clip.onset_ms < 10_000


async def test_a_synthesised_voice() -> None:
    pytest.importorskip("py_nanotts", reason="the caller's voice is not installed")
    short, long = await speak("Hello."), await speak("Hello, what is the status of my order, please?")
    assert long.label.startswith("Hello, what")
    assert 200 < short.end_ms - short.onset_ms < 1500
    assert long.end_ms > 1500
    loud = [i for i in range(0, len(long.audio), FRAME_BYTES) if is_voiced(long.audio[i : i + FRAME_BYTES])]
    assert len(loud) > long.frames / 2
    assert abs(mulaw.decode(long.audio)).max() > 3000


async def test_a_voice_that_there_is_not() -> None:
    pytest.importorskip("py_nanotts", reason="the caller's voice is not installed")
    with pytest.raises(ConfigError, match="en-US"):
        await speak("Hello", voice="xx-XX")
    with pytest.raises(ConfigError, match="nothing to hear"):
        await speak("   ")
