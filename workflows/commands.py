"""What people may tell a live call: reading it in whatever form it comes, and saying no with a reason."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, Literal, TypeVar

from stayline.messages import Approve, Command, EndCall, SayText, Speak, TransferCall
from stayline.models import AgentSpec
from stayline.numbers import is_dialable
from stayline.timeline import Commanded
from workflows.state import CallState

C = TypeVar("C", bound=Command)

_PLAIN: Final = {EndCall: "say", TransferCall: "to", SayText: "text", Approve: "tool_call_id"}
"""The field that a command given as a plain string fills."""


def read_command(kind: type[C], inputs: Sequence[Any]) -> C:
    """Read a signal's input: nothing, a plain string, or a JSON object.

    Raises:
        ValueError: it cannot be understood.
    """
    given = inputs[0] if inputs else None
    values: dict[str, Any]
    if given is None or given == "":
        values = {}
    elif isinstance(given, str):
        values = {_PLAIN[kind]: given}
    elif isinstance(given, dict):
        values = dict(given)
    else:
        raise ValueError(f"expected nothing, a string or an object, not {type(given).__name__}")
    if kind is Approve:
        values.setdefault("approved", True)
    values.setdefault("by", "signal")
    return kind.model_validate(values)


def transfer_target(agent: AgentSpec, to: str) -> str | None:
    """The number or SIP address meant: one of the agent's own names, E.164, or `sip:`. None: neither."""
    to = agent.transfers.get(to, to).strip()
    return to if is_dialable(to) else None


def refusal(state: CallState, command: Command) -> str | None:
    """Why this command cannot be carried out now; None when it can."""
    if isinstance(command, Approve):
        run = state.tools.get(command.tool_call_id)
        if run is None or not run.waiting_approval:
            return f"no tool call {command.tool_call_id!r} waits for approval"
        return None
    if state.ending is not None:
        return "the call is over"
    if isinstance(command, TransferCall):
        if not state.sessions:
            return "the call is not active yet"
        if state.transfer is not None:
            return "the call is being transferred already"
        if transfer_target(state.agent, command.to) is None:
            return f"{command.to!r} is neither a number like +15551234567 nor a sip: address"
    if isinstance(command, SayText):
        if not command.text.strip():
            return "there is nothing to say"
        if state.attached is None or state.transfer is not None:
            return "the caller is not with the agent right now"
    return None


def carry_out(state: CallState, command: Command, now: datetime) -> int:
    """Record who wants what and why, and change the state; the workflow's `run` does the rest.

    Returns the index in the timeline.
    """
    by, why = command.by, command.why
    match command:
        case EndCall():
            return state.command_end(command.say, by, why, now, by_carrier=command.by_carrier)
        case TransferCall():
            to = transfer_target(state.agent, command.to)
            assert to is not None
            return state.begin_transfer(to, command.say, by, why, now)
        case SayText():
            speech = Speak(call_id=state.call.call_id, session=len(state.sessions), text=command.text)
            state.to_say.append(speech)
            return state.add(Commanded(at=now, command="say", by=by, why=why, detail=command.text))
        case Approve():
            id = command.tool_call_id
            state.approvals[id] = command.approved
            word: Literal["approve", "refuse"] = "approve" if command.approved else "refuse"
            return state.add(Commanded(at=now, command=word, by=by, why=why, detail=id))
    raise TypeError(f"no command: {type(command).__name__}")
