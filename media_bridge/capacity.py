"""Whether a bridge has room for one more call: by the places it has, and by how late its event loop runs. Pure.

Only new calls are asked about. One that comes back, after a crash, a drain or a transfer, or that we have dialled
and somebody has answered, is always taken up: a refusal would lose it.
"""

from __future__ import annotations

import statistics
from collections import deque
from typing import Final, Literal

WINDOW: Final = 20
"""Measurements that are looked at: with one every 0.1 s the last two seconds, longer where the loop is late."""
RECOVERED: Final = 0.5
"""Share of the limit below which the lag has to fall before calls are taken again."""
FELT_AFTER: Final = 2.0
"""Seconds until a call that was taken is felt in the lag. From `RECOVERED` of the limit on, one call is taken in
this time: else a crowd would be let in before the first of it is noticed."""
ARRIVES_WITHIN: Final = 5.0
"""Seconds from a call's admission to its stream; until then it counts. Later it has gone to another bridge."""

NoRoom = Literal["full", "overloaded"]


class Capacity:
    """What one bridge can still take.

    One slow moment refuses nobody: the median of `WINDOW` measurements counts, and a loop that stands still for
    seconds gives a single late one. Nor does the answer flutter (see `RECOVERED`) or come too late (`FELT_AFTER`).

    Args:
        places: calls that the bridge takes at once.
        max_lag_ms: lag of the event loop from which on it takes no new calls; 0: it is not looked at.
    """

    def __init__(self, places: int, max_lag_ms: float) -> None:
        self.places = places
        self.overloaded = False
        self._max_lag_ms = max_lag_ms
        self._lags: deque[float] = deque(maxlen=WINDOW)
        self._coming: dict[str, float] = {}  # calls that have no stream yet, and until when they count
        self._taken_at = -FELT_AFTER

    @property
    def lag_ms(self) -> float:
        """How late the loop typically runs: the median of the last measurements."""
        return statistics.median(self._lags) if self._lags else 0.0

    def measured(self, lag_ms: float) -> bool:
        """The event loop woke so late. True: the bridge has become overloaded by that, or is so no more."""
        self._lags.append(lag_ms)
        if not self._max_lag_ms or len(self._lags) < WINDOW:
            return False
        limit = self._max_lag_ms * (RECOVERED if self.overloaded else 1)
        before, self.overloaded = self.overloaded, self.lag_ms >= limit
        return self.overloaded is not before

    def expect(self, call_id: str, now: float) -> None:
        """The call was admitted; its stream will follow, here or at another bridge. `now`: monotonic seconds."""
        self._coming[call_id] = now + ARRIVES_WITHIN
        self._taken_at = now

    def arrived(self, call_id: str) -> None:
        """The call has a session here, and counts as that."""
        self._coming.pop(call_id, None)

    def lacking(self, held: int, now: float) -> NoRoom | None:
        """What keeps the bridge from taking a new call; None: nothing does.

        Args:
            held: calls that it holds.
            now: monotonic seconds.
        """
        self._coming = {call_id: until for call_id, until in self._coming.items() if until > now}
        if held + len(self._coming) >= self.places:
            return "full"
        near = self._max_lag_ms and self.lag_ms >= RECOVERED * self._max_lag_ms
        return "overloaded" if self.overloaded or (near and now - self._taken_at < FELT_AFTER) else None

    def reason(self, lacking: NoRoom) -> str:
        """The same for the record of a call that was refused."""
        if lacking == "full":
            return f"no room: all {self.places} places are taken"
        return f"no room: the event loop runs {self.lag_ms:.0f} ms late"
