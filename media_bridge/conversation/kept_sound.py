"""The caller's latest sound, kept so that a new connection can hear it again."""

from __future__ import annotations

from collections import deque
from typing import Final

from media_bridge.audio import mulaw

KEPT_MS: Final = 15_000
"""The most that is kept; of more than that, the latest."""


class KeptSound:
    """Frames of μ-law. Positions are milliseconds of the caller's audio, from its first frame on."""

    def __init__(self) -> None:
        self._frames: deque[bytes] = deque()
        self._kept_ms = 0
        self.end_ms = 0  #: all that was ever received

    @property
    def start_ms(self) -> int:
        return self.end_ms - self._kept_ms

    @property
    def frames(self) -> deque[bytes]:
        """A copy of what is kept."""
        return self._frames.copy()

    def add(self, frame: bytes) -> None:
        ms = mulaw.bytes_to_ms(len(frame))
        self._frames.append(frame)
        self._kept_ms += ms
        self.end_ms += ms
        self._shorten(self.end_ms - KEPT_MS)

    def needed_from(self, position_ms: int) -> None:
        """What was before it is not needed any more."""
        self._shorten(position_ms)

    def _shorten(self, start_ms: int) -> None:
        while self._frames and self.start_ms + (ms := mulaw.bytes_to_ms(len(self._frames[0]))) <= start_ms:
            self._kept_ms -= ms
            self._frames.popleft()
