"""How another process reaches the live events of a call: where its bridge is, and by what right.

A bridge tells its own address in the heartbeats of its lease, which leave no history; so whoever reaches Temporal
finds it. A token is good for one call. It is made from a key that all processes of a deployment have:
`STAYLINE_LIVE_KEY`, else the carrier's auth token. Without a key there is no access from other processes.
"""

from __future__ import annotations

import hashlib
import hmac
import socket
from typing import Final

from temporalio.client import Client
from temporalio.service import RPCError

from stayline.messages import LeaseState
from stayline.names import bridge_workflow_id
from stayline.settings import Settings, TwilioCredentials

LIVE_PATH: Final = "/api/v1/calls/{call_id}/live"
"""GET: server-sent events. Query: `session` (its number; default: the newest), `after` (a `seq`; default 0)."""
INTERRUPT_PATH: Final = "/api/v1/calls/{call_id}/interrupt"
"""POST: the agent falls silent."""

_EVERYWHERE: Final = ("", "0.0.0.0", "::", "[::]")


def token(settings: Settings, twilio: TwilioCredentials, call_id: str) -> str:
    """The right to a call's live events, as `Authorization: Bearer …`. Empty: there is no key to make it from."""
    key = settings.live_key.get_secret_value() or twilio.auth_token.get_secret_value()
    if not key:
        return ""
    return hmac.new(key.encode(), f"stayline live events\n{call_id}".encode(), hashlib.sha256).hexdigest()


def own_address(settings: Settings, port: int) -> str:
    """What a bridge that listens on this port tells others."""
    host = settings.own_host or settings.listen[0]
    return f"{socket.gethostname() if host in _EVERYWHERE else host}:{port}"


async def bridge_address(client: Client, bridge_id: str) -> str:
    """host:port of a bridge; empty: it is gone, has just begun, or Temporal does not say."""
    try:
        lease = await client.get_workflow_handle(bridge_workflow_id(bridge_id)).describe()
    except RPCError:
        return ""
    for activity in lease.raw_description.pending_activities:
        if activity.HasField("heartbeat_details"):
            (state,) = await client.data_converter.decode(activity.heartbeat_details.payloads, [LeaseState])
            return str(state.address)
    return ""
