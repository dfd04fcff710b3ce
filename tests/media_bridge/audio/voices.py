"""Speech for tests, made here: SVOX Pico, another voice than the agent's own, as it comes out of a phone line."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from media_bridge.audio import mulaw
from media_bridge.audio.resample import resample


@functools.cache
def spoken(text: str) -> bytes:
    """A sentence as 8 kHz μ-law, at a telephone's loudness, from its first sound to its last."""
    nanotts = pytest.importorskip("py_nanotts", reason="the extra `offline` is not installed")
    pcm = nanotts.NanoTTS().speak(text, voice="en-US", speed=1.0, pitch=1.0)
    samples = np.frombuffer(pcm, np.dtype("<i2")).astype(np.float32) / np.float32(32768)
    samples *= np.float32(0.1) / np.sqrt(np.mean(samples**2))  # -20 dBFS
    voiced = np.flatnonzero(np.abs(samples) > 0.01)
    return mulaw.from_float(resample(samples[voiced[0] : voiced[-1]], 16_000, 8_000))
