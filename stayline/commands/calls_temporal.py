"""Asking Temporal about one call: its workflow's own account, running tools, and what failures mean."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any, Final

from temporalio.api.failure.v1 import Failure
from temporalio.client import (
    WorkflowExecutionDescription,
    WorkflowHandle,
    WorkflowQueryFailedError,
    WorkflowQueryRejectedError,
)
from temporalio.converter import DataConverter
from temporalio.exceptions import FailureError
from temporalio.service import RPCError, RPCStatusCode

from stayline.errors import ConfigError, StaylineError
from stayline.models import Model, ToolAttempt
from stayline.names import call_workflow_id
from stayline.timeline import CallRecord, CallSnapshot, TimelineEntry

PATIENCE: Final = 4.0
"""Seconds for one request to Temporal, the SDK's own retries included: a person waits for the answer."""
ID_PREFIX: Final = call_workflow_id("")


def temporal_away(error: RPCError | TimeoutError) -> StaylineError:
    """A failed request in words."""
    status = error.status if isinstance(error, RPCError) else RPCStatusCode.DEADLINE_EXCEEDED
    if status in (RPCStatusCode.UNAVAILABLE, RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.CANCELLED):
        return StaylineError(
            "Temporal does not answer.",
            fix="Start it with `stayline dev`, or set TEMPORAL_ADDRESS.",
            retryable=True,
        )
    if status == RPCStatusCode.NOT_FOUND:
        return ConfigError(f"Temporal does not know what was asked for: {error}.", fix="Check TEMPORAL_NAMESPACE.")
    return StaylineError(f"Temporal refused: {error}.", retryable=False)


async def query_record(handle: WorkflowHandle[Any, Any], *, final: bool) -> CallRecord:
    """Ask a call's workflow, running or closed, for the whole record.

    Raises:
        StaylineError: no worker answers, or Temporal is away.
    """
    try:
        async with asyncio.timeout(PATIENCE):
            snapshot = await handle.query("snapshot", result_type=CallSnapshot)
            timeline = await handle.query("timeline", 0, result_type=list[TimelineEntry])
    except (WorkflowQueryFailedError, WorkflowQueryRejectedError) as error:
        raise StaylineError(f"The call's workflow cannot be read: {error}.") from error
    except (RPCError, TimeoutError) as error:
        status = error.status if isinstance(error, RPCError) else RPCStatusCode.DEADLINE_EXCEEDED
        if status in NO_WORKER:
            raise no_worker() from error
        raise temporal_away(error) from error
    return CallRecord(snapshot=snapshot, timeline=tuple(timeline), final=final)


NO_WORKER: Final = (
    RPCStatusCode.DEADLINE_EXCEEDED,
    RPCStatusCode.FAILED_PRECONDITION,
    RPCStatusCode.CANCELLED,
    RPCStatusCode.NOT_FOUND,
)
"""What a query ends with when nothing polls the queue; NOT_FOUND: none has for long."""


def no_worker() -> StaylineError:
    return StaylineError(
        "No worker answers for this call.", fix="Start one: `stayline worker --agent …`.", retryable=True
    )


class PendingTool(Model):
    """A tool call whose last attempt failed; Temporal will try again."""

    call_id: str  #: the tool call's id
    name: str
    failed: ToolAttempt
    failed_at: datetime | None = None
    max_attempts: int = 0  #: 0: no limit


async def pending_tools(description: WorkflowExecutionDescription) -> list[PendingTool]:
    """Tools that are between attempts or in a later one, from Temporal's own account of the workflow.

    A tool's activity has the tool call's id and the tool's name (`workflows/effects.py`).
    """
    found = []
    for activity in description.raw_description.pending_activities:
        if not activity.HasField("last_failure"):
            continue
        found.append(
            PendingTool(
                call_id=activity.activity_id,
                name=activity.activity_type.name,
                failed=ToolAttempt(
                    number=activity.attempt - 1,
                    error=await _message(activity.last_failure, description.data_converter) or "failed",
                ),
                failed_at=(
                    activity.last_attempt_complete_time.ToDatetime(UTC)
                    if activity.HasField("last_attempt_complete_time")
                    else None
                ),
                max_attempts=activity.maximum_attempts,
            )
        )
    return found


async def _message(failure: Failure, converter: DataConverter) -> str:
    """What a failure says, also where that is encrypted."""
    if not failure.HasField("encoded_attributes"):
        return failure.message
    error = await converter.decode_failure(failure)
    return error.message if isinstance(error, FailureError) else str(error)
