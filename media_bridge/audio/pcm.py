"""Between a vendor's linear PCM and the phone line's μ-law, as it streams."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from media_bridge.audio import mulaw
from media_bridge.audio.resample import Resampler


class PcmToMulaw:
    """One stream of 16-bit signed little-endian mono PCM on its way to 8 kHz μ-law.

    However the input is cut, also within a sample, the concatenated output is the same.

    Args:
        rate: samples per second of the input.
    """

    def __init__(self, rate: int) -> None:
        self._resampler = Resampler(rate, mulaw.SAMPLE_RATE)
        self._half = b""  #: the first byte of a sample whose second has not come

    def push(self, pcm: bytes) -> bytes:
        """Feed PCM, any length; returns the μ-law that is known by now, 4 ms behind at 24 kHz."""
        pcm = self._half + pcm
        whole = len(pcm) & ~1
        self._half = pcm[whole:]
        samples: NDArray[np.float32] = np.frombuffer(pcm[:whole], dtype="<i2").astype(np.float32)
        return mulaw.from_float(self._resampler.push(samples / np.float32(32768.0)))

    def flush(self) -> bytes:
        """The rest. An odd last byte is no sample and is dropped. The stream is then as new."""
        self._half = b""
        return mulaw.from_float(self._resampler.flush())


class MulawToPcm:
    """One stream of 8 kHz μ-law on its way to 16-bit signed little-endian mono PCM.

    However the input is cut, the concatenated output is the same.

    Args:
        rate: samples per second of the output.
    """

    def __init__(self, rate: int) -> None:
        self._resampler = Resampler(mulaw.SAMPLE_RATE, rate)

    def push(self, audio: bytes) -> bytes:
        """Feed μ-law, any length; returns the PCM that is known by now, 4 ms behind."""
        return _pcm(self._resampler.push(mulaw.to_float(audio)))

    def flush(self) -> bytes:
        """The rest. The stream is then as new."""
        return _pcm(self._resampler.flush())


def _pcm(samples: NDArray[np.float32]) -> bytes:
    """Samples of full scale ±1.0; louder ones are clipped."""
    return (np.clip(samples, -1.0, 1.0) * 32767.0).astype("<i2").tobytes()
