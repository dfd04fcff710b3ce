"""How late the event loop wakes up. In the audio process this is the first sign of a caller hearing gaps."""

from __future__ import annotations

import asyncio
from collections import deque

from stayline.telemetry.instruments import metrics

_RECENT = 8
_recent: deque[float] = deque(maxlen=_RECENT)


async def watch_loop_lag(interval: float = 0.25) -> None:
    """Measure until cancelled: sleep `interval` seconds, record by how many milliseconds it took longer."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + interval
        await asyncio.sleep(interval)
        lag_ms = max(0.0, (loop.time() - due) * 1000)
        _recent.append(lag_ms)
        metrics.event_loop_lag(lag_ms)


def recent_loop_lag_ms() -> float:
    """The worst of the last two seconds or so, in milliseconds; 0 while nothing has been measured."""
    return max(_recent, default=0.0)
