"""Which bridges a load balancer would send a connection to: those that say that they are ready, in turn."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

import aiohttp

EVERY = 0.4
TIMEOUT = 1.0


class Balancer:
    """Asks each bridge's `/ready`. Run `watch` beside it."""

    def __init__(self) -> None:
        self.members: dict[str, tuple[str, int]] = {}
        self._healthy: set[str] = set()
        self._turn = 0

    def targets(self) -> Sequence[tuple[str, int]]:
        """The healthy ones, the next in turn first; then the others: perhaps they are."""
        names = [name for name in self.members if name in self._healthy]
        self._turn += 1
        start = self._turn % len(names) if names else 0
        order = names[start:] + names[:start] + [name for name in self.members if name not in self._healthy]
        return [self.members[name] for name in order]

    async def watch(self) -> None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT)) as http:
            while True:
                await asyncio.gather(*(self._ask(http, name) for name in list(self.members)))
                await asyncio.sleep(EVERY)

    async def _ask(self, http: aiohttp.ClientSession, name: str) -> None:
        host, port = self.members[name]
        ready = False
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
            async with http.get(f"http://{host}:{port}/ready") as answer:
                ready = answer.status == 200
        if ready:
            self._healthy.add(name)
        else:
            self._healthy.discard(name)
