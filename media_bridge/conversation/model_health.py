"""How one connection to a realtime model is doing: whether it hears, whether it answers, when its time is up.

Pure: times are seconds of a monotonic clock, given by the caller of each method.
"""

from __future__ import annotations

from typing import Final

from media_bridge.providers.base import (
    CallerTranscript,
    Expiring,
    Partial,
    RealtimeEvent,
    ResponseDone,
    ResponseStarted,
    SpeechStarted,
    SpeechStopped,
)

FAILED_RESPONSES: Final = 2
"""Responses in a row that fail at the vendor, after which it is left."""
LOOK_SHARE: Final = 0.1
"""For this share of a connection's life before its end, a silent moment to renew it is looked for."""
FORCE_SECONDS: Final = 10.0
"""So long before its end it is renewed, whoever speaks."""
PROVE_SECONDS: Final = 3.0
"""A new connection has shown in this time that it hears what it is given to hear again."""
DEAF_LOUD_MS: Final = 3000
DEAF_SECONDS: Final = 8.0
"""Loud sound of the caller, in all and for how long, without any event: the model hears nothing any more."""
MONOLOGUE_SECONDS: Final = 45.0
"""As DEAF_SECONDS, while the model says that the caller speaks: most have nothing to say until that is over."""

_CALLER: Final = (SpeechStarted, SpeechStopped, Partial, CallerTranscript)


class ModelHealth:
    """Of one connection, from when it is taken up.

    Args:
        seconds: for which the vendor lets a connection live; None: for ever.
        suspicious: whether deafness is looked for. A model that is replaced for it by one that does not hear the
            caller either was not deaf: that sound is no speech.
    """

    def __init__(self, now: float, seconds: float | None, *, suspicious: bool) -> None:
        self._since = self._event_at = now
        self._ends_at = None if seconds is None else now + seconds
        self._look_at = 0.0 if seconds is None else now + seconds * (1 - LOOK_SHARE)
        self._suspicious = suspicious
        self._loud_ms = 0  #: of the caller, since the last event
        self._caller_speaks = False
        self._failed_responses = 0
        self.hears = False  #: it has told of the caller
        self.gave_up = False  #: it owed something and was silent

    def loud(self, ms: int) -> None:
        """The caller made so much sound."""
        self._loud_ms += ms

    def note(self, event: RealtimeEvent, now: float) -> None:
        self._event_at, self._loud_ms = now, 0
        if isinstance(event, _CALLER):
            self.hears = self._suspicious = True
        match event:
            case SpeechStarted():
                self._caller_speaks = True
            case SpeechStopped() | CallerTranscript() | ResponseStarted():
                self._caller_speaks = False
            case ResponseDone(status="failed"):
                self._failed_responses += 1
            case ResponseDone():
                self._failed_responses = 0
            case Expiring(seconds):
                self._ends_at, self._look_at = now + seconds, now
            case _:
                pass

    def has_proven(self, now: float) -> bool:
        """Whether it hears, or there was nothing to hear."""
        return self.hears or now - self._since >= PROVE_SECONDS

    def is_deaf(self, now: float) -> bool:
        patience = MONOLOGUE_SECONDS if self._caller_speaks else DEAF_SECONDS
        return self._suspicious and self._loud_ms >= DEAF_LOUD_MS and now - self._event_at >= patience

    def complaint(self, now: float) -> str:
        """Why it must be left now; empty: it need not."""
        if self.gave_up:
            return "it did not answer in time"
        if self._failed_responses >= FAILED_RESPONSES:
            return "it fails to respond"
        return "it does not hear the caller any more" if self.is_deaf(now) else ""

    def must_be_renewed(self, now: float) -> bool:
        return self._ends_at is not None and now >= self._ends_at - FORCE_SECONDS

    def may_be_renewed(self, now: float) -> bool:
        """Its end is near enough for a silent moment to be used."""
        return self._ends_at is not None and now >= self._look_at
