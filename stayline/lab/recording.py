"""A stereo recording of a call as its caller heard it, written as the call goes."""

from __future__ import annotations

import wave
from pathlib import Path
from typing import Final

import numpy as np

from media_bridge.audio import mulaw

_FLUSH: Final = 50  # frames of 20 ms between two writes


class StereoRecording:
    """8 kHz, 16 bit; left: the caller, right: what the caller heard."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._left: list[bytes] = []
        self._right: list[bytes] = []
        self._file = wave.open(str(path), "wb")  # noqa: SIM115  closed in close()
        self._file.setnchannels(2)
        self._file.setsampwidth(2)
        self._file.setframerate(mulaw.SAMPLE_RATE)

    def add(self, spoken: bytes, heard: bytes) -> None:
        """Both sides of the same 20 ms, μ-law of equal length."""
        self._left.append(spoken)
        self._right.append(heard)
        if len(self._left) >= _FLUSH:
            self._write()

    def close(self) -> None:
        self._write()
        self._file.close()

    def _write(self) -> None:
        left, right = b"".join(self._left), b"".join(self._right)
        self._left, self._right = [], []
        samples = np.stack((mulaw.decode(left), mulaw.decode(right)), axis=1)
        self._file.writeframes(samples.astype(np.dtype("<i2")).tobytes())
