"""What the webhooks ask of a call's workflow: admit it, tell the next step, pass on the carrier's word."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from datetime import timedelta
from typing import Any

from temporalio.client import (
    Client,
    WithStartWorkflowOperation,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.common import (
    SearchAttributeKey,
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from stayline import names, telemetry
from stayline.agent import Agent
from stayline.errors import StaylineError
from stayline.messages import Admission, Admit, CallStart, CarrierStatus, DialStatus, NextStep, Step
from stayline.models import CallInfo
from stayline.settings import Settings
from stayline.telemetry import attributes as attr

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
    client: Client, settings: Settings, bridge_id: str, call: CallInfo, agent: Agent, caller: str, token_sha256: str
) -> Admission:
    """Start the call's workflow, or find it, and ask whether the call is accepted.

    Args:
        caller: value of the CallCaller search attribute.
    Raises:
        TemporalAway, CallGone
    """
    spec = agent.spec()
    with telemetry.span(attr.SPAN_CALL, attributes={attr.CALL_ID: call.call_id, attr.AGENT: spec.name}):
        start: WithStartWorkflowOperation[Any, Any] = WithStartWorkflowOperation(
            names.CALL_WORKFLOW,
            CallStart(
                call=call,
                agent=spec,
                caller_hash=caller,
                has_policy=agent.policy is not None,
                public_url=settings.public,
                traceparent=telemetry.current_traceparent(),
            ),
            id=names.call_workflow_id(call.call_id),
            task_queue=names.TASK_QUEUE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            task_timeout=timedelta(seconds=5),
            static_summary=f"{call.direction} call for {spec.name}",
            search_attributes=TypedSearchAttributes(
                [
                    _keyword(names.SA_AGENT, spec.name),
                    _keyword(names.SA_DIRECTION, call.direction),
                    _keyword(names.SA_MODE, spec.mode),
                    _keyword(names.SA_STATUS, "ringing"),
                    _keyword(names.SA_CALLER, caller),
                ]
            ),
        )
        try:
            async with asyncio.timeout(ASK_SECONDS):
                admission: Admission = await client.execute_update_with_start_workflow(
                    "admit",
                    Admit(token_sha256=token_sha256, bridge_id=bridge_id),
                    id=f"admit-{token_sha256[:32]}",
                    start_workflow_operation=start,
                    result_type=Admission,
                )
                return admission
        except WorkflowAlreadyStartedError as error:
            raise CallGone("The call is over.") from error
        except WorkflowUpdateFailedError as error:
            raise CallGone("The call could not be admitted.") from error
        except (TimeoutError, RPCError, WorkflowUpdateRPCTimeoutOrCancelledError) as error:
            raise _away_or_gone(error) from error


async def next_step(
    client: Client,
    bridge_id: str,
    call_id: str,
    token_sha256: str,
    dial_status: DialStatus | None,
    dial_seconds: float | None,
) -> Step:
    """Ask what the carrier must do now.

    Raises:
        TemporalAway, CallGone
    """
    handle = client.get_workflow_handle(names.call_workflow_id(call_id))
    request = NextStep(
        token_sha256=token_sha256, bridge_id=bridge_id, dial_status=dial_status, dial_seconds=dial_seconds
    )
    try:
        async with asyncio.timeout(ASK_SECONDS):
            while True:
                try:
                    step: Step = await handle.execute_update(
                        "next_step", request, id=f"next-{token_sha256[:32]}", result_type=Step
                    )
                    return step
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


def caller_attribute(settings: Settings, auth_token: str, number: str) -> str:
    """The caller for the search attribute: a keyed hash, unless the number itself is wanted."""
    if settings.caller_id == "number":
        return number
    key = settings.hash_key.get_secret_value() or auth_token or "stayline"
    return hmac.new(key.encode(), number.encode(), hashlib.sha256).hexdigest()[:16]


def _keyword(name: str, value: str) -> SearchAttributePair[Any]:
    return SearchAttributePair(SearchAttributeKey.for_keyword(name), value)


def _away_or_gone(error: Exception) -> StaylineError:
    if isinstance(error, RPCError) and error.status == RPCStatusCode.NOT_FOUND:
        return CallGone("There is no such call.")
    return TemporalAway("Temporal does not answer.")
