"""Following a call while it happens: `CallWatcher` reads it from Temporal, `LivePrinter` prints it."""

from __future__ import annotations

import asyncio
import dataclasses
import sys
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from pydantic_core import to_json
from rich.console import Console
from rich.text import Text
from temporalio.client import (
    Client,
    WorkflowExecutionDescription,
    WorkflowExecutionStatus,
    WorkflowHandle,
    WorkflowQueryFailedError,
    WorkflowQueryRejectedError,
)
from temporalio.service import RPCError, RPCStatusCode

from stayline.commands.calls_temporal import NO_WORKER, PendingTool, no_worker, pending_tools, temporal_away
from stayline.commands.show import Row, header
from stayline.commands.story import Line, attempt_line, tell, tool_outcome, waiting_line
from stayline.commands.terminal import UsageError, offset
from stayline.errors import StaylineError
from stayline.models import ToolAttempt, ToolCall
from stayline.names import call_workflow_id
from stayline.timeline import CallEnded, CallSnapshot, TimelineEntry, ToolCalled, ToolSettled

REQUEST_PATIENCE: Final = 3.0
"""Seconds for one request, the SDK's retries included; then the reader is told that Temporal is away."""
LINGER: Final = 3.0
"""Seconds for which a call that has ended is still read: late records, and its workflow's own end."""


@dataclasses.dataclass(frozen=True, slots=True)
class Began:
    """The call was found."""

    snapshot: CallSnapshot


@dataclasses.dataclass(frozen=True, slots=True)
class Happened:
    """A new timeline entry."""

    entry: TimelineEntry


@dataclasses.dataclass(frozen=True, slots=True)
class AttemptFailed:
    """An attempt of a running tool failed; another follows. The timeline will have it when the tool has ended."""

    tool: PendingTool


@dataclasses.dataclass(frozen=True, slots=True)
class WaitsForApproval:
    """A tool call waits for a person. The timeline will have their word."""

    call: ToolCall


@dataclasses.dataclass(frozen=True, slots=True)
class Lost:
    """Temporal or the call's worker is away. The call itself goes on; so does the watching."""

    why: str


@dataclasses.dataclass(frozen=True, slots=True)
class Regained:
    """What was away answers again."""


@dataclasses.dataclass(frozen=True, slots=True)
class Ended:
    """The call is over and its last event was told. `snapshot` is None when nobody could be asked for it."""

    snapshot: CallSnapshot | None


WatchEvent = Began | Happened | AttemptFailed | WaitsForApproval | Lost | Regained | Ended


class CallWatcher:
    """Reads a live call by query, which costs it no history, and tells what is new.

    Args:
        emit: called with each event, in order, from `run`; must not block.
        interval: seconds between two looks.
        appears_within: seconds in which the call's workflow may yet begin; 0: it must be there.
        patience: seconds for which Temporal or the worker may be away in one piece.
    """

    def __init__(
        self,
        client: Client,
        call_id: str,
        emit: Callable[[WatchEvent], None],
        *,
        interval: float = 0.25,
        appears_within: float = 0.0,
        patience: float = 120.0,
    ) -> None:
        self._call_id = call_id
        self._handle: WorkflowHandle[Any, Any] = client.get_workflow_handle(call_workflow_id(call_id))
        self._emit = emit
        self._interval = interval
        self._appears_within = appears_within
        self._patience = patience
        self._began: CallSnapshot | None = None
        self._next_index = 0
        self._open_tools: set[str] = set()  #: called and not settled
        self._told_attempts: set[tuple[str, int]] = set()
        self._told_waiting: set[str] = set()
        self._ended_at: float | None = None  #: loop time when `call_ended` was read

    async def run(self) -> CallSnapshot | None:
        """Watch until the call has ended. Cancel it to stop earlier.

        Returns:
            The last state of the call.
        Raises:
            UsageError: there is no such call.
            StaylineError: Temporal or the worker was away for longer than `patience`.
        """
        loop = asyncio.get_running_loop()
        begun = loop.time()
        lost_since: float | None = None
        while True:
            try:
                async with asyncio.timeout(REQUEST_PATIENCE):
                    over = await self._look()
            except (RPCError, TimeoutError) as error:
                if self._is_unknown(error):
                    if loop.time() - begun >= self._appears_within:
                        raise UsageError(
                            f"There is no call {self._call_id!r}.", fix="`stayline calls list` shows the calls."
                        ) from error
                elif lost_since is None:
                    lost_since = loop.time()
                    self._emit(Lost(_why(error).message))
                elif loop.time() - lost_since > self._patience:
                    raise _why(error) from error
            except (WorkflowQueryFailedError, WorkflowQueryRejectedError) as error:
                raise StaylineError(f"The call's workflow cannot be read: {error}.") from error
            else:
                if lost_since is not None:
                    lost_since = None
                    self._emit(Regained())
                if over:
                    return await self._finish()
            await asyncio.sleep(self._interval)

    async def _look(self) -> bool:
        """Read what is new. True: nothing more will come."""
        description = await self._handle.describe()
        if self._began is None:
            self._began = await self._handle.query("snapshot", result_type=CallSnapshot)
            self._emit(Began(self._began))
        for entry in await self._handle.query("timeline", self._next_index, result_type=list[TimelineEntry]):
            self._next_index = entry.index + 1
            self._note(entry)
            self._emit(Happened(entry))
        # After the entries: a tool's call is told before its troubles, and one that has ended has none.
        for tool in await pending_tools(description):
            if tool.call_id in self._open_tools and (tool.call_id, tool.failed.number) not in self._told_attempts:
                self._told_attempts.add((tool.call_id, tool.failed.number))
                self._emit(AttemptFailed(tool))
        await self._tell_who_waits(description)
        if description.status not in (
            WorkflowExecutionStatus.RUNNING,
            WorkflowExecutionStatus.CONTINUED_AS_NEW,
        ):
            return True
        # The workflow of an ended call stays while the database is away; nobody watches for that.
        lingered = self._ended_at is not None and asyncio.get_running_loop().time() - self._ended_at > LINGER
        return lingered and (await self._snapshot()).status == "ended"

    def _note(self, entry: TimelineEntry) -> None:
        match entry.event:
            case ToolCalled(call=call):
                self._open_tools.add(call.id)
            case ToolSettled(outcome=outcome):
                self._open_tools.discard(outcome.id)
            case CallEnded():
                self._ended_at = asyncio.get_running_loop().time()

    async def _tell_who_waits(self, description: WorkflowExecutionDescription) -> None:
        """An open tool without an activity may wait for a person; only the snapshot says so."""
        active = {activity.activity_id for activity in description.raw_description.pending_activities}
        if not self._open_tools - active - self._told_waiting:
            return
        for run in (await self._snapshot()).tools:
            if run.waiting_approval and run.outcome is None and run.call.id not in self._told_waiting:
                self._told_waiting.add(run.call.id)
                self._emit(WaitsForApproval(run.call))

    async def _snapshot(self) -> CallSnapshot:
        return await self._handle.query("snapshot", result_type=CallSnapshot)  # type: ignore[no-any-return]

    async def _finish(self) -> CallSnapshot | None:
        snapshot = None
        try:
            async with asyncio.timeout(REQUEST_PATIENCE):
                snapshot = await self._snapshot()
        except (RPCError, TimeoutError, WorkflowQueryFailedError, WorkflowQueryRejectedError):
            pass  # its worker has just gone; the timeline was complete
        self._emit(Ended(snapshot))
        return snapshot

    def _is_unknown(self, error: RPCError | TimeoutError) -> bool:
        """The workflow does not exist; after it was seen once, NOT_FOUND means that no worker polls for it."""
        return self._began is None and isinstance(error, RPCError) and error.status == RPCStatusCode.NOT_FOUND


