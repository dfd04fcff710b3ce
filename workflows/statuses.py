"""Taking in the carrier's own word on a call. A status that is repeated, late or out of order changes nothing."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from stayline.messages import CarrierStatus
from stayline.timeline import AnsweredBy, CallOutcome
from workflows.state import CallState

OVER: Final = frozenset({"completed", "busy", "failed", "no-answer", "canceled"})

_BEFORE_A_STREAM: Final[dict[str, CallOutcome]] = {"failed": "failed", "completed": "caller_hung_up"}
_NOT_ANSWERED: Final[dict[str, CallOutcome]] = {"busy": "busy", "no-answer": "no_answer", "canceled": "no_answer"}
"""Of a call that we placed."""


def take_status(state: CallState, status: CarrierStatus, now: datetime) -> None:
    over = status.status in OVER
    if not state.take_leg(status.carrier_call_id, live=not over):
        return
    if status.answered_by is not None:
        _take_answered_by(state, status, now)
    if over:
        state.carrier_over(_outcome(state, status), "caller" if status.status == "completed" else "carrier", now)
    elif state.outbound is not None:
        if status.status == "in-progress":
            state.outbound.answered(now)
        elif status.status in ("initiated", "ringing"):
            state.outbound.dialled(now, rings=status.status == "ringing")


def _outcome(state: CallState, status: CarrierStatus) -> CallOutcome:
    if state.sessions:
        return "caller_hung_up"
    unanswered = _NOT_ANSWERED if state.outbound is not None else {}
    return (_BEFORE_A_STREAM | unanswered).get(status.status, "no_stream")


def _take_answered_by(state: CallState, status: CarrierStatus, now: datetime) -> None:
    outbound = state.outbound
    if outbound is None or status.answered_by is None or outbound.answered_by is not None:
        return
    outbound.answered_by = status.answered_by
    state.add(AnsweredBy(at=now, who=status.answered_by))
