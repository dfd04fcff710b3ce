"""Both sides of the line, frame by frame: when the caller's audio began, and what the caller hears now."""

from __future__ import annotations

from media_bridge.audio.mulaw import BYTES_PER_MS, SILENCE


class CallerAudio:
    """Where the caller's audio lies in the session's time.

    Frames that waited until somebody took them come all at once, so when the first one comes says little: the audio
    began when the frame that waited least says so.
    """

    def __init__(self) -> None:
        self.begun_ms = 0  #: stream time at which it begins; before 0 where frames waited for the session
        self._length = 0

    def frame(self, length: int, now_ms: int) -> None:
        """One more of so many bytes."""
        self._length += length
        begun = now_ms - self._length // BYTES_PER_MS
        if begun < self.begun_ms or self._length == length:
            self.begun_ms = begun


class Line:
    """What the caller hears now, for the recording: a copy of the carrier's playback buffer. Fed with what is sent,
    emptied by `clear`, read at the pace of caller frames."""

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
