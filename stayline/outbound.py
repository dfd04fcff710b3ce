"""Placing calls: an outbound call is a workflow that has the carrier dial, and is from then on like any other."""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime
from typing import Final

from temporalio.client import Client
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError

from stayline import names, telemetry
from stayline.agent import Agent
from stayline.call_start import call_start, caller_attribute, start_options
from stayline.errors import ConfigError, StaylineError
from stayline.messages import Dial
from stayline.models import CallInfo
from stayline.numbers import is_dialable
from stayline.settings import Settings
from stayline.telemetry import attributes as attr

LONGEST_RING: Final = 600
"""Seconds; Twilio's own limit."""
_OWN_ID: Final = re.compile(rf"{names.OUTBOUND_PREFIX}[A-Za-z0-9_-]{{1,60}}")


def new_call_id() -> str:
    return names.OUTBOUND_PREFIX + secrets.token_hex(16)


async def place_call(
    client: Client,
    settings: Settings,
    agent: Agent,
    to: str,
    *,
    from_number: str,
    dial: Dial | None = None,
    auth_token: str = "",
    call_id: str | None = None,
) -> str:
    """Have somebody called who then speaks with the agent. Returns when Temporal has the call, before it rings.

    How it goes is read like any call's: by the workflow `call-<our id>`, `stayline calls`, the call record.

    Args:
        agent: has a name; a worker and the bridges know it.
        to: E.164 number, or a `sip:` or `sips:` address.
        from_number: the number that is shown; at Twilio it must be the account's own, or verified.
        dial: ring time, machine detection, the carrier's recording.
        auth_token: the carrier's; keys the hash in the search attribute CallCaller where no `hash_key` is set.
        call_id: begins with "out-", never holds a number; give your own, and asking twice calls once. None: new.

    Returns:
        Our id of the call. The carrier's own is in the snapshot's `call.carrier_call_id` once it has dialled.

    Raises:
        ConfigError: a number or an option is not usable.
        StaylineError: Temporal does not answer; with the same `call_id`, trying again is harmless.
    """
    dial = dial or Dial()
    _check(settings, agent, to, from_number, dial, call_id)
    call = CallInfo(
        call_id=call_id or new_call_id(),
        from_number=from_number,
        to_number=to,
        direction="outbound",
        carrier=settings.carrier,
        started_at=datetime.now(UTC),
        agent=agent.name,
    )
    with telemetry.span(attr.SPAN_CALL, attributes={attr.CALL_ID: call.call_id, attr.AGENT: agent.name}):
        start = call_start(settings, call, agent, caller_attribute(settings, auth_token, to), dial)
        try:
            await client.start_workflow(names.CALL_WORKFLOW, start, **start_options(start))
        except WorkflowAlreadyStartedError:
            return call.call_id  # it was placed before, and is over
        except RPCError as error:
            raise StaylineError(
                "The call was not placed: Temporal does not answer.",
                fix="Ask again with the same call_id.",
                retryable=True,
            ) from error
    telemetry.metrics.call_started(agent.name, agent.spec().mode)
    return call.call_id


def _check(settings: Settings, agent: Agent, to: str, from_number: str, dial: Dial, call_id: str | None) -> None:
    if not agent.name:
        raise ConfigError("The agent has no name.", fix='Give it one: Agent(name="desk", …).')
    for what, number in (("to", to), ("from_number", from_number)):
        if not is_dialable(number):
            raise ConfigError(
                f"{what}={number!r} cannot be dialled.", fix="Write a number like +15551234567, or a sip: address."
            )
    if not 1 <= dial.ring_timeout <= LONGEST_RING:
        raise ConfigError(
            f"ring_timeout={dial.ring_timeout} is not possible.", fix=f"Give 1 to {LONGEST_RING} seconds."
        )
    if call_id is not None and not _OWN_ID.fullmatch(call_id):
        raise ConfigError(
            f"call_id={call_id!r} is not usable.",
            fix=f"Begin it with {names.OUTBOUND_PREFIX!r}, then letters, digits, - and _, at most 60.",
        )
    if settings.carrier == "twilio" and not settings.public_url:
        raise ConfigError("The carrier would not find the bridges.", fix="Set STAYLINE_PUBLIC_URL.")
