"""Caller audio on its way to a vendor: what may hold a voice at once, a long quiet in larger pieces."""

from __future__ import annotations

from typing import Final

from media_bridge.audio import mulaw
from media_bridge.audio.loudness import QUIET

SETTLED_MS: Final = 1000
"""Quiet after which nobody waits for the next frame: the vendors have found the end of a turn by then, as a rule.
Where one waits longer, its end is found 80 ms later at most."""
TOGETHER_MS: Final = 100


class QuietTogether:
    """Every frame is 50 messages a second and call; most of a call the caller is quiet, and hears.

    A voice that begins is never kept, however softly: its first frame takes along what waits.
    """

    def __init__(self) -> None:
        self._waiting: list[bytes] = []
        self._waiting_ms = 0
        self._quiet_ms = 0

    def add(self, frame: bytes, loudness: int) -> bytes:
        """What is to be sent now, in order: μ-law of any length, or nothing yet."""
        ms = mulaw.bytes_to_ms(len(frame))
        sounds = loudness > QUIET
        self._quiet_ms = 0 if sounds else self._quiet_ms + ms
        if self._quiet_ms <= SETTLED_MS and not self._waiting:
            return frame
        self._waiting.append(frame)
        self._waiting_ms += ms
        if not sounds and self._waiting_ms < TOGETHER_MS:
            return b""
        piece = b"".join(self._waiting)
        self.drop()
        return piece

    def drop(self) -> None:
        """What waits comes another way: a new connection hears what is kept, and with it this."""
        self._waiting.clear()
        self._waiting_ms = 0
