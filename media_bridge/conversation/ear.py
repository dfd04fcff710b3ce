"""The agent's ear in one call: caller audio in, turns out, through the first STT provider that works."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence

from media_bridge.conversation import events as ev
from media_bridge.providers.base import EndOfTurn, Partial, SpeechStarted, SttEvent, SttProvider, SttStream
from media_bridge.providers.fallback import Failed, first_working, understood
from stayline.errors import ProviderError

BACKLOG_FRAMES = 250
"""Caller frames of 20 ms (5 s) kept while no recogniser is connected; older ones are dropped."""
ATTEMPTS = 4
"""Losses in a row, without any event between them, after which hearing is given up."""
PAUSE = 0.5
"""Seconds before the second try when no provider accepts a connection; then twice and three times that."""


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
            try:
                provider, stream = await first_working(
                    "stt", self._providers, lambda p: p.connect(call_id=self._call_id), self._failed
                )
            except ProviderError as error:
                self._losses += 1
                if not error.retryable or self._losses >= ATTEMPTS:
                    raise
                await asyncio.sleep(PAUSE * self._losses)  # what the caller says meanwhile is kept
                continue
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
                await _close(stream)

    async def _listen(self, stream: SttStream) -> None:
        """Carry audio and events until the stream is lost."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._send(stream))
                events = aiter(stream)
                while True:
                    event = await _next(events)
                    self._losses = 0
                    self._take(event)
        except ExceptionGroup as errors:
            lost, other = errors.split(ProviderError)
            if other is not None or lost is None:
                raise
            error = next(e for e in lost.exceptions if isinstance(e, ProviderError))
            raise error from None

    async def _send(self, stream: SttStream) -> None:
        while True:
            while self._frames:
                try:
                    await stream.send(self._frames.popleft())
                except Exception as error:
                    raise understood("stt", error) from error
            self._more.clear()
            await self._more.wait()

    def _take(self, event: SttEvent) -> None:
        match event:
            case SpeechStarted():
                self._heard(ev.CallerSpoke())
            case Partial(text):
                self._heard(ev.CallerPartial(text))
            case EndOfTurn(text, confidence, speech_end_ms, speech_ms):
                self._heard(ev.CallerTurn(text, confidence, speech_end_ms, speech_ms))
            case _:  # eager turns are advice that this pipeline does not take
                pass


async def _next(events: AsyncIterator[SttEvent]) -> SttEvent:
    """The next event; whatever else comes is a ProviderError."""
    try:
        return await anext(events)
    except StopAsyncIteration:
        raise ProviderError("stt", "the stream ended", retryable=True) from None
    except Exception as error:
        raise understood("stt", error) from error


async def _close(stream: SttStream) -> None:
    try:
        await stream.aclose()
    except Exception as error:  # nobody needs it any more; what made us leave it was told already
        understood("stt", error)
