"""How a call's workflow is started: by a webhook for a call that comes in, by `place_call` for the others."""

from __future__ import annotations

import hashlib
import hmac
from datetime import timedelta
from typing import Any, TypedDict

from temporalio.common import (
    SearchAttributeKey,
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)

from stayline import names, telemetry
from stayline.agent import Agent
from stayline.messages import CallStart, Dial
from stayline.models import CallInfo
from stayline.settings import Settings


class StartOptions(TypedDict):
    """Keyword arguments of `Client.start_workflow` and of `WithStartWorkflowOperation`."""

    id: str
    task_queue: str
    id_conflict_policy: WorkflowIDConflictPolicy
    id_reuse_policy: WorkflowIDReusePolicy
    task_timeout: timedelta
    static_summary: str
    search_attributes: TypedSearchAttributes


def call_start(
    settings: Settings, call: CallInfo, agent: Agent, caller: str, outbound: Dial | None = None
) -> CallStart:
    """The workflow's input. Call it inside the span that is to be the root of the call's trace."""
    return CallStart(
        call=call,
        agent=agent.spec(),
        caller_hash=caller,
        has_policy=agent.policy is not None and outbound is None,
        public_url=settings.public,
        outbound=outbound,
        traceparent=telemetry.current_traceparent(),
    )


def start_options(start: CallStart) -> StartOptions:
    """One workflow per call id, ever: who starts it again finds it, or learns that it is over."""
    call, agent = start.call, start.agent
    return {
        "id": names.call_workflow_id(call.call_id),
        "task_queue": names.TASK_QUEUE,
        "id_conflict_policy": WorkflowIDConflictPolicy.USE_EXISTING,
        "id_reuse_policy": WorkflowIDReusePolicy.REJECT_DUPLICATE,
        "task_timeout": timedelta(seconds=5),
        "static_summary": f"{call.direction} call for {agent.name}",
        "search_attributes": TypedSearchAttributes(
            [
                _keyword(names.SA_AGENT, agent.name),
                _keyword(names.SA_DIRECTION, call.direction),
                _keyword(names.SA_MODE, agent.mode),
                _keyword(names.SA_STATUS, "ringing"),
                _keyword(names.SA_CALLER, start.caller_hash),
            ]
        ),
    }


def caller_attribute(settings: Settings, auth_token: str, number: str) -> str:
    """The person at the other end for the search attribute: a keyed hash, unless the number itself is wanted."""
    if settings.caller_id == "number":
        return number
    key = settings.hash_key.get_secret_value() or auth_token or "stayline"
    return hmac.new(key.encode(), number.encode(), hashlib.sha256).hexdigest()[:16]


def _keyword(name: str, value: str) -> SearchAttributePair[Any]:
    return SearchAttributePair(SearchAttributeKey.for_keyword(name), value)
