"""A call's history: taken out of Temporal or a file, and run through today's workflow code."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client, WorkflowHistory
from temporalio.converter import DataConverter
from temporalio.runtime import LoggingConfig, Runtime, TelemetryConfig, TelemetryFilter
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import Plugin, Replayer

from stayline import temporal
from stayline.commands.calls_temporal import temporal_away
from stayline.commands.terminal import UsageError
from stayline.models import Model
from stayline.names import CALL_WORKFLOW, call_workflow_id

FETCHED_WITHIN: Final = 60.0
"""Seconds; a history has up to 50 MiB."""


class Difference(Model):
    """Where today's code leaves the recorded path."""

    event_id: int | None = None  #: of the history; None: Temporal did not say
    recorded: str = ""  #: what happened then
    today: str = ""  #: what today's code does instead
    detail: str  #: Temporal's own words


class ReplayReport(Model):
    """One run of a call's workflow, replayed. A call that continued as new has several."""

    workflow_id: str
    run_id: str
    event_count: int
    difference: Difference | None = None

    @property
    def ok(self) -> bool:
        return self.difference is None


async def fetch_histories(client: Client, call_id: str) -> list[WorkflowHistory]:
    """The histories of all runs of a call that Temporal still keeps, oldest first.

    Raises:
        UsageError: Temporal does not know the call (any more).
    """
    histories: list[WorkflowHistory] = []
    run_id: str | None = None
    try:
        async with asyncio.timeout(FETCHED_WITHIN):
            while True:
                handle = client.get_workflow_handle(call_workflow_id(call_id), run_id=run_id)
                history = await handle.fetch_history()
                histories.insert(0, history)
                started = history.events[0].workflow_execution_started_event_attributes
                run_id = started.continued_execution_run_id or None
                if run_id is None:
                    return histories
    except RPCError as error:
        if error.status == RPCStatusCode.NOT_FOUND:
            if histories:  # earlier runs have passed their retention
                return histories
            raise UsageError(
                f"Temporal has no history of call {call_id!r}; it is kept for the namespace's retention time.",
                fix="`stayline calls export --record` takes the record out of the database.",
            ) from error
        raise temporal_away(error) from error
    except TimeoutError as error:
        raise temporal_away(error) from error


def read_history(path: Path) -> WorkflowHistory:
    """A history from a file: what `calls export`, `temporal workflow show -o json` or the UI has written.

    Raises:
        UsageError: it cannot be read, or is the history of something else.
    """
    try:
        text = path.read_text(encoding="utf-8")
        history = WorkflowHistory.from_json(call_workflow_id(path.stem), text)
        started = history.events[0].workflow_execution_started_event_attributes
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{path} holds no workflow history.", fix="`stayline calls export CALL_ID` writes one."
        ) from error
    if started.workflow_type.name != CALL_WORKFLOW:
        kind = started.workflow_type.name or "nothing"
        raise UsageError(f"{path} is the history of {kind}, not of a call ({CALL_WORKFLOW}).")
    if started.workflow_id:
        history = WorkflowHistory(started.workflow_id, history.events)
    return history


async def replay(
    histories: Sequence[WorkflowHistory],
    workflow: type | None = None,
    converter: DataConverter = temporal.data_converter,
) -> list[ReplayReport]:
    """Run the workflow code of this installation over what was recorded. Nothing is executed again.

    Args:
        workflow: the workflow class; None: today's CallWorkflow.
        converter: as the histories were written: `temporal.converter_for` those that may be encrypted.
    Raises:
        ConfigError: a history is encrypted with a key that the converter does not have.
    """
    if workflow is None:
        from workflows.call import CallWorkflow

        workflow = CallWorkflow
    replayer = Replayer(
        workflows=[workflow],
        # Failures of this replay are for the reader of the report; recorded ones are decrypted by either converter.
        data_converter=dataclasses.replace(
            converter, failure_converter_class=temporal.data_converter.failure_converter_class
        ),
        plugins=[plugin for plugin in temporal.plugins() if isinstance(plugin, Plugin)],
        runtime=_quiet_runtime(),
    )
    reports = []
    # The SDK logs a difference as a failed task, in many lines; the report says it in two.
    logger = logging.getLogger("temporalio")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        for history in histories:
            events = await _decrypted(history.events, converter)
            result = await replayer.replay_workflow(history, raise_on_replay_failure=False)
            failure = result.replay_failure
            reports.append(
                ReplayReport(
                    workflow_id=history.workflow_id,
                    run_id=history.run_id,
                    event_count=len(events),
                    difference=difference(str(failure), events) if failure else None,
                )
            )
    finally:
        logger.setLevel(level)
    return reports


