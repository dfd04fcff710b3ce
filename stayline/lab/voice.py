"""The voice of a simulated caller, and sound from WAV files, as 8 kHz μ-law.

The engine is SVOX Pico (package `py-nanotts`), another one than the agent's own, so that no recogniser hears
the voice it may have been tuned on. Measured: 11 to 25 ms for a sentence, a few MB, no model to load.
"""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import wave
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from media_bridge.audio import mulaw
from media_bridge.audio.resample import Resampler
from stayline.errors import ConfigError
from stayline.lab.buffer import FRAME_BYTES, FRAME_MS, SILENCE

LOUDNESS_DBFS: Final = -22.0
"""RMS of a clip's voiced part: a caller at ordinary volume."""
VOICED_RMS: Final = 180.0
"""20 ms whose RMS is above this (-45 dBFS) are somebody speaking."""
VOICES: Final = ("en-US", "en-GB", "de-DE", "es-ES", "fr-FR", "it-IT")
_MARGIN = 2  # frames kept before and after what is voiced

_SQUARES: Final = mulaw.decode(bytes(range(256))).astype(np.float64) ** 2
_pico = threading.Lock()


@dataclasses.dataclass(frozen=True, slots=True)
class Clip:
    """Something to say, in whole frames, with no more silence around it than a breath."""

    label: str
    audio: bytes
    onset_ms: int  #: where the voice begins
    end_ms: int  #: where the last voiced frame ends

    @property
    def frames(self) -> int:
        return len(self.audio) // FRAME_BYTES


def is_voiced(frame: bytes) -> bool:
    """Whether a μ-law frame holds more than line noise."""
    return bool(_SQUARES[np.frombuffer(frame, np.uint8)].mean() > VOICED_RMS**2)


async def speak(text: str, *, voice: str = "en-US", speed: float = 1.0, pitch: float = 1.0) -> Clip:
    """Synthesise a sentence, off the event loop.

    Raises:
        ConfigError: the engine is not installed, does not know the voice, or made no sound of the text.
    """
    return await asyncio.to_thread(_speak, text, voice, speed, pitch)


def load_wav(path: Path) -> Clip:
    """Read a WAV file: 16-bit PCM, mono or stereo (mixed), any rate.

    Raises:
        ConfigError: it cannot be read, is of another kind, or holds no sound.
    """
    try:
        with wave.open(str(path), "rb") as file:
            width, channels, rate = file.getsampwidth(), file.getnchannels(), file.getframerate()
            data = file.readframes(file.getnframes())
    except FileNotFoundError:
        raise ConfigError(f"There is no file {path}.") from None
    except (wave.Error, EOFError, OSError) as error:
        raise ConfigError(f"{path} is not a WAV file that can be read: {error}.", fix=_CONVERT) from error
    if width != 2 or channels not in (1, 2) or rate <= 0:
        raise ConfigError(f"{path} has {8 * width} bits, {channels} channels, {rate} Hz.", fix=_CONVERT)
    whole = len(data) - len(data) % (2 * channels)
    samples = np.frombuffer(data[:whole], np.dtype("<i2")).reshape(-1, channels).mean(axis=1) / 32768.0
    return _clip(path.name, _to_8k(samples.astype(np.float32), rate))


_CONVERT = "Convert it to 16-bit PCM, mono or stereo, e.g. `ffmpeg -i in.mp3 -ar 8000 -ac 1 out.wav`."


def _speak(text: str, voice: str, speed: float, pitch: float) -> Clip:
    try:
        from py_nanotts import NanoTTS
    except ImportError as error:
        raise ConfigError(
            "The caller's voice is not installed (py-nanotts).",
            fix="Install the offline extra, or let the caller play WAV files.",
        ) from error
    if voice not in VOICES:
        raise ConfigError(f"There is no caller's voice {voice!r}.", fix=f"There are {', '.join(VOICES)}.")
    with _pico:  # one engine in the process, written in C and not re-entrant
        pcm = NanoTTS().speak(text, voice=voice, speed=speed, pitch=pitch)
    samples = np.frombuffer(pcm, np.dtype("<i2")).astype(np.float32) / np.float32(32768)
    return _clip(text, _levelled(_to_8k(samples, 16_000)))


def _to_8k(samples: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    if rate == mulaw.SAMPLE_RATE:
        return samples
    resampler = Resampler(rate, mulaw.SAMPLE_RATE)
    return np.concatenate((resampler.push(samples), resampler.flush()))


def _levelled(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    loud = samples[np.abs(samples) > 0.01]
    if not len(loud):
        return samples
    gain = 10 ** (LOUDNESS_DBFS / 20) / float(np.sqrt(np.mean(loud**2)))
    peak = float(np.abs(samples).max())
    return samples * np.float32(min(gain, 0.95 / peak))


def _clip(label: str, samples: NDArray[np.float32]) -> Clip:
    audio = mulaw.from_float(samples)
    audio += SILENCE[: -len(audio) % FRAME_BYTES]
    frames = [audio[i : i + FRAME_BYTES] for i in range(0, len(audio), FRAME_BYTES)]
    voiced = [index for index, frame in enumerate(frames) if is_voiced(frame)]
    if not voiced:
        raise ConfigError(f"There is nothing to hear in {label!r}.", fix="Give words, or a louder recording.")
    first, last = max(0, voiced[0] - _MARGIN), min(len(frames), voiced[-1] + 1 + _MARGIN)
    return Clip(
        label,
        b"".join(frames[first:last]),
        (voiced[0] - first) * FRAME_MS,
        (voiced[-1] + 1 - first) * FRAME_MS,
    )
