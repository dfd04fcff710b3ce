"""Which durable deadline comes next, computed from the state alone.

The workflow keeps one timer, for the earliest deadline. A turn moves the silence deadline later, and the timer,
when it fires, is simply armed anew: a turn costs no timer event.
"""

from __future__ import annotations

import dataclasses
from datetime import datetime, timedelta
from typing import Final, Literal

from workflows.state import CallState

Limit = Literal[
    "ring",
    "duration_warning",
    "duration",
    "silence_prompt",
    "silence",
    "caller_gone",
    "redirect",
    "reattach",
    "dial_unsettled",
    "dial_forgotten",
]

CALLER_GONE_AFTER: Final = timedelta(seconds=4)
"""The carrier asks for the next step at once when the caller is still there."""
ASK_WITHIN: Final = timedelta(seconds=3)
"""A broken stream may bring the carrier back by itself; afterwards it is fetched by REST."""
REJOIN_WITHIN: Final = timedelta(seconds=10)
"""From the carrier's question, or a redirect, to the new stream; then it is fetched again."""
DIAL_STATUS_WITHIN: Final = timedelta(seconds=3)
"""After the carrier's `completed` while dialling, the dial's own status may still come."""
LONGEST_DIAL: Final = timedelta(hours=4, minutes=5)
"""Twilio ends a dial after 4 hours (`timeLimit`); later than that its word was lost."""


@dataclasses.dataclass(frozen=True, slots=True)
class Deadline:
    at: datetime
    limit: Limit


def next_deadline(state: CallState) -> Deadline | None:
    """The earliest deadline; None when nothing is limited (the call is ending)."""
    return min(deadlines(state), key=lambda deadline: deadline.at, default=None)


def deadlines(state: CallState) -> list[Deadline]:
    if state.ending is not None:
        return []
    if state.dialling:
        return _while_dialling(state)
    if not state.sessions:
        return _before_a_stream(state)
    return [*_while_detached(state), *_duration(state), *_silence(state)]


def _before_a_stream(state: CallState) -> list[Deadline]:
    outbound = state.outbound
    if outbound is None:
        since = state.admitted_at or state.started_at
    elif outbound.answered_at is None:
        return [Deadline(outbound.rings_until, "ring")] if outbound.rings_until else []
    else:
        since = state.admitted_at or outbound.answered_at
    return [Deadline(since + _seconds(state.agent.ring_timeout), "ring")]


def _while_dialling(state: CallState) -> list[Deadline]:
    """People talk to people: the agent's limits do not hold."""
    assert state.transfer is not None
    assert state.transfer.dialled_at is not None
    if state.carrier_over_at is not None:
        return [Deadline(state.carrier_over_at + DIAL_STATUS_WITHIN, "dial_unsettled")]
    return [Deadline(state.transfer.dialled_at + LONGEST_DIAL, "dial_forgotten")]


def _while_detached(state: CallState) -> list[Deadline]:
    gone = state.detached
    if gone is None:
        return []
    if gone.reason == "stopped" and gone.asked_at is None:
        return [Deadline(gone.since + CALLER_GONE_AFTER, "caller_gone")]
    found = [Deadline(gone.since + _seconds(state.agent.reattach_timeout), "reattach")]
    if not gone.redirecting:
        if gone.asked_at is not None:
            at = gone.asked_at + REJOIN_WITHIN
        else:
            at = gone.since if gone.reason == "bridge_lost" else gone.since + ASK_WITHIN
        found.append(Deadline(at, "redirect"))
    return found


def _duration(state: CallState) -> list[Deadline]:
    agent = state.agent
    if state.transfer is not None or state.answered_at is None:
        return []
    end = state.answered_at + _seconds(agent.max_duration)
    found = [Deadline(end, "duration")]
    warns = agent.duration_warning > 0 and agent.max_duration >= 2 * agent.duration_warning
    if warns and not state.warned and state.attached is not None:
        found.append(Deadline(end - _seconds(agent.duration_warning), "duration_warning"))
    return found


def _silence(state: CallState) -> list[Deadline]:
    """Nobody is asked to speak while a tool keeps them waiting; a background tool keeps nobody."""
    agent = state.agent
    if state.attached is None or state.transfer is not None or state.last_sound_at is None:
        return []
    if agent.silence_timeout <= 0 or _waits_for_tool(state):
        return []
    found = [Deadline(state.last_sound_at + _seconds(agent.silence_timeout), "silence")]
    if not state.prompted and 0 < agent.silence_prompt < agent.silence_timeout:
        found.append(Deadline(state.last_sound_at + _seconds(agent.silence_prompt), "silence_prompt"))
    return found


def _waits_for_tool(state: CallState) -> bool:
    for run in state.running_tools:
        spec = state.agent.tool(run.call.name)
        if spec is None or not spec.background:
            return True
    return False


def _seconds(value: float) -> timedelta:
    return timedelta(seconds=value)
