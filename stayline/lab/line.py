"""What a caller is to the carrier: somebody who hears 20 ms and speaks 20 ms, fifty times a second."""

from __future__ import annotations

import dataclasses
from typing import Final, Protocol

import numpy as np

from media_bridge.audio import mulaw
from stayline.lab.buffer import FRAME_BYTES


@dataclasses.dataclass(frozen=True, slots=True)
class Spoken:
    """What the caller does in one 20 ms tick."""

    audio: bytes  #: 160 bytes of μ-law
    digit: str = ""  #: the key that is pressed now
    hang_up: bool = False


class Caller(Protocol):
    """A party to a call. Called once a tick, in the call's own time, which begins when it is answered."""

    def tick(self, heard: bytes, *, at_ms: int, queued_ms: float) -> Spoken:
        """Live through 20 ms.

        Args:
            heard: what the carrier plays now, 160 bytes of μ-law.
            at_ms: milliseconds since the call was answered.
            queued_ms: agent audio that the carrier still holds; a person could not know, a test must.
        """

    def cleared(self, at_ms: int) -> None:
        """The agent's buffered audio was thrown away now."""

    def close(self) -> None:
        """The call is over."""


def _comfort_noise(seconds: float = 1.0) -> bytes:
    """A quiet line is not digital silence: low noise, about -66 dBFS, always the same."""
    noise = np.random.default_rng(seed=8000).normal(0, 16, round(seconds * 8000))
    return mulaw.encode(noise.astype(np.int16))


QUIET: Final = _comfort_noise()


class Listener:
    """A caller who says nothing and never hangs up."""

    def tick(self, heard: bytes, *, at_ms: int, queued_ms: float) -> Spoken:
        return Spoken(quiet_frame(at_ms))

    def cleared(self, at_ms: int) -> None:
        pass

    def close(self) -> None:
        pass


def quiet_frame(at_ms: int) -> bytes:
    """20 ms of a line on which nobody speaks."""
    start = (at_ms // 20 * FRAME_BYTES) % len(QUIET)
    return QUIET[start : start + FRAME_BYTES]
