"""A call as this process knows it while somebody here follows it: timeline and live logs, read once for all."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from media_bridge.live_events import LiveLog
from stayline.errors import StaylineError
from stayline.gateway.live_source import LiveSource
from stayline.gateway.reading import CallReader, CannotRead
from stayline.models import CallInfo
from stayline.timeline import CallEnded, SessionOpened, TimelineEntry, ToolCalled, ToolSettled

log = structlog.get_logger(__name__)

INTERVAL: Final = 0.25
"""Seconds between two looks at the timeline, where nothing else tells that something happens."""
CALM: Final = 1.0
"""The same where live events would tell."""
AFTER_LIVE: Final = 0.3
"""Seconds after a live event in which the record has it as well, so that it is worth a look."""
LOOK_AT_WORKFLOW: Final = 2.0
"""Seconds without anything new after which it is asked whether the workflow was ended from outside."""
LINGER: Final = 2.0
"""Seconds that live events of an ended call may still take."""
PATIENCE: Final = 120.0
"""Seconds for which Temporal or the worker may be away in one piece."""


class CallFeed:
    """Follows one call; any number of readers look at what it has gathered.

    Attributes:
        call: None until the call was found.
        entries: the timeline so far.
        live: live logs by session number.
        looked: when the last look at the timeline that was answered began, loop time.
        over: nothing more will come: the call has ended and its tools too, or it cannot be read (`error`).
        changed: set at the next news or look, and replaced by another event then.
    """

    def __init__(self, reader: CallReader, source: LiveSource, call_id: str) -> None:
        self.call: CallInfo | None = None
        self.entries: list[TimelineEntry] = []
        self.live: dict[int, LiveLog] = {}
        self.looked = 0.0
        self.over = False
        self.error: StaylineError | None = None
        self.changed = asyncio.Event()
        self._reader = reader
        self._source = source
        self._call_id = call_id
        self._ended_at: float | None = None  #: loop time
        self._open_tools: set[str] = set()
        self._followers: list[asyncio.Task[None]] = []
        self._spoken = 0  #: how many live events of speech there have been
        self._heard_at = 0.0  #: when the last one came, loop time
        self._heard = asyncio.Event()

    async def run(self) -> None:
        """Follow the call to its end."""
        try:
            async with asyncio.TaskGroup() as tasks:
                await self._read(tasks)
                if self._followers:
                    await asyncio.wait(self._followers, timeout=LINGER)
                for follower in self._followers:
                    follower.cancel()
        except Exception as error:
            log.exception("call_not_followed", call_id=self._call_id, kind=type(error).__name__)
            self.error = StaylineError(f"The call {self._call_id!r} cannot be followed: {type(error).__name__}.")
        finally:
            self.over = True
            self._tell()

    @property
    def quiet(self) -> bool:
        """The call has ended, and no more live events are to be expected of it."""
        if self._ended_at is None:
            return self.over
        late = asyncio.get_running_loop().time() - self._ended_at > LINGER
        return late or all(follower.done() for follower in self._followers)

    async def _read(self, tasks: asyncio.TaskGroup) -> None:
        """Read the timeline to its end."""
        loop = asyncio.get_running_loop()
        news_at = answered_at = loop.time()
        while self._ended_at is None or self._open_tools:
            begun = loop.time()
            try:
                fresh = await self._look()
                self.looked, answered_at = begun, loop.time()
                if not fresh and loop.time() - news_at > LOOK_AT_WORKFLOW:
                    news_at = loop.time()
                    if await self._reader.is_over(self._call_id):
                        self._take(await self._reader.timeline(self._call_id, len(self.entries)), tasks)
                        return  # terminated: it never wrote down its end
            except CannotRead as error:
                if loop.time() - answered_at > PATIENCE:
                    self.error = error
                    return
                fresh = []
            if fresh:
                news_at = loop.time()
                self._take(fresh, tasks)
            elif self.call is None:
                self.error = StaylineError(f"There is no call {self._call_id!r}.")
                return
            self._tell()
            await self._pause()

    async def _pause(self) -> None:
        """Until the next look. Each costs the call's worker some milliseconds, so a calm call is left in peace."""
        loop = asyncio.get_running_loop()
        told = any(not follower.done() for follower in self._followers) and bool(self.live)
        until = loop.time() + (CALM if told else INTERVAL)
        while True:
            if self.looked < self._heard_at + AFTER_LIVE:  # the last look was too early for what was heard
                until = min(until, self._heard_at + AFTER_LIVE)
            left = until - loop.time()
            if left <= 0:
                return
            self._heard.clear()
            try:
                async with asyncio.timeout(left):
                    await self._heard.wait()
            except TimeoutError:
                return

    def _live_news(self) -> None:
        spoken = sum(log.last_speech for log in self.live.values())
        if spoken != self._spoken:
            self._spoken = spoken
            self._heard_at = asyncio.get_running_loop().time()
            self._heard.set()
        self._tell()

    async def _look(self) -> list[TimelineEntry]:
        """What is new. A call that Temporal has forgotten is read from the records, whole.

        Raises:
            CannotRead
        """
        if self.call is None:
            snapshot = await self._reader.snapshot(self._call_id)
            if snapshot is None:
                return []
            self.call = snapshot.call
        try:
            return await self._reader.timeline(self._call_id, len(self.entries))
        except CannotRead:
            saved = await self._reader.saved(self._call_id)
            if saved is None or not saved.final:
                raise
            self._end()  # whatever it says
            self._open_tools.clear()
            return list(saved.timeline[len(self.entries) :])

    async def _follow(self, session: int, bridge_id: str) -> None:
        """Live events are what can be had at the moment: their trouble is none of the record's."""
        try:
            await self._source.follow(self._call_id, session, bridge_id, self.live, self._live_news)
        except Exception as error:
            log.exception("live_events_failed", call_id=self._call_id, kind=type(error).__name__)

    def _take(self, fresh: list[TimelineEntry], tasks: asyncio.TaskGroup) -> None:
        for entry in fresh:
            match entry.event:
                case SessionOpened(session=session, bridge_id=bridge_id):
                    self._followers.append(tasks.create_task(self._follow(session, bridge_id)))
                case ToolCalled(call=call, duplicate_of=None):
                    self._open_tools.add(call.id)
                case ToolSettled(outcome=outcome):
                    self._open_tools.discard(outcome.id)
                case CallEnded():
                    self._end()
        self.entries += fresh

    def _end(self) -> None:
        if self._ended_at is None:
            self._ended_at = asyncio.get_running_loop().time()

    def _tell(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()
