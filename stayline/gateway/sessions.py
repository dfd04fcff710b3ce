"""The calls of all processes that share Temporal, and those of them that somebody follows here."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

import structlog
from temporalio.client import Client

from media_bridge.shared import Shared
from stayline.gateway.feed import CallFeed
from stayline.gateway.live_source import LiveSource
from stayline.gateway.reading import CallReader, CannotRead
from stayline.gateway.session import Session
from stayline.settings import Settings, TwilioCredentials, load_settings
from stayline.temporal import connect

log = structlog.get_logger(__name__)

AT_ONCE: Final = 16
"""Calls that are asked for their state at once."""


@dataclasses.dataclass(slots=True)
class _Followed:
    feed: CallFeed
    task: asyncio.Task[None]
    readers: int = 0


class Sessions:
    """Finds calls. A `Gateway` has one; a process that only watches opens its own:

        async with Sessions.open() as sessions:
            for session in await sessions.list():
                print(session.id, session.from_number, session.duration)

    Args:
        bridge: the one of this process, if there is one.
    """

    def __init__(
        self, client: Client, settings: Settings, twilio: TwilioCredentials, bridge: Shared | None = None
    ) -> None:
        self.reader = CallReader(client, settings.database)
        self.source = LiveSource(client, settings, twilio, bridge)
        self._followed: dict[str, _Followed] = {}
        self._leaving: set[asyncio.Task[None]] = set()

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        settings: Settings | None = None,
        *,
        client: Client | None = None,
        twilio: TwilioCredentials | None = None,
    ) -> AsyncIterator[Sessions]:
        """The calls as a process without a bridge sees them.

        Args:
            settings, twilio: default: from the environment.
            client: default: connects where Temporal's configuration says.
        Raises:
            ConfigError: a setting is wrong.
            StaylineError: Temporal does not answer.
        """
        settings = settings or load_settings()
        sessions = cls(client or await connect(settings), settings, twilio or TwilioCredentials())
        try:
            yield sessions
        finally:
            await sessions.close()

    async def get(self, call_id: str) -> Session | None:
        """A call, live or ended; None: nobody knows it.

        Raises:
            StaylineError: it is known, but cannot be read now.
        """
        snapshot = await self.reader.snapshot(call_id)
        return Session(snapshot, self) if snapshot is not None else None

    async def list(self, *, limit: int = 1000) -> list[Session]:
        """The calls that go on, newest first, whatever process holds them. A new one takes a moment to be listed.

        A call that nobody answers for (its build has no worker any more) is left out, and logged.

        Raises:
            StaylineError: Temporal is away, or no call at all can be read.
        """
        gate = asyncio.Semaphore(AT_ONCE)

        async def ask(call_id: str) -> Session | None:
            async with gate:
                return await self.get(call_id)

        calls = await self.reader.running(limit)
        answers = await asyncio.gather(*(ask(call_id) for call_id, _ in calls), return_exceptions=True)
        failures = [answer for answer in answers if isinstance(answer, BaseException)]
        unknown = next((failure for failure in failures if not isinstance(failure, CannotRead)), None)
        if unknown is not None or (failures and len(failures) == len(answers)):
            raise unknown or failures[0]
        if failures:
            log.warning("calls_not_readable", calls=len(failures))
        sessions = [answer for answer in answers if isinstance(answer, Session)]
        return [session for session in sessions if session.snapshot.ended_at is None]

    @contextmanager
    def following(self, call_id: str) -> Iterator[CallFeed]:
        """Follow a call for one reader more; the last one to leave ends it."""
        followed = self._followed.get(call_id)
        if followed is None or followed.feed.over:
            feed = CallFeed(self.reader, self.source, call_id)
            followed = _Followed(feed, asyncio.create_task(feed.run()))
            self._followed[call_id] = followed
        followed.readers += 1
        try:
            yield followed.feed
        finally:
            followed.readers -= 1
            if not followed.readers:
                self._leave(call_id, followed)

    async def close(self) -> None:
        """Follow nothing any more; readers come to an end."""
        for call_id, followed in list(self._followed.items()):
            self._leave(call_id, followed)
        if self._leaving:
            await asyncio.wait(self._leaving)

    def _leave(self, call_id: str, followed: _Followed) -> None:
        if self._followed.get(call_id) is followed:
            del self._followed[call_id]
        followed.task.cancel()
        self._leaving.add(followed.task)
        followed.task.add_done_callback(self._left)

    def _left(self, task: asyncio.Task[None]) -> None:
        self._leaving.discard(task)
        if not task.cancelled():
            task.exception()  # read, so that nobody complains; the feed's readers were told
