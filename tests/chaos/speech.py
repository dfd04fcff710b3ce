"""Speech that can be read back to the letter: each 20 ms of μ-law carry one character and where it belongs.

The callers speak it and the fake recogniser reads it, the fake voices speak it and the callers read it. So every
call has words of its own, however many there are at once, and what somebody really heard is known word for word,
whatever was cut, paused, sent twice or lost on the way. Real μ-law passes through a bridge unchanged, and this is
loud enough to be taken for speech everywhere.

A word of 16 bytes says utterance, position, length and character in half-bytes; ten of them fill a frame, so that
any part of 31 bytes holds a whole one.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Final

FRAME_BYTES: Final = 160
_MAGIC: Final = b"\xa0\x2f\xa1\x2e"  # a level that no half-byte has
_WORD: Final = 16
_LONGEST: Final = 255
_serials = itertools.count(1)


@dataclasses.dataclass(frozen=True, slots=True)
class Letter:
    """What one frame says."""

    serial: int  #: of the utterance, within this process, modulo 2**16
    index: int  #: of the character
    length: int  #: of the utterance
    char: str


def utter(text: str, least_frames: int = 0) -> bytes:
    """Speak ASCII text, a character in 20 ms, the last one for longer until `least_frames` are full.

    Longer texts are spoken as several utterances of at most 255 characters.
    """
    plain = text.encode("ascii", "replace")
    parts = [plain[i : i + _LONGEST] for i in range(0, len(plain), _LONGEST)]
    frames = [
        _frame(serial, index, len(part), part[index])
        for part in parts
        for serial in [next(_serials) % 2**16]
        for index in range(len(part))
    ]
    frames += frames[-1:] * (least_frames - len(frames))
    return b"".join(frames)


def _frame(serial: int, index: int, length: int, char: int) -> bytes:
    numbers = serial.to_bytes(2, "big") + bytes((index, length, char, (index + length + char) % 256))
    halves = [half for byte in numbers for half in (byte >> 4, byte & 15)]
    # every other one negative: no voice is a constant
    body = bytes((0x90 if place % 2 else 0x10) | half for place, half in enumerate(halves))
    return (_MAGIC + body) * (FRAME_BYTES // _WORD)


def read(frame: bytes) -> Letter | None:
    """What a frame says; None: silence, or a sound that is no such speech."""
    at = frame.find(_MAGIC)
    if at < 0 or at + _WORD > len(frame):
        return None
    halves = [byte & 15 for byte in frame[at + len(_MAGIC) : at + _WORD]]
    numbers = [halves[i] << 4 | halves[i + 1] for i in range(0, len(halves), 2)]
    high, low, index, length, char, check = numbers
    if (index + length + char) % 256 != check:
        return None
    return Letter(high << 8 | low, index, length, chr(char))


@dataclasses.dataclass(slots=True)
class Heard:
    """One utterance as somebody heard it."""

    serial: int
    length: int
    letters: dict[int, str] = dataclasses.field(default_factory=dict)

    @property
    def text(self) -> str:
        """What was heard of it; a gap is one `~`."""
        words: list[str] = []
        for index in range(min(self.letters), max(self.letters) + 1):
            letter = self.letters.get(index)
            if letter is not None:
                words.append(letter)
            elif words[-1] != "~":
                words.append("~")
        return "".join(words)

    @property
    def whole(self) -> bool:
        return len(self.letters) == self.length


class Reader:
    """Puts together what frames say."""

    def __init__(self) -> None:
        self.heard: list[Heard] = []  #: in the order in which they began

    def take(self, frame: bytes) -> Letter | None:
        letter = read(frame)
        if letter is not None:
            if not self.heard or self.heard[-1].serial != letter.serial:
                self.heard.append(Heard(letter.serial, letter.length))
            self.heard[-1].letters[letter.index] = letter.char
        return letter

    @property
    def text(self) -> str:
        return "".join(heard.text for heard in self.heard)

    def clear(self) -> None:
        self.heard.clear()
