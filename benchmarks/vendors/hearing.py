"""What every vendor that hears has in common: sound in some encoding, the caller's number in it, utterances."""

from __future__ import annotations

from typing import Literal

import numpy as np

from benchmarks.sound import BYTES_PER_MS, FRAME, Utterances, call_number, is_loud
from benchmarks.vendors.ledger import Line
from media_bridge.audio import mulaw

Encoding = Literal["mulaw", "pcm8k", "pcm16k", "pcm24k"]

_LOUD_PCM = 300  #: peak of 16-bit samples that is somebody speaking; a resampler's ringing stays below
_FRAME_BYTES: dict[Encoding, int] = {"mulaw": FRAME, "pcm8k": 2 * FRAME, "pcm16k": 4 * FRAME, "pcm24k": 6 * FRAME}


class Hearing:
    """Takes sound in pieces of any length, judges it by 20 ms."""

    def __init__(self, line: Line, encoding: Encoding) -> None:
        self.utterances = Utterances()
        self._line = line
        self._encoding = encoding
        self._frame = _FRAME_BYTES[encoding]
        self._per_ms = self._frame // (FRAME // BYTES_PER_MS)
        self._was_loud = False

    def feed(self, audio: bytes) -> list[str]:
        """ "began" and "ended", as they are found."""
        if self._line.call is None:
            self._recognise(audio)
        if len(audio) == self._frame:
            happened = self._judge(audio)
            return [happened] if happened else []
        pieces = (audio[at : at + self._frame] for at in range(0, len(audio), self._frame))
        return [happened for piece in pieces if (happened := self._judge(piece))]

    def _judge(self, audio: bytes) -> str:
        if self._encoding == "mulaw":
            loud = is_loud(audio)
        else:
            samples = np.frombuffer(audio[: len(audio) & ~1], np.int16)
            loud = bool(len(samples)) and int(np.abs(samples[::4]).max()) > _LOUD_PCM
        if loud and not self._was_loud and not self.utterances.open:
            self._line.note("heard")
        self._was_loud = loud
        return self.utterances.feed(loud, len(audio) // self._per_ms)

    def _recognise(self, audio: bytes) -> None:
        if self._encoding == "mulaw":
            self._line.call = call_number(audio)
        elif self._encoding == "pcm8k":
            self._line.call = call_number(mulaw.encode(np.frombuffer(audio[: len(audio) & ~1], np.int16)))
