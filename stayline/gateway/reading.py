"""Reading a call: from its workflow while Temporal knows it, else from the call records."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any, Final, TypeVar

from temporalio.client import (
    Client,
    WorkflowExecutionStatus,
    WorkflowHandle,
    WorkflowQueryFailedError,
    WorkflowQueryRejectedError,
)
from temporalio.service import RPCError, RPCStatusCode

from stayline.errors import StaylineError
from stayline.names import CALL_WORKFLOW, TASK_QUEUE, call_workflow_id
from stayline.timeline import CallRecord, CallSnapshot, TimelineEntry

PATIENCE: Final = 8.0
"""Seconds for one request to Temporal, the SDK's own retries included."""

T = TypeVar("T")


class CannotRead(StaylineError):
    """Temporal is away, or no worker answers for the call. The call itself goes on.

    Attributes:
        unknown: Temporal knew no such call when it was asked.
    """

    retryable = True
    unknown = False


class CallReader:
    """Reads calls of any process. Queries cost a call no history.

    Args:
        database: of the call records, an SQLAlchemy URL.
    """

    def __init__(self, client: Client, database: str) -> None:
        self.client = client
        self._database = database

    def handle(self, call_id: str) -> WorkflowHandle[Any, Any]:
        return self.client.get_workflow_handle(call_workflow_id(call_id))

    async def snapshot(self, call_id: str) -> CallSnapshot | None:
        """The state of a call; None: nobody knows it.

        Raises:
            CannotRead
        """
        try:
            return await self._ask(call_id, "snapshot", CallSnapshot)
        except CannotRead as error:
            saved = await self.saved(call_id)
            if saved is not None:
                return saved.snapshot
            if not await self.exists(call_id):
                return None
            if not error.unknown:
                raise
            return await self._ask(call_id, "snapshot", CallSnapshot)  # it has just begun

    async def record(self, call_id: str) -> CallRecord | None:
        """Everything about a call so far; None: nobody knows it.

        Raises:
            CannotRead
        """
        snapshot = await self.snapshot(call_id)
        if snapshot is None:
            return None
        try:
            return CallRecord(snapshot=snapshot, timeline=tuple(await self.timeline(call_id)), final=False)
        except CannotRead:
            saved = await self.saved(call_id)
            if saved is None:
                raise
            return saved

    async def timeline(self, call_id: str, after: int = 0) -> list[TimelineEntry]:
        """The timeline from an index on, by the call's workflow.

        Raises:
            CannotRead: also when Temporal has forgotten the call.
        """
        return await self._ask(call_id, "timeline", list[TimelineEntry], after)

    async def saved(self, call_id: str) -> CallRecord | None:
        """What the call records have; None also where they are away."""
        from activities.records_db import CallStore  # SQLAlchemy: half a second

        try:
            async with CallStore(self._database) as store:
                return await store.get_call(call_id)
        except StaylineError:
            return None

    async def exists(self, call_id: str) -> bool:
        """Whether Temporal knows the call."""
        return await self._describe(call_id) is not None

    async def is_over(self, call_id: str) -> bool:
        """Whether the call's workflow has closed, however that came about."""
        status = await self._describe(call_id)
        return status not in (WorkflowExecutionStatus.RUNNING, WorkflowExecutionStatus.CONTINUED_AS_NEW)

    async def running(self, limit: int) -> list[tuple[str, datetime]]:
        """Ids and beginnings of the calls that go on, newest first.

        Raises:
            CannotRead
        """
        query = f"WorkflowType = '{CALL_WORKFLOW}' AND TaskQueue = '{TASK_QUEUE}' AND ExecutionStatus = 'Running'"
        try:
            async with asyncio.timeout(PATIENCE):
                found = [execution async for execution in self.client.list_workflows(query, limit=limit)]
        except (RPCError, TimeoutError) as error:
            raise _cannot(error) from error
        prefix = call_workflow_id("")
        return [(execution.id.removeprefix(prefix), execution.start_time) for execution in found]

    async def _describe(self, call_id: str) -> WorkflowExecutionStatus | None:
        try:
            async with asyncio.timeout(PATIENCE):
                return (await self.handle(call_id).describe()).status
        except (RPCError, TimeoutError) as error:
            if isinstance(error, RPCError) and error.status == RPCStatusCode.NOT_FOUND:
                return None
            raise _cannot(error) from error

    async def _ask(self, call_id: str, query: str, kind: type[T], *arguments: Any) -> T:
        try:
            async with asyncio.timeout(PATIENCE):
                answer: T = await self.handle(call_id).query(query, args=arguments, result_type=kind)
                return answer
        except (RPCError, TimeoutError, WorkflowQueryFailedError, WorkflowQueryRejectedError) as error:
            raise _cannot(error) from error


def _cannot(error: Exception) -> CannotRead:
    status = error.status if isinstance(error, RPCError) else None
    if status == RPCStatusCode.UNAVAILABLE:
        return CannotRead("Temporal does not answer.", fix="Start it with `stayline dev`, or set TEMPORAL_ADDRESS.")
    cannot = CannotRead("No worker answers for this call.", fix="Start one: `stayline worker --agent …`.")
    cannot.unknown = status == RPCStatusCode.NOT_FOUND
    return cannot
