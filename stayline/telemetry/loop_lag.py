"""How late the event loop wakes up. In the audio process this is the first sign of a caller hearing gaps."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

from stayline.telemetry.instruments import metrics

TASKS_EVERY = 10
"""Measurements; counting is not free."""


async def watch_loop_lag(interval: float = 0.1, then: Callable[[float], object] | None = None) -> None:
    """Measure until cancelled: sleep `interval` seconds, record by how many milliseconds it took longer.

    Args:
        then: told of each measurement, in milliseconds.
    """
    loop = asyncio.get_running_loop()
    tasks = 0
    try:
        for number in itertools.count():
            if number % TASKS_EVERY == 0:
                before, tasks = tasks, len(asyncio.all_tasks())
                metrics.event_loop_tasks(tasks - before)
            due = loop.time() + interval
            await asyncio.sleep(interval)
            lag_ms = max(0.0, (loop.time() - due) * 1000)
            metrics.event_loop_lag(lag_ms)
            if then is not None:
                then(lag_ms)
    finally:
        metrics.event_loop_tasks(-tasks)
