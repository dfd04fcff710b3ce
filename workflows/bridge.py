"""BridgeWorkflow: watches one bridge process, and tells its calls when it has died (DESIGN.md, rule 2).

One long activity, the lease, runs in the bridge itself and heartbeats with the ids of the calls it holds;
heartbeats leave no history. A lost lease is offered again first: a bridge that was only slow, or that could not
reach Temporal for a while, takes it up and nobody is told anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from temporalio import workflow
from temporalio.common import RetryPolicy, VersioningBehavior
from temporalio.exceptions import ActivityError, ApplicationError, TimeoutError, TimeoutType

with workflow.unsafe.imports_passed_through():
    from pydantic import ValidationError

    from stayline.messages import LeaseInput, LeaseState
    from stayline.names import BRIDGE_WORKFLOW, bridge_task_queue, call_workflow_id

FIRST_PICKUP: Final = timedelta(seconds=30)
"""The bridge starts this workflow itself, perhaps a moment before its worker polls."""
NO_LIMIT: Final = timedelta(days=3650)


@workflow.defn(name=BRIDGE_WORKFLOW)
class BridgeWorkflow:
    """One bridge process's lease. Result: how many calls were told that the bridge is lost; 0 after a drain.

    The bridge's activity `keep_lease` heartbeats with a `LeaseState` and returns when the bridge has drained. One
    that must stop with calls left fails with an ApplicationError that has its LeaseState as first detail. A bridge
    that lives on after its lease has ended (it was slow for too long) starts this workflow again.
    """

    @workflow.run
    async def run(self, lease: LeaseInput) -> int:
        calls: tuple[str, ...] = ()
        pickup = FIRST_PICKUP
        while True:
            try:
                await self._hold_lease(lease, pickup)
                return 0
            except ActivityError as error:
                cause = error.cause
                if isinstance(cause, TimeoutError) and cause.type == TimeoutType.SCHEDULE_TO_START:
                    return await self._tell(lease.bridge_id, calls)
                calls = _last_calls(cause) or calls
            pickup = timedelta(seconds=lease.pickup_timeout)
            if not calls and workflow.info().is_continue_as_new_suggested():
                workflow.continue_as_new(lease)

    async def _hold_lease(self, lease: LeaseInput, pickup: timedelta) -> None:
        """Returns when the bridge has drained."""
        await workflow.execute_activity(
            "keep_lease",
            lease,
            task_queue=bridge_task_queue(lease.bridge_id),
            schedule_to_start_timeout=pickup,
            start_to_close_timeout=NO_LIMIT,
            heartbeat_timeout=timedelta(seconds=lease.heartbeat_timeout),
            retry_policy=RetryPolicy(maximum_attempts=1),
            summary=f"lease of bridge {lease.bridge_id}",
        )

    async def _tell(self, bridge_id: str, calls: tuple[str, ...]) -> int:
        """Signal every call. One that has ended meanwhile is no failure."""
        told = await asyncio.gather(*(_tell_call(bridge_id, call) for call in calls), return_exceptions=True)
        return sum(error is None for error in told)


@workflow.defn(name=BRIDGE_WORKFLOW, versioning_behavior=VersioningBehavior.AUTO_UPGRADE)
class VersionedBridgeWorkflow(BridgeWorkflow):
    """The same, for versioned workers: a bridge may outlive many of their builds.

    Elsewhere the server refuses workflow tasks that state a versioning behaviour.
    """

    @workflow.run
    async def run(self, lease: LeaseInput) -> int:
        return await super().run(lease)


async def _tell_call(bridge_id: str, call_id: str) -> None:
    await workflow.get_external_workflow_handle(call_workflow_id(call_id)).signal("bridge_lost", bridge_id)


def _last_calls(cause: BaseException | None) -> tuple[str, ...]:
    """The calls named in the lease's last heartbeat, or in the words with which the bridge gave it up."""
    details: Sequence[Any] = ()
    if isinstance(cause, TimeoutError):
        details = cause.last_heartbeat_details
    elif isinstance(cause, ApplicationError):
        details = cause.details
    try:
        return LeaseState.model_validate(details[0]).calls if details else ()
    except ValidationError:
        return ()
