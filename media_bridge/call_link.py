"""A session's line to its call's workflow. Nothing here is ever awaited by the audio path."""

from __future__ import annotations

import asyncio
import secrets
from datetime import timedelta

import structlog
from temporalio.client import (
    Client,
    WorkflowHandle,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from stayline.errors import StaylineError
from stayline.messages import EndCall, Grant, OpenSession, RunTool
from stayline.models import ToolCall, ToolOutcome
from stayline.names import call_workflow_id

log = structlog.get_logger(__name__)

RETRY_SECONDS = 0.5
"""Pause between tries while Temporal is away; its client has retried for about 10 s before each."""

_GONE = (RPCStatusCode.NOT_FOUND,)


class SessionRefused(StaylineError):
    """The workflow refuses this stream: a wrong or used token, or a call that is over."""


class CallLink:
    """Updates that a session sends to its call."""

    def __init__(self, client: Client, call_id: str) -> None:
        self.call_id = call_id
        self._handle: WorkflowHandle[object, object] = client.get_workflow_handle(call_workflow_id(call_id))

    async def open_session(self, request: OpenSession, hold_seconds: float) -> Grant:
        """Ask for the grant; while Temporal is away, keep asking for `hold_seconds`.

        Raises:
            SessionRefused: wrong token, no such call, or the call is over.
            TimeoutError: Temporal did not come back in time.
        """
        # One id for every try of this socket: asking again after a lost answer is the same update. It must not be
        # made from the token: another socket with the same token would be answered with the same grant.
        update_id = f"open-{secrets.token_hex(16)}"
        async with asyncio.timeout(hold_seconds):
            while True:
                try:
                    grant: Grant = await self._handle.execute_update(
                        "open_session", request, id=update_id, result_type=Grant
                    )
                    return grant
                except WorkflowUpdateFailedError as error:
                    cause = error.cause
                    kind = cause.type if isinstance(cause, ApplicationError) else ""
                    raise SessionRefused(f"The stream was refused: {kind or 'failed'}.") from error
                except (RPCError, WorkflowUpdateRPCTimeoutOrCancelledError) as error:
                    _raise_if_cancelled(error)
                    if isinstance(error, RPCError) and error.status in _GONE:
                        raise SessionRefused("The stream was refused: there is no such call.") from error
                    log.warning("temporal_away", during="open_session")
                    await asyncio.sleep(RETRY_SECONDS)

    async def run_tool(self, session: int, call: ToolCall) -> ToolOutcome:
        """Run a tool to its end. Asking again with the same id never runs it twice, so every loss is retried."""
        while True:
            try:
                outcome: ToolOutcome = await self._handle.execute_update(
                    "run_tool", RunTool(session=session, call=call), id=call.id, result_type=ToolOutcome
                )
                return outcome
            except WorkflowUpdateFailedError as error:
                log.error("tool_update_failed", tool=call.name, cause=type(error.cause).__name__)
                return _failed(call, "The tool could not be started.")
            except (RPCError, WorkflowUpdateRPCTimeoutOrCancelledError) as error:
                _raise_if_cancelled(error)
                if isinstance(error, RPCError) and error.status in _GONE:
                    return _failed(call, "The call is over.")
                await asyncio.sleep(RETRY_SECONDS)

    async def end(self, why: str, *, say: str = "", by_carrier: bool = False) -> None:
        """Ask the workflow to end the call, because this bridge cannot hold the conversation.

        Args:
            say: last words.
            by_carrier: the bridge has no voice left, so the carrier speaks them.

        While Temporal is away nobody hears it; the workflow's silence limit then ends the call.
        """
        command = EndCall(by="bridge", why=why, say=say, by_carrier=by_carrier)
        try:
            await self._handle.signal("end", command, rpc_timeout=timedelta(seconds=5))
        except RPCError as error:
            log.warning("end_not_delivered", status=error.status.name)


def _raise_if_cancelled(error: Exception) -> None:
    """The SDK dresses up a cancellation of the waiting task as an error of its own; it must not be tried again."""
    if isinstance(error.__cause__, asyncio.CancelledError):
        raise error.__cause__


def _failed(call: ToolCall, error: str) -> ToolOutcome:
    return ToolOutcome(id=call.id, name=call.name, status="failed", error=error)
