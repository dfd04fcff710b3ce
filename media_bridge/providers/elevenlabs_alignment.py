"""ElevenLabs' character alignment, turned into positions in the text that we sent. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
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
