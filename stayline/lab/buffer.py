"""The carrier's playout buffer: audio and marks in the order they came, taken out 20 ms at a time. No clock."""

from __future__ import annotations

from collections import deque
from typing import Final

FRAME_MS: Final = 20
FRAME_BYTES: Final = 160
"""20 ms of 8 kHz μ-law."""
SILENCE: Final = b"\xff" * FRAME_BYTES
"""Digital silence in μ-law (positive zero)."""


class PlayBuffer:
    """What the far side sent and the caller has not heard yet.

    A mark comes back when all audio before it has been played to its end, or at once when `clear` throws the
    audio away.
    """

    def __init__(self) -> None:
        self._items: deque[bytes | str] = deque()
        self._reached: list[str] = []  #: marks at the end of the frame that is being played now
        self._bytes = 0

    @property
    def queued_ms(self) -> float:
        """Milliseconds of audio that wait to be played."""
        return self._bytes / 8

    def add(self, audio: bytes) -> None:
        if audio:
            self._items.append(audio)
            self._bytes += len(audio)

    def mark(self, name: str) -> None:
        self._items.append(name)

    def clear(self) -> list[str]:
        """Empty the buffer. Returns the outstanding marks, in order."""
        names = self._reached + [item for item in self._items if isinstance(item, str)]
        self._items.clear()
        self._reached = []
        self._bytes = 0
        return names

    def frame(self) -> tuple[bytes, list[str]]:
        """The next 20 ms, filled up with silence, and the marks that were reached before they begin."""
        marks, self._reached = self._reached, []
        frame = bytearray()
        while self._items and len(frame) < FRAME_BYTES:
            item = self._items.popleft()
            if isinstance(item, str):
                (self._reached if frame else marks).append(item)
                continue
            room = FRAME_BYTES - len(frame)
            frame += item[:room]
            if len(item) > room:
                self._items.appendleft(item[room:])
        self._bytes -= len(frame)
        while self._items and isinstance(name := self._items[0], str):  # directly behind what was taken
            self._reached.append(name)
            self._items.popleft()
        return bytes(frame) + SILENCE[len(frame) :], marks
