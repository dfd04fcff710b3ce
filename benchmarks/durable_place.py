"""Temporal as `stayline dev` runs it, for the durability benchmarks, and what its histories say."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client

from stayline.dev_server import DevServer
from stayline.settings import Settings
from stayline.temporal import connect


@asynccontextmanager
async def temporal(folder: Path) -> AsyncIterator[Client]:
    """The dev server of the product, file-backed and tuned as it is, and a client."""
    settings = Settings(data_dir=folder)
    async with DevServer(settings, port=0, ui=False) as server:
        yield await connect(settings, address=server.address)


@dataclasses.dataclass(frozen=True, slots=True)
class History:
    """One run's history, or several runs' together.

    Attributes:
        size: bytes, as the server counts them.
    """

    events: Sequence[HistoryEvent]
    size: int

    @property
    def types(self) -> Counter[str]:
        return Counter(kind(event) for event in self.events)


async def history(client: Client, workflow_id: str, run_id: str | None = None) -> History:
    handle = client.get_workflow_handle(workflow_id, run_id=run_id)
    description = await handle.describe()
    events = [event async for event in handle.fetch_history_events()]
    return History(events, description.raw_description.workflow_execution_info.history_size_bytes)


def kind(event: HistoryEvent) -> str:
    """`WORKFLOW_TASK_STARTED` and the like."""
    return EventType.Name(event.event_type).removeprefix("EVENT_TYPE_")


def at(event: HistoryEvent) -> float:
    """Seconds since the epoch, by the server's clock."""
    return event.event_time.seconds + event.event_time.nanos / 1e9


# Temporal Cloud's billable actions (docs.temporal.io/cloud/actions). An update with start is a start and an update;
# search attributes given at the start, workflow tasks, rejected duplicates of an update's id and markers are none.
_ACTIONS = {
    "WORKFLOW_EXECUTION_STARTED",
    "WORKFLOW_EXECUTION_SIGNALED",
    "WORKFLOW_EXECUTION_UPDATE_ACCEPTED",
    "ACTIVITY_TASK_SCHEDULED",
    "TIMER_STARTED",
    "UPSERT_WORKFLOW_SEARCH_ATTRIBUTES",
}


def actions(events: Sequence[HistoryEvent]) -> Counter[str]:
    """Billable actions that these events stand for, by kind. Heartbeats leave no events: they are counted apart."""
    found = Counter(kind(event) for event in events if kind(event) in _ACTIONS)
    for event in events:
        if kind(event) == "ACTIVITY_TASK_STARTED" and (attempt := _attempt(event)) > 1:
            found["activity retry"] += attempt - 1
    return found


def _attempt(event: HistoryEvent) -> int:
    return event.activity_task_started_event_attributes.attempt


def signal_latencies(events: Sequence[HistoryEvent]) -> list[float]:
    """Milliseconds from each signal's arrival at the server to the end of the workflow task that took it."""
    found, waiting, taken = [], list[float](), list[float]()
    for event in events:
        match kind(event):
            case "WORKFLOW_EXECUTION_SIGNALED":
                waiting.append(at(event))
            case "WORKFLOW_TASK_STARTED":
                taken, waiting = taken + waiting, []
            case "WORKFLOW_TASK_COMPLETED":
                found += [(at(event) - since) * 1000 for since in taken]
                taken = []
    return found


def task_times(events: Sequence[HistoryEvent]) -> list[float]:
    """Milliseconds of each workflow task, from its start at the worker to its completion at the server."""
    found, started = [], 0.0
    for event in events:
        match kind(event):
            case "WORKFLOW_TASK_STARTED":
                started = at(event)
            case "WORKFLOW_TASK_COMPLETED":
                found.append((at(event) - started) * 1000)
    return found


async def whole_history(client: Client, workflow_id: str) -> list[History]:
    """All runs of a call, the first one first."""
    runs, run_id = [], None
    while run_id != "":
        found = await history(client, workflow_id, run_id)
        runs.append(found)
        begun = found.events[0].workflow_execution_started_event_attributes
        run_id = begun.continued_execution_run_id
    return runs[::-1]
