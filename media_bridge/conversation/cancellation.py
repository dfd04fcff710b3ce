"""Tasks that are to end, and do."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final

AGAIN_SECONDS: Final = 2.0
"""Twice what a task takes at most to close its connections."""


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel them until all have ended.

    Once is not always enough: where a task group is cancelled while a child of it fails, it raises the error alone
    (Python before 3.13), and whoever catches that and tries again would do so for ever.
    """
    running = set(tasks)
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=AGAIN_SECONDS)
