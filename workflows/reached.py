"""What follows when a limit is reached."""

from __future__ import annotations

from temporalio import workflow

from workflows.bridge_errands import BridgeErrands
from workflows.carrier_errands import CarrierErrands
from workflows.errands import Errands

with workflow.unsafe.imports_passed_through():
    from stayline.timeline import LimitReached
    from workflows.limits import Limit
    from workflows.state import CallState


def reach(limit: Limit, state: CallState, errands: Errands, bridge: BridgeErrands, carrier: CarrierErrands) -> None:
    """A deadline has passed: change the state, or begin an errand."""
    now, agent = workflow.now(), state.agent
    match limit:
        case "ring":
            state.add(LimitReached(at=now, limit="ring"))
            state.end("no_answer" if state.unanswered else "no_stream", "limit", now)
        case "duration_warning":
            state.warned = True
            state.add(LimitReached(at=now, limit="duration_warning"))
            state.to_say.append(bridge.speech(agent.warning_text, "limit"))
        case "duration":
            state.add(LimitReached(at=now, limit="duration"))
            state.end("duration_limit", "limit", now, say=agent.limit_text)
        case "silence_prompt":
            state.prompted = True
            errands.start(bridge.prompt())
        case "silence":
            state.last_sound_at = None  # no deadline while the bridge is asked; a sound meanwhile sets it
            errands.start(bridge.end_of_silence())
        case "caller_gone":
            state.left_at = state.detached.since if state.detached else now
            state.end("caller_hung_up", "caller", now)
        case "redirect":
            carrier.fetch_back()
        case "reattach":
            state.add(LimitReached(at=now, limit="reattach"))
            state.left_at = state.left_at or now
            state.end("lost", "limit", now)
        case "dial_unsettled":
            state.settle_transfer("answered" if state.dial_outlasted_ringing else "caller_left", None, now)
        case "dial_forgotten":
            state.settle_transfer("answered", None, now)
