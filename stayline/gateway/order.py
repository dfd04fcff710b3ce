"""Two roads, one order: what comes from the record comes later than live events of the same moment. Pure."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from datetime import datetime
from typing import Final

from stayline.gateway.events import SessionEvent

LONGEST: Final = 3.0
"""Seconds that an event is held at most; the record may be away."""


class Order:
    """Holds each event until the record has been looked at again, and gives them out in the order of their times.

    Args:
        settle: seconds that an event needs on its way into the record. What comes later still is given out late,
            with its true time. 0: nothing is held.
    """

    def __init__(self, settle: float) -> None:
        self._settle = settle
        self._held: list[tuple[datetime, int, SessionEvent]] = []
        self._came: deque[tuple[float, datetime]] = deque()  #: when, and the time of the event
        self._number = itertools.count()

    def take(self, event: SessionEvent, by: datetime, now: float) -> None:
        """An event has come. `by`: the time to order it by. `now`: monotonic seconds."""
        heapq.heappush(self._held, (by, next(self._number), event))
        self._came.append((now, by))

    def due(self, now: float, looked: float) -> list[SessionEvent]:
        """What need not be held any more, with everything that was before it.

        Args:
            looked: when the last look at the record began.
        """
        until: datetime | None = None
        while self._came:
            came, by = self._came[0]
            if self._settle and looked < came + self._settle and now < came + LONGEST:
                break
            self._came.popleft()
            until = by if until is None else max(until, by)
        given = []
        while until is not None and self._held and self._held[0][0] <= until:
            given.append(heapq.heappop(self._held)[2])
        return given

    def rest(self) -> list[SessionEvent]:
        """Everything: nothing more will come."""
        given = [item[2] for item in sorted(self._held, key=lambda item: item[:2])]
        self._held.clear()
        self._came.clear()
        return given

    def wait(self, now: float) -> float | None:
        """Seconds after which something is due in any case; None: nothing is held."""
        return max(0.0, self._came[0][0] + LONGEST - now) if self._held and self._came else None
