"""Steering a live call: the workflow's updates, with who and why, and its refusals in its own words."""

from __future__ import annotations

import asyncio
import getpass
import re
import socket
from typing import Final

from temporalio.client import (
    Client,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from stayline.commands.calls_temporal import no_worker, query_record, temporal_away
from stayline.commands.terminal import UsageError, clean
from stayline.errors import StaylineError
from stayline.messages import Accepted, Approve, Command, EndCall, SayText, TransferCall
from stayline.names import call_workflow_id

ANSWERED_WITHIN: Final = 15.0
"""Seconds that the workflow may take to accept; a worker that has just died costs it one or two."""

_UPDATES: Final[dict[type[Command], str]] = {
    TransferCall: "transfer",
    EndCall: "end",
    SayText: "say",
    Approve: "approve",
}
_LOOKS_LIKE_A_NUMBER: Final = re.compile(r"[+\d\s().\-/]+")
_E164: Final = re.compile(r"\+[1-9]\d{6,14}")


class Refused(StaylineError):
    """The workflow understood the command and will not do it."""


async def steer(client: Client, call_id: str, command: Command) -> Accepted:
    """Give a call a command and wait until it is accepted and in the record.

    Raises:
        UsageError: there is no such call in Temporal.
        Refused: the workflow's reason, or that the call is over.
        StaylineError: Temporal or the worker is away.
    """
    handle = client.get_workflow_handle(call_workflow_id(call_id))
    try:
        async with asyncio.timeout(ANSWERED_WITHIN):
            accepted: Accepted = await handle.execute_update(_UPDATES[type(command)], command, result_type=Accepted)
            return accepted
    except WorkflowUpdateFailedError as error:
        cause = error.cause
        reason = cause.message if isinstance(cause, ApplicationError) else str(cause)
        raise Refused(f"Refused: {reason}.") from error
    except (WorkflowUpdateRPCTimeoutOrCancelledError, TimeoutError) as error:
        raise no_worker() from error
    except RPCError as error:
        if error.status == RPCStatusCode.NOT_FOUND:
            if "already completed" in str(error):
                raise Refused("Refused: the call is over.") from error
            raise UsageError(
                f"Temporal knows no call {call_id!r}.", fix="`stayline calls list --live` shows the live ones."
            ) from error
        raise temporal_away(error) from error


def here() -> str:
    """Who gives the command, for the record: user@host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a uid without a name, as in many containers
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


def transfer_target(given: str) -> str:
    """A number as people write it, in E.164; a SIP address, or a name that the agent knows, as it is.

    Raises:
        UsageError: it looks like a number and is none that can be dialled.
    """
    text = given.strip()
    if not _LOOKS_LIKE_A_NUMBER.fullmatch(text):
        if not text:
            raise UsageError("There is nobody to transfer to.", fix="Give a number like +15551234567.")
        return text
    number = re.sub(r"[^\d+]", "", text)
    if not _E164.fullmatch(number):
        raise UsageError(
            f"{clean(given)!r} is not a number that can be dialled.",
            fix="Write it with + and country code, e.g. +15551234567; or give a sip: address.",
        )
    return number


async def waiting_tool(client: Client, call_id: str) -> str:
    """The id of the one tool call that waits for approval.

    Raises:
        Refused: none waits.
        UsageError: several wait.
    """
    record = await query_record(client.get_workflow_handle(call_workflow_id(call_id)), final=False)
    waiting = [run.call for run in record.snapshot.tools if run.waiting_approval and run.outcome is None]
    if not waiting:
        raise Refused("Refused: no tool call waits for approval.")
    if len(waiting) > 1:
        listed = ", ".join(f"{call.id} ({call.name})" for call in waiting)
        raise UsageError(f"Several tool calls wait for approval: {listed}.", fix="Give the id of one.")
    return waiting[0].id