def _why(error: RPCError | TimeoutError) -> StaylineError:
    if isinstance(error, RPCError) and error.status in NO_WORKER:
        return no_worker()
    return temporal_away(error)


def json_line(event: WatchEvent) -> None:
    """Print an event as one line of JSON: `{"event": "happened", "entry": {...}}`."""
    name = type(event).__name__
    kind = "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")
    values = {field.name: getattr(event, field.name) for field in dataclasses.fields(event)}
    sys.stdout.write(to_json({"event": kind, **values}).decode() + "\n")
    sys.stdout.flush()


class LivePrinter:
    """Prints a call line by line as it happens. Give it to a `CallWatcher` as `emit`, or feed it yourself."""

    def __init__(self, console: Console, *, show_header: bool = True) -> None:
        self._console = console
        self._show_header = show_header
        self._start: datetime | None = None
        self._told: set[tuple[str, int]] = set()

    def __call__(self, event: WatchEvent) -> None:
        match event:
            case Began(snapshot):
                self._start = self._start or snapshot.started_at
                if self._show_header:
                    self._console.print(header(snapshot))
                    self._console.print()
            case Happened(entry):
                self._happened(entry)
            case AttemptFailed(tool):
                self._attempt_failed(tool)
            case WaitsForApproval(call):
                self._console.print(Row(waiting_line(call), ""))
            case Lost(why):
                self.say("watch", Text(f"{why} The call goes on; waiting …", "yellow"))
            case Regained():
                self.say("watch", Text("it answers again", "green"))
            case Ended(snapshot):
                if snapshot is None:
                    self.say("watch", Text("the call is over", "dim"))

    def say(self, who: str, text: Text | str, *, at: datetime | None = None) -> None:
        """Print a line of one's own among the call's, e.g. what a simulated caller does."""
        when = offset(at, self._start) if at is not None and self._start is not None else ""
        self._console.print(Row(Line(who, Text(text) if isinstance(text, str) else text), when))

    def _happened(self, entry: TimelineEntry) -> None:
        self._start = self._start or entry.event.at
        event = entry.event
        if isinstance(event, ToolSettled):
            fresh = [a for a in event.outcome.attempts if (event.outcome.id, a.number) not in self._told]
            line = tool_outcome(event.outcome, fresh, after_hangup=event.after_hangup)
        else:
            told = tell(event)
            if told is None:
                return
            line = told
        self._console.print(Row(line, offset(event.at, self._start)))

    def _attempt_failed(self, tool: PendingTool) -> None:
        self._told.add((tool.call_id, tool.failed.number))
        total = f" of {tool.max_attempts}" if tool.max_attempts else ""
        text = attempt_line(ToolAttempt(number=tool.failed.number, error=tool.failed.error))
        text.append(f"; attempt {tool.failed.number + 1}{total} follows", "dim")
        when = offset(tool.failed_at, self._start) if tool.failed_at and self._start else ""
        self._console.print(Row(Line("tool", text), when))
