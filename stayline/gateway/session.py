"""One call, as an application follows and steers it, whatever process holds its audio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from temporalio.client import WorkflowUpdateFailedError, WorkflowUpdateRPCTimeoutOrCancelledError
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from stayline.errors import StaylineError
from stayline.gateway.events import SessionEvent
from stayline.gateway.order import Order
from stayline.gateway.transcript import Turn, transcript_of
from stayline.gateway.translation import Translation, of_live
from stayline.messages import Command, EndCall, SayText, TransferCall
from stayline.models import Direction
from stayline.timeline import CallEnded, CallMetrics, CallRecord, CallSnapshot

if TYPE_CHECKING:
    from stayline.gateway.sessions import Sessions

ANSWERED_WITHIN: Final = 15.0
"""Seconds that a call's workflow may take to accept a command; a worker that has just died costs one or two."""
BY: Final = "gateway"
"""Who steers, as the record has it, where the application says nothing else."""


class Session:
    """A call.

        session = await gateway.get_session(call_sid)
        async for event in session.events():
            print(event.timestamp, event.type, event.data)
        print(await session.metrics())

    Attributes:
        id: the call's; of an inbound call the carrier's call SID.
        snapshot: its state when it was last asked for (`refresh`).
    """

    def __init__(self, snapshot: CallSnapshot, sessions: Sessions) -> None:
        self.id = snapshot.call.call_id
        self.snapshot = snapshot
        self._sessions = sessions

    def __repr__(self) -> str:
        return f"<Session {self.id} {self.snapshot.status}>"

    @property
    def from_number(self) -> str:
        return self.snapshot.call.from_number

    @property
    def to_number(self) -> str:
        return self.snapshot.call.to_number

    @property
    def direction(self) -> Direction:
        return self.snapshot.call.direction

    @property
    def start_time(self) -> datetime:
        """When the call came in or was placed, UTC."""
        return self.snapshot.started_at

    @property
    def duration(self) -> timedelta:
        """From the moment that caller and agent could hear each other to the end, or to now."""
        begun = self.snapshot.answered_at
        return (self.snapshot.ended_at or datetime.now(UTC)) - begun if begun else timedelta(0)

    async def refresh(self) -> CallSnapshot:
        """Ask for the call's present state.

        Raises:
            StaylineError: it cannot be read now.
        """
        snapshot = await self._sessions.reader.snapshot(self.id)
        if snapshot is None:
            raise StaylineError(f"Nobody knows the call {self.id!r} any more.")
        self.snapshot = snapshot
        return snapshot

    # --- reading -----------------------------------------------------------------------------------------

    async def events(self, *, settle: float = 0.25) -> AsyncIterator[SessionEvent]:
        """Everything that has happened and happens in the call, from its beginning to its end.

        Any number of readers may follow a call, in any process, at their own pace; each gets every event. What is
        said and done comes from the call's durable record: nothing of it is lost with a process, and an ended call
        can be read as well. Who speaks this moment, and how much sound goes, comes from the bridge that holds the
        call, within the bounds of `media_bridge.live_events`; of a bridge that died, or that cannot be reached from
        here, there are none.

        Args:
            settle: seconds that a happening needs into the record. So long at least a live event is held, and until
                the record has been looked at, so that all come in the order of time. 0: live events come at once.
        Raises:
            StaylineError: Temporal or the worker was away for two minutes. What follows can be read later.
        """
        with self._sessions.following(self.id) as feed:
            loop = asyncio.get_running_loop()
            order = Order(settle)
            translation: Translation | None = None
            read, heard, latest = 0, dict[int, int](), self.start_time
            while True:
                over, changed = feed.over, feed.changed
                for number, log in feed.live.items():
                    for event in log.after(heard.get(number, 0)):
                        heard[number] = event.seq
                        latest = max(latest, event.at)
                        order.take(of_live(event, number), event.at, loop.time())
                if translation is None and feed.call is not None:
                    translation = Translation(feed.call)
                for entry in feed.entries[read:]:
                    ends = isinstance(entry.event, CallEnded)
                    if ends and not (feed.quiet or over):
                        break  # it waits for the last live events
                    read += 1
                    if translation is not None and (told := translation.of_entry(entry)) is not None:
                        order.take(told[0], max(told[1], latest) if ends else told[1], loop.time())
                for ready in order.rest() if over else order.due(loop.time(), feed.looked):
                    yield ready
                if not over:
                    await _set_within(changed, order.wait(loop.time()))
                elif feed.error is not None:
                    raise feed.error
                else:
                    return

    async def metrics(self) -> CallMetrics:
        """The call in numbers, counted from its record: turns, latencies, interruptions, tools, audio.

        Raises:
            StaylineError: it cannot be read now.
        """
        return (await self.refresh()).metrics

    async def transcript(self) -> list[Turn]:
        """The turns so far. An agent's hold what the caller heard.

        Raises:
            StaylineError: it cannot be read now.
        """
        return transcript_of((await self.record()).timeline)

    async def record(self) -> CallRecord:
        """Everything that is known of the call.

        Raises:
            StaylineError: it cannot be read now.
        """
        record = await self._sessions.reader.record(self.id)
        if record is None:
            raise StaylineError(f"Nobody knows the call {self.id!r} any more.")
        self.snapshot = record.snapshot
        return record

    # --- steering ----------------------------------------------------------------------------------------

    async def send_text(self, text: str, *, by: str = BY, why: str = "") -> None:
        """Have the agent say something. Returns when it stands in the record; it is said when it can be heard.

        Raises:
            StaylineError: the call is over or the caller not with the agent, or Temporal is away.
        """
        await self._command("say", SayText(text=text, by=by, why=why))

    async def interrupt(self) -> None:
        """Have the agent fall silent now, as if the caller had spoken. Nothing happens when it is silent.

        Raises:
            StaylineError: no bridge holds the caller, or the one that does cannot be reached from here.
        """
        bridge_id = (await self.refresh()).bridge_id
        if bridge_id is None:
            raise StaylineError(f"No bridge holds the call {self.id!r} now.", retryable=True)
        if not await self._sessions.source.interrupt(self.id, bridge_id):
            raise StaylineError(f"The bridge {bridge_id!r} cannot be reached, or lost the call.", retryable=True)

    async def transfer(self, to: str, *, say: str | None = None, by: str = BY, why: str = "") -> None:
        """Connect the caller to a number, a `sip:` address, or one of the agent's `transfers` by name.

        Raises:
            StaylineError: it cannot be dialled, the call is over, or Temporal is away.
        """
        await self._command("transfer", TransferCall(to=to, say=say, by=by, why=why))

    async def close(self, say: str | None = None, *, by: str = BY, why: str = "") -> None:
        """End the call. Returns when that is decided; the goodbye is still heard, then the line is cut.

        Args:
            say: last words; None: the agent's goodbye; "": nothing.
        Raises:
            StaylineError: Temporal is away. A call that is over already is none.
        """
        try:
            await self._command("end", EndCall(say=say, by=by, why=why))
        except StaylineError as error:
            if error.retryable or (await self.refresh()).outcome is None:
                raise

    async def _command(self, update: str, command: Command) -> None:
        handle = self._sessions.reader.handle(self.id)
        try:
            async with asyncio.timeout(ANSWERED_WITHIN):
                try:
                    await handle.execute_update(update, command)
                except WorkflowUpdateRPCTimeoutOrCancelledError as error:
                    if isinstance(error.__cause__, asyncio.CancelledError):
                        raise error.__cause__ from None  # this task's own cancellation, dressed up by the SDK
                    raise
        except WorkflowUpdateFailedError as error:
            cause = error.cause
            reason: Any = cause.message if isinstance(cause, ApplicationError) else cause
            raise StaylineError(f"Refused: {reason}.") from error
        except (RPCError, WorkflowUpdateRPCTimeoutOrCancelledError, TimeoutError) as error:
            if isinstance(error, RPCError) and error.status == RPCStatusCode.NOT_FOUND:
                raise StaylineError("Refused: the call is over.") from error
            raise StaylineError(
                "Temporal or the call's worker does not answer.", fix="Try again.", retryable=True
            ) from error


async def _set_within(changed: asyncio.Event, seconds: float | None) -> None:
    """Wait for the event, so long at most."""
    try:
        async with asyncio.timeout(seconds):
            await changed.wait()
    except TimeoutError:
        pass
