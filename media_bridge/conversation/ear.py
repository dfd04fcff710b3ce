"""The agent's ear in one call: caller audio in, turns out, through the first STT provider that works."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Final

from media_bridge.audio import mulaw
from media_bridge.audio.loudness import LOUD, loudness
from media_bridge.audio.quiet import QuietTogether
from media_bridge.conversation import events as ev
from media_bridge.providers.base import (
    EagerEndOfTurn,
    EndOfTurn,
    Partial,
    SendsNow,
    SpeechStarted,
    SttEvent,
    SttProvider,
    SttStream,
    TurnResumed,
)
from media_bridge.providers.fallback import Changed, Failed, Lineup, Member, understood
from stayline.errors import ProviderError

KEPT_MS: Final = 10_000
"""Caller audio since the last turn that is kept, so that another connection can hear it (again)."""
KEPT_FRAMES: Final = KEPT_MS // 20
TOGETHER: Final = 10
"""Pieces that are sent at once, if so many wait."""
DEAF_LOUD_MS: Final = 3000
DEAF_SECONDS: Final = 8.0
"""Loud sound of the caller, in all and for how long, without any event: it hears nothing any more."""
WATCH_SECONDS: Final = 0.5
ATTEMPTS: Final = 4
"""Losses in a row, without any words between them, after which hearing is given up."""
PAUSE = 0.5
"""Seconds before the second try when no provider accepts a connection; then twice and three times that."""


class _Better(Exception):
    """A recogniser that is preferred to this one has rested enough, and the caller is between two turns."""


class _Deaf(ProviderError):
    """It is connected, and hears nothing. That may be the line: no reason to give up hearing altogether."""


class Ear:
    """Hears the caller. No word is lost to a connection that breaks or is being made.

    Args:
        heard: told of each conversation event.
        failed, changed: told of each failure, and when another recogniser listens.
    """

    def __init__(
        self,
        providers: Lineup[SttProvider],
        call_id: str,
        heard: Callable[[ev.Event], None],
        failed: Failed,
        changed: Changed,
    ) -> None:
        self._providers = providers
        self._call_id = call_id
        self._heard = heard
        self._failed = failed
        self._changed = changed
        self._quiet = QuietTogether()
        self._frames: deque[bytes] = deque(maxlen=KEPT_FRAMES)  #: not sent yet
        self._kept: deque[bytes] = deque()  #: since the last turn
        self._kept_ms = 0
        self._received_ms = 0
        self._offset_ms = 0  #: stream position at which the connection begins
        self._more = asyncio.Event()
        self._now: Callable[[bytes], bool] | None = None  #: sends a frame at once, if it can
        self._losses = 0
        self._deaf = 0  #: how many in a row heard nothing
        self._loud_ms = 0
        self._event_at = 0.0

    def audio(self, frame: bytes) -> None:
        ms = mulaw.bytes_to_ms(len(frame))
        self._received_ms += ms
        self._kept.append(frame)
        self._kept_ms += ms
        while self._kept_ms > KEPT_MS:
            self._kept_ms -= mulaw.bytes_to_ms(len(self._kept.popleft()))
        level = loudness(frame)
        if level > LOUD:
            self._loud_ms += ms
        piece = self._quiet.add(frame, level)
        if piece and (self._frames or self._now is None or not self._now(piece)):
            self._frames.append(piece)
            self._more.set()

    async def run(self) -> None:
        """Listen until cancelled.

        Raises:
            ProviderError: no provider could be kept.
        """
        current: Member[SttProvider] | None = None
        better = False
        while True:
            try:
                member, stream = await self._providers.connect(
                    lambda provider: provider.connect(call_id=self._call_id), self._failed
                )
            except ProviderError as error:
                self._losses += 1
                if not error.retryable or self._losses >= ATTEMPTS:
                    raise
                await asyncio.sleep(PAUSE * self._losses)  # what the caller says meanwhile is kept
                continue
            if current is not None and member is not current:
                self._changed("stt", member.ref, "recovered" if better else "failed")
            current, better = member, False
            self._begin()
            try:
                await self._listen(member, stream)
            except _Better:
                better = True
            except ProviderError as error:
                self._providers.failed(member, error)
                self._failed("stt", error)
                if isinstance(error, _Deaf):
                    self._deaf += 1
                else:
                    self._losses += 1
                if self._losses >= ATTEMPTS:
                    raise
            finally:
                await _close(stream)

    def _begin(self) -> None:
        """A connection begins: it hears what no turn has come of yet."""
        self._quiet.drop()
        self._frames = deque(self._kept, maxlen=KEPT_FRAMES)
        self._offset_ms = self._received_ms - self._kept_ms
        self._more.set()
        self._loud_ms = 0
        self._event_at = asyncio.get_running_loop().time()

    async def _listen(self, member: Member[SttProvider], stream: SttStream) -> None:
        """Carry audio and events until the stream is lost, or a better one is to be had.

        Raises:
            ProviderError, _Better
        """
        self._now = stream.send_now if isinstance(stream, SendsNow) else None
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._send(stream))
                group.create_task(self._watch(member))
                events = aiter(stream)
                while True:
                    event = await _next(events)
                    self._note(member, event)
                    self._take(event)
                    if isinstance(event, EndOfTurn) and self._providers.better_than(member):
                        raise _Better
        except ExceptionGroup as errors:
            for kind in (ProviderError, _Better):
                found, other = errors.split(kind)
                if found is not None and other is None:
                    raise _first(found) from None
            raise
        finally:
            self._now = None

    def _note(self, member: Member[SttProvider], event: SttEvent) -> None:
        self._event_at, self._loud_ms = asyncio.get_running_loop().time(), 0
        if isinstance(event, Partial | EndOfTurn) and event.text:  # sound alone proves nothing
            self._losses = self._deaf = 0
            self._providers.worked(member)
        if isinstance(event, EndOfTurn):
            self._kept.clear()
            self._kept_ms = 0

    async def _watch(self, member: Member[SttProvider]) -> None:
        """Leave one that hears nothing, if another has not been found as deaf."""
        loop = asyncio.get_running_loop()
        while self._deaf + 1 < len(self._providers.members):
            await asyncio.sleep(WATCH_SECONDS)
            if self._loud_ms >= DEAF_LOUD_MS and loop.time() - self._event_at >= DEAF_SECONDS:
                raise _Deaf(member.ref, "it does not hear the caller any more", retryable=True)

    async def _send(self, stream: SttStream) -> None:
        while True:
            while self._frames:
                try:
                    await stream.send(self._next_pieces())
                except Exception as error:
                    raise understood("stt", error) from error
            self._more.clear()
            await self._more.wait()

    def _next_pieces(self) -> bytes:
        """What waits, as one piece: a busy event loop is the worst time for many small messages."""
        if len(self._frames) == 1:
            return self._frames.popleft()
        return b"".join(self._frames.popleft() for _ in range(min(len(self._frames), TOGETHER)))

    def _take(self, event: SttEvent) -> None:
        match event:
            case SpeechStarted(at_ms):
                self._heard(ev.CallerSpoke(at_ms + self._offset_ms))
            case Partial(text):
                self._heard(ev.CallerPartial(text))
            case EndOfTurn(text, confidence, speech_end_ms, speech_ms):
                if speech_end_ms is not None:
                    speech_end_ms += self._offset_ms
                self._heard(ev.CallerTurn(text, confidence, speech_end_ms, speech_ms))
            case EagerEndOfTurn(text):
                self._heard(ev.CallerPaused(text))
            case TurnResumed():
                self._heard(ev.CallerResumed())


def _first(errors: ExceptionGroup[Exception]) -> Exception:
    error = errors.exceptions[0]
    return _first(error) if isinstance(error, ExceptionGroup) else error


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
