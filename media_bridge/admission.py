"""What the webhooks ask of a call's workflow: admit it, tell the next step, pass on the carrier's word."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from typing import Any, TypeVar

from temporalio.client import (
    Client,
    WithStartWorkflowOperation,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from stayline import names, telemetry
from stayline.agent import Agent
from stayline.call_start import call_start, start_options
from stayline.errors import StaylineError
from stayline.messages import Admission, Admit, CarrierStatus, NextStep, Step
from stayline.models import CallInfo
from stayline.settings import Settings
from stayline.telemetry import attributes as attr

T = TypeVar("T")

ASK_SECONDS = 6.0
"""How long a webhook waits for the workflow. Twilio gives up after 15 s; before that the call is held."""


class TemporalAway(StaylineError):
    """Temporal does not answer; the caller is held and the same is asked again."""

    retryable = True


class CallGone(StaylineError):
    """There is no such call, or it is over."""


def new_token() -> tuple[str, str]:
    """A one-time stream token and its hash; only the hash leaves the bridge and the carrier."""
    token = secrets.token_urlsafe(32)
    return token, token_hash(token)


def token_hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


async def admit(
    client: Client,
    settings: Settings,
    bridge_id: str,
    call: CallInfo,
    agent: Agent,
    caller: str,
    token_sha256: str,
    no_room: Admission | None = None,
) -> Admission:
    """Start the call's workflow, or find it, and ask whether the call is accepted.

    Args:
        caller: value of the CallCaller search attribute.
        no_room: the bridge cannot take the call and refuses it with this, unless the workflow has accepted it.
    Raises:
        TemporalAway, CallGone
    """
    with telemetry.span(attr.SPAN_CALL, attributes={attr.CALL_ID: call.call_id, attr.AGENT: agent.name}):
        start = call_start(settings, call, agent, caller)
        operation: WithStartWorkflowOperation[Any, Any] = WithStartWorkflowOperation(
            names.CALL_WORKFLOW, start, **start_options(start)
        )
        try:
            async with asyncio.timeout(ASK_SECONDS):
                admission: Admission = await client.execute_update_with_start_workflow(
                    "admit",
                    Admit(token_sha256=token_sha256, bridge_id=bridge_id, no_room=no_room),
                    id=f"admit-{token_sha256[:32]}",
                    start_workflow_operation=operation,
                    result_type=Admission,
                )
                return admission
        except WorkflowAlreadyStartedError as error:
            raise CallGone("The call is over.") from error
        except WorkflowUpdateFailedError as error:
            raise CallGone("The call could not be admitted.") from error
        except (TimeoutError, RPCError, WorkflowUpdateRPCTimeoutOrCancelledError) as error:
            raise _away_or_gone(error) from error


async def admit_answered(
    client: Client, bridge_id: str, call_id: str, carrier_call_id: str, token_sha256: str
) -> Admission:
    """A call that we placed was answered: ask its workflow whether it goes on.

    Raises:
        TemporalAway, CallGone
    """
    request = Admit(token_sha256=token_sha256, bridge_id=bridge_id, carrier_call_id=carrier_call_id)
    return await _ask(client, call_id, "admit", request, token_sha256, Admission)


async def next_step(client: Client, call_id: str, request: NextStep) -> Step:
    """Ask what the carrier must do now.

    Raises:
        TemporalAway, CallGone
    """
    return await _ask(client, call_id, "next_step", request, request.token_sha256, Step)


async def _ask(
    client: Client, call_id: str, update: str, request: Any, token_sha256: str, answer_type: type[T]
) -> T:
    """Send an update to a call that exists, once."""
    handle = client.get_workflow_handle(names.call_workflow_id(call_id))
    id = f"{update.partition('_')[0]}-{token_sha256[:32]}"
    try:
        async with asyncio.timeout(ASK_SECONDS):
            while True:
                try:
                    answer: T = await handle.execute_update(update, request, id=id, result_type=answer_type)
                    return answer
                except RPCError as error:  # a run that is just continuing as new refuses updates for a moment
                    if error.status == RPCStatusCode.NOT_FOUND:
                        raise
                    await asyncio.sleep(0.1)
    except WorkflowUpdateFailedError as error:
        raise CallGone("The call is over.") from error
    except (TimeoutError, RPCError, WorkflowUpdateRPCTimeoutOrCancelledError) as error:
        raise _away_or_gone(error) from error


async def carrier_status(client: Client, call_id: str, status: CarrierStatus, hold_seconds: float) -> None:
    """Pass on the carrier's word; kept trying for `hold_seconds` while Temporal is away."""
    handle = client.get_workflow_handle(names.call_workflow_id(call_id))
    async with asyncio.timeout(hold_seconds):
        while True:
            try:
                await handle.signal("carrier_status", status)
                return
            except RPCError as error:
                if error.status == RPCStatusCode.NOT_FOUND:
                    return
                await asyncio.sleep(0.5)


def _away_or_gone(error: Exception) -> StaylineError:
    if isinstance(error, RPCError) and error.status == RPCStatusCode.NOT_FOUND:
        return CallGone("There is no such call.")
    return TemporalAway("Temporal does not answer.")
