"""Names that others rely on: workflow ids, task queues, routes, search attributes (DESIGN.md, The outside)."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlencode

TASK_QUEUE: Final = "stayline"
"""Queue of the workers that run workflows, tools, carrier requests and call records."""

CALL_WORKFLOW: Final = "CallWorkflow"
BRIDGE_WORKFLOW: Final = "BridgeWorkflow"

INBOUND_PATH: Final = "/voice/inbound"
NEXT_PATH: Final = "/voice/next"
STATUS_PATH: Final = "/voice/status"
STREAM_PATH: Final = "/ws/media-stream"

OUTBOUND_PREFIX: Final = "out-"
"""Begins the ids of calls that we place: they exist before the carrier has an id for them."""
CALL_PARAMETER: Final = "call"
"""Names such a call in the addresses that the carrier asks, and in the parameters of its stream."""

# Search attributes, all of type Keyword. `CallCaller` is a keyed hash unless the user opts for the number.
SA_AGENT: Final = "CallAgent"
SA_DIRECTION: Final = "CallDirection"
SA_MODE: Final = "CallMode"
SA_STATUS: Final = "CallStatus"
SA_OUTCOME: Final = "CallOutcome"
SA_CALLER: Final = "CallCaller"
SEARCH_ATTRIBUTES: Final = (SA_AGENT, SA_DIRECTION, SA_MODE, SA_STATUS, SA_OUTCOME, SA_CALLER)

DEPLOYMENT_NAME: Final = "stayline"
"""Worker deployment name when worker versioning is on."""


def call_workflow_id(call_id: str) -> str:
    """`call-<call id>`; the call id is the carrier's call SID or begins with "out-", and is never a number."""
    return f"call-{call_id}"


def webhook_url(public_url: str, path: str, call_id: str) -> str:
    """Where the carrier asks or reports about a call: a call that we placed is named in the address."""
    url = public_url.rstrip("/") + path
    return f"{url}?{urlencode({CALL_PARAMETER: call_id})}" if call_id.startswith(OUTBOUND_PREFIX) else url


def bridge_workflow_id(bridge_id: str) -> str:
    return f"bridge-{bridge_id}"


def bridge_task_queue(bridge_id: str) -> str:
    """The queue that only this bridge process polls."""
    return f"stayline-bridge-{bridge_id}"
