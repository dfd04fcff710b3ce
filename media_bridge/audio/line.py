"""The agent's side of the line, frame by frame: a copy of the carrier's playback buffer for the recording."""

from __future__ import annotations

from media_bridge.audio.mulaw import SILENCE


class Line:
    """What the caller hears now. Fed with what is sent, emptied by `clear`, read at the pace of caller frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def sent(self, audio: bytes) -> None:
        self._buffer += audio

    def clear(self) -> None:
        self._buffer.clear()

    def frame(self, length: int) -> bytes:
        """The next `length` bytes of μ-law that are played; silence where nothing is."""
        audio = bytes(self._buffer[:length])
        del self._buffer[:length]
        return audio + SILENCE * (length - len(audio))
