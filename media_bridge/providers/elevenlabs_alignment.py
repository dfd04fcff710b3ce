"""ElevenLabs' character alignment, turned into positions in the text that we sent. No I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

BYTES_PER_MS = 8


def advance(text: str, position: int, chars: Sequence[str]) -> int:
    """The position in `text` after these aligned characters.

    The vendor sees blanks that we add between clauses, and may drop or merge others, so blanks on either side
    match loosely; any other character counts for one, also where the vendor spells it differently.
    """
    for char in chars:
        if char.isspace():
            if position < len(text) and text[position].isspace():
                position += 1
            continue
        while position < len(text) and text[position].isspace():
            position += 1
        position = min(position + 1, len(text))
    return position


def split(
    audio: bytes, alignment: dict[str, Any] | None, text: str, position: int
) -> list[tuple[bytes, int | None]]:
    """Cut a message's audio where its words end.

    Args:
        audio: μ-law, 8 kHz.
        alignment: `chars` and `charStartTimesMs`, milliseconds from the beginning of this audio; or None.
        text: what was sent on this context so far.
        position: characters of it that earlier audio spoke.
    Returns:
        Pieces of the audio in order, each with the characters spoken at its end; the last piece counts all of
        the alignment's characters. Without an alignment, the whole audio and None.
    """
    if not alignment or not alignment.get("chars"):
        return [(audio, None)]
    chars: list[str] = alignment["chars"]
    starts: list[float] = alignment["charStartTimesMs"]
    pieces: list[tuple[bytes, int | None]] = []
    begin = done = 0
    for index in range(1, len(chars)):
        if not chars[index].isspace() or chars[index - 1].isspace():
            continue
        end = min(len(audio), round(starts[index]) * BYTES_PER_MS)
        position, done = advance(text, position, chars[done:index]), index
        if end > begin:
            pieces.append((audio[begin:end], position))
            begin = end
    position = advance(text, position, chars[done:])
    if begin < len(audio):
        pieces.append((audio[begin:], position))
    elif pieces:
        pieces[-1] = (pieces[-1][0], position)
    return pieces


class ClipAlignment:
    """Where the words end in the audio of one HTTP answer, whose pieces need not come with their own times.

    Times count from the beginning of the answer; should those of a piece begin anew, from the piece's. The audio
    that a time belongs to may come with a later piece.

    Args:
        text: what was asked for.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._position = 0  #: characters that have been aligned
        self._aligned_ms = 0.0  #: up to here in the audio
        self._bytes = 0  #: of audio, so far
        self._ends: deque[tuple[int, int]] = deque()  #: ends of words in audio to come: bytes, characters

    def split(self, audio: bytes, alignment: Mapping[str, Any] | None) -> list[tuple[bytes, int | None]]:
        """Cut a piece of audio where its words end.

        Args:
            audio: μ-law, 8 kHz; may be empty.
            alignment: `characters`, `character_start_times_seconds` and `character_end_times_seconds`; or None.
        Returns:
            Pieces of the audio in order, each with the characters spoken at its end, or None. An empty piece tells
            only of characters: those of audio that came before.
        Raises:
            KeyError, TypeError, ValueError, IndexError: the alignment is not as documented.
        """
        if alignment and alignment.get("characters"):
            self._align(
                alignment["characters"],
                alignment["character_start_times_seconds"],
                alignment["character_end_times_seconds"],
            )
        begin, self._bytes = self._bytes, self._bytes + len(audio)
        pieces: list[tuple[bytes, int | None]] = []
        done = 0
        while self._ends and self._ends[0][0] <= self._bytes:
            at, position = self._ends.popleft()
            end = max(done, at - begin)
            pieces.append((audio[done:end], position))
            done = end
        if done < len(audio):
            pieces.append((audio[done:], None))
        return pieces

    def _align(self, chars: Sequence[str], starts: Sequence[float], ends: Sequence[float]) -> None:
        base_ms = self._bytes / BYTES_PER_MS if starts[0] * 1000 < self._aligned_ms - 1 else 0.0
        done = 0
        for index in range(1, len(chars)):
            if chars[index].isspace() and not chars[index - 1].isspace():
                self._position = advance(self._text, self._position, chars[done:index])
                done = index
                self._mark(base_ms + starts[index] * 1000)
        self._position = advance(self._text, self._position, chars[done:])
        self._aligned_ms = base_ms + ends[-1] * 1000
        self._mark(self._aligned_ms)

    def _mark(self, ms: float) -> None:
        self._ends.append((round(ms) * BYTES_PER_MS, self._position))
