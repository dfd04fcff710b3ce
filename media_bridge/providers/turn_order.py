"""Turns whose words come late and out of order, told in order. No I/O.

A recogniser that writes a turn down after it has ended may finish the second turn before the first, or hear the
caller begin again before the first is written. Whoever listens gets one turn after the other all the same:
SpeechStarted, partials, EndOfTurn; a later turn waits for the earlier ones.
"""

from __future__ import annotations

import dataclasses

from media_bridge.providers.base import EndOfTurn, Partial, SpeechStarted, SttEvent


@dataclasses.dataclass(slots=True, eq=False)
class Turn:
    """One turn on its way.

    Attributes:
        at_ms: stream position at which the caller began to speak.
        text: what is known of it so far.
        end: set when it is over and written down.
    """

    at_ms: int
    text: str = ""
    end: EndOfTurn | None = None
    _started: bool = False
    _told: str = ""

    def tell(self) -> list[SttEvent]:
        """What is new."""
        events: list[SttEvent] = []
        if not self._started:
            self._started = True
            events.append(SpeechStarted(self.at_ms))
        if self.end is None and self.text.strip() != self._told:
            self._told = self.text.strip()
            if self._told:
                events.append(Partial(self._told))
        if self.end is not None:
            events.append(self.end)
        return events


class TurnOrder:
    """The turns that have no end yet, oldest first."""

    def __init__(self) -> None:
        self.open: list[Turn] = []

    def begin(self, at_ms: int, *, after: Turn | None = None) -> Turn:
        """A new turn: the last one, or the one that follows `after`."""
        turn = Turn(at_ms)
        where = self.open.index(after) + 1 if after in self.open else len(self.open)
        self.open.insert(where, turn)
        return turn

    def due(self) -> list[SttEvent]:
        """What can be told now. Call it after every change."""
        events: list[SttEvent] = []
        while self.open:
            events += self.open[0].tell()
            if self.open[0].end is None:
                break
            del self.open[0]
        return events
