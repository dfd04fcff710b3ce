"""The bridge's lease, and the small activities by which a call's workflow talks back to the bridge.

A bridge is a `BridgeWorkflow` with one long activity on this process's own queue. Its heartbeats carry the ids
of the calls that it holds; when they stop, the workflow tells those calls. See workflows/bridge.py.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog
from temporalio import activity
from temporalio.client import Client, WorkflowFailureError
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError
from temporalio.worker import Worker

from stayline import names
from stayline.messages import CloseSession, LeaseInput, LeaseState, Speak

if TYPE_CHECKING:
    from media_bridge.session import Session

log = structlog.get_logger(__name__)

HEARTBEAT_SECONDS = 0.5
LOOK_SECONDS = 0.1
"""How often it is seen whether there are new calls."""
CLOSE_SECONDS = 20.0
"""A session that was asked to close has closed by then: its goodbye is cut after 15 s."""


class BridgeActivities:
    """What runs on the bridge's own queue."""

    def __init__(self, find: Callable[[str, int], Session | None], state: Callable[[], LeaseState]) -> None:
        self._find = find
        self._state = state
        self.drained = asyncio.Event()

    @activity.defn
    async def keep_lease(self, lease: LeaseInput) -> None:
        """Heartbeat with the calls held, until the bridge is drained.

        Nobody is told of a call that is in no heartbeat, so one that has just come is in one at once.

        Raises:
            ApplicationError: the bridge stops with calls that it could not hand over; carries their ids.
        """
        clock = asyncio.get_running_loop().time
        told, due = LeaseState(), clock()
        while not self.drained.is_set():
            state = self._state()
            if clock() >= due or set(state.calls) - set(told.calls):
                activity.heartbeat(state)
                told, due = state, clock() + HEARTBEAT_SECONDS
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self.drained.wait()
        left = self._state()
        if left.calls:
            raise ApplicationError(
                "The bridge stopped with calls left.", left, type="CallsLeft", non_retryable=True
            )

    @activity.defn
    async def speak(self, request: Speak) -> bool:
        """Queue a sentence for the caller; False when it was meant for silence and there is none."""
        session = self._find(request.call_id, request.session)
        if session is None:
            raise ApplicationError("This bridge does not hold that session.", type="NotHere", non_retryable=True)
        return session.say(request.text, request.source)

    @activity.defn
    async def close_session(self, request: CloseSession) -> None:
        """Say it, let it be heard, close the stream. Returns when the session is closed."""
        session = self._find(request.call_id, request.session)
        if session is None:
            return  # closed already
        session.close(request.say)
        async with asyncio.timeout(CLOSE_SECONDS):
            await session.closed.wait()


def lease_worker(client: Client, bridge_id: str, activities: BridgeActivities) -> Worker:
    """A worker for this process's own queue: activities only, next to the audio, so it stays small."""
    return Worker(
        client,
        task_queue=names.bridge_task_queue(bridge_id),
        activities=[activities.keep_lease, activities.speak, activities.close_session],
        max_concurrent_activities=200,
        max_heartbeat_throttle_interval=timedelta(seconds=LOOK_SECONDS),
        default_heartbeat_throttle_interval=timedelta(seconds=LOOK_SECONDS),
        graceful_shutdown_timeout=timedelta(seconds=1),
        # It runs no workflows, so nobody asks which build it is. By default the SDK hashes the code of all modules
        # that are loaded: 0.25 s of a start (temporalio 1.35, `load_default_build_id`).
        build_id="bridge",
    )


async def hold_lease(client: Client, bridge_id: str, held: asyncio.Event, drained: asyncio.Event) -> None:
    """Keep a BridgeWorkflow running until the bridge is drained; a lease that was lost wrongly is taken anew."""
    while not drained.is_set():
        try:
            handle = await client.start_workflow(
                names.BRIDGE_WORKFLOW,
                LeaseInput(bridge_id=bridge_id),
                id=names.bridge_workflow_id(bridge_id),
                task_queue=names.TASK_QUEUE,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                static_summary="Lease of a media bridge",
            )
            held.set()
            await handle.result()
        except (RPCError, WorkflowFailureError) as error:
            log.warning("lease_not_held", kind=type(error).__name__)
            await asyncio.sleep(1)
        held.clear()
