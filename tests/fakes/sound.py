"""μ-law sound for the fakes: a tone to speak with, and what is loud. Independent of the product's codec."""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections.abc import Callable, Iterator

BYTES_PER_MS = 8
SILENCE = b"\xff"


def encode(sample: int) -> int:
    """One 16-bit linear sample to μ-law (ITU-T G.711)."""
    sign = 0x80 if sample < 0 else 0
    magnitude = min(abs(sample), 32635) + 132
    exponent = magnitude.bit_length() - 8
    return ~(sign | (exponent << 4) | ((magnitude >> (exponent + 3)) & 0x0F)) & 0xFF


def magnitude(byte: int) -> int:
    """How far a μ-law byte is from silence, as a linear sample."""
    byte = ~byte & 0xFF
    return (((byte & 0x0F) << 3) + 132 << ((byte >> 4) & 0x07)) - 132


_MAGNITUDE = [magnitude(byte) for byte in range(256)]
_TONE = bytes(encode(round(9000 * math.sin(2 * math.pi * i / 20))) for i in range(20))  # 400 Hz at 8 kHz


def tone(ms: float) -> bytes:
    """A steady 400 Hz tone, well above any speech threshold."""
    length = round(ms * BYTES_PER_MS)
    return (_TONE * (length // len(_TONE) + 1))[:length]


Sound = Callable[[str, float], bytes]
"""How a voice sounds: a text and its milliseconds per character to μ-law."""


def tone_of(text: str, ms_per_char: float) -> bytes:
    return tone(len(text) * ms_per_char)


def silence(ms: float) -> bytes:
    return SILENCE * round(ms * BYTES_PER_MS)


def loud(frame: bytes, threshold: int = 500) -> bool:
    """Whether the mean magnitude of a frame is that of speech."""
    return bool(frame) and sum(map(_MAGNITUDE.__getitem__, frame)) > threshold * len(frame)


@dataclasses.dataclass(frozen=True, slots=True)
class Frame:
    """20 ms of the caller's audio, as a recogniser sees it. Positions in milliseconds of this connection."""

    at_ms: int  #: its end
    begun_ms: int | None  #: where the burst of speech that is under way began
    starts: bool  #: this frame made it a burst
    loud: bool
    silent_ms: int  #: silence since the last loud frame


class Bursts:
    """Finds bursts of speech in μ-law audio by its energy. Whoever listens says when one has ended."""

    FRAME_MS = 20
    ONSET_MS = 60

    def __init__(self) -> None:
        self._rest = b""
        self._voiced_ms = 0
        self._silent_ms = 0
        self.at_ms = 0
        self.begun_ms: int | None = None
        self.last_loud_ms = 0

    def feed(self, audio: bytes) -> Iterator[Frame]:
        audio = self._rest + audio
        size = self.FRAME_MS * BYTES_PER_MS
        whole = len(audio) - len(audio) % size
        self._rest = audio[whole:]
        for begin in range(0, whole, size):
            yield self._frame(loud(audio[begin : begin + size]))

    def end(self) -> None:
        """The burst is over."""
        self.begun_ms, self._voiced_ms = None, 0

    def _frame(self, is_loud: bool) -> Frame:
        self.at_ms += self.FRAME_MS
        starts = False
        if is_loud:
            self._voiced_ms += self.FRAME_MS
            self._silent_ms, self.last_loud_ms = 0, self.at_ms
            if self.begun_ms is None and self._voiced_ms >= self.ONSET_MS:
                self.begun_ms, starts = self.at_ms - self._voiced_ms, True
        else:
            self._voiced_ms = 0
            self._silent_ms += self.FRAME_MS
        return Frame(self.at_ms, self.begun_ms, starts, is_loud, self._silent_ms)


class Pace:
    """How fast a fake voice sends: all at once, or held after some frames until somebody lets go."""

    def __init__(self, ms_per_char: float) -> None:
        self.ms_per_char = ms_per_char
        self.hold_after: int | None = None  #: audio frames per flush, then wait for `let_go`, Clear or the end
        self._go = asyncio.Event()

    def let_go(self) -> None:
        self._go.set()

    async def wait(self, frames_sent: int) -> None:
        if self.hold_after is not None and frames_sent >= self.hold_after:
            await self._go.wait()
