"""What callers and vendors of the load benchmark say and hear: 8 kHz μ-law, 8 bytes a millisecond. No I/O.

The caller's second of speech is real (`speech.ulaw`: "Where is my order?", spoken by SVOX Pico), so that local
voice activity detectors take it for speech. Between two utterances the line is quiet, and the quiet carries the
call's number: samples of ±8 (of 32,124), which no detector hears. So a vendor knows whose sound it hears, whatever
the server between them does with ids, as long as the samples are not resampled.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

FRAME_MS: Final = 20
FRAME: Final = 160  #: bytes
BYTES_PER_MS: Final = 8
SPEECH_MS: Final = 1000
SPEECH: Final = Path(__file__).with_name("speech.ulaw").read_bytes()

QUESTION: Final = "where is my order"
HALF: Final = "where is"  #: of the question: the interim transcript
REPLY: Final = "Your order is on its way. It will be there soon."
MS_PER_CHAR: Final = 40
"""Characters of a reply times this are its length: 1.9 s for `REPLY`."""

ONSET_MS: Final = 60  #: loud sound that is speech to a vendor
END_MS: Final = 100  #: quiet that ends an utterance to a vendor

_QUIET: Final = b"\xff\xfe\x7f\x7e"  #: μ-law of 0 and ±8
_ONE, _ZERO = 0xFE, 0x7E
_PREAMBLE: Final = bytes((_ONE, _ZERO, _ONE, _ZERO, _ZERO, _ONE, _ONE, _ZERO))
_BITS: Final = 12


def is_loud(audio: bytes) -> bool:
    """Whether a quarter of the samples is above the line's quiet."""
    return len(audio.translate(None, _QUIET)) * 4 > len(audio)


def quiet_frame(number: int) -> bytes:
    """20 ms in which call `number` (below 4096) says nothing."""
    bits = [number >> bit & 1 for bit in range(_BITS)]
    marked = bytes(_ONE if bit else _ZERO for bit in (*bits, *(1 - bit for bit in bits)))
    return (_PREAMBLE + marked).ljust(FRAME, b"\xff")


def call_number(audio: bytes) -> int | None:
    """The number that this sound carries, if a whole mark is in it."""
    begin = audio.find(_PREAMBLE)
    if begin < 0:
        return None
    marked = audio[begin + len(_PREAMBLE) : begin + len(_PREAMBLE) + 2 * _BITS]
    bits = [byte == _ONE for byte in marked]
    if len(marked) < 2 * _BITS or bits[:_BITS] != [not bit for bit in bits[_BITS:]]:
        return None
    return sum(bit << place for place, bit in enumerate(bits[:_BITS]))


def speech_of(ms: int) -> bytes:
    """So much of the agent's voice: the same sound over and over, loud in every frame."""
    size = ms * BYTES_PER_MS
    return (SPEECH * (size // len(SPEECH) + 1))[:size]


class Utterances:
    """Finds a caller's utterances in the sound that a vendor gets.

    Attributes:
        position_ms: how much was heard.
        began_ms: where the open (or last) utterance began.
    """

    def __init__(self) -> None:
        self.position_ms = 0
        self.began_ms = 0
        self.open = False
        self._loud_ms = 0
        self._quiet_ms = 0

    def feed(self, loud: bool, ms: int) -> str:
        """Hear `ms` more; "began" or "ended" when that is so, else ""."""
        self.position_ms += ms
        if loud:
            self._loud_ms += ms
            self._quiet_ms = 0
        else:
            self._quiet_ms += ms
            if not self.open:
                self._loud_ms = 0
        if not self.open and self._loud_ms >= ONSET_MS:
            self.open = True
            self.began_ms = self.position_ms - self._loud_ms
            return "began"
        if self.open and self._quiet_ms >= END_MS:
            self.open = False
            self._loud_ms = 0
            return "ended"
        return ""