async def _decrypted(events: Sequence[HistoryEvent], converter: DataConverter) -> list[HistoryEvent]:
    """The events with readable summaries. Tries the key with the workflow's input, which is always there."""
    codec = converter.payload_codec
    if codec is None:
        return list(events)
    await codec.decode(events[0].workflow_execution_started_event_attributes.input.payloads)
    readable = []
    for recorded in events:
        event = HistoryEvent()
        event.CopyFrom(recorded)
        if event.user_metadata.HasField("summary"):
            (summary,) = await codec.decode([event.user_metadata.summary])
            event.user_metadata.summary.CopyFrom(summary)
        readable.append(event)
    return readable


def _quiet_runtime() -> Runtime:
    quiet = LoggingConfig(filter=TelemetryFilter(core_level="OFF", other_level="OFF"))
    return Runtime(telemetry=TelemetryConfig(logging=quiet))


# --- a replay failure in plain words ---------------------------------------------------------------------
# The messages are those of temporalio 1.35's core ("TMPRL1100").

_MESSAGE: Final = re.compile(r'message: "((?:[^"\\]|\\.)*)"')
_KIND: Final = re.compile(r'r#type: "([^"]*)"')
_NOT_HANDLED: Final = re.compile(
    r"(\w[\w ]*?) machine does not handle this event: HistoryEvent\(id: (\d+), (\w+)\)"
)
_NO_COMMAND: Final = re.compile(r"No command scheduled for event HistoryEvent\(id: (\d+), (\w+)\)")
_MISMATCH: Final = re.compile(
    r"(\w[\w ]*?) of \w+ event '([^']*)' does not match [\w ]+ of [\w ]+ command '([^']*)'"
)

_MACHINES: Final = {
    "Activity": "starts an activity",
    "Timer": "starts a timer",
    "Complete workflow": "ends the workflow",
    "Fail workflow": "fails the workflow",
    "Cancel workflow": "ends the workflow as cancelled",
    "Continue as new workflow": "continues as new",
    "Cancel timer": "cancels a timer",
    "Upsert search attributes": "changes search attributes",
    "Modify workflow properties": "changes the memo",
    "Child workflow": "starts a child workflow",
    "Signal external workflow": "signals another workflow",
    "Update": "answers an update",
}


def difference(failure: str, events: Sequence[HistoryEvent]) -> Difference:
    """What Temporal says of a failed replay, as a reader of calls would say it."""
    found = _MESSAGE.search(failure)
    message = found.group(1) if found else failure.splitlines()[0]
    message = re.sub(r"\\(.)", r"\1", message).removeprefix("[TMPRL1100] Nondeterminism error: ")
    if match := _NOT_HANDLED.search(message):
        machine, event_id = match.group(1), int(match.group(2))
        today = _MACHINES.get(machine, f"does something else ({machine.lower()})")
        return Difference(
            event_id=event_id, recorded=_recorded(events, event_id, match.group(3)), today=today, detail=message
        )
    if match := _NO_COMMAND.search(message):
        event_id = int(match.group(1))
        recorded = _recorded(events, event_id, match.group(2))
        return Difference(event_id=event_id, recorded=recorded, today="does nothing there", detail=message)
    if match := _MISMATCH.search(message):
        what, then, now = match.groups()
        return Difference(
            event_id=_only_event_of(events, then),
            recorded=f"{what.lower()} {then!r}",
            today=f"{what.lower()} {now!r}",
            detail=message,
        )
    kind = _KIND.search(failure)
    return Difference(
        today=f"fails with {kind.group(1)}: {message}" if kind and kind.group(1) else message, detail=message
    )


def _recorded(events: Sequence[HistoryEvent], event_id: int, kind: str) -> str:
    """`ActivityTaskScheduled (get_weather)`."""
    event = next((event for event in events if event.event_id == event_id), None)
    return f"{kind} ({name})" if event is not None and (name := _name(event)) else kind


def _name(event: HistoryEvent) -> str:
    if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
        return event.activity_task_scheduled_event_attributes.activity_type.name
    if event.user_metadata.summary.metadata.get("encoding") == b"json/plain":
        summary: Any = json.loads(event.user_metadata.summary.data or b'""')
        return str(summary)
    return ""


def _only_event_of(events: Sequence[HistoryEvent], activity_type: str) -> int | None:
    """The event that scheduled this activity, if it was scheduled once."""
    ids = [
        event.event_id
        for event in events
        if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED and _name(event) == activity_type
    ]
    return ids[0] if len(ids) == 1 else None
