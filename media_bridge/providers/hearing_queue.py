"""What a recogniser's stream yields, between whoever hears the vendor and the one that iterates."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from media_bridge.providers.base import SttEvent
from stayline.errors import ProviderError


class HearingQueue:
    """Events of one call: put in as they come, iterated by the bridge, ended once."""

    def __init__(self) -> None:
        self._events: asyncio.Queue[SttEvent | None] = asyncio.Queue()
        self._error: ProviderError | None = None
        self.ended = False

    def put(self, events: Iterable[SttEvent]) -> None:
        if not self.ended:
            for event in events:
                self._events.put_nowait(event)

    def fail(self, error: ProviderError) -> None:
        """Iteration raises after what there is."""
        if not self.ended:
            self._error = error
            self._end()

    def close(self) -> None:
        """Iteration ends now: we closed the stream; what there is, is dropped, also an error."""
        self._error = None
        while not self._events.empty():
            self._events.get_nowait()
        self._end()

    def _end(self) -> None:
        self.ended = True
        self._events.put_nowait(None)

    async def get(self) -> SttEvent:
        """The next event.

        Raises:
            StopAsyncIteration: the stream was closed.
            ProviderError: it failed.
        """
        event = await self._events.get()
        if event is not None:
            return event
        self._events.put_nowait(None)  # whoever asks again gets the same answer
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration
