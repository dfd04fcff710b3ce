"""What a caller does, 20 ms at a time: speaks for a second, is quiet, speaks again."""

from __future__ import annotations

import base64
import dataclasses
from typing import Final, Literal

from benchmarks.sound import FRAME, FRAME_MS, SPEECH, SPEECH_MS, quiet_frame

ScriptName = Literal["talk", "interrupt"]
QUIET_MS: Final[dict[ScriptName, int]] = {"talk": 4000, "interrupt": 2000}
"""Quiet between two utterances. An answer takes 1.9 s; those who interrupt are given longer ones."""

_SPOKEN: Final = [base64.b64encode(SPEECH[at : at + FRAME]) for at in range(0, len(SPEECH), FRAME)]


@dataclasses.dataclass(slots=True)
class Script:
    """One caller's part. Ticks are 20 ms, counted alike for all callers.

    Attributes:
        first: the tick at which the caller speaks first; None: not yet decided.
    """

    number: int
    quiet_ms: int
    first: int | None = None
    quiet: bytes = b""

    def __post_init__(self) -> None:
        self.quiet = base64.b64encode(quiet_frame(self.number))

    @property
    def cycle(self) -> int:
        """Ticks from one utterance's begin to the next."""
        return (SPEECH_MS + self.quiet_ms) // FRAME_MS

    def at(self, tick: int) -> tuple[bytes, int | None]:
        """The payload of this tick, in base64, and which frame of an utterance it is."""
        if self.first is None or tick < self.first:
            return self.quiet, None
        place = (tick - self.first) % self.cycle
        return (_SPOKEN[place], place) if place < len(_SPOKEN) else (self.quiet, None)


LAST_FRAME: Final = len(_SPOKEN) - 1
