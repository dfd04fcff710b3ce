"""A time limit that every message puts off, at the price of an attribute: a socket has 50 of them a second."""

from __future__ import annotations

import asyncio
from types import TracebackType


class Idle:
    """`async with Idle(20) as idle`: raises TimeoutError when `idle.heard()` was not called for so many seconds.

    Args:
        seconds: the limit; `begin_with` is the one until `heard` is called for the first time.
    """

    def __init__(self, seconds: float, *, begin_with: float) -> None:
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._due = self._loop.time() + begin_with
        self._deadline = asyncio.timeout(None)
        self._timer: asyncio.TimerHandle | None = None

    def heard(self) -> None:
        self._due = self._loop.time() + self._seconds

    async def __aenter__(self) -> Idle:
        await self._deadline.__aenter__()
        self._look()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        await self._deadline.__aexit__(kind, error, trace)

    def _look(self) -> None:
        """Time is up, or it was put off meanwhile."""
        if self._due <= self._loop.time():
            self._deadline.reschedule(self._due)
        else:
            self._timer = self._loop.call_at(self._due, self._look)
