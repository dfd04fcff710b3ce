"""The agent's ear in one call: caller audio in, turns out, through the first STT provider that works."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from media_bridge.conversation import events as ev
from media_bridge.providers.base import EndOfTurn, Partial, SpeechStarted, SttProvider, SttStream
from media_bridge.providers.fallback import Failed, first_working
from stayline.errors import ProviderError

BACKLOG_FRAMES = 250
"""Caller frames of 20 ms (5 s) kept while no recogniser is connected; older ones are dropped."""
ATTEMPTS = 4
"""Losses in a row, without any event between them, after which hearing is given up."""


class Ear:
    """Hears the caller. Audio is never lost to a connection that is being made.

    Args:
        heard: told of each conversation event.
    """

    def __init__(
        self, providers: Sequence[SttProvider], call_id: str, heard: Callable[[ev.Event], None], failed: Failed
    ) -> None:
        self._providers = list(providers)
        self._call_id = call_id
        self._heard = heard
        self._failed = failed
        self._frames: deque[bytes] = deque(maxlen=BACKLOG_FRAMES)
        self._more = asyncio.Event()
        self._losses = 0

    def audio(self, frame: bytes) -> None:
        self._frames.append(frame)
        self._more.set()

    async def run(self) -> None:
        """Listen until cancelled.

        Raises:
            ProviderError: no provider could be kept.
        """
        while True:
            provider, stream = await first_working(
                "stt", self._providers, lambda p: p.connect(call_id=self._call_id), self._failed
            )
            try:
                await self._listen(stream)
            except ProviderError as error:
                self._failed("stt", error)
                self._losses += 1
                if self._losses >= ATTEMPTS:
                    raise
                self._providers.remove(provider)
                self._providers.append(provider)
            finally:
                await stream.aclose()

    async def _listen(self, stream: SttStream) -> None:
        """Carry audio and events until the stream is lost."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._send(stream))
                async for event in stream:
                    self._losses = 0
                    self._take(event)
                raise ProviderError("stt", "the stream ended", retryable=True)
        except ExceptionGroup as errors:
            lost, other = errors.split(ProviderError)
            if other is not None or lost is None:
                raise
            error = next(e for e in lost.exceptions if isinstance(e, ProviderError))
            raise error from None

    async def _send(self, stream: SttStream) -> None:
        while True:
            while self._frames:
                await stream.send(self._frames.popleft())
            self._more.clear()
            await self._more.wait()

    def _take(self, event: object) -> None:
        match event:
            case SpeechStarted():
                self._heard(ev.CallerSpoke())
            case Partial(text):
                self._heard(ev.CallerPartial(text))
            case EndOfTurn(text, confidence, speech_end_ms, speech_ms):
                self._heard(ev.CallerTurn(text, confidence, speech_end_ms, speech_ms))
            case _:  # eager turns are advice that this pipeline does not take
                pass
